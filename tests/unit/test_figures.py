from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.figures import (
    AT_EVERY_SIZE,
    HEIGHTS,
    CellAccuracy,
    EmotionMetrics,
    FaceMetrics,
    VoteMetrics,
    at_size,
    mirror_metrics,
)
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from tests.builders import detections_of, labels_of

BOX = [10.0, 10.0, 50.0, 50.0]
ELSEWHERE = [60.0, 60.0, 90.0, 90.0]
FRAME = [0.0, 0.0, 96.0, 96.0]


def outcome(
    label: int,
    predicted: int | None,
    *,
    box: list[float] = BOX,
    sure: float = 0.86,
    votes: list[float] | None = None,
) -> Outcome:
    """Build the outcome of a crop of one face; `predicted` None: nothing found."""
    found = (
        Detections.empty((96, 96))
        if predicted is None
        else detections_of([box], confidence=[0.9], emotions=[predicted], sure=sure)
    )
    soft = None if votes is None else np.asarray([votes], np.float32)
    return Outcome(Sample(Path("image.jpg"), labels_of([label], [BOX]), soft=soft), found, found)


def measured(*outcomes: Outcome) -> Mapping[str, float]:
    return EmotionMetrics(outcomes, conf=0.001)(np.ones(len(outcomes)))


def of_votes(*outcomes: Outcome) -> Mapping[str, float]:
    return VoteMetrics(match_faces(outcomes))(np.ones(len(outcomes)))


def test_each_face_has_the_prediction_that_matches_it() -> None:
    faces = match_faces([outcome(3, 3), outcome(2, None), outcome(1, 5), outcome(4, 4, box=ELSEWHERE)])
    assert faces.picture.tolist() == [0, 1, 2, 3]
    assert faces.cls.tolist() == [3, 2, 1, 4]
    assert faces.found.tolist() == [True, False, True, False]
    assert faces.predicted.tolist() == [3, -1, 5, -1]
    assert faces.predictions.tolist() == [1, 0, 1, 1]


def test_shares_are_of_the_faces_found_or_of_all_as_their_names_say() -> None:
    result = measured(outcome(3, 3), outcome(3, 3), outcome(3, 4), outcome(3, None), outcome(5, 5, box=ELSEWHERE))
    assert result["face_found"] == pytest.approx(3 / 5)
    assert result["emotion_top1"] == pytest.approx(2 / 3)
    assert result["recall_served"] == pytest.approx(2 / 5)
    assert result["precision_served"] == pytest.approx(2 / 4)


def test_macro_recall_weighs_emotions_alike() -> None:
    result = measured(*[outcome(4, 4)] * 8, outcome(1, 1), outcome(1, 4))
    assert result["emotion_top1"] == pytest.approx(0.9)
    assert result["emotion_macro_recall"] == pytest.approx((1 + 0.5) / 2)


def test_calibration_error_regards_found_faces_only() -> None:
    result = measured(outcome(3, 3, sure=0.9), outcome(3, 3, sure=0.9), outcome(3, None), outcome(3, 4, box=ELSEWHERE))
    assert result["ece"] == pytest.approx(0.1, abs=1e-6)


def test_a_face_of_unknown_expression_changes_no_figure_of_emotions() -> None:
    known = [outcome(3, 3), outcome(4, 5)]
    with_unknown = measured(*known, outcome(FACE_ID, 2))
    without = measured(*known)
    assert {name: with_unknown[name] for name in without} == pytest.approx(without, nan_ok=True)


def test_recall_of_an_emotion_counts_the_faces_missed() -> None:
    result = measured(outcome(5, 5), outcome(5, None), outcome(5, 4), outcome(4, 4), outcome(4, None))
    assert result["recall_neutral"] == pytest.approx(1 / 3)
    assert result["recall_happy"] == pytest.approx(1 / 2)
    assert np.isnan(measured(outcome(3, 3))["recall_neutral"])


def test_every_source_has_its_cells() -> None:
    outcomes = [outcome(3, 3), outcome(3, 4), outcome(3, None), outcome(4, 4), outcome(FACE_ID, 4)]
    cells = CellAccuracy(["wild", "web", "web", "web", "web"], match_faces(outcomes))
    accuracy, counts = cells(np.ones(5)), cells.counts()
    assert cells.sources == ["web", "wild"]
    assert (accuracy["wild/fear"], accuracy["web/fear"], accuracy["web/happy"]) == (1.0, 0.0, 1.0)
    assert (counts["wild/fear"], counts["web/fear"], counts["web/happy"], counts["web/sad"]) == (1, 2, 1, 0)
    assert np.isnan(accuracy["wild/happy"])
    assert cells(np.asarray([0, 0, 0, 1, 1.0]))["web/happy"] == 1.0


def test_votes_are_compared_with_the_whole_distribution_predicted() -> None:
    votes = [0.0, 0, 0, 0.8, 0.2, 0, 0, 0]
    metrics = of_votes(outcome(3, 3, votes=votes, sure=0.86))
    assert metrics["votes_cross_entropy"] == pytest.approx(-0.8 * np.log(0.86) - 0.2 * np.log(0.02))
    assert metrics["votes_accuracy"] == 1.0


