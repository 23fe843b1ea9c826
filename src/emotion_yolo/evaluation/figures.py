"""Computes the named metrics of a list of outcomes.

`EmotionMetrics` and `FaceMetrics` are estimators: functions of weights, the number of times each picture counts. Ones
give the metrics, resamples their intervals, and the weights of one source its share. Matching is done once.
"""

from collections.abc import Sequence

import numpy as np

from emotion_yolo.evaluation.metrics import (
    Array,
    Estimator,
    Indices,
    Mask,
    Ranking,
    best_point,
    emotion_rankings,
    frame_boxes,
    mean_over_classes,
    rank_faces,
)
from emotion_yolo.evaluation.outcomes import Faces, Outcome, match_faces
from emotion_yolo.inference.calibration import expected_calibration_error
from emotion_yolo.structures.emotions import NAMES, Emotion

HEIGHTS: dict[str, tuple[float, float]] = {
    "": (0, np.inf),
    "_32px": (32, np.inf),
    "_128px": (128, np.inf),
    "_0_16px": (0, 16),
    "_16_32px": (16, 32),
    "_32_64px": (32, 64),
    "_64_128px": (64, 128),
    "_128_256px": (128, 256),
    "_256px": (256, np.inf),
}
"""Suffix of `face_ap50` to heights (from, below) in px; see `metrics.HEIGHT_SIDE`."""

AT_EVERY_SIZE = ("face_ap50_32px", "face_ap50_128px", "frame_boxes")
"""The metrics of photographs that are also given for further input sides, with the side as suffix."""

LEAST_IN_CELL = 30
"""Faces of one emotion and source below which their accuracy is not compared."""

_MAJORITY = 0.5  # share of the votes; FER+ has ten annotators
_EPS = 1e-7


class EmotionMetrics:
    """Metrics of pictures with labelled emotions: average precision, and the emotions of the predictions served."""

    def __init__(self, outcomes: Sequence[Outcome], *, conf: float) -> None:
        self.rankings = emotion_rankings([(o.candidates, o.sample.labels) for o in outcomes], conf=conf)
        self.faces = match_faces(outcomes)

    def __call__(self, weights: Array) -> dict[str, float]:
        """Return all metrics, nan where there is nothing to measure; `weights` is [pictures]."""
        precisions = np.stack([ranking.average_precision(weights) for ranking in self.rankings])  # [8, 10]
        _, precision, recall = best_point(self.rankings, weights)
        return {
            "map50": mean_over_classes(precisions[:, 0]),
            "map50_95": mean_over_classes(precisions.mean(axis=1)),
            "precision": precision,
            "recall": recall,
            **{f"ap50_{name}": float(ap) for name, ap in zip(NAMES, precisions[:, 0], strict=True)},
            **served_metrics(self.faces, weights),
        }


def served_metrics(faces: Faces, weights: Array) -> dict[str, float]:
    """Return the metrics at the served thresholds, nan where there is nothing to measure; `weights` is [pictures].

    `emotion_top1`, `emotion_macro_recall` and `ece` are of the faces found; `recall_…` are of all faces, so that a face
    missed counts as wrong. Classes without a face do not enter a mean.
    """
    of_face = weights[faces.picture]
    labelled = of_face * faces.named
    found = labelled * faces.found
    correct = of_face * faces.correct
    recall = _ratios(_by_class(faces, correct), _by_class(faces, labelled))
    recall_found = _ratios(_by_class(faces, correct), _by_class(faces, found))
    # A prediction that matches a face of unknown expression is neither right nor wrong.
    unknown = float((of_face * faces.found * ~faces.named).sum())
    return {
        "precision_served": _ratio(float(correct.sum()), float(weights @ faces.predictions) - unknown),
        "recall_served": _ratio(float(correct.sum()), float(labelled.sum())),
        "face_found": _ratio(float(found.sum()), float(labelled.sum())),
        "emotion_top1": _ratio(float(correct.sum()), float(found.sum())),
        "emotion_macro_recall": mean_over_classes(recall_found),
        "recall_neutral": float(recall[Emotion.NEUTRAL]),
        "recall_happy": float(recall[Emotion.HAPPY]),
        "ece": expected_calibration_error(faces.probabilities, faces.cls, weights=found),
    }


