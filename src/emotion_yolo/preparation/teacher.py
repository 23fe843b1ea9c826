"""Soft labels of a trained model, as training targets for faces without a named expression, and beside labels.

A face of a photograph is cut out as the set's crops are framed, so that the teacher sees what it was trained on, and
its calibrated probabilities, averaged with those of the mirror image, become the face's target. Where it sees no face
there, the expression stays unnamed. An expression classifier can be averaged with it.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.expression.classifier import ExpressionClassifier
from emotion_yolo.inference.detector import Detector
from emotion_yolo.structures.boxes import iou_matrix, xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import CROP_SIDE, PAD_GREY, Image, read_rgb

Boxes = NDArray[np.float64]
Targets = NDArray[np.float32]
"""[N, 8] probabilities; a row of nan where there is no soft label."""

_SAME_FACE = 0.4


class Teacher:
    """A detector asked for expressions where the faces are known, and an expression classifier beside it if given."""

    def __init__(
        self, folder: Path, *, imgsz: int, classifier: Path | None = None, classifier_share: float = 0.5
    ) -> None:
        """Load the exported model in `folder`, to be shown crops of `imgsz` px, and the `classifier`, an ONNX file.

        `classifier_share` (0-1) of a soft label is the classifier's, the rest the detector's.

        Raises:
            ModelError: no such model, or an input side that it does not take.
        """
        self._detector = Detector.load(folder, imgsz=imgsz, threads=1)
        self._classifier = ExpressionClassifier(classifier, threads=cpu_count() or 1) if classifier else None
        self._share = np.float32(classifier_share)

    def of_crops(self, crops: Iterable[tuple[Path, Boxes]], *, threads: int) -> Iterator[Targets]:
        """Yield the soft label [8] of each crop, given with its face's box xywhn [4]."""
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(lambda crop: self._soft_label(read_rgb(crop[0]), crop[1]), crops)

    def of_faces(self, image: Image, xywhn: Boxes, *, frame: Boxes, min_face: float) -> Targets:
        """Return the soft labels [N, 8] of a photograph's faces, those below `min_face` px of height left unnamed.

        `frame` is the typical box xywhn [4] of a face in a crop of the set that the teacher learnt from.
        """
        height, width = image.shape[:2]
        targets = np.full((len(xywhn), len(NAMES)), np.nan, np.float32)
        for row, box in enumerate(xywhn_to_xyxy(xywhn, image_wh=(width, height))):
            if box[3] - box[1] >= min_face:
                targets[row] = self._soft_label(framed(image, box, frame=frame), frame)
        return targets

    def _soft_label(self, crop: Image, xywhn: Boxes) -> NDArray[np.float32]:
        # A face and its mirror image have the same expression, and the mean of two answers is more accurate.
        mirrored = np.concatenate([[1 - xywhn[0]], xywhn[1:]])
        looks = [self._look(crop, xywhn), self._look(np.ascontiguousarray(crop[:, ::-1]), mirrored)]
        seen = [look for look in looks if look is not None]
        if not seen:
            return np.full(len(NAMES), np.nan, np.float32)
        soft_label: NDArray[np.float32] = np.mean(seen, axis=0)
        if self._classifier:
            soft_label = (1 - self._share) * soft_label + self._share * self._classifier.soft_label(crop)
        return soft_label.astype(np.float32, copy=False)

    def _look(self, crop: Image, xywhn: Boxes) -> NDArray[np.float32] | None:
        height, width = crop.shape[:2]
        seen = self._detector.predict(crop, conf=0.05)
        if not len(seen):
            return None
        truth = xywhn_to_xyxy(xywhn[None], image_wh=(width, height)).astype(np.float32)
        overlap = iou_matrix(truth, seen.xyxy)[0]
        best = int(overlap.argmax())
        return seen.probabilities[best] if overlap[best] >= _SAME_FACE else None


def framed(image: Image, xyxy: Boxes, *, frame: Boxes) -> Image:
    """Cut the square out of an RGB picture in which the face box [4] (px) lies as `frame` xywhn [4] says.

    What lies outside the picture is grey. The answer is 96 px wide and high.
    """
    x1, y1, x2, y2 = xyxy
    side = float(np.sqrt((x2 - x1) / frame[2] * (y2 - y1) / frame[3]))
    left, top = (x1 + x2) / 2 - frame[0] * side, (y1 + y2) / 2 - frame[1] * side
    # Shrinking by one affine warp would skip pixels: cut first, then average areas.
    cut = max(round(side), 1)
    shift = np.asarray([[1, 0, -round(left)], [0, 1, -round(top)]], np.float64)
    square = cv2.warpAffine(image, shift, (cut, cut), borderValue=(PAD_GREY,) * 3)
    # No larger than AffectNet's crops: more detail than they have would be another input.
    interpolation = cv2.INTER_AREA if cut > CROP_SIDE else cv2.INTER_CUBIC
    return cv2.resize(square, (CROP_SIDE, CROP_SIDE), interpolation=interpolation).astype(np.uint8, copy=False)


def blended(cls: int, soft_label: NDArray[np.float32] | None, *, share: float) -> NDArray[np.float32]:
    """Return the target [8] of a face labelled `cls`: `share` of it the teacher's, where it has a soft label.

    A face whose expression nobody named (`FACE_ID`) takes the teacher's, or nan.
    """
    if cls == FACE_ID:
        return np.full(len(NAMES), np.nan, np.float32) if soft_label is None else soft_label
    hard = np.zeros(len(NAMES), np.float32)
    hard[cls] = 1
    if soft_label is None or np.isnan(soft_label).any():
        return hard
    return (1 - share) * hard + share * soft_label


def smoothed(target: NDArray[np.float32], *, share: float) -> NDArray[np.float32]:
    """Return a target [8] of which `share` is spread over all emotions."""
    return (1 - share) * target + np.float32(share / len(NAMES))
