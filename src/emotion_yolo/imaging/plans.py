"""The result of inspecting a picture before a decoder runs, and the limits it is checked against."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.imaging.refusals import Refusal, RefusedImageError

Pixels = NDArray[np.uint8]
"""RGB picture [H, W, 3]."""


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may measure: bytes of its file, pixels, px of a side, bytes of memory while it is decoded.

    The defaults are for untrusted files.
    """

    max_bytes: int = 10_000_000
    max_pixels: int = 25_000_000
    min_side: int = 8
    max_side: int = 16_384
    max_memory: int = 150_000_000
    polyglots: bool = False
    """Accept a picture that other programs would open as a document, a script or an archive."""


LOCAL = ImageLimits(
    max_bytes=2**31, max_pixels=500_000_000, min_side=1, max_side=65_535, max_memory=2**33, polyglots=True
)
"""Limits for files that the user chose: those of the file formats and of a large computer."""


@dataclass(frozen=True, eq=False)
class Plan:
    """An inspected picture, ready for its decoder.

    `payload` is the file less what is not needed for its pixels (metadata, further frames), `size` its stored width and
    height in px, `orientation` that of EXIF (1-8). `memory` bounds the bytes that decoding takes, result included.
    An `isolated` picture needs a decoder whose work and memory inspection cannot bound: decode untrusted ones in a
    `DecoderPool`.
    """

    kind: str
    payload: bytes = field(repr=False)
    size: tuple[int, int]
    factor: int
    memory: int
    orientation: int = 1
    isolated: bool = False
    fit: int | None = None
    placed: tuple[int, int, int, int] | None = None
    """The first frame of an animation on its canvas of `size`: left, top, width, height."""
    alpha: bool = False
    """A WebP is decoded with its opacity."""
    inverted: bool = False
    """CMYK samples are stored inverted, as Adobe's programs do."""

    @property
    def format(self) -> str:
        """Return the name of the file's format."""
        return self.kind.partition("/")[0]


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright: RGB pixels [h, w, 3] uint8, reduced `factor` times from one of `image_wh` px."""

    pixels: Pixels
    image_wh: tuple[int, int]
    factor: int
    format: str


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Return if a picture, frame or canvas of `size` px is within the limits.

    Raises:
        RefusedImageError: it is not.
    """
    width, height = size
    if min(size) < limits.min_side or max(size) > limits.max_side:
        message = f"the picture measures {width}×{height} px, expected sides of {limits.min_side} to {limits.max_side}"
        raise RefusedImageError(Refusal.BAD_DIMENSIONS, f"{message}; crop or scale it")
    if width * height > limits.max_pixels:
        message = f"the picture has {width}×{height} = {width * height} pixels, expected at most {limits.max_pixels}"
        raise RefusedImageError(Refusal.TOO_MANY_PIXELS, f"{message}; scale it down")


def check_memory(kind: str, memory: int, limits: ImageLimits) -> None:
    """Return if decoding may take `memory` bytes.

    Raises:
        RefusedImageError: it may not.
    """
    if memory > limits.max_memory:
        message = (
            f"this {kind} takes {memory / 1e6:.0f} MB to decode, expected at most {limits.max_memory / 1e6:.0f} MB"
        )
        raise RefusedImageError(Refusal.TOO_MANY_PIXELS, f"{message}; scale it down, or save it as a baseline JPEG")


def reduction(size: tuple[int, int], fit: int | None) -> int:
    """Return by what integer a picture may be reduced so that its longer side keeps `fit` px, and its shorter one 1."""
    return max(min(max(size) // fit, min(size)), 1) if fit else 1
