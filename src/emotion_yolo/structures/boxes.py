"""Box arithmetic on NumPy arrays. A function's name carries the order of the four numbers.

`xyxy` is (x1, y1, x2, y2) in pixels, origin at the top left; `xywhn` is (centre x, centre y, width, height) divided by
the picture's width and height, as YOLO label files hold it.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", np.float32, np.float64)  # what goes in is what comes out: no function widens or narrows


def xywhn_to_xyxy(boxes: NDArray[F], *, image_wh: tuple[int, int]) -> NDArray[F]:
    """Convert [N, 4] normalised centre boxes to pixel corners."""
    scale = np.asarray([*image_wh, *image_wh], dtype=boxes.dtype)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * scale


def xyxy_to_xywhn(boxes: NDArray[F], *, image_wh: tuple[int, int]) -> NDArray[F]:
    """Convert [N, 4] pixel corners to normalised centre boxes."""
    scale = np.asarray([*image_wh, *image_wh], dtype=boxes.dtype)
    low, high = boxes[:, :2], boxes[:, 2:]
    boxes = np.concatenate([(low + high) / 2, high - low], axis=1)
    boxes /= scale
    return boxes


def clip_xyxy(boxes: NDArray[F], *, image_wh: tuple[int, int]) -> NDArray[F]:
    """Cut [N, 4] pixel corners at the picture's edges."""
    width, height = image_wh
    return np.clip(boxes, 0, np.asarray([width, height, width, height], dtype=boxes.dtype))


def area(boxes: NDArray[F]) -> NDArray[F]:
    """Return the [N] areas of [N, 4] corner boxes; a box turned inside out has area 0."""
    sides: NDArray[F] = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def iou_matrix(a: NDArray[F], b: NDArray[F]) -> NDArray[F]:
    """Return the [N, M] intersection over union of [N, 4] and [M, 4] corner boxes; 0 where both are empty."""
    intersection = _intersections(a, b)
    return _shares(intersection, area(a)[:, None] + area(b)[None, :] - intersection)


def ios_matrix(a: NDArray[F], b: NDArray[F]) -> NDArray[F]:
    """Return how much of the smaller of two boxes lies in the other, 0-1, [N, M]; 0 where one is empty."""
    return _shares(_intersections(a, b), np.minimum(area(a)[:, None], area(b)[None, :]))


def _intersections(a: NDArray[F], b: NDArray[F]) -> NDArray[F]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # [N, M, 2]
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides: NDArray[F] = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def _shares(part: NDArray[F], whole: NDArray[F]) -> NDArray[F]:
    shares: NDArray[F] = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return shares
