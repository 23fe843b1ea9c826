import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from emotion_yolo.evaluation.metrics import IOU_THRESHOLDS, Ranking, match

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
    claims = draw(st.integers(0, 20))
    score = np.sort(draw(arrays.arrays(np.float64, claims, elements=st.floats(0, 1))))[::-1]
    picture = draw(arrays.arrays(np.int64, claims, elements=st.integers(0, pictures - 1)))
    hit = draw(arrays.arrays(np.bool_, (claims, 1)))
    found = np.bincount(picture[hit[:, 0]], minlength=pictures)
    missed = draw(arrays.arrays(np.int64, pictures, elements=st.integers(0, 3)))
    return Ranking(score, hit, picture, found + missed)


@given(overlaps)
def test_each_truth_is_claimed_at_most_once_and_never_below_the_threshold(
    case: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    iou, ignored = case
    claimed, skipped = match(iou, ignored=ignored)
    for level, threshold in enumerate(IOU_THRESHOLDS):
        by = np.flatnonzero(claimed[:, level] >= 0)
        truths = claimed[by, level]
        assert len(set(truths.tolist())) == len(truths)
        assert (iou[by, truths] >= threshold).all()
        assert not ignored[truths].any()
    assert not (skipped & (claimed >= 0).any(axis=1)).any()
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
        np.repeat(ranking.hit, times, axis=0),
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
        np.append(ranking.hit, [[False]], axis=0),
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
