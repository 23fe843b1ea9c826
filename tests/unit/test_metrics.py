from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from emotion_yolo.evaluation.metrics import (
    IOU_THRESHOLDS,
    Pair,
    assign,
    best_confidence,
    best_point,
    bootstrap,
    emotion_rankings,
    frame_boxes,
    match,
    mean_over_classes,
    rank_emotion,
    rank_faces,
    truth_xyxy,
)
from emotion_yolo.structures.boxes import iou_matrix
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID
from tests.builders import detections_of, labels_of

BOX = [10.0, 10.0, 50.0, 50.0]
ELSEWHERE = [60.0, 60.0, 90.0, 90.0]


def shifted(box: Sequence[float], dx: float) -> list[float]:
    return [box[0] + dx, box[1], box[2] + dx, box[3]]


def random_pairs(seed: int, pictures: int = 40, *, emotions: int = 8) -> list[Pair]:
    """Draw pictures of 0 to 4 faces with good, shifted, doubled and invented detections."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(pictures):
        corner = rng.uniform(0, 60, (int(rng.integers(0, 5)), 2))
        truth = np.concatenate([corner, corner + rng.uniform(8, 36, corner.shape)], axis=1)
        cls = rng.integers(0, emotions, len(truth))
        boxes = np.concatenate([truth + rng.normal(0, 2, truth.shape), truth + rng.normal(0, 5, truth.shape)])
        invented = rng.uniform(0, 40, (3, 2))
        boxes = np.concatenate([boxes, np.concatenate([invented, invented + 30], axis=1)]).clip(0, 96)
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
        z = rng.normal(0, 1.5, (len(boxes), 8))
        z[np.arange(2 * len(cls)), np.tile(cls, 2)] += 2
        shares = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        confidence = np.sort(rng.beta(0.5, 1, len(boxes)))[::-1]
        found = Detections(boxes.astype(np.float32), confidence.astype(np.float32), shares.astype(np.float32), (96, 96))
        pairs.append((found, labels_of(cls.tolist(), truth.tolist())))
    return pairs


# Matching


def test_each_truth_is_matched_once_by_the_best_scored_detection() -> None:
    iou = np.asarray([[0.6], [0.9]])
    matches, skipped = match(iou, ignored=np.asarray([False]), thresholds=np.asarray([0.5]))
    assert matches.tolist() == [[0], [-1]]
    assert not skipped.any()


def test_a_detection_too_coarse_for_a_strict_threshold_leaves_the_truth_to_the_next() -> None:
    matches, _ = match(np.asarray([[0.6], [0.9]]), ignored=np.asarray([False]), thresholds=np.asarray([0.5, 0.75]))
    assert matches.tolist() == [[0, -1], [-1, 0]]


def test_a_detection_takes_its_best_free_truth() -> None:
    iou = np.asarray([[0.9, 0.6], [0.8, 0.7]])
    matches, _ = match(iou, ignored=np.asarray([False, False]), thresholds=np.asarray([0.5]))
    assert matches.tolist() == [[0], [1]]


def test_a_truth_that_counts_is_preferred_to_an_ignored_one() -> None:
    iou = np.asarray([[0.9, 0.6]])
    matches, skipped = match(iou, ignored=np.asarray([True, False]), thresholds=np.asarray([0.5]))
    assert matches.tolist() == [[1]]
    assert skipped.tolist() == [False]


def test_an_ignored_truth_takes_one_detection_out_of_the_count() -> None:
    matches, skipped = match(np.asarray([[0.9], [0.8]]), ignored=np.asarray([True]), thresholds=np.asarray([0.5]))
    assert matches.tolist() == [[-1], [-1]]
    assert skipped.tolist() == [True, False]


def test_a_touch_below_the_threshold_is_no_match() -> None:
    matches, skipped = match(np.asarray([[0.49]]), ignored=np.asarray([False]), thresholds=np.asarray([0.5]))
    assert matches.tolist() == [[-1]]
    assert not skipped.any()


def test_an_exact_overlap_at_the_threshold_is_a_match() -> None:
    matches, _ = match(np.asarray([[0.5]]), ignored=np.asarray([False]), thresholds=np.asarray([0.5]))
    assert matches.tolist() == [[0]]


# Average precision


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Pair]], tuple[Any, ...]]:
    """Let Ultralytics' own matching and `ap_per_class` judge the same pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        import torch
        from ultralytics.engine.validator import BaseValidator
        from ultralytics.utils.metrics import ap_per_class

    validator = BaseValidator.__new__(BaseValidator)
    validator.iouv = torch.linspace(0.5, 0.95, 10, dtype=torch.float64)

    def judge(pairs: Sequence[Pair]) -> tuple[Any, ...]:
        hits, scores, classes, truth = [], [], [], []
        for found, labels in pairs:
            all_scores = found.confidence.astype(np.float64)[:, None] * found.probabilities
            box, cls = np.nonzero(all_scores >= 0.001)
            order = np.argsort(-all_scores[box, cls], kind="stable")
            box, cls = box[order], cls[order]
            iou = iou_matrix(truth_xyxy(labels, found.image_wh), found.xyxy[box].astype(np.float64))
            of_box = torch.from_numpy(cls), torch.from_numpy(labels.cls), torch.from_numpy(np.asarray(iou))
            hits.append(validator.match_predictions(*of_box).numpy())
            scores.append(all_scores[box, cls])
            classes.append(cls)
            truth.append(labels.cls)
        result: tuple[Any, ...] = ap_per_class(*(np.concatenate(part) for part in (hits, scores, classes, truth)))
        return result

    return judge


