"""How far two sets of pictures are apart, column by column, and how far is too far.

Distances are those of Evidently: `wasserstein` (in standard deviations of the reference) for numbers and
`jensenshannon` for emotions. Its default thresholds are the same for windows of any size. Ours come from windows drawn
from the reference itself, so that a window without drift raises an alarm with the probability that was asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, wasserstein_distance

from emotion_yolo.inference.calibration import calibration_error
from emotion_yolo.prediction_log.observations import FACE_COLUMNS, PICTURE_COLUMNS, Column, Observations
from emotion_yolo.structures.emotions import NAMES

CATEGORICAL = "emotion"
COLUMNS = (*PICTURE_COLUMNS, *FACE_COLUMNS)

_LEAST_STD = 0.001  # as Evidently
_LEAST_THRESHOLD = 0.02  # less is of no matter, and nothing at all where a column is constant in the reference


def distances(reference: Observations, window: Observations) -> dict[str, float]:
    """Return the distance of each column; 0 for columns of faces where one of the two has no face."""
    found = {name: _wasserstein(reference.pictures[name], window.pictures[name]) for name in PICTURE_COLUMNS}
    for name in FACE_COLUMNS:
        ours, theirs = reference.faces[name], window.faces[name]
        if not len(ours) or not len(theirs):
            found[name] = 0.0
        else:
            found[name] = _jensen_shannon(ours, theirs) if name == CATEGORICAL else _wasserstein(ours, theirs)
    return found


def calibrate(
    reference: Observations, *, pictures: int, rate: float, draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Return the threshold of each column for windows of so many pictures.

    Window and reference are drawn `draws` times from the reference, with replacement and by picture, since the faces of
    one picture are alike. `rate` (0-1) is the probability that any column of a window without drift is above its
    threshold: columns share it evenly on the scale of their own spread.
    """
    random = np.random.default_rng(seed)
    size = len(reference)
    drawn = np.empty((draws, len(COLUMNS)))
    for row in drawn:
        base = reference.take(random.integers(size, size=size))
        window = reference.take(random.integers(size, size=pictures))
        row[:] = list(distances(base, window).values())
    middle, high = np.quantile(drawn, [0.5, 0.95], axis=0)
    spread = np.maximum(high - middle, 1e-9)
    largest = ((drawn - middle) / spread).max(axis=1)
    limit = np.quantile(largest, 1 - rate)
    thresholds = np.maximum(middle + limit * spread, _LEAST_THRESHOLD)
    return dict(zip(COLUMNS, thresholds.tolist(), strict=True))


@dataclass(frozen=True)
class Comparison:
    """The distance of each column and the threshold above which it has drifted."""

    distances: Mapping[str, float]
    thresholds: Mapping[str, float]

    @property
    def drifted(self) -> list[str]:
        """Return the columns that have drifted, the worst first."""
        ratios = {name: self.distances[name] / self.thresholds[name] for name in self.thresholds}
        return sorted((name for name, ratio in ratios.items() if ratio > 1), key=lambda name: -ratios[name])


def compare(reference: Observations, window: Observations, *, rate: float, draws: int = 1000) -> Comparison:
    """Compare a window with the reference at a false alarm rate."""
    thresholds = calibrate(reference, pictures=len(window), rate=rate, draws=draws)
    return Comparison(distances(reference, window), thresholds)


def _wasserstein(reference: Column, window: Column) -> float:
    return float(wasserstein_distance(reference, window) / max(np.std(reference), _LEAST_STD))


def _jensen_shannon(reference: Column, window: Column) -> float:
    shares = [np.bincount(ids.astype(np.int64), minlength=len(NAMES)) / len(ids) for ids in (reference, window)]
    return float(jensenshannon(*shares))


@dataclass(frozen=True)
class Labelled:
    """Accuracy and calibration on the faces whose right emotion is known."""

    faces: int
    accuracy: float
    """0-1."""
    interval: tuple[float, float]
    """95 % of the accuracy, Wilson."""
    calibration_error: float
    """Expected calibration error, as `evaluate` measures it, 0-1."""


def labelled(observations: Observations) -> Labelled | None:
    """Measure the answers whose truth is known; None if there is none."""
    known = ~np.isnan(observations.truth)
    if not known.any():
        return None
    right = observations.faces["emotion"][known] == observations.truth[known]
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    error = calibration_error(observations.faces["probability"][known], right)
    return Labelled(len(right), float(right.mean()), (float(interval.low), float(interval.high)), error)
