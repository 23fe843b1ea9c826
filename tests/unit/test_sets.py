"""What `data.dvc` records of each set, and the votes of a set."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from emotion_yolo.data.sets import SetRecord, class_ids, read_class_names, read_sets
from emotion_yolo.data.votes import VOTE_COLUMNS, Votes, read_votes
from emotion_yolo.errors import LayoutError, SourceError
from emotion_yolo.structures.emotions import FACE_ID, Emotion

RECORD = {
    "source": {"kind": "folder", "name": "mine"},
    "card": None,
    "licence": "unknown",
    "digest": "0" * 64,
    "tag": "mine",
    "tags": {"ffhq_": "ffhq"},
    "boxes": "tight",
    "emotions": "named",
    "classes": {"Joy": "happy", "head": "face", "mask": None},
    "dealt": {"valid": 0.1, "test": 0.0, "seed": 0},
    "pictures": {"train": {"happy": 3}},
}


def record(**changes: object) -> SetRecord:
    return SetRecord.model_validate({"name": "mine", **RECORD, **changes})


def pin(folder: Path, meta: object) -> Path:
    path = folder / "data.dvc"
    path.write_text(yaml.safe_dump({"outs": [{"path": "data"}], "meta": meta}))
    return path


def test_reads_every_set_by_name(tmp_path: Path) -> None:
    sets = read_sets(pin(tmp_path, {"sets": {"b": RECORD, "a": RECORD}}))
    assert list(sets) == ["a", "b"]
    assert sets["a"].classes == {"Joy": "happy", "head": "face", "mask": None}
    assert sets["b"].dealt is not None and sets["b"].dealt.valid == 0.1


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, "got no meta.sets"),
        ({"crops": {}}, "got no meta.sets.*emotion-yolo pull"),
        ({"sets": {}}, "got no meta.sets"),
        ({"sets": {"a": "text"}}, r"meta\.sets\.a cannot be read"),
        ({"sets": {"a": {**RECORD, "boxes": "loose"}}}, r"meta\.sets\.a cannot be read.*boxes"),
    ],
)
def test_a_pin_of_an_earlier_version_says_what_to_do(tmp_path: Path, meta: object, message: str) -> None:
    with pytest.raises(LayoutError, match=f"(?s){message}"):
        read_sets(pin(tmp_path, meta))


def test_no_pin_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="run: emotion-yolo pull sample"):
        read_sets(tmp_path / "data.dvc")
    (tmp_path / "data.dvc").write_text("a: [")
    with pytest.raises(LayoutError, match="restore it from git"):
        read_sets(tmp_path / "data.dvc")


def test_class_ids_follow_the_names_of_the_set(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [mask, Joy, head]")
    assert class_ids(record(), tmp_path) == {1: Emotion.HAPPY, 2: FACE_ID}


def test_a_class_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [Joy, Grief]")
    with pytest.raises(LayoutError, match=r"class .Grief. is not in data\.dvc, which has Joy, head, mask"):
        class_ids(record(), tmp_path)


def test_a_file_name_tells_the_source() -> None:
    assert record().source_tag("ffhq_12.jpg") == "ffhq"
    assert record().source_tag("image12.jpg") == "mine"


@pytest.mark.parametrize(
    "text", ["names: [a, b]", "names: {0: a, 1: b}", "names: {'1': b, '0': a}", "\ufeffnames: [a, b]"]
)
def test_reads_class_names_as_a_list_and_as_a_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text, "utf-8")
    assert read_class_names(tmp_path / "data.yaml") == {0: "a", 1: "b"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nc: 8", "got names None"),
        ("names: {0: a, 2: b}", "ids are not 0-1"),
        ("names: {0: a, '0': b}", "ids are not 0-1"),
        ("names: {x: a}", "a key of names is not a number"),
        ("names: a", "got names 'a'"),
        ("- 1", "got names None"),
        ("names: [", "cannot be read as YAML"),
        ("", "got names None"),
    ],
)
def test_says_why_class_names_cannot_be_read(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(LayoutError, match=reason):
        read_class_names(tmp_path / "data.yaml")


def test_a_missing_class_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"data\.yaml: not there"):
        read_class_names(tmp_path / "data.yaml")


def votes(*counts: int) -> Votes:
    return Votes(np.array(counts, np.float64))


def test_votes_become_a_soft_label_of_the_eight() -> None:
    # anger, contempt, disgust, fear, happy, neutral, sad, surprise, unknown, not a face
    some = votes(3, 1, 0, 0, 0, 4, 0, 0, 2, 0)
    assert some.usable
    assert some.soft.tolist() == [0.375, 0.125, 0, 0, 0, 0.5, 0, 0]
    assert some.majority() is Emotion.NEUTRAL


def test_among_equal_votes_the_sets_own_label_decides() -> None:
    equal = votes(4, 0, 0, 0, 4, 2, 0, 0, 0, 0)
    assert equal.majority() is Emotion.ANGER
    assert equal.majority(Emotion.HAPPY) is Emotion.HAPPY
    assert equal.majority(Emotion.NEUTRAL) is Emotion.ANGER


@pytest.mark.parametrize(
    ("counts", "usable"),
    [
        ((0, 0, 0, 0, 5, 0, 0, 0, 3, 2), True),
        ((0, 0, 0, 0, 4, 0, 0, 0, 3, 3), False),
        ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), False),
        ((0, 0, 0, 0, 0, 0, 0, 0, 0, 0), False),
    ],
)
def test_a_picture_that_most_annotators_could_not_name_is_left_out(counts: tuple[int, ...], usable: bool) -> None:
    assert votes(*counts).usable is usable


def test_votes_are_read_by_picture(tmp_path: Path) -> None:
    assert read_votes(tmp_path) == {}
    header = ",".join(("image", *VOTE_COLUMNS))
    (tmp_path / "votes.csv").write_text(f"{header}\nfer0000001,0,0,0,0,1,6,1,1,2,0\n")
    assert read_votes(tmp_path)["fer0000001"].majority() is Emotion.NEUTRAL


def test_votes_in_another_order_are_refused(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("image,neutral\na,1\n")
    with pytest.raises(LayoutError, match="header is image,neutral, expected image,anger,contempt"):
        read_votes(tmp_path)
