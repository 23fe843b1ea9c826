"""From a decoder's samples to upright 8-bit RGB, in strips, so that no second full-size copy is held."""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from emotion_yolo.imaging.plans import Pixels

_STRIP_PX = 1_000_000


def strip_rows(size: tuple[int, int], factor: int) -> int:
    """Return how many rows make a strip: a multiple of `factor`, about a million px."""
    return max(_STRIP_PX // (size[0] * factor), 1) * factor


def assemble(size: tuple[int, int], factor: int, rgb_of: Callable[[int, int], Pixels]) -> Pixels:
    """Build a picture of `size` px, reduced by `factor`, from strips; `rgb_of(top, bottom)` returns one in RGB.

    Columns and rows beyond the last multiple of `factor` are left out, so that a reduced px is `factor` px exactly.
    """
    width, height = size
    result = np.empty((height // factor, width // factor, 3), np.uint8)
    rows = strip_rows(size, factor)
    for top in range(0, height // factor * factor, rows):
        bottom = min(top + rows, height // factor * factor)
        result[top // factor : bottom // factor] = shrink(rgb_of(top, bottom), factor)
    return result


def shrink(rgb: Pixels, factor: int) -> Pixels:
    """Average blocks of `factor` by `factor` px."""
    if factor == 1:
        return rgb
    height, width = (side // factor for side in rgb.shape[:2])
    reduced = cv2.resize(rgb[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
    return reduced.astype(np.uint8, copy=False)


def blend_on_white(rgba: Image.Image) -> Pixels:
    """Show a picture of mode RGBA on white."""
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return np.asarray(white)
