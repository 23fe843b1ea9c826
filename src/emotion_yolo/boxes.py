"""Box arithmetic on NumPy arrays. A function's name carries the order of the four numbers.

`xyxy` is (x1, y1, x2, y2) in pixels, origin at the top left; `xywhn` is (centre x, centre y, width, height) divided by
the picture's width and height, as YOLO label files hold it.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]


def xywhn_to_xyxy(boxes: Floats, *, image_wh: tuple[int, int]) -> Floats:
    """Convert [N, 4] normalised centre boxes to pixel corners."""
    scale = np.asarray([*image_wh, *image_wh], dtype=boxes.dtype)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * scale


def xyxy_to_xywhn(boxes: Floats, *, image_wh: tuple[int, int]) -> Floats:
    """Convert [N, 4] pixel corners to normalised centre boxes."""
    scale = np.asarray([*image_wh, *image_wh], dtype=boxes.dtype)
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1) / scale


def clip_xyxy(boxes: Floats, *, image_wh: tuple[int, int]) -> Floats:
    """Cut [N, 4] pixel corners at the picture's edges."""
    width, height = image_wh
    return np.clip(boxes, 0, np.asarray([width, height, width, height], dtype=boxes.dtype))


def area(boxes: Floats) -> Floats:
    """Return the [N] areas of [N, 4] corner boxes; a box turned inside out has area 0."""
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """Return the [N, M] intersection over union of [N, 4] and [M, 4] corner boxes; 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # [N, M, 2]
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=2)
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
