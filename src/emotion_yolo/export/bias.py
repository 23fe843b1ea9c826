"""The calibration of a network: a temperature, and a bias for each class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from emotion_yolo.inference.artefact import Calibration
from emotion_yolo.inference.calibration import TEMPERATURES, FloatArray, fit_temperature, log_scores, probabilities

_LEAST_FACES = 100  # of a set, for its own temperature to count: that of fewer is a matter of chance


def fit_calibration(scores: FloatArray, labels: NDArray[np.int64], sets: Sequence[str], *, prior: float) -> Calibration:
    """Fit temperature and biases to [N, 8] scores in 0-1 and [N] labels, each of the `sets` [N] counting alike.

    Then all probabilities are tempered until no set of at least 100 faces is too sure by its own likelihood: an easy
    set would hide that a hard one is. It changes no name. With a `prior` of 0 there are no biases, and every face
    counts alike. Errors are those of `fit_bias`.
    """
    if not prior:
        return Calibration(temperature=round(fit_temperature(scores, labels), 4))
    counts = Counter(sets)
    weights = np.asarray([len(sets) / len(counts) / counts[name] for name in sets])
    temperature, bias = fit_bias(scores, labels, weights, prior=prior)
    if len(counts) > 1:  # one alone was fitted as it is
        fitted = probabilities(scores, temperature=temperature, bias=bias.tolist())
        faces = [np.asarray(sets) == name for name, count in counts.items() if count >= _LEAST_FACES]
        own = [fit_temperature(fitted[of], labels[of]) for of in faces]
        factor = min(max([1.0, *own]), TEMPERATURES[1] / temperature)
        temperature, bias = temperature * factor, bias / factor
    return Calibration(temperature=round(temperature, 4), bias=tuple(round(float(value), 4) for value in bias))


def fit_bias(
    scores: FloatArray, labels: NDArray[np.int64], weights: NDArray[np.float64], *, prior: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the temperature (0.05 to 20) and the classes' bias [8] of least negative log-likelihood.

    For [N, 8] scores in 0-1, [N] labels and [N] weights: bias-corrected temperature scaling (Alexandari et al.,
    arXiv:1901.06852), see `calibration.probabilities`. It undoes that a network names some emotions too often.
    `prior` is the precision of a normal prior around no bias, by which that of an emotion with few faces stays near 0.

    Raises:
        ValueError: no faces, not a label and a weight for each, or a prior that is not positive.
    """
    if not len(scores) or not len(scores) == len(labels) == len(weights) or prior <= 0:
        given = f"{len(scores)} rows of scores, {len(labels)} labels and {len(weights)} weights, prior {prior:g}"
        raise ValueError(f"got {given}; expected as many of each, at least one, and a prior above 0")
    z, truth = log_scores(scores), np.eye(scores.shape[1])[labels]

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logs = log_softmax(theta[0] * z + theta[1:], axis=1)
        away = weights[:, None] * (np.exp(logs) - truth)
        value = -(weights[:, None] * truth * logs).sum() + prior / 2 * np.square(theta[1:]).sum()
        return float(value), np.asarray([(away * z).sum(), *(away.sum(axis=0) + prior * theta[1:])])

    # Convex in 1 / temperature and the biases together.
    start = np.eye(1 + scores.shape[1])[0]
    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), *[(-np.inf, np.inf)] * scores.shape[1]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-8})
    return float(1 / found.x[0]), np.asarray(found.x[1:])