@pytest.mark.parametrize("emotions", [8, 3])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_ultralytics(
    seed: int, emotions: int, reference: Callable[[Sequence[Pair]], tuple[Any, ...]]
) -> None:
    pairs = random_pairs(seed, emotions=emotions)
    _, _, precision, recall, _, expected, classes, *_ = reference(pairs)
    rankings = emotion_rankings(pairs, conf=0.001)
    ours = np.stack([ranking.average_precision() for ranking in rankings])
    assert ours[classes] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(ours[[c for c in range(8) if c not in classes]]).all()
    _, our_precision, our_recall = best_point(rankings)
    assert (our_precision, our_recall) == pytest.approx((precision.mean(), recall.mean()), abs=1e-9)


def test_perfect_detections_reach_what_the_trapezoid_rule_allows() -> None:
    pairs = [(detections_of([BOX], confidence=[0.9], emotions=[3]), labels_of([3], [BOX]))] * 5
    assert rank_emotion(pairs, 3, conf=0.001).average_precision() == pytest.approx([0.995] * 10)


def test_average_precision_of_half_the_faces_found_is_half() -> None:
    found = (detections_of([BOX], confidence=[0.9], emotions=[3]), labels_of([3], [BOX]))
    missed = (Detections.empty((96, 96)), labels_of([3], [BOX]))
    assert rank_faces([found, missed] * 10).average_precision()[0] == pytest.approx(0.5, abs=0.01)


def test_a_face_of_unknown_expression_is_neither_right_nor_wrong_for_an_emotion() -> None:
    known = (detections_of([BOX], confidence=[0.5], emotions=[3]), labels_of([3], [BOX]))
    unknown = (detections_of([BOX], confidence=[0.9], emotions=[3]), labels_of([FACE_ID], [BOX]))
    invented = (detections_of([BOX], confidence=[0.9], emotions=[3]), labels_of([3], [ELSEWHERE]))
    assert rank_emotion([known, unknown], 3, conf=0.001).average_precision()[0] == pytest.approx(0.995)
    assert rank_emotion([known, invented], 3, conf=0.001).average_precision()[0] < 0.3


