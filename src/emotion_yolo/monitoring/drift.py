"""Distances between two sets of pictures, column by column, and thresholds for them.

Distances are those of Evidently: `wasserstein` (in standard deviations of the reference) for numbers and
`jensenshannon` for emotions. Its default thresholds are the same for windows of any size. Ours come from windows drawn
from the reference itself, so that a window without drift raises an alarm with the requested probability.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, wasserstein_distance

from emotion_yolo.inference.calibration import calibration_error
from emotion_yolo.prediction_log.observations import FACE_COLUMNS, PICTURE_COLUMNS, Column, Observations
from emotion_yolo.structures.emotions import NAMES

CATEGORICAL = "emotion"
COLUMNS = (*PICTURE_COLUMNS, *FACE_COLUMNS)

Counts = NDArray[np.float64]

_CELLS = 2_000_000  # numbers of a matrix of draws at a time
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


@dataclass(frozen=True, eq=False)
class Null:
    """Distances [draws, columns] between windows and references of which none has drifted."""

    distances: NDArray[np.float64]

    def thresholds(self, rate: float) -> dict[str, float]:
        """Return the threshold of each column.

        `rate` (0-1) is the probability that any column of a window without drift is above its threshold: columns share
        it evenly on the scale of their own spread.
        """
        middle, high = np.quantile(self.distances, [0.5, 0.95], axis=0)
        spread = np.maximum(high - middle, 1e-9)
        largest = ((self.distances - middle) / spread).max(axis=1)
        limit = np.quantile(largest, 1 - rate)
        thresholds = np.maximum(middle + limit * spread, _LEAST_THRESHOLD)
        return dict(zip(COLUMNS, thresholds.tolist(), strict=True))


def draw_null(reference: Observations, *, pictures: int, draws: int = 1000, seed: int = 0) -> Null:
    """Draw `draws` pairs of a reference and a window of so many pictures from the reference, and return how far apart
    they are.

    Both are drawn with replacement and by picture, since the faces of one picture are alike. A drawn sample is a count
    for each picture (of its faces as well), so that all distances of many pairs are a few sums over matrices
    [draws, values], where `distances` would sort each sample again.
    """
    random = np.random.default_rng(seed)
    size = len(reference)
    of_face = np.repeat(np.arange(size), reference.counts)
    found = np.empty((draws, len(COLUMNS)))
    for begin in range(0, draws, chunk := max(_CELLS // max(size, len(of_face), 1), 1)):
        rows = min(chunk, draws - begin)
        base, window = np.empty((rows, size)), np.empty((rows, size))
        for row in range(rows):
            base[row] = np.bincount(random.integers(size, size=size), minlength=size)
            window[row] = np.bincount(random.integers(size, size=pictures), minlength=size)
        here = found[begin : begin + rows]
        for column, name in enumerate(PICTURE_COLUMNS):
            here[:, column] = _wasserstein_of_counts(reference.pictures[name], base, window)
        faces = base[:, of_face], window[:, of_face]
        has_faces = (faces[0].sum(axis=1) > 0) & (faces[1].sum(axis=1) > 0)
        for column, name in enumerate(FACE_COLUMNS, len(PICTURE_COLUMNS)):
            distance = _jensen_shannon_of_counts if name == CATEGORICAL else _wasserstein_of_counts
            here[:, column] = 0.0
            if has_faces.any():
                here[has_faces, column] = distance(reference.faces[name], *(counts[has_faces] for counts in faces))
    return Null(found)


def calibrate(
    reference: Observations, *, pictures: int, rate: float, draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Return the threshold of each column for windows of so many pictures, at a false alarm rate (0-1)."""
    return draw_null(reference, pictures=pictures, draws=draws, seed=seed).thresholds(rate)


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


def _wasserstein_of_counts(values: Column, reference: Counts, window: Counts) -> Column:
    """Return [draws] what `_wasserstein` gives for samples that hold `values` [V] so many times, counts [draws, V]."""
    order = np.argsort(values)
    ordered = values[order]
    shares = [counts[:, order] / counts.sum(axis=1, keepdims=True) for counts in (reference, window)]
    apart = np.abs(np.cumsum(shares[0] - shares[1], axis=1))[:, :-1] @ np.diff(ordered)
    centred = ordered - ordered.mean()
    variance = shares[0] @ centred**2 - (shares[0] @ centred) ** 2
    return np.asarray(apart / np.maximum(np.sqrt(np.maximum(variance, 0)), _LEAST_STD))


def _jensen_shannon_of_counts(ids: Column, reference: Counts, window: Counts) -> Column:
    """Return [draws] what `_jensen_shannon` gives for samples that hold `ids` [V] so many times, counts [draws, V]."""
    is_of = (ids[:, None] == np.arange(len(NAMES))).astype(np.float64)
    shares = [counts @ is_of / counts.sum(axis=1, keepdims=True) for counts in (reference, window)]
    return np.asarray(jensenshannon(*shares, axis=1))


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
