"""From the network's raw output to detections: confidence, non-maximum suppression, probabilities."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.inference.calibration import probabilities
from emotion_yolo.inference.letterbox import Letterbox
from emotion_yolo.structures.boxes import area, clip_xyxy, ios_matrix
from emotion_yolo.structures.detections import Detections

Tensor = NDArray[np.float32]

MAX_FACES = 300
"""Faces in an answer unless the caller asks for another number."""

# A bound on time and memory, met by no served threshold: only average precision looks at confidences of 0.001.
_MAX_CANDIDATES = 3000


def decode(
    raw: Tensor,
    box: Letterbox,
    *,
    conf: float,
    iou: float,
    temperature: float,
    bias: Sequence[float] | None = None,
    ios: float = 1.0,
    max_faces: int = MAX_FACES,
) -> Detections:
    """Turn the network's answer [1, 12, A] (centre boxes in input px, eight scores in 0-1) into detections.

    A face's emotions exclude each other, so the confidence that there is a face is the sum of the eight scores, at
    most 1. Non-maximum suppression sees faces, not classes: one face comes back once. A mouth, or half a face, overlaps
    the whole by less than `iou`; so a box is also suppressed if it shares more than `ios` of the smaller box with a
    more confident one.
    """
    cxcywh, scores = raw[0, :4].T, raw[0, 4:].T  # [A, 4], [A, 8]
    confidence = np.minimum(scores.sum(1), 1.0)
    candidates = np.flatnonzero(confidence >= conf)
    # A stable sort: equal confidences keep the network's order on every machine.
    candidates = candidates[np.argsort(-confidence[candidates], kind="stable")][:_MAX_CANDIDATES]
    if not len(candidates):
        return Detections.empty(box.image_wh)
    cxcywh, scores, confidence = cxcywh[candidates], scores[candidates], confidence[candidates]
    xywh = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, 2:]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(xywh.tolist(), confidence.tolist(), 0.0, iou), dtype=np.int64).reshape(-1)
    kept = np.sort(kept)
    xyxy = np.concatenate([xywh[kept, :2], xywh[kept, :2] + xywh[kept, 2:]], axis=1)
    xyxy = (xyxy - np.asarray([box.left, box.top] * 2, np.float32)) / box.scale
    xyxy = clip_xyxy(xyxy, image_wh=box.image_wh)
    visible = np.flatnonzero(area(xyxy) > 0)  # a box wholly in the grey border is no face
    if ios < 1:
        visible = visible[_apart(xyxy[visible], ios=ios)]
    visible = visible[:max_faces]
    kept = kept[visible]
    return Detections(
        xyxy[visible],
        confidence[kept],
        probabilities(scores[kept], temperature=temperature, bias=bias),
        box.image_wh,
    )


def _apart(xyxy: Tensor, *, ios: float) -> list[int]:
    # The most confident come first, so that each box is compared with those kept before it.
    kept: list[int] = []
    for index in range(len(xyxy)):
        if not kept or ios_matrix(xyxy[[index]], xyxy[kept]).max() <= ios:
            kept.append(index)
    return kept
