"""Localises the face in crops whose label is the whole picture, with a face detector.

The rule: a crop's box becomes the most confident face found in it. A crop without a face found keeps its place under
the `typical` box, the median of all that were found: a measure on the easy part of a set flatters.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.yunet import YuNet
from emotion_yolo.structures.boxes import area, clip_xyxy, xywhn_to_xyxy, xyxy_to_xywhn
from emotion_yolo.structures.images import Image, read_rgb

Box = NDArray[np.float64]

FaceFinder = Callable[[Image], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""RGB picture [H, W, 3] to face boxes xyxy [N, 4] in its pixels and confidences [N]."""

TYPICAL_FRAME: Box = np.asarray([0.500, 0.526, 0.657, 0.873])
"""Median face box xywhn [4] in AffectNet's crops, as YuNet (2026may, at 160 px) finds them; for data without crops."""

# A face that fills less of a face crop than this is somebody in the background.
_LEAST_AREA = 0.08


@dataclass(frozen=True, eq=False)
class Localised:
    """One crop's face: `xywhn` [4], and how it was obtained."""

    xywhn: Box
    confidence: float
    how: Literal["found", "typical"]


def face_finder(detector: str, *, imgsz: int, conf: float) -> FaceFinder:
    """Load the face detector of the params: a folder with `model.json`, or YuNet's .onnx file for OpenCV.

    Raises:
        ModelError: neither is there.
    """
    path = Path(detector)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ModelError(f"{path}: no such file; prepare.localise.detector names a folder or YuNet's .onnx file")
        yunet = YuNet(path, imgsz=imgsz, conf=conf)

        def see(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            faces = yunet(image)
            return faces.xyxy, faces.confidence

        return see
    model = Detector.load(path, imgsz=imgsz, threads=1, close_ups=False)

    def find(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        faces = model.predict(image, conf=conf)
        return faces.xyxy, faces.confidence

    return find


def locate(image: Image, find: FaceFinder, *, pad: float = 0) -> tuple[Box, float] | None:
    """Return the xywhn box [4] and confidence of the most confident face that fills enough of a crop, or None.

    Where none is found, `pad` of the crop's long side is added around it, and it is looked at once more: detectors
    learn from whole heads, and miss a face that leaves the picture.
    """
    found = _locate(image, find)
    if found is not None or pad == 0:
        return found
    height, width = image.shape[:2]
    border = round(pad * max(height, width))
    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
    again = _locate(np.asarray(padded, np.uint8), find)
    if again is None:
        return None
    wide, high = width + 2 * border, height + 2 * border
    xyxy = xywhn_to_xyxy(again[0][None], image_wh=(wide, high)) - border
    inside = clip_xyxy(xyxy, image_wh=(width, height))
    if area(inside)[0] < _LEAST_AREA * height * width:
        return None
    return xyxy_to_xywhn(inside, image_wh=(width, height))[0], again[1]


def _locate(image: Image, find: FaceFinder) -> tuple[Box, float] | None:
    height, width = image.shape[:2]
    xyxy, confidence = find(image)
    large = area(xyxy) >= _LEAST_AREA * height * width
    if not large.any():
        return None
    best = int(np.flatnonzero(large)[confidence[large].argmax()])
    box = xyxy_to_xywhn(xyxy[best : best + 1].astype(np.float64), image_wh=(width, height))[0]
    return box, float(confidence[best])


def localise(
    images: Sequence[Path],
    find: FaceFinder,
    *,
    threads: int,
    pad: float = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Localised]:
    """Give every crop of `images` a tight face box, in order.

    Raises:
        ModelError: the detector finds no face in any of them, which is another detector's input or no set of faces.
    """

    def one(path: Path) -> tuple[Box, float] | None:
        return locate(read_rgb(path), find, pad=pad)

    found: list[tuple[Box, float] | None] = []
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(one, images):
            found.append(result)
            if progress is not None:
                progress(len(found), len(images))
    boxes = [result[0] for result in found if result is not None]
    if images and not boxes:
        raise ModelError(f"no face found in any of {len(images)} crops; check prepare.localise.detector and .conf")
    typical = _median(boxes)
    return [
        Localised(typical, 0.0, "typical") if result is None else Localised(result[0], result[1], "found")
        for result in found
    ]


def typical_box(localised: Sequence[Localised]) -> Box:
    """Return the median box xywhn [4] of the faces that were found."""
    return _median([each.xywhn for each in localised if each.how == "found"])


def _median(boxes: Sequence[Box]) -> Box:
    return np.median(np.asarray(boxes), axis=0) if boxes else np.zeros(4)