def test_predictions_below_the_least_confidence_do_not_enter() -> None:
    pairs = [(detections_of([BOX], confidence=[0.5], emotions=[3], sure=0.86), labels_of([3], [BOX]))]
    assert len(rank_emotion(pairs, 3, conf=0.42).score) == 1
    assert len(rank_emotion(pairs, 3, conf=0.44).score) == 0
    assert len(rank_emotion(pairs, 4, conf=0.001).score) == 1  # each detection is a prediction of all eight


def test_weights_are_repetitions_of_a_picture() -> None:
    pairs = random_pairs(7)
    weights = np.random.default_rng(0).integers(0, 4, len(pairs))
    repeated = [pair for pair, weight in zip(pairs, weights, strict=True) for _ in range(weight)]
    ranking = rank_faces(pairs)
    expected = rank_faces(repeated)
    assert ranking.average_precision(weights.astype(float)) == pytest.approx(expected.average_precision())
    for curve, repeated_curve in zip(ranking.curves(weights.astype(float)), expected.curves(), strict=True):
        assert curve[[5, 100, 500]] == pytest.approx(repeated_curve[[5, 100, 500]], abs=0.02)


def test_without_anything_to_find_there_is_no_average_precision() -> None:
    pairs = [(detections_of([BOX], confidence=[0.9]), labels_of([], []))]
    assert np.isnan(rank_faces(pairs).average_precision()).all()
    assert np.isnan(rank_faces([]).average_precision()).all()
    assert np.isnan(best_point([rank_faces(pairs)])).all()
    assert np.isnan(mean_over_classes(np.asarray([np.nan, np.nan])))


def test_a_class_without_a_truth_does_not_count_in_the_mean() -> None:
    assert mean_over_classes(np.asarray([0.5, np.nan, 0.7])) == pytest.approx(0.6)


def test_nothing_found_is_a_precision_of_zero() -> None:
    pairs = [(Detections.empty((96, 96)), labels_of([3], [BOX]))]
    ranking = rank_faces(pairs)
    assert ranking.average_precision().tolist() == [0.0]
    assert best_point([ranking])[1:] == (0.0, 0.0)


def test_the_curve_falls_with_recall_and_ends_at_nothing() -> None:
    curve = rank_faces(random_pairs(1)).pr_curve()
    assert curve.shape == (101,)
    assert (np.diff(curve) <= 0).all()
    assert curve[0] > 0.5


# Faces by height


def test_faces_of_other_heights_are_ignored_with_what_found_them() -> None:
    small, large = [10.0, 10.0, 30.0, 30.0], [40.0, 40.0, 90.0, 90.0]
    pair = (detections_of([small, large], confidence=[0.9, 0.8]), labels_of([0, 0], [small, large]))
    ranking = rank_faces([pair], heights=(32, np.inf))
    assert ranking.truths.tolist() == [1]
    assert ranking.score == pytest.approx([0.8])
    assert ranking.average_precision()[0] == pytest.approx(0.995)


def test_invented_faces_count_in_their_own_height_only() -> None:
    pair = (detections_of([[60, 60, 70, 70], BOX], confidence=[0.9, 0.8]), labels_of([0], [BOX]))
    assert rank_faces([pair], heights=(32, np.inf)).average_precision()[0] == pytest.approx(0.995)
    assert rank_faces([pair]).average_precision()[0] < 0.6


def test_a_range_holds_its_lower_end_and_not_its_upper() -> None:
    pair = (Detections.empty((96, 96)), labels_of([0], [[10, 10, 40, 42]]))
    assert rank_faces([pair], heights=(32, 64)).truths.tolist() == [1]
    assert rank_faces([pair], heights=(16, 32)).truths.tolist() == [0]


def test_heights_are_those_of_a_picture_of_at_most_640_px() -> None:
    truth = labels_of([0], [[0, 0, 60, 60]], image_wh=(1280, 960))
    pair = (Detections.empty((1280, 960)), truth)
    assert rank_faces([pair], heights=(32, np.inf)).truths.tolist() == [0]
    assert rank_faces([pair], heights=(30, 31)).truths.tolist() == [1]


# Thresholds


