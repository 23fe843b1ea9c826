"""From class scores to probabilities of the eight emotions, given a face; and their calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_EPS = 1e-7
TEMPERATURES = (0.05, 20.0)
"""The least and the largest temperature that is fitted."""


def log_scores(scores: FloatArray) -> NDArray[np.float64]:
    """Return the logarithms of [N, 8] scores in 0-1."""
    return np.log(np.clip(scores.astype(np.float64), _EPS, 1))


def probabilities(scores: FloatArray, *, temperature: float, bias: Sequence[float] | None = None) -> FloatArray:
    """Turn [N, 8] class scores in 0-1 into [N, 8] probabilities: softmax(log score / temperature + bias).

    At temperature 1 without `bias` [8] these are the scores' shares in their sum. Logarithms and not logits: a face has
    one expression, so that its eight scores share out one confidence, and shares of scores come close to calibrated by
    themselves.
    """
    z = log_scores(scores) / temperature
    if bias is not None:
        z += np.asarray(bias, np.float64)
    z -= z.max(axis=1, keepdims=True)
    e = np.exp(z)
    shares: FloatArray = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def fit_temperature(scores: FloatArray, labels: NDArray[np.int64]) -> float:
    """Return the temperature of least negative log-likelihood (0.05 to 20) for [N, 8] scores in 0-1 and [N] labels.

    Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599. The likelihood is
    convex in 1 / temperature, so that halving the range by the slope's sign finds the one minimum.

    Raises:
        ValueError: no faces, or not a label for each.
    """
    if not len(scores) or len(scores) != len(labels):
        raise ValueError(
            f"got {len(scores)} rows of scores and {len(labels)} labels, expected as many and at least one"
        )
    z = log_scores(scores)
    of_label = z[np.arange(len(z)), labels].mean()
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):
        middle = (low + high) / 2
        expected = (probabilities(scores, temperature=1 / middle).astype(np.float64) * z).sum(axis=1).mean()
        if expected < of_label:
            low = middle
        else:
            high = middle
    return float(2 / (low + high))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Compare claimed with true accuracy, one entry for each bin of the top probability that holds a face.

    `probability` is the mean top probability, `accuracy` the share that was right, `weight` the number of faces.
    """

    probability: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    weight: NDArray[np.float64]


def reliability_curve(
    probabilities: FloatArray, labels: NDArray[np.int64], *, bins: int = 15, weights: NDArray[np.float64] | None = None
) -> Reliability:
    """Sort [N, 8] probabilities into `bins` bins of equal width by their largest and compare each with [N] labels."""
    top = probabilities.max(axis=1).astype(np.float64) if len(probabilities) else np.zeros(0)
    right = probabilities.argmax(axis=1) == labels if len(probabilities) else np.zeros(0, bool)
    return _reliability(top, right, bins=bins, weights=weights)


def _reliability(
    top: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int, weights: NDArray[np.float64] | None
) -> Reliability:
    weights = np.ones(len(top)) if weights is None else weights
    # A bin holds its upper edge: 1.0 belongs to the last.
    index = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
    weight = np.bincount(index, weights, bins).astype(np.float64)
    used = weight > 0
    probability = np.bincount(index, weights * top, bins)[used] / weight[used]
    accuracy = np.bincount(index, weights * right, bins)[used] / weight[used]
    return Reliability(probability, accuracy, weight[used])


def expected_calibration_error(
    probabilities: FloatArray, labels: NDArray[np.int64], bins: int = 15, *, weights: NDArray[np.float64] | None = None
) -> float:
    """Return the mean gap between top probability and accuracy, bins weighted by their faces; nan without faces."""
    return _mean_gap(reliability_curve(probabilities, labels, bins=bins, weights=weights))


def calibration_error(top: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error of [N] top probabilities, `right` [N] saying which were; nan without."""
    return _mean_gap(_reliability(top, right, bins=bins, weights=None))


def _mean_gap(curve: Reliability) -> float:
    if not len(curve.weight):
        return float("nan")
    return float(np.average(np.abs(curve.probability - curve.accuracy), weights=curve.weight))