def test_the_majority_is_at_least_half_of_the_votes_and_a_face_missed_is_wrong() -> None:
    half, split = [0.5, 0.3, 0.2, 0, 0, 0, 0, 0], [0.4, 0.4, 0.2, 0, 0, 0, 0, 0]
    outcomes = [outcome(0, 0, votes=half), outcome(0, None, votes=half), outcome(0, 1, votes=split), outcome(0, 0)]
    assert of_votes(*outcomes)["votes_accuracy"] == 0.5
    assert VoteMetrics(match_faces(outcomes)).counts() == {"n_votes": 3, "n_votes_majority": 2}
    assert np.isnan(list(of_votes(outcome(0, 0)).values())).all()


def test_the_means_are_those_of_the_classes() -> None:
    result = measured(*[outcome(c, c) for c in range(8)], outcome(0, 1))
    assert result["map50"] == pytest.approx(np.mean([result[f"ap50_{name}"] for name in NAMES]))
    assert result["ap50_happy"] == pytest.approx(0.995)
    assert result["ap50_anger"] < 0.995
    assert result["map50_95"] == pytest.approx(result["map50"])  # the boxes are exact


def test_coarse_boxes_cost_the_strict_average_only() -> None:
    coarse = [10.0, 10.0, 50.0, 42.0]  # IoU 0.8
    result = measured(*[outcome(c, c, box=coarse) for c in range(8)])
    assert result["map50"] == pytest.approx(0.995)
    assert result["map50_95"] == pytest.approx(0.995 * 0.7, abs=0.01)


def test_weights_are_repetitions_of_pictures() -> None:
    outcomes = [outcome(3, 3), outcome(4, 5), outcome(4, 4), outcome(5, None)]
    weights = [2, 0, 3, 1]
    repeated = [o for o, weight in zip(outcomes, weights, strict=True) for _ in range(weight)]
    weighted = EmotionMetrics(outcomes, conf=0.001)(np.asarray(weights, float))
    expected = dict(measured(*repeated))
    # Precision is interpolated between scores, and repeated scores are closer together.
    assert weighted.pop("precision") == pytest.approx(expected.pop("precision"), abs=0.02)
    assert weighted == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_scenes_are_measured_by_height_of_face() -> None:
    small = [60.0, 60.0, 80.0, 80.0]
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID, FACE_ID], [BOX, small]))
    found = detections_of([BOX], confidence=[0.9])
    scenes = FaceMetrics([Outcome(sample, found, found)])
    result = scenes(np.ones(1))
    assert result["face_ap50"] == pytest.approx(0.5, abs=0.01)
    assert result["face_ap50_32px"] == result["face_ap50_32_64px"] == pytest.approx(0.995)
    assert result["face_ap50_16_32px"] == 0.0
    assert np.isnan(result["face_ap50_128px"])
    assert (result["face_precision_32px"], result["face_recall_32px"]) == (1.0, 1.0)
    assert scenes.counts() == {
        "n_faces": 2,
        **{f"n_faces{suffix}": 0 for suffix in HEIGHTS if suffix},
        "n_faces_32px": 1,
        "n_faces_16_32px": 1,
        "n_faces_32_64px": 1,
    }


def test_served_precision_is_of_predictions_and_not_of_candidates() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID], [BOX]))
    candidates = detections_of([BOX, FRAME, [50, 10, 90, 50]], confidence=[0.9, 0.4, 0.01])
    served = candidates.select(candidates.confidence > 0.3)
    result = FaceMetrics([Outcome(sample, candidates, served)])(np.ones(1))
    assert result["face_precision_32px"] == 0.5


def test_best_boxes_that_are_the_whole_picture_are_counted() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID], [BOX]))
    framed, right = (detections_of([box], confidence=[0.9]) for box in (FRAME, BOX))
    outcomes = [Outcome(sample, found, found) for found in (framed, right, right, right)]
    assert FaceMetrics(outcomes)(np.ones(4))["frame_boxes"] == 0.25


def test_metrics_of_another_side_carry_its_name() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID], [BOX]))
    found = detections_of([FRAME, BOX], confidence=[0.9, 0.8])
    scenes = FaceMetrics([Outcome(sample, found, found)])
    sized = at_size(scenes, 640)(np.ones(1))
    assert set(sized) == {f"{name}_640" for name in AT_EVERY_SIZE}
    assert sized["face_ap50_32px_640"] == scenes(np.ones(1))["face_ap50_32px"]
    assert sized["frame_boxes_640"] == 1.0


def test_an_emotion_that_changes_in_the_mirror_is_counted() -> None:
    faces = match_faces([outcome(3, 3), outcome(3, 3, sure=0.8), outcome(4, 4), outcome(4, None)])
    mirrored = match_faces([outcome(3, 3), outcome(3, 3, sure=0.7), outcome(4, 5), outcome(4, 4)])
    metrics = mirror_metrics(faces, mirrored)
    assert metrics["flip_changed"] == pytest.approx(1 / 3)
    assert metrics["flip_max_difference"] == pytest.approx(0.84)  # 0.86 and a seventh of 0.14
    assert metrics["flip_difference"] == pytest.approx((0 + 0.1 + 0.84) / 3)


def test_without_a_face_in_both_nothing_can_be_compared() -> None:
    assert mirror_metrics(match_faces([outcome(3, 3)]), match_faces([outcome(3, None)])) == {}
