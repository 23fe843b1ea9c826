from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.figures import (
    AT_EVERY_SIZE,
    HEIGHTS,
    CropFigures,
    Outcome,
    SceneFigures,
    at_size,
    flip_figures,
    match_faces,
    slice_of,
)
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from tests.builders import detections_of, labels_of

BOX = [10.0, 10.0, 50.0, 50.0]
ELSEWHERE = [60.0, 60.0, 90.0, 90.0]
FRAME = [0.0, 0.0, 96.0, 96.0]


def outcome(
    truth: int, said: int | None, *, name: str = "image.jpg", box: list[float] = BOX, sure: float = 0.86
) -> Outcome:
    """Build the outcome of a crop of one face; `said` None: nothing found."""
    found = (
        Detections.empty((96, 96))
        if said is None
        else detections_of([box], confidence=[0.9], emotions=[said], sure=sure)
    )
    sample = Sample(Path(name), labels_of([truth], [BOX]), source="ffhq" if name.startswith("ffhq_") else "other")
    return Outcome(sample, found, found)


def figures(*outcomes: Outcome) -> Mapping[str, float]:
    return CropFigures(outcomes, conf=0.001)(np.ones(len(outcomes)))


def test_an_answer_to_each_face_is_remembered() -> None:
    faces = match_faces([outcome(3, 3), outcome(2, None), outcome(1, 5), outcome(4, 4, box=ELSEWHERE)])
    assert faces.picture.tolist() == [0, 1, 2, 3]
    assert faces.cls.tolist() == [3, 2, 1, 4]
    assert faces.found.tolist() == [True, False, True, False]
    assert faces.predicted.tolist() == [3, -1, 5, -1]
    assert faces.answers.tolist() == [1, 0, 1, 1]


def test_shares_are_of_the_faces_found_or_of_all_as_their_names_say() -> None:
    result = figures(outcome(3, 3), outcome(3, 3), outcome(3, 4), outcome(3, None), outcome(5, 5, box=ELSEWHERE))
    assert result["face_found"] == pytest.approx(3 / 5)
    assert result["emotion_top1"] == pytest.approx(2 / 3)
    assert result["recall_served"] == pytest.approx(2 / 5)
    assert result["precision_served"] == pytest.approx(2 / 4)


def test_macro_recall_weighs_emotions_alike() -> None:
    result = figures(*[outcome(4, 4)] * 8, outcome(1, 1), outcome(1, 4))
    assert result["emotion_top1"] == pytest.approx(0.9)
    assert result["emotion_macro_recall"] == pytest.approx((1 + 0.5) / 2)


def test_calibration_error_regards_found_faces_only() -> None:
    result = figures(outcome(3, 3, sure=0.9), outcome(3, 3, sure=0.9), outcome(3, None), outcome(3, 4, box=ELSEWHERE))
    assert result["ece"] == pytest.approx(0.1, abs=1e-6)


def test_a_face_of_unknown_expression_changes_no_figure_of_emotions() -> None:
    known = [outcome(3, 3), outcome(4, 5)]
    with_unknown = figures(*known, outcome(FACE_ID, 2))
    without = figures(*known)
    assert {name: with_unknown[name] for name in without} == pytest.approx(without, nan_ok=True)


def test_every_source_has_its_slice() -> None:
    outcomes = [outcome(3, 3, name="ffhq_1.jpg"), outcome(3, 4), outcome(3, 3), outcome(4, 4)]
    crops = CropFigures(outcomes, conf=0.001)
    result = crops(np.ones(4))
    assert result["top1_ffhq"] == 1.0
    assert result["top1_other"] == pytest.approx(2 / 3)
    assert result["top1_gap"] == pytest.approx(1 / 3)
    assert result["map50_ffhq"] == pytest.approx(0.995)
    alone = figures(*outcomes[1:])
    assert result["map50_other"] == pytest.approx(alone["map50"])
    assert result["macro_recall_other"] == pytest.approx(alone["emotion_macro_recall"])
    assert crops.counts() == {"n_crops": 4, "n_ffhq": 1, "n_other": 3}


def test_the_means_are_those_of_the_classes() -> None:
    result = figures(*[outcome(c, c) for c in range(8)], outcome(0, 1))
    assert result["map50"] == pytest.approx(np.mean([result[f"ap50_{name}"] for name in NAMES]))
    assert result["ap50_happy"] == pytest.approx(0.995)
    assert result["ap50_anger"] < 0.995
    assert result["map50_95"] == pytest.approx(result["map50"])  # the boxes are exact


def test_coarse_boxes_cost_the_strict_average_only() -> None:
    coarse = [10.0, 10.0, 50.0, 42.0]  # IoU 0.8
    result = figures(*[outcome(c, c, box=coarse) for c in range(8)])
    assert result["map50"] == pytest.approx(0.995)
    assert result["map50_95"] == pytest.approx(0.995 * 0.7, abs=0.01)