class VoteMetrics:
    """Agreement of the predictions with annotators' votes, the soft labels of a test split."""

    def __init__(self, faces: Faces) -> None:
        voted: Mask = np.asarray(np.isfinite(faces.soft).all(axis=1))
        votes = np.where(voted[:, None], faces.soft, 0.0).astype(np.float64)
        log_probabilities = np.log(np.maximum(faces.probabilities, _EPS).astype(np.float64))
        self._picture = faces.picture
        self._voted = voted
        self._found = voted & faces.found
        self._majority = voted & (votes.max(axis=1, initial=0.0) >= _MAJORITY)
        self._correct = self._majority & (faces.predicted == votes.argmax(axis=1))
        self._cross_entropy = -(votes * log_probabilities).sum(axis=1)

    def __call__(self, weights: Array) -> dict[str, float]:
        """Return the metrics, nan where there is nothing to measure; `weights` is [pictures].

        `votes_accuracy` is the share of the faces with a majority for which it is predicted; a face missed counts as
        wrong. `votes_cross_entropy`, in nats, is of the faces found.
        """
        of_face = weights[self._picture]
        return {
            "votes_accuracy": _ratio(float(of_face @ self._correct), float(of_face @ self._majority)),
            "votes_cross_entropy": _ratio(
                float((of_face * self._found) @ self._cross_entropy), float(of_face @ self._found)
            ),
        }

    def counts(self) -> dict[str, int]:
        """Return the number of faces with votes and with a majority: one emotion has at least half of the votes."""
        return {"n_votes": int(self._voted.sum()), "n_votes_majority": int(self._majority.sum())}


class CellAccuracy:
    """Accuracy of each emotion in each source: the share of all its faces that were found and named as labelled."""

    def __init__(self, sources: Sequence[str], faces: Faces) -> None:
        """Take the source of each picture."""
        self.sources = sorted(set(sources))
        of_picture = np.asarray([self.sources.index(source) for source in sources], np.int64)
        self._faces = faces
        self._cell: Indices = of_picture[faces.picture] * (len(NAMES) + 1) + faces.cls

    def __call__(self, weights: Array) -> dict[str, float]:
        """Return the accuracy by `source/emotion`, nan where there is no face; `weights` is [pictures]."""
        of_face = weights[self._faces.picture]
        accuracy = _ratios(self._sum(of_face * self._faces.correct), self._sum(of_face))
        return dict(zip(self._names(), accuracy.tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Return the number of faces by `source/emotion`."""
        return dict(zip(self._names(), self._sum(np.ones(len(self._cell))).astype(int).tolist(), strict=True))

    def _names(self) -> list[str]:
        return [f"{source}/{name}" for source in self.sources for name in NAMES]

    def _sum(self, of_face: Array) -> Array:
        cells = np.bincount(self._cell, of_face, len(self.sources) * (len(NAMES) + 1))
        return cells.reshape(-1, len(NAMES) + 1)[:, : len(NAMES)].reshape(-1).astype(np.float64)


class FaceMetrics:
    """Metrics of photographs: are faces found, whatever their expression?"""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        candidates = [(outcome.candidates, outcome.sample.labels) for outcome in outcomes]
        self.rankings: dict[str, Ranking] = {
            suffix: rank_faces(candidates, heights=heights) for suffix, heights in HEIGHTS.items()
        }
        self._served = rank_faces([(o.predictions, o.sample.labels) for o in outcomes], heights=HEIGHTS["_32px"])
        self._framed = frame_boxes([outcome.candidates for outcome in outcomes])

    def __call__(self, weights: Array) -> dict[str, float]:
        """Return all metrics, nan where there is nothing to measure; `weights` is [pictures]."""
        matched = float(weights[self._served.picture] @ self._served.matched[:, 0])
        return {
            **{f"face_ap50{suffix}": float(r.average_precision(weights)[0]) for suffix, r in self.rankings.items()},
            "face_precision_32px": _ratio(matched, float(weights[self._served.picture].sum())),
            "face_recall_32px": _ratio(matched, float(weights @ self._served.truths)),
            "frame_boxes": _ratio(float(weights @ self._framed), float(weights.sum())),
        }

    def counts(self) -> dict[str, int]:
        """Return the number of faces by height."""
        return {f"n_faces{suffix}": int(ranking.truths.sum()) for suffix, ranking in self.rankings.items()}


def at_size(metrics: Estimator, side: int) -> Estimator:
    """Return an estimator of the metrics `AT_EVERY_SIZE` of another input side in px, which becomes their suffix."""

    def few(weights: Array) -> dict[str, float]:
        every = metrics(weights)
        return {f"{name}_{side}": every[name] for name in AT_EVERY_SIZE}

    return few


def mirror_metrics(faces: Faces, mirrored: Faces) -> dict[str, float]:
    """Compare the predictions for pictures with those for their mirror images, which should be the same.

    `flip_changed` is the share of the faces found in both whose emotion differs, `flip_difference` the mean over them
    of the largest difference of a probability, `flip_max_difference` the largest of all.
    """
    both = faces.found & mirrored.found
    if not both.any():
        return {}
    difference = np.abs(faces.probabilities[both] - mirrored.probabilities[both]).max(axis=1)
    return {
        "flip_changed": float((faces.predicted[both] != mirrored.predicted[both]).mean()),
        "flip_difference": float(difference.mean()),
        "flip_max_difference": float(difference.max()),
    }


def _by_class(faces: Faces, of_face: Array) -> Array:
    sums: Array = np.bincount(faces.cls, of_face, len(NAMES) + 1)[: len(NAMES)].astype(np.float64)
    return sums


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _ratios(part: Array, whole: Array) -> Array:
    ratios: Array = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratios
