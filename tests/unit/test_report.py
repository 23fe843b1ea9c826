import csv
import json
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.figures import Outcome, Slice, match_faces
from emotion_yolo.evaluation.metrics import emotion_rankings
from emotion_yolo.evaluation.report import (
    BACKGROUND,
    SLICE_COLUMNS,
    answer_tile,
    confusion_rows,
    metrics_table,
    mistake_tile,
    pr_rows,
    reliability_rows,
    rounded,
    slice_rows,
    worst_mistakes,
    write_csv,
    write_json,
)
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID
from tests.builders import COLOURS, detections_of, labels_of, painted, painted_labels, save_picture

BOX = [0.0, 0.0, 64.0, 64.0]
ELSEWHERE = [64.0, 64.0, 96.0, 96.0]


def outcome(name: str, truth: int, said: int | None, *, sure: float = 0.86, box: list[float] = BOX) -> Outcome:
    found = (
        Detections.empty((96, 96))
        if said is None
        else detections_of([box], confidence=[0.9], emotions=[said], sure=sure)
    )
    sample = Sample(Path(name), labels_of([truth], [BOX]), source="ffhq" if name.startswith("ffhq_") else "other")
    return Outcome(sample, found, found)


def scene(name: str, *boxes: list[float], wh: tuple[int, int] = (96, 96)) -> Outcome:
    sample = Sample(Path(name), labels_of([FACE_ID] * len(boxes), boxes, image_wh=wh))
    return Outcome(sample, Detections.empty(wh), Detections.empty(wh))


def worst(crops: list[Outcome], scenes: list[Outcome], count: int) -> list[str]:
    mistakes = worst_mistakes(crops, match_faces(crops), scenes, match_faces(scenes), count=count)
    return [mistake.outcome.sample.image.name for mistake in mistakes]


def test_figures_are_rounded_counts_stay_whole_and_what_is_not_there_goes() -> None:
    assert rounded({"map50": np.float64(0.123456789), "n_crops": 7, "top1_ffhq": float("nan")}) == {
        "map50": 0.12346,
        "n_crops": 7,
    }


def test_json_is_written_a_figure_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"map50": 0.5, "n_crops": 7})
    text = (tmp_path / "m.json").read_text("utf-8")
    assert text == '{\n  "map50": 0.5,\n  "n_crops": 7\n}\n'
    assert json.loads(text) == {"map50": 0.5, "n_crops": 7}


def test_csv_has_short_floats_and_plain_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("a", "b"), [(0.1234567, "x,y")])
    assert (tmp_path / "c.csv").read_bytes() == b'a,b\n0.12346,"x,y"\n'


def test_the_table_is_aligned_and_shows_intervals_where_there_are_some() -> None:
    metrics = {"map50": 0.5, "ece": 0.04, "n_crops": 2703, "face_ap50": 0.87, "n_scenes": 190}
    lines = metrics_table(metrics, {"map50": (0.45, 0.55)}).splitlines()
    assert lines[0] == "test crops (2,703)"
    assert lines[1].endswith("0.500  0.450-0.550")
    assert lines[2].endswith("0.040")
    assert lines[3] == "test scenes (190)"
    assert lines[1].index("0.500") == lines[2].index("0.040") == lines[4].index("0.870")


def test_the_table_has_no_scenes_where_there_are_none() -> None:
    assert "scenes" not in metrics_table({"map50": 0.5, "n_crops": 3})


def test_confusion_names_faces_missed_and_answers_without_a_face() -> None:
    both = detections_of([BOX, ELSEWHERE], confidence=[0.9, 0.8], emotions=[4, 6])
    outcomes = [
        outcome("a.jpg", 3, 4),
        outcome("ffhq_b.jpg", 2, None),
        Outcome(Sample(Path("c.jpg"), labels_of([FACE_ID], [BOX]), source="other"), both, both),
    ]
    rows = confusion_rows(outcomes, match_faces(outcomes))
    assert rows == [
        ("fear", "happy", "other"),
        ("disgust", BACKGROUND, "ffhq"),
        (BACKGROUND, "sad", "other"),
    ]


def test_the_precision_recall_table_has_a_column_an_emotion() -> None:
    outcomes = [outcome("a.jpg", 3, 3), outcome("b.jpg", 3, None)]
    rows = pr_rows(emotion_rankings([(o.candidates, o.sample.labels) for o in outcomes], conf=0.001))
    assert [row[0] for row in rows] == pytest.approx(np.linspace(0, 1, 101))
    assert {len(row) for row in rows} == {9}
    assert [row[4] for row in rows] == [1.0] * 50 + [0.0] * 51  # fear: one of two faces, found at once
    assert [row[1] for row in rows] == [0.0] * 101


def test_the_reliability_table_leaves_unknown_and_missed_faces_out() -> None:
    outcomes = [outcome("a.jpg", 3, 3), outcome("b.jpg", 3, 4), outcome("c.jpg", FACE_ID, 4), outcome("d.jpg", 2, None)]
    ((probability, accuracy, faces),) = reliability_rows(match_faces(outcomes))
    assert (probability, accuracy, faces) == (pytest.approx(0.86), 0.5, 2)


