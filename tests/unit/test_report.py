import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.metrics import Measured, emotion_rankings
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.evaluation.report import (
    BACKGROUND,
    CORRUPTION_COLUMNS,
    HEIGHT_COLUMNS,
    confusion_rows,
    corruption_rows,
    height_rows,
    pr_rows,
    reliability_rows,
    set_rows,
    write_csv,
    write_json,
)
from emotion_yolo.evaluation.robustness import ConditionMetrics, Robustness
from emotion_yolo.evaluation.summary import SET_COLUMNS
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID
from tests.builders import detections_of, labels_of

BOX = [0.0, 0.0, 64.0, 64.0]
ELSEWHERE = [64.0, 64.0, 96.0, 96.0]


def outcome(name: str, label: int, predicted: int | None, *, sure: float = 0.86, source: str = "") -> Outcome:
    found = (
        Detections.empty((96, 96))
        if predicted is None
        else detections_of([BOX], confidence=[0.9], emotions=[predicted], sure=sure)
    )
    return Outcome(Sample(Path(name), labels_of([label], [BOX]), source=source), found, found)


NAN = float("nan")
SEEN = ConditionMetrics(9, 1.0, 0.5, 0.5, (0.4, 0.6), (0.3, 0.7), 0.25, 0.75)
UNSEEN = ConditionMetrics(9, 0.0, NAN, 0.0, (0.0, 0.0), (NAN, NAN), NAN, 0.0)


def test_json_is_written_a_metric_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"map50": 0.5, "n_crops": 7})
    text = (tmp_path / "m.json").read_text("utf-8")
    assert text == '{\n  "map50": 0.5,\n  "n_crops": 7\n}\n'
    assert json.loads(text) == {"map50": 0.5, "n_crops": 7}


def test_csv_has_short_floats_and_plain_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("a", "b"), [(0.1234567, "x,y")])
    assert (tmp_path / "c.csv").read_bytes() == b'a,b\n0.12346,"x,y"\n'


def test_confusion_names_faces_missed_and_predictions_without_a_face() -> None:
    both = detections_of([BOX, ELSEWHERE], confidence=[0.9, 0.8], emotions=[4, 6])
    outcomes = [
        outcome("a.jpg", 3, 4, source="other"),
        outcome("b.jpg", 2, None, source="ffhq"),
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


def test_csv_written_here_is_read_by_others(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", ("actual", "predicted"), [("fear", "happy")])
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"actual": "fear", "predicted": "happy"}]


def written(folder: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[dict[str, str]]:
    write_csv(folder / "c.csv", header, rows)
    with (folder / "c.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_was_not_measured_under_a_corruption_is_empty(tmp_path: Path) -> None:
    robustness = Robustness(corruptions={"plain": SEEN, "dark": UNSEEN}, scenes={"plain": 0.9})
    plain, dark = written(tmp_path, CORRUPTION_COLUMNS, corruption_rows(robustness))
    assert plain == {
        "change": "plain", "faces": "9", "found": "1.0", "top1": "0.5", "top1_low": "0.3", "top1_high": "0.7",
        "accuracy": "0.5", "face_ap50_32px": "0.9",
    }  # fmt: skip
    assert (dark["found"], dark["top1"], dark["top1_low"], dark["face_ap50_32px"]) == ("0.0", "", "", "")


def test_heights_are_listed_by_set(tmp_path: Path) -> None:
    robustness = Robustness(heights={("web", 24): UNSEEN, ("web", 500): SEEN})
    low, high = written(tmp_path, HEIGHT_COLUMNS, height_rows(robustness))
    assert (low["set"], low["height"], low["neutral"], low["happy"]) == ("web", "24", "", "0.0")
    assert (high["height"], high["low"], high["accuracy"], high["happy"]) == ("500", "0.4", "0.5", "0.75")


def test_sets_have_a_column_for_every_metric_and_leave_empty_what_they_lack(tmp_path: Path) -> None:
    sets = {
        "votes": Measured({"n_faces": 3, "votes_accuracy": 0.7}, {}),
        "scenes": Measured({"face_ap50_32px": 0.9}, {}),
    }
    votes, scenes = written(tmp_path, ("set", *SET_COLUMNS), set_rows(sets))
    assert (votes["set"], votes["n_faces"], votes["votes_accuracy"], votes["face_ap50_32px"]) == (
        "votes",
        "3",
        "0.7",
        "",
    )
    assert (scenes["votes_accuracy"], scenes["face_ap50_32px"]) == ("", "0.9")


def test_without_named_faces_there_is_no_precision_recall_curve() -> None:
    assert pr_rows([]) == []
