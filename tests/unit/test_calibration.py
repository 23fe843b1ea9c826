from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.export.bias import fit_bias, fit_calibration
from emotion_yolo.inference.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_scores,
    probabilities,
    reliability_curve,
)

BIAS = np.asarray([0.8, -0.6, 0.4, -0.4, 0.2, -0.2, 0.1, -0.3])


def sampled(
    count: int, temperature: float, bias: Sequence[float] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw scores, and labels that follow their probabilities at `temperature` with `bias`."""
    rng = np.random.default_rng(3)
    scores = (1 / (1 + np.exp(-rng.normal(-2, 2, (count, 8))))).astype(np.float32)
    shares = probabilities(scores, temperature=temperature, bias=bias).cumsum(axis=1)
    return scores, (rng.random((count, 1)) > shares).sum(axis=1).clip(0, 7)


def one_sure(*tops: float) -> NDArray[np.float32]:
    """Build probabilities whose first class has the given value."""
    return np.stack([[top, *[(1 - top) / 7] * 7] for top in tops]).astype(np.float32)


def test_logarithms_of_scores_stay_finite_at_zero() -> None:
    assert log_scores(np.asarray([[1.0, 0.5]], np.float32)) == pytest.approx(np.log([[1.0, 0.5]]))
    assert np.isfinite(log_scores(np.zeros((1, 8), np.float32))).all()


def test_at_temperature_one_probabilities_are_the_scores_shares_in_their_sum() -> None:
    scores, _ = sampled(50, 1.0)
    assert probabilities(scores, temperature=1) == pytest.approx(scores / scores.sum(axis=1, keepdims=True), abs=1e-6)


def test_probabilities_sum_to_one_and_keep_the_order_of_the_scores() -> None:
    scores, _ = sampled(50, 1.0)
    shares = probabilities(scores, temperature=0.7)
    assert shares.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-6)
    assert (shares.argsort(axis=1) == scores.argsort(axis=1)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    assert fit_temperature(*sampled(20_000, temperature)) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_makes_the_labels_likelier() -> None:
    scores, labels = sampled(500, 1.7)

    def loss(temperature: float) -> float:
        shares = probabilities(scores, temperature=temperature)[np.arange(500), labels]
        return float(-np.log(shares.astype(np.float64)).mean())

    best = fit_temperature(scores, labels)
    assert loss(best) <= min(loss(best * 0.98), loss(best * 1.02))


def test_scores_that_are_never_wrong_get_the_lowest_temperature_and_chance_the_highest() -> None:
    scores, _ = sampled(300, 1.0)
    assert fit_temperature(scores, scores.argmax(axis=1)) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(scores, scores.argmin(axis=1)) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(("rows", "labels"), [(0, 0), (2, 1)])
def test_a_temperature_needs_a_label_for_each_face(rows: int, labels: int) -> None:
    with pytest.raises(ValueError, match=f"got {rows} rows of scores and {labels} labels"):
        fit_temperature(np.full((rows, 8), 0.5, np.float32), np.zeros(labels, np.int64))


def test_a_bias_multiplies_the_odds_of_its_class() -> None:
    scores = np.full((1, 8), 0.25, np.float32)
    shares = probabilities(scores, temperature=0.5, bias=[np.log(3), *[0.0] * 7])[0]
    assert shares.tolist() == pytest.approx([0.3, *[0.1] * 7])


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_the_temperature_and_the_biases_that_labels_were_drawn_with_are_found(temperature: float) -> None:
    scores, labels = sampled(20_000, temperature, BIAS)
    fitted, bias = fit_bias(scores, labels, np.ones(20_000), prior=1.0)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert bias - bias.mean() == pytest.approx(BIAS - BIAS.mean(), abs=0.12)


def test_without_faces_that_tell_the_biases_stay_at_the_prior() -> None:
    scores, labels = sampled(40, 1.0, BIAS)
    loose, tight = (np.abs(fit_bias(scores, labels, np.ones(40), prior=prior)[1]).max() for prior in (0.1, 1e4))
    assert tight < 0.01 < loose
    strict = fit_bias(scores, labels, np.ones(40), prior=1e9)[0]
    assert strict == pytest.approx(fit_temperature(scores, labels), rel=1e-3)


def test_faces_count_by_their_weights() -> None:
    scores, labels = sampled(300, 1.0, BIAS)
    counts = np.arange(300) % 3
    repeated = np.repeat(np.arange(300), counts)
    expected = fit_bias(scores[repeated], labels[repeated], np.ones(len(repeated)), prior=5.0)
    got = fit_bias(scores, labels, counts.astype(np.float64), prior=5.0)
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert got[1] == pytest.approx(expected[1], abs=1e-6)


def test_every_set_counts_alike_however_few_faces_it_has() -> None:
    scores, labels = sampled(1000, 1.0, BIAS)
    few, many = (scores[:100], labels[:100]), (scores[100:], labels[100:])
    repeated = fit_calibration(
        np.concatenate([np.repeat(few[0], 9, axis=0), many[0]]),
        np.concatenate([np.repeat(few[1], 9), many[1]]),
        ["few"] * 900 + ["many"] * 900,
        prior=20.0 * 1800 / 1000,
    )
    got = fit_calibration(scores, labels, ["few"] * 100 + ["many"] * 900, prior=20.0)
    assert got.bias == pytest.approx(repeated.bias, abs=2e-4)
    assert got.temperature == pytest.approx(repeated.temperature, abs=2e-4)
    assert got != fit_calibration(scores, labels, ["one"] * 1000, prior=20.0)


def easy_and_hard(few: int) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Return 2,000 faces whose scores are as sure as they may be, and `few` of another set whose are too sure."""
    easy, hard = sampled(2000, 1.0, BIAS), sampled(few, 2.0, BIAS)
    scores, labels = np.concatenate([easy[0], hard[0]]), np.concatenate([easy[1], hard[1]])
    return scores, labels, ["easy"] * 2000 + ["hard"] * few


def test_no_set_stays_too_sure_because_another_is_easy() -> None:
    scores, labels, sets = easy_and_hard(600)
    fitted = fit_calibration(scores, labels, sets, prior=20.0)
    shown = probabilities(scores, temperature=fitted.temperature, bias=fitted.bias)
    assert fit_temperature(shown[2000:], labels[2000:]) == pytest.approx(1.0, abs=0.01)
    assert fit_temperature(shown[:2000], labels[:2000]) < 0.8
    weights = np.repeat([2600 / 2 / 2000, 2600 / 2 / 600], [2000, 600])
    temperature, bias = fit_bias(scores, labels, weights, prior=20.0)
    together = probabilities(scores, temperature=temperature, bias=bias.tolist())
    assert fit_temperature(together[2000:], labels[2000:]) > 1.1
    # The rounding of the calibration to four digits may turn a tie or two.
    assert (shown.argmax(axis=1) == together.argmax(axis=1)).mean() > 0.999


def test_a_set_of_fewer_than_a_hundred_faces_does_not_decide_the_temperature() -> None:
    scores, labels, sets = easy_and_hard(99)
    weights = np.repeat([2099 / 2 / 2000, 2099 / 2 / 99], [2000, 99])
    fitted = fit_calibration(scores, labels, sets, prior=20.0)
    assert fitted.temperature == pytest.approx(fit_bias(scores, labels, weights, prior=20.0)[0], abs=1e-4)


def test_small_sets_alone_keep_the_temperature_fitted_together() -> None:
    scores, labels = sampled(120, 1.0, BIAS)
    fitted = fit_calibration(scores, labels, ["a"] * 60 + ["b"] * 60, prior=20.0)
    assert fitted.temperature == pytest.approx(fit_bias(scores, labels, np.ones(120), prior=20.0)[0], abs=1e-4)


def test_a_set_whose_names_are_all_wrong_keeps_the_temperature_within_its_bounds() -> None:
    scores, labels, sets = easy_and_hard(200)
    labels[2000:] = scores[2000:].argmin(axis=1)
    fitted = fit_calibration(scores, labels, sets, prior=20.0)
    assert fitted.temperature == pytest.approx(20.0)


def test_without_a_prior_the_calibration_is_a_temperature() -> None:
    scores, labels = sampled(400, 1.5, BIAS)
    fitted = fit_calibration(scores, labels, ["one"] * 400, prior=0)
    assert fitted.bias is None
    assert fitted.temperature == pytest.approx(fit_temperature(scores, labels), abs=1e-4)


def test_scores_that_are_never_wrong_keep_the_fit_within_its_bounds() -> None:
    scores, _ = sampled(300, 1.0)
    temperature, bias = fit_bias(scores, scores.argmax(axis=1), np.ones(300), prior=1.0)
    assert temperature == pytest.approx(0.05, rel=0.05)
    assert np.isfinite(bias).all()


@pytest.mark.parametrize(
    ("rows", "labels", "weights", "prior"), [(0, 0, 0, 1), (2, 1, 2, 1), (2, 2, 1, 1), (2, 2, 2, 0)]
)
def test_biases_need_a_label_and_a_weight_for_each_face_and_a_prior(
    rows: int, labels: int, weights: int, prior: float
) -> None:
    with pytest.raises(ValueError, match=f"got {rows} rows of scores, {labels} labels and {weights} weights"):
        fit_bias(np.full((rows, 8), 0.5, np.float32), np.zeros(labels, np.int64), np.ones(weights), prior=prior)


def test_calibration_error_is_the_gap_between_claim_and_accuracy() -> None:
    shares = one_sure(0.9, 0.9, 0.9, 0.9)
    assert expected_calibration_error(shares, np.asarray([0, 0, 0, 1])) == pytest.approx(0.9 - 0.75, abs=1e-6)


def test_bins_count_by_the_faces_in_them() -> None:
    shares = one_sure(0.9, 0.9, 0.9, 0.5)  # three faces 0.9 sure and right, one 0.5 sure and wrong
    assert expected_calibration_error(shares, np.asarray([0, 0, 0, 1])) == pytest.approx((3 * 0.1 + 0.5) / 4, abs=1e-6)


def test_a_weight_counts_as_that_many_faces() -> None:
    shares, labels = one_sure(0.9, 0.6, 0.3), np.asarray([0, 1, 0])
    twice = expected_calibration_error(shares[[0, 0, 2]], labels[[0, 0, 2]])
    assert expected_calibration_error(shares, labels, weights=np.asarray([2.0, 0, 1])) == pytest.approx(twice)


def test_gaps_in_both_directions_do_not_cancel_between_bins() -> None:
    shares = one_sure(0.95, 0.95, 0.45, 0.45)
    assert expected_calibration_error(shares, np.asarray([0, 1, 0, 0])) == pytest.approx(0.5, abs=1e-6)


def test_without_faces_there_is_no_calibration_error() -> None:
    nothing = np.zeros((0, 8), np.float32), np.zeros(0, np.int64)
    assert np.isnan(expected_calibration_error(*nothing))
    assert len(reliability_curve(*nothing).accuracy) == 0


def test_the_curve_leaves_empty_bins_out_and_holds_certainty_in_the_last() -> None:
    curve = reliability_curve(one_sure(1.0, 0.5, 0.5), np.asarray([0, 0, 1]), bins=10)
    assert curve.probability == pytest.approx([0.5, 1.0])
    assert curve.accuracy == pytest.approx([0.5, 1.0])
    assert curve.weight.tolist() == [2, 1]