def test_the_best_confidence_separates_faces_from_inventions() -> None:
    pairs = [
        (detections_of([BOX, ELSEWHERE], confidence=[0.7, 0.3]), labels_of([0], [BOX])),
        (detections_of([BOX], confidence=[0.75]), labels_of([0], [BOX])),
    ] * 10
    assert 0.3 < best_confidence(pairs) < 0.7


def test_the_middle_of_equally_good_confidences_is_taken() -> None:
    pairs = [(detections_of([BOX], confidence=[0.8]), labels_of([0], [BOX]))]
    assert best_confidence(pairs) == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize("found", [Detections.empty((96, 96)), detections_of([ELSEWHERE], confidence=[0.9])])
def test_no_confidence_can_be_chosen_where_no_face_is_found(found: Detections) -> None:
    with pytest.raises(ValueError, match="0 of 1 faces found in 1 pictures"):
        best_confidence([(found, labels_of([0], [BOX]))])


# Served answers


def test_faces_are_assigned_whatever_their_emotion() -> None:
    found = detections_of([ELSEWHERE, shifted(BOX, 2), BOX], confidence=[0.9, 0.8, 0.7], emotions=[1, 2, 3])
    assert assign(found, labels_of([0, 0, 0], [BOX, [0, 60, 20, 90], ELSEWHERE])).tolist() == [1, -1, 0]


def test_no_face_and_no_answer_assign_nothing() -> None:
    assert assign(detections_of([BOX], confidence=[0.9]), labels_of([], [])).tolist() == []
    assert assign(Detections.empty((96, 96)), labels_of([0], [BOX])).tolist() == [-1]


def test_a_best_box_that_is_the_whole_picture_is_noticed() -> None:
    frame, most = [0.0, 0.0, 96.0, 96.0], [0.0, 0.0, 96.0, 80.0]
    pictures = [
        detections_of([frame], confidence=[0.9]),
        detections_of([BOX, frame], confidence=[0.9, 0.8]),
        detections_of([most], confidence=[0.9]),
        Detections.empty((96, 96)),
    ]
    assert frame_boxes(pictures).tolist() == [True, False, False, False]


# Intervals


def test_intervals_hold_the_mean_and_shrink_with_more_pictures() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for pictures in (50, 5000):
        right = rng.random(pictures) < 0.7
        interval = bootstrap(
            lambda w, r=right: {"top1": float(np.average(r, weights=w))}, pictures, resamples=200, seed=1
        )
        low, high = interval["top1"]
        assert low < right.mean() < high
        widths.append(high - low)
    # Binomial theory: 2 · 1.96 · sqrt(0.21 / n).
    assert widths == pytest.approx([0.254, 0.0254], rel=0.25)


def test_intervals_are_the_same_for_the_same_seed_only() -> None:
    def figures(weights: np.ndarray[Any, Any]) -> dict[str, float]:
        return {"mean": float(np.average(np.arange(30), weights=weights))}

    same, again, other = (bootstrap(figures, 30, resamples=20, seed=seed) for seed in (1, 1, 2))
    assert same == again != other


def test_a_resample_draws_as_many_pictures_as_there_are() -> None:
    seen = []
    bootstrap(lambda weights: seen.append(weights.sum()) or {}, 17, resamples=5, seed=0)  # type: ignore[func-returns-value]
    assert seen == [17] * 5


def test_a_figure_that_never_is_has_no_interval() -> None:
    assert bootstrap(lambda _: {"ghost": float("nan"), "one": 1.0}, 5, resamples=3, seed=0) == {"one": (1.0, 1.0)}


@pytest.mark.parametrize(("pictures", "resamples"), [(0, 10), (10, 0)])
def test_without_pictures_or_resamples_there_are_no_intervals(pictures: int, resamples: int) -> None:
    assert bootstrap(lambda _: {"one": 1.0}, pictures, resamples=resamples, seed=0) == {}


def test_thresholds_are_those_of_coco() -> None:
    assert pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]) == IOU_THRESHOLDS
