"""Cuts faces out of a picture for a classifier: turned upright by their landmarks, or along their boxes.

The choice is made here; a classifier only sees squares of one size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.inference.yunet import YuNet
from emotion_yolo.structures.boxes import iou_matrix
from emotion_yolo.structures.images import Image

Points = NDArray[np.float64]
Box = NDArray[np.floating[Any]]

_TEMPLATE: Points = np.asarray(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Where ArcFace's crops of 112 px have eyes, nose and mouth (arXiv:1801.07698; `arcface_dst` of insightface)."""
_TEMPLATE_SIDE = 112

# YuNet is shown the face and what is around it, at a size at which it finds a face that fills half of the picture.
_SEEN = 2.0
_SEEN_PX = 320
# Its landmarks lean towards an upright face: of a turn of 30° they show 11° to 20°. So it looks again at the face,
# turned back by what it saw, until there is next to no turn left.
_ROUNDS = 5
_LITTLE_TURN = np.radians(1.5)
_LEAST_CONFIDENCE = 0.5
_SAME_FACE = 0.3  # IoU; a box of another detector, of a turned face, overlaps YuNet's by little
# Distance of the eyes, part of the box's longer side; less is a profile, whose turn they do not tell.
_LEAST_EYES = 0.15


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """An RGB square [S, S, 3] of one face; `aligned` says whether its landmarks are at the common places."""

    pixels: Image
    aligned: bool


class Landmarks(Protocol):
    """Locates the landmarks of a face."""

    def __call__(self, image: Image, xyxy: Box) -> Points | None:
        """Return the landmarks [5, 2], px of the picture, of the face in the box [4], or None if they are not seen."""


class YuNetLandmarks:
    """The landmarks of faces as YuNet sees them. Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Load YuNet from `path`; errors are those of `YuNet`."""
        self._find = YuNet(path, imgsz=_SEEN_PX, conf=_LEAST_CONFIDENCE)

    def __call__(self, image: Image, xyxy: Box) -> Points | None:
        """See `Landmarks`."""
        region, origin = _square(image, xyxy, side=_SEEN * _longer(xyxy))
        scale = min(_SEEN_PX / region.shape[0], 1)
        region = _resized(region, round(region.shape[0] * scale)) if scale < 1 else region
        middle = region.shape[0] / 2
        faces = self._find(region)
        box = (np.asarray(xyxy, np.float64)[None] - np.tile(origin, 2)) * scale
        overlap = iou_matrix(box, faces.xyxy.astype(np.float64))[0]
        if not len(overlap) or overlap.max() < _SAME_FACE:
            return None
        points = seen = faces.landmarks[overlap.argmax()].astype(np.float64)
        turned = 0.0
        for _ in range(_ROUNDS - 1):
            if _eyes(seen) < _LEAST_EYES * _longer(xyxy) * scale:
                break
            turn = float(np.arctan2(*similarity(seen, _TEMPLATE)[::-1, 0]))
            if abs(turn) < _LITTLE_TURN:
                break
            turned += turn
            back = cv2.getRotationMatrix2D((middle, middle), -np.degrees(turned), 1.0)
            faces = self._find(
                np.asarray(cv2.warpAffine(region, back, region.shape[:2], borderMode=cv2.BORDER_REPLICATE))
            )
            if not len(faces.confidence):
                break
            # A turn about the middle leaves the box's face there.
            away = np.abs((faces.xyxy[:, :2] + faces.xyxy[:, 2:]) / 2 - middle).sum(axis=1)
            seen = faces.landmarks[away.argmin()].astype(np.float64)
            points = np.asarray((seen - back[:, 2]) @ back[:, :2], np.float64)
        return np.asarray(points / scale + origin, np.float64)


def align(image: Image, xyxy: Box, *, imgsz: int, margin: float, landmarks: Landmarks | None = None) -> FaceCrop:
    """Cut the face in the box [4] (px) out of an RGB picture [H, W, 3] as a square of `imgsz` px.

    With `landmarks`, a similarity transform brings them to fixed places; where they are not seen, or are those of a
    profile, the face is cut out without alignment: a square around the box's centre whose side is `margin` times the
    box's longer one. Both show about as much around a face. Beyond the picture's edge its last pixels are repeated.
    """
    found = landmarks(image, xyxy) if landmarks else None
    if found is None or _eyes(found) < _LEAST_EYES * _longer(xyxy):
        region, _ = _square(image, xyxy, side=margin * _longer(xyxy))
        return FaceCrop(_resized(region, imgsz), aligned=False)
    places = ((_TEMPLATE / _TEMPLATE_SIDE - 0.5) / margin + 0.5) * imgsz
    region, origin = _square(image, xyxy, side=_SEEN * _longer(xyxy))
    scale = float(np.hypot(*similarity(found, places)[:, 0]))
    if scale < 1:  # shrinking by one affine warp would skip pixels: average areas first, then turn
        side = max(round(region.shape[0] * scale), 1)
        found, origin = found * (side / region.shape[0]), origin * (side / region.shape[0])
        region = _resized(region, side)
    # Pixel centres lie half a pixel from the corners that coordinates count from.
    matrix = similarity(found - origin - 0.5, places - 0.5)
    turned = cv2.warpAffine(region, matrix, (imgsz, imgsz), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return FaceCrop(np.asarray(turned, np.uint8), aligned=True)


def similarity(source: Points, target: Points) -> Points:
    """Return the matrix [2, 3] that turns, scales and shifts points [N, 2] `source` closest to `target`.

    Least squares, without a mirror image (Umeyama, 1991). With points as complex numbers it is a linear regression.
    """
    z, w = (points @ np.asarray([1, 1j]) for points in (source, target))
    centred = z - z.mean()
    turn = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred).real
    shift = w.mean() - turn * z.mean()
    return np.asarray([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _eyes(landmarks: Points) -> float:
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def _longer(xyxy: Box) -> float:
    return float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1], 1))


def _square(image: Image, xyxy: Box, *, side: float) -> tuple[Image, Points]:
    """Return the square of `side` px around a box's centre, and the position [2] of its corner in the picture."""
    whole = max(round(side), 2)
    left, top = (round(float(xyxy[i] + xyxy[i + 2]) / 2 - whole / 2) for i in (0, 1))
    height, width = image.shape[:2]
    right, bottom = left + whole, top + whole
    inside = image[min(max(top, 0), height - 1) : max(bottom, 1), min(max(left, 0), width - 1) : max(right, 1)]
    beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    square = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE) if any(beyond) else inside
    return np.ascontiguousarray(square, np.uint8), np.asarray([left, top], np.float64)


def _resized(image: Image, side: int) -> Image:
    interpolation = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side, side), interpolation=interpolation), np.uint8)
