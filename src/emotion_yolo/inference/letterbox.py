"""Fits a picture of any size into the network's input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from emotion_yolo.structures.images import PAD_GREY, Image

Canvas = tuple[int, int]
"""Width and height of the network's input in px."""


@dataclass(frozen=True)
class Letterbox:
    """How a picture of `image_wh` px was put into the input: scaled by `scale`, then shifted by `left`, `top` px."""

    image_wh: tuple[int, int]
    scale: float
    left: int
    top: int

    def in_full(self, image_wh: tuple[int, int], factor: int) -> "Letterbox":
        """Return this for the full picture of `image_wh` px, where one decoded `factor` times smaller was laid out."""
        return replace(self, image_wh=image_wh, scale=self.scale / factor)


def canvases(imgsz: int, *, stride: int = 32) -> tuple[Canvas, ...]:
    """Return the inputs for pictures scaled to a long side of `imgsz` px: a square, and 4:3 lying and upright.

    Most photographs are 4:3, 3:2 or 16:9, of which a square would be grey to a quarter or more. There are few, because
    each is a compiled network of its own: some 30 MB.
    """
    short = -(-imgsz * 3 // 4 // stride) * stride
    return tuple(dict.fromkeys([(imgsz, imgsz), (imgsz, short), (short, imgsz)]))


def scale_of(
    long_side: float, *, imgsz: int, max_upscale: float = float("inf"), upscale_to: float = float("inf")
) -> float:
    """Return by how much a picture with a `long_side` of so many px is scaled for an input of `imgsz` px.

    A larger picture is reduced to it. A smaller one is enlarged to `upscale_to` px, and `max_upscale` times at most:
    more pixels of the same detail only take a face out of the sizes that the network was trained on.
    """
    return min(imgsz / long_side, max_upscale, max(upscale_to / long_side, 1.0))


def letterbox(
    image: Image,
    canvases: Sequence[Canvas],
    *,
    pad: int = PAD_GREY,
    max_upscale: float = float("inf"),
    upscale_to: float = float("inf"),
) -> tuple[Image, Letterbox]:
    """Scale an RGB picture [H, W, 3] and centre it on the smallest grey canvas that holds it; returns [1, h, w, 3].

    `scale_of` says by how much, for an input of the canvases' long side.

    Raises:
        ValueError: not an [H, W, 3] uint8 array with pixels in it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"got an image of shape {image.shape} and type {image.dtype}, expected [H, W, 3] uint8 RGB")
    height, width = image.shape[:2]
    imgsz = max(map(max, canvases))
    scale = scale_of(max(height, width), imgsz=imgsz, max_upscale=max_upscale, upscale_to=upscale_to)
    new_w, new_h = max(round(width * scale), 1), max(round(height * scale), 1)
    fitting = [canvas for canvas in canvases if canvas[0] >= new_w and canvas[1] >= new_h]
    canvas_w, canvas_h = min(fitting, key=lambda canvas: canvas[0] * canvas[1])
    left, top = (canvas_w - new_w) // 2, (canvas_h - new_h) // 2
    tensor = np.full((1, canvas_h, canvas_w, 3), pad, np.uint8)
    inside = tensor[0, top : top + new_h, left : left + new_w]
    if (new_w, new_h) == (width, height):
        inside[:] = image
    else:
        # Below a half, linear interpolation would skip pixels and alias small faces away; area averaging, which does
        # not, takes six times as long.
        interpolation = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        cv2.resize(image, (new_w, new_h), dst=inside, interpolation=interpolation)
    return tensor, Letterbox((width, height), scale, left, top)
