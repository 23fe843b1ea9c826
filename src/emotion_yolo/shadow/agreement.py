"""How far two models agree on a picture."""

from dataclasses import dataclass

import numpy as np

from emotion_yolo.structures.boxes import iou_matrix
from emotion_yolo.structures.detections import Detections

_IOU = 0.5


@dataclass(frozen=True)
class Agreement:
    """Numbers of faces of one picture."""

    faces: int
    """Found by the present model."""
    candidate_faces: int
    """Found by the candidate."""
    matched: int
    """Found by both: boxes with an IoU of at least 0.5, each matched once."""
    same: int
    """Of those, named alike."""

    @property
    def complete(self) -> bool:
        """Return whether both found the same faces and named them alike."""
        return self.faces == self.candidate_faces == self.same


def compare(answered: Detections, candidate: Detections) -> Agreement:
    """Match the faces of two answers, those that overlap most first."""
    iou = iou_matrix(answered.xyxy, candidate.xyxy)
    ours, theirs = answered.emotion_ids, candidate.emotion_ids
    matched = same = 0
    while iou.size and iou.max() >= _IOU:
        row, column = np.unravel_index(int(iou.argmax()), iou.shape)
        matched += 1
        same += int(ours[row] == theirs[column])
        iou[row, :] = iou[:, column] = 0
    return Agreement(len(answered), len(candidate), matched, same)
