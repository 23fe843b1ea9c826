import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from emotion_yolo.evaluation.figures import CellAccuracy, VoteMetrics, served_metrics
from emotion_yolo.evaluation.metrics import IOU_THRESHOLDS, Ranking, match
from emotion_yolo.evaluation.outcomes import Faces

overlaps = st.integers(0, 6).flatmap(
    lambda truths: st.integers(0, 8).flatmap(
        lambda found: st.tuples(
            arrays.arrays(np.float64, (found, truths), elements=st.floats(0, 1)),
            arrays.arrays(np.bool_, truths),
        )
    )
)


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    pictures = draw(st.integers(1, 6))
    predictions = draw(st.integers(0, 20))
    score = np.sort(draw(arrays.arrays(np.float64, predictions, elements=st.floats(0, 1))))[::-1]
    picture = draw(arrays.arrays(np.int64, predictions, elements=st.integers(0, pictures - 1)))
    matched = draw(arrays.arrays(np.bool_, (predictions, 1)))
    found = np.bincount(picture[matched[:, 0]], minlength=pictures)
    missed = draw(arrays.arrays(np.int64, pictures, elements=st.integers(0, 3)))
    return Ranking(score, matched, picture, found + missed)


@given(overlaps)
def test_each_truth_is_matched_at_most_once_and_never_below_the_threshold(
    case: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    iou, ignored = case
    matches, skipped = match(iou, ignored=ignored)
    for level, threshold in enumerate(IOU_THRESHOLDS):
        by = np.flatnonzero(matches[:, level] >= 0)
        truths = matches[by, level]
        assert len(set(truths.tolist())) == len(truths)
        assert (iou[by, truths] >= threshold).all()
        assert not ignored[truths].any()
    assert not (skipped & (matches >= 0).any(axis=1)).any()
    assert skipped.sum() <= ignored.sum()


@given(rankings())
def test_average_precision_lies_between_nothing_and_the_best_possible(ranking: Ranking) -> None:
    precision = ranking.average_precision()
    assert np.isnan(precision).all() == (ranking.truths.sum() == 0)
    assert not (precision < 0).any()
    assert not (precision > 0.995 + 1e-12).any()


@given(rankings(), st.data())
def test_weights_are_repetitions(ranking: Ranking, data: st.DataObject) -> None:
    weights = data.draw(arrays.arrays(np.int64, len(ranking.truths), elements=st.integers(0, 3)))
    times = weights[ranking.picture]
    repeated = Ranking(
        np.repeat(ranking.score, times),
        np.repeat(ranking.matched, times, axis=0),
        np.repeat(ranking.picture, times),
        ranking.truths * weights,
    )
    np.testing.assert_allclose(
        ranking.average_precision(weights.astype(np.float64)), repeated.average_precision(), atol=1e-12
    )


@given(rankings())
def test_an_invented_face_below_all_others_changes_nothing(ranking: Ranking) -> None:
    more = Ranking(
        np.append(ranking.score, 0.0),
        np.append(ranking.matched, [[False]], axis=0),
        np.append(ranking.picture, 0),
        ranking.truths,
    )
    np.testing.assert_allclose(more.average_precision(), ranking.average_precision(), atol=1e-12)


@given(rankings())
def test_precision_and_recall_are_shares_and_recall_falls_with_confidence(ranking: Ranking) -> None:
    precision, recall = ranking.curves()
    for curve in (precision, recall):
        assert ((curve >= 0) & (curve <= 1)).all()
    assert (np.diff(recall) <= 1e-12).all()


@st.composite
def matched_faces(draw: st.DrawFn) -> Faces:
    """Draw faces of up to five pictures, found or not, some without an emotion and some with votes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pictures, count = draw(st.integers(1, 5)), draw(st.integers(0, 12))
    found, picture = rng.random(count) < 0.7, np.sort(rng.integers(0, pictures, count))
    scores = rng.uniform(0.05, 1, (count, 8))
    votes = rng.multinomial(10, np.full(8, 1 / 8), count) * (rng.random((count, 1)) < 0.7)
    total = votes.sum(axis=1, keepdims=True)
    shares = np.divide(votes, total, out=np.full((count, 8), np.nan), where=total > 0)
    return Faces(
        picture=picture,
        cls=rng.integers(0, 9, count),
        soft=shares.astype(np.float32),
        match=np.where(found, 0, -1),
        probabilities=np.where(found[:, None], scores / scores.sum(axis=1, keepdims=True), 0).astype(np.float32),
        predictions=np.bincount(picture[found], minlength=pictures) + rng.integers(0, 3, pictures),
    )


def repeated(faces: Faces, weights: NDArray[np.int64]) -> Faces:
    """Return the faces of the pictures repeated so many times each."""
    copies = [(index, copy) for index, weight in enumerate(weights.tolist()) for copy in range(weight)]
    chosen = [np.flatnonzero(faces.picture == index) for index, _ in copies]
    rows = np.concatenate([np.zeros(0, np.int64), *chosen]).astype(np.int64)
    return Faces(
        picture=np.repeat(np.arange(len(copies)), [len(part) for part in chosen]),
        cls=faces.cls[rows],
        soft=faces.soft[rows],
        match=faces.match[rows],
        probabilities=faces.probabilities[rows],
        predictions=faces.predictions[[index for index, _ in copies]],
    )


@given(matched_faces(), st.data())
def test_weights_of_pictures_are_repetitions_in_the_metrics_served_and_of_votes(
    faces: Faces, data: st.DataObject
) -> None:
    weights = data.draw(arrays.arrays(np.int64, len(faces.predictions), elements=st.integers(0, 3)))
    again = repeated(faces, weights)
    ones = np.ones(len(again.predictions))
    assert served_metrics(faces, weights.astype(float)) == pytest.approx(
        served_metrics(again, ones), abs=1e-9, nan_ok=True
    )
    assert VoteMetrics(faces)(weights.astype(float)) == pytest.approx(VoteMetrics(again)(ones), abs=1e-9, nan_ok=True)


@given(matched_faces())
def test_a_face_missed_never_counts_as_right(faces: Faces) -> None:
    metrics = served_metrics(faces, np.ones(len(faces.predictions)))
    if np.isfinite(metrics["recall_served"]):
        assert metrics["recall_served"] <= metrics["face_found"] + 1e-12
    if np.isfinite(metrics["emotion_top1"]):
        product = metrics["face_found"] * metrics["emotion_top1"]
        assert metrics["recall_served"] == pytest.approx(product)


@given(matched_faces())
def test_cross_entropy_is_at_least_the_entropy_of_the_votes(faces: Faces) -> None:
    voted = faces.found & np.isfinite(faces.soft).all(axis=1)
    entropy = VoteMetrics(faces)(np.ones(len(faces.predictions)))["votes_cross_entropy"]
    assert np.isnan(entropy) == (not voted.any())
    if voted.any():
        votes = faces.soft[voted].astype(float)
        least = -(votes * np.log(np.where(votes > 0, votes, 1))).sum(axis=1).mean()
        assert entropy >= least - 1e-5


@given(matched_faces(), st.data())
def test_cells_hold_every_named_face_once_and_average_to_the_recall(faces: Faces, data: st.DataObject) -> None:
    pictures = len(faces.predictions)
    cells = CellAccuracy(data.draw(st.lists(st.sampled_from("ab"), min_size=pictures, max_size=pictures)), faces)
    counts, accuracy = cells.counts(), cells(np.ones(pictures))
    assert sum(counts.values()) == faces.named.sum()
    right = sum(counts[name] * accuracy[name] for name in counts if counts[name])
    assert right == pytest.approx(float(faces.correct.sum()))
