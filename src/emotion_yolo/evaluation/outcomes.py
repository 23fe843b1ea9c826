"""What the model predicted for a list of pictures, and which predictions match the labelled faces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.metrics import Indices, Mask, assign
from emotion_yolo.inference.calibration import FloatArray
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES


@dataclass(frozen=True, eq=False)
class Outcome:
    """The predictions for one picture, from one run of the network.

    `candidates` are decoded for average precision (low `conf`, high `iou`), `predictions` at the served thresholds.
    """

    sample: Sample
    candidates: Detections
    predictions: Detections


@dataclass(frozen=True, eq=False)
class Faces:
    """The labelled faces of a list of pictures, each with the prediction that matches it at IoU 0.5.

    `picture` [F] and `cls` [F] are the label, `soft` [F, 8] the soft label (nan where there is none). `match` [F] is
    the index among the picture's predictions or -1, and `probabilities` [F, 8] are that prediction's (zeros where there
    is none). `predictions` [P] counts the predictions of each picture.
    """

    picture: Indices
    cls: Indices
    soft: FloatArray
    match: Indices
    probabilities: FloatArray
    predictions: Indices

    @property
    def found(self) -> Mask:
        """Return [F] whether a prediction matches the face."""
        return self.match >= 0

    @property
    def named(self) -> Mask:
        """Return [F] whether the label is an emotion, and not just a face."""
        named: Mask = self.cls != FACE_ID
        return named

    @property
    def predicted(self) -> Indices:
        """Return the [F] most probable emotions; -1 where the face was not found."""
        return np.where(self.found, self.probabilities.argmax(axis=1), -1)

    @property
    def correct(self) -> Mask:
        """Return [F] whether the face was found and its emotion predicted as labelled."""
        correct: Mask = self.named & (self.predicted == self.cls)
        return correct


def match_faces(outcomes: Sequence[Outcome]) -> Faces:
    """Match the labelled faces with the predictions, whatever the emotions."""
    matches, probabilities, soft = [np.zeros(0, np.int64)], [_rows(0, 0.0)], [_rows(0, 0.0)]
    for outcome in outcomes:
        match = assign(outcome.predictions, outcome.sample.labels)
        rows = _rows(len(match), 0.0)
        rows[match >= 0] = outcome.predictions.probabilities[match[match >= 0]]
        matches.append(match)
        probabilities.append(rows)
        soft.append(_rows(len(match), np.nan) if outcome.sample.soft is None else outcome.sample.soft)
    return Faces(
        picture=np.repeat(np.arange(len(outcomes)), [len(outcome.sample.labels) for outcome in outcomes]),
        cls=np.concatenate([np.zeros(0, np.int64), *(outcome.sample.labels.cls for outcome in outcomes)]),
        soft=np.concatenate(soft),
        match=np.concatenate(matches),
        probabilities=np.concatenate(probabilities),
        predictions=np.asarray([len(outcome.predictions) for outcome in outcomes], np.int64),
    )


def _rows(count: int, value: float) -> FloatArray:
    return np.full((count, len(NAMES)), value, np.float32)
