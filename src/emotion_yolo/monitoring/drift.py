"""Distances between two sets of pictures, column by column, and thresholds for them.

Distances are those of Evidently: `wasserstein` (in standard deviations of the reference) for numbers and
`jensenshannon` for emotions. Its default thresholds are the same for windows of any size. Ours come from windows drawn
from the reference itself, so that a window without drift raises an alarm with the requested probability. Draws from a
reference cannot hold what the reference does not hold: values beyond all of its own count as its outermost ones as long
as they are no more than chance explains.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, wasserstein_distance

from emotion_yolo.inference.calibration import calibration_error
from emotion_yolo.prediction_log.observations import FACE_COLUMNS, PICTURE_COLUMNS, Column, Indices, Observations
from emotion_yolo.structures.emotions import NAMES

CATEGORICAL = "emotion"
COLUMNS = (*PICTURE_COLUMNS, *FACE_COLUMNS)

Counts = NDArray[np.float64]

DRAWS = 4000
"""Pairs behind the thresholds: at a rate of 1 %, each column is above its own in some five of them."""

_CELLS = 2_000_000  # numbers of a matrix of draws at a time
_LEAST_STD = 0.001  # as Evidently
_LEAST_THRESHOLD = 0.02  # less is of no matter, and nothing at all where a column is constant in the reference
_UNSEEN_RATE = 1e-4  # probability that a window without drift holds more pictures of a kind that the reference lacks


def distances(reference: Observations, window: Observations) -> dict[str, float]:
    """Return the distance of each column as `compared`; 0 for columns of faces where one of the two has no face."""
    found = {}
    for name, (ours, theirs) in compared(reference, window).items():
        if not len(ours) or not len(theirs):
            found[name] = 0.0
        else:
            found[name] = _jensen_shannon(ours, theirs) if name == CATEGORICAL else _wasserstein(ours, theirs)
    return found


def compared(reference: Observations, window: Observations) -> dict[str, tuple[Column, Column]]:
    """Return each column of the reference, and of the window within what the reference can judge.

    Where so few pictures have values below or above all of the reference's that chance explains it, those count as its
    lowest or highest value; emotions it has none of are left out in the same way. Where one picture in 500 has two
    faces and all others have one, a reference may well have no such picture, and then no draw from it says how far one
    moves a window.
    """
    most = _unseen_by_chance(len(reference), len(window))
    columns = {}
    for name in COLUMNS:
        of_picture = name in PICTURE_COLUMNS
        ours, theirs = ((side.pictures if of_picture else side.faces)[name] for side in (reference, window))
        if len(ours):
            pictures = np.repeat(np.arange(len(window)), 1 if of_picture else window.counts)
            if name == CATEGORICAL:
                unknown = ~np.isin(theirs, ours)
                theirs = theirs[~unknown] if _count(pictures, unknown) <= most else theirs
            else:
                low, high = ours.min(), ours.max()
                theirs = theirs.clip(
                    low if _count(pictures, theirs < low) <= most else -np.inf,
                    high if _count(pictures, theirs > high) <= most else np.inf,
                )
        columns[name] = (ours, theirs)
    return columns


def _count(pictures: Indices, of_values: NDArray[np.bool_]) -> int:
    """Return how many pictures have any of the values `of_values`; `pictures` are those of all values."""
    return len(np.unique(pictures[of_values]))


def _unseen_by_chance(reference: int, window: int) -> int:
    """Return how many of a window's pictures may be above all of a reference where both are of one distribution.

    The `count` largest of all are in the window with the product of (window - i) / (reference + window - i), i < count.
    """
    count, probability = 0, 1.0
    while count < window:
        probability *= (window - count) / (reference + window - count)
        if probability < _UNSEEN_RATE:
            break
        count += 1
    return count


@dataclass(frozen=True, eq=False)
class Null:
    """Distances [draws, columns] between windows and references of which none has drifted."""

    distances: NDArray[np.float64]

    def thresholds(self, rate: float) -> dict[str, float]:
        """Return the threshold of each column.

        `rate` (0-1) is the probability that any column of a window without drift is above its threshold: every
        column is above its own equally often.
        """
        ordered = np.sort(self.distances, axis=0)[::-1]
        above = 0  # draws that may be above the threshold of each column
        while above + 1 < len(ordered) and (self.distances > ordered[above + 1]).any(axis=1).mean() <= rate:
            above += 1
        thresholds = np.maximum(ordered[above], _LEAST_THRESHOLD)
        return dict(zip(COLUMNS, thresholds.tolist(), strict=True))


def draw_null(reference: Observations, *, pictures: int, draws: int = DRAWS, seed: int = 0) -> Null:
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
    reference: Observations, *, pictures: int, rate: float, draws: int = DRAWS, seed: int = 0
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


def compare(reference: Observations, window: Observations, *, rate: float, draws: int = DRAWS) -> Comparison:
    """Compare a window with the reference at a false alarm rate."""
    thresholds = calibrate(reference, pictures=len(window), rate=rate, draws=draws)
    return Comparison(distances(reference, window), thresholds)


def _wasserstein(reference: Column, window: Column) -> float:
    return float(wasserstein_distance(reference, window) / max(np.std(reference), _LEAST_STD))


def _jensen_shannon(reference: Column, window: Column) -> float:
    shares = [np.bincount(ids.astype(np.int64), minlength=len(NAMES)) / len(ids) for ids in (reference, window)]
    return float(jensenshannon(*shares))


def _wasserstein_of_counts(values: Column, reference: Counts, window: Counts) -> Column:
    """Return [draws] what `_wasserstein` gives for samples that hold `values` [V] so many times, counts [draws, V].

    The standard deviation is that of `values`: a draw of a column that hardly varies may have none of its own.
    """
    order = np.argsort(values)
    ordered = values[order]
    shares = [counts[:, order] / counts.sum(axis=1, keepdims=True) for counts in (reference, window)]
    apart = np.abs(np.cumsum(shares[0] - shares[1], axis=1))[:, :-1] @ np.diff(ordered)
    return np.asarray(apart / max(np.std(values), _LEAST_STD))


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
