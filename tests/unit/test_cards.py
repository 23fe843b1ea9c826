from pathlib import Path

import pytest

from emotion_yolo.data.cards import SPLITS, load_card
from emotion_yolo.data.taxonomy import target_of
from emotion_yolo.errors import LayoutError

FOLDER = Path(__file__).parents[2] / "configs" / "datasets"
SHIPPED = sorted(FOLDER.glob("*.yaml"))

TEXT = """\
name: tiny
title: Tiny
origin: here
licence: CC0
citation: none
classes: [Anger, Sad]
"""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_card_loads_and_is_named_like_its_file(path: Path) -> None:
    card = load_card(path)
    assert card.name == path.stem
    assert all(target_of(name) or name in card.map for name in card.classes)
    for counts in (card.counts or {}).values():
        assert set(counts) <= set(card.classes)


def test_the_card_of_affectnet_pins_its_version_and_counts() -> None:
    card = load_card(FOLDER / "affectnet.yaml")
    assert card.kaggle
    assert "/versions/" in card.kaggle
    assert card.counts
    assert {split: sum(card.counts[split].values()) for split in SPLITS} == {
        "train": 17101,
        "valid": 2703,
        "test": 2703,
    }


def test_a_card_needs_neither_an_archive_nor_counts(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT)
    card = load_card(tmp_path / "tiny.yaml")
    assert card.classes == ("Anger", "Sad")
    assert (card.kaggle, card.archive_bytes, card.counts) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "licens: typo\n", "licens"),
        (TEXT.replace("origin: here\n", ""), "origin"),
        (TEXT + "boxes: loose\n", "boxes"),
        (TEXT + "map: {Anger: rage}\n", "'rage' is no class; expected one of anger"),
        (TEXT + "groups: '^[a-z]+'\n", "has no group or several; expected one"),
        (TEXT + "deal: {valid: 0.7}\n", r"deal\.valid"),
        (TEXT.replace("[Anger, Sad]", "[]"), "classes"),
        (TEXT + "counts: {val: {Anger: 1}}\n", "counts"),
        ("name: [", "not a dataset card"),
        ("", "not a dataset card"),
    ],
)
def test_a_card_with_a_mistake_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tiny.yaml").write_text(text)
    with pytest.raises(LayoutError, match=message) as caught:
        load_card(tmp_path / "tiny.yaml")
    assert str(tmp_path / "tiny.yaml") in str(caught.value)


def test_a_card_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(LayoutError, match="not a dataset card"):
        load_card(tmp_path / "tiny.yaml")


def test_a_card_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"nothing\.yaml: no dataset card there \(No such file"):
        load_card(tmp_path / "nothing.yaml")