def test_the_surest_wrong_emotions_come_first() -> None:
    crops = [
        outcome("a.jpg", 3, 4, sure=0.5),
        outcome("b.jpg", 3, 4, sure=0.9),
        outcome("right.jpg", 3, 3, sure=0.99),
        outcome("unknown.jpg", FACE_ID, 4, sure=0.99),
    ]
    assert worst(crops, [], 10) == ["b.jpg", "a.jpg"]
    assert worst(crops, [], 1) == ["b.jpg"]


def test_a_third_of_the_places_is_for_the_largest_faces_missed() -> None:
    crops = [outcome(f"{i}.jpg", 3, 4, sure=0.9 - i / 100) for i in range(6)]
    scenes = [scene("small.jpg", [0, 0, 40, 40]), scene("large.jpg", [0, 0, 90, 90]), scene("tiny.jpg", [0, 0, 20, 20])]
    assert worst(crops, scenes, 3) == ["0.jpg", "1.jpg", "large.jpg"]
    assert worst(crops, scenes, 6) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "large.jpg", "small.jpg"]


def test_missed_faces_take_places_that_wrong_emotions_leave_free() -> None:
    scenes = [scene("a.jpg", [0, 0, 40, 40], [40, 40, 90, 90])]
    assert worst([outcome("wrong.jpg", 3, 4)], scenes, 3) == ["wrong.jpg", "a.jpg", "a.jpg"]


def test_wrong_emotions_take_places_that_missed_faces_leave_free() -> None:
    crops = [outcome(f"{i}.jpg", 3, 4) for i in range(5)]
    assert worst(crops, [], 4) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_no_places_no_mistakes() -> None:
    assert worst([outcome("a.jpg", 3, 4)], [scene("b.jpg", BOX)], 0) == []


def test_a_mistake_is_shown_with_truth_and_answer(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", painted({(0, 0): 4, (1, 0): 4, (0, 1): 4, (1, 1): 4}))
    found = detections_of([BOX], confidence=[0.9], emotions=[6])
    crops = [Outcome(Sample(path, labels_of([4], [BOX])), found, found)]
    (mistake,) = worst_mistakes(crops, match_faces(crops), [], match_faces([]), count=5)
    tile = mistake_tile(mistake)
    assert tile.caption == ("truth: happy", "said sad 86%", "a.png")
    assert max(tile.image.shape) == 320
    assert tuple(tile.image[100, 100]) == COLOURS[4]


def test_a_missed_face_is_cut_out_of_its_scene(tmp_path: Path) -> None:
    face = {(20, 10): 2}
    path = save_picture(tmp_path / "scene.png", painted(face, width=1280, height=640))
    labels = painted_labels(face, cls=FACE_ID, image_wh=(1280, 640))
    # 32 px of 1,280 are 16 of 640: too small to show; so look at it directly.
    large = labels_of([FACE_ID], [[608, 288, 704, 384]], image_wh=(1280, 640))
    scenes = [
        Outcome(Sample(path, of), Detections.empty((1280, 640)), Detections.empty((1280, 640)))
        for of in (labels, large)
    ]
    (mistake,) = worst_mistakes([], match_faces([]), scenes, match_faces(scenes), count=5)
    tile = mistake_tile(mistake)
    assert tile.caption == ("truth: face", "not found", "scene.png")
    middle = tile.image[tile.image.shape[0] // 2, tile.image.shape[1] // 2]
    assert np.abs(middle.astype(int) - COLOURS[2]).max() < 40
    assert tile.image.shape[0] == pytest.approx(320, abs=2)


def test_an_answer_is_shown_with_the_truth(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", painted({(0, 0): 4}))
    found = detections_of([[0, 0, 32, 32]], confidence=[0.9], emotions=[4])
    named = answer_tile(Outcome(Sample(path, painted_labels({(0, 0): 4})), found, found), side=400)
    assert named.caption == ("a.png", "truth: happy")
    unknown = answer_tile(Outcome(Sample(path, painted_labels({(0, 0): 4}, cls=FACE_ID)), found, found), side=400)
    assert named.image.shape == (400, 400, 3)
    assert unknown.caption == ("a.png", "1 faces")
    assert np.array_equal(named.image, unknown.image)


def test_what_was_not_measured_of_a_change_is_empty() -> None:
    nan = float("nan")
    rows = slice_rows(
        [Slice("plain", 9, 1.0, 0.5, (0.4, 0.6), 0.5, 0.9), Slice("face_24px", 9, 0.0, nan, (nan, nan), 0.0, nan)]
    )
    assert rows == [("plain", 9, 1.0, 0.5, 0.4, 0.6, 0.5, 0.9), ("face_24px", 9, 0.0, "", "", "", 0.0, "")]
    assert {len(row) for row in rows} == {len(SLICE_COLUMNS)}


def test_csv_written_here_is_read_by_others(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("actual", "predicted"), [("fear", "happy")])
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"actual": "fear", "predicted": "happy"}]