def test_weights_are_repetitions_of_pictures() -> None:
    outcomes = [outcome(3, 3), outcome(4, 5), outcome(4, 4, name="ffhq_1.jpg"), outcome(5, None)]
    weights = [2, 0, 3, 1]
    repeated = [o for o, weight in zip(outcomes, weights, strict=True) for _ in range(weight)]
    weighted = CropFigures(outcomes, conf=0.001)(np.asarray(weights, float))
    expected = dict(figures(*repeated))
    # Precision is interpolated between scores, and repeated scores are closer together.
    assert weighted.pop("precision") == pytest.approx(expected.pop("precision"), abs=0.02)
    assert weighted == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_scenes_are_measured_by_height_of_face() -> None:
    small = [60.0, 60.0, 80.0, 80.0]
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID, FACE_ID], [BOX, small]))
    found = detections_of([BOX], confidence=[0.9])
    scenes = SceneFigures([Outcome(sample, found, found)])
    result = scenes(np.ones(1))
    assert result["face_ap50"] == pytest.approx(0.5, abs=0.01)
    assert result["face_ap50_32px"] == result["face_ap50_32_64px"] == pytest.approx(0.995)
    assert result["face_ap50_16_32px"] == 0.0
    assert np.isnan(result["face_ap50_128px"])
    assert (result["face_precision_32px"], result["face_recall_32px"]) == (1.0, 1.0)
    assert scenes.counts() == {
        "n_scenes": 1,
        "n_faces": 2,
        **{f"n_faces{suffix}": 0 for suffix in HEIGHTS if suffix},
        "n_faces_32px": 1,
        "n_faces_16_32px": 1,
        "n_faces_32_64px": 1,
    }


def test_served_precision_counts_answers_and_not_candidates() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID], [BOX]))
    candidates = detections_of([BOX, FRAME, [50, 10, 90, 50]], confidence=[0.9, 0.4, 0.01])
    answers = candidates.select(candidates.confidence > 0.3)
    result = SceneFigures([Outcome(sample, candidates, answers)])(np.ones(1))
    assert result["face_precision_32px"] == 0.5


def test_best_boxes_that_are_the_whole_picture_are_counted() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID], [BOX]))
    framed, right = (detections_of([box], confidence=[0.9]) for box in (FRAME, BOX))
    outcomes = [Outcome(sample, found, found) for found in (framed, right, right, right)]
    assert SceneFigures(outcomes)(np.ones(4))["frame_boxes"] == 0.25


def test_figures_of_another_side_carry_its_name() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID], [BOX]))
    found = detections_of([FRAME, BOX], confidence=[0.9, 0.8])
    scenes = SceneFigures([Outcome(sample, found, found)])
    sized = at_size(scenes, 640)(np.ones(1))
    assert set(sized) == {f"{name}_640" for name in AT_EVERY_SIZE}
    assert sized["face_ap50_32px_640"] == scenes(np.ones(1))["face_ap50_32px"]
    assert sized["frame_boxes_640"] == 1.0


def test_a_slice_tells_faces_lost_from_faces_misnamed() -> None:
    faces = match_faces([outcome(3, 3), outcome(3, 3), outcome(4, 5), outcome(2, None)])
    measured = slice_of("dark", faces, resamples=50, seed=0)
    assert (measured.change, measured.faces) == ("dark", 4)
    assert (measured.found, measured.top1, measured.right) == (0.75, pytest.approx(2 / 3), 0.5)
    low, high = measured.interval
    assert low <= measured.top1 <= high
    assert low < high
    assert np.isnan(measured.face_ap50_32px)


def test_a_slice_without_a_face_found_has_no_top1() -> None:
    measured = slice_of("dark", match_faces([outcome(2, None)]), resamples=5, seed=0)
    assert (measured.found, measured.right) == (0.0, 0.0)
    assert np.isnan([measured.top1, *measured.interval]).all()


def test_a_slice_measures_scenes_where_there_are_some() -> None:
    sample = Sample(Path("scene.jpg"), labels_of([FACE_ID, FACE_ID], [BOX, [60.0, 60.0, 80.0, 80.0]]))
    found = detections_of([BOX], confidence=[0.9])
    scenes = [Outcome(sample, found, Detections.empty((96, 96)))]
    measured = slice_of("blur", match_faces([outcome(3, 3)]), resamples=5, seed=0, scenes=scenes)
    assert measured.face_ap50_32px == pytest.approx(0.995)  # the other face is 20 px high


def test_an_emotion_that_changes_in_the_mirror_is_counted() -> None:
    faces = match_faces([outcome(3, 3), outcome(3, 3, sure=0.8), outcome(4, 4), outcome(4, None)])
    mirrored = match_faces([outcome(3, 3), outcome(3, 3, sure=0.7), outcome(4, 5), outcome(4, 4)])
    figures = flip_figures(faces, mirrored)
    assert figures["flip_changed"] == pytest.approx(1 / 3)
    assert figures["flip_max_difference"] == pytest.approx(0.84)  # 0.86 and a seventh of 0.14
    assert figures["flip_difference"] == pytest.approx((0 + 0.1 + 0.84) / 3)


def test_without_a_face_in_both_nothing_can_be_compared() -> None:
    assert flip_figures(match_faces([outcome(3, 3)]), match_faces([outcome(3, None)])) == {}
