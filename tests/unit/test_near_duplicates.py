import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from emotion_yolo.data.cards import SPLITS
from emotion_yolo.preparation.checks import Record, scan
from emotion_yolo.preparation.near_duplicates import NearDuplicateReport, resolve_near_duplicates
from emotion_yolo.structures.labels import Labels
from tests.builders import set_record


def photo(seed: int) -> Image.Image:
    """Draw a picture with the smooth light and the coarse detail of a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)


def encode(image: Image.Image, *, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def records(root: Path, pictures: Mapping[str, tuple[bytes, int]]) -> tuple[Record, ...]:
    """Write pictures, by `split/name` with their class ids, as a raw set, and read them back."""
    for split in SPLITS:
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
    (root / "data.yaml").write_text("names: [Anger, Sad, Fear]\n")
    for name, (data, cls) in pictures.items():
        split, stem = name.split("/")
        (root / split / "images" / f"{stem}.jpg").write_bytes(data)
        (root / split / "labels" / f"{stem}.txt").write_text(f"{cls} 0.5 0.5 1 1\n")
    classes = {"Anger": "anger", "Sad": "sad", "Fear": "fear"}
    found = scan(root, record=set_record("tiny", classes=classes), workers=1)
    return tuple(replace(record, set="") for record in found.records)


def resolve(
    root: Path, pictures: Mapping[str, bytes | tuple[bytes, int]], *, distance: int = 12
) -> NearDuplicateReport:
    labelled = {name: item if isinstance(item, tuple) else (item, 0) for name, item in pictures.items()}
    return resolve_near_duplicates(records(root, labelled), distance=distance)


def kept(report: NearDuplicateReport) -> set[str]:
    return {record.name.removesuffix(".jpg") for record in report.kept}


def shift(image: Image.Image, pixels: int) -> Image.Image:
    return image.crop((pixels, pixels, 96, 96)).resize((96, 96), Image.Resampling.BICUBIC)


def caption(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).text((4, 82), "monday again", fill="white")
    return copy


VARIANTS = {
    "compressed": lambda image: image,
    "scaled": lambda image: image.resize((64, 64)),
    "darker": lambda image: image.point(lambda v: int(v * 0.6)),
    "grey": ImageOps.grayscale,
    "captioned": caption,
    "mirrored": ImageOps.mirror,
    "shifted": lambda image: shift(image, 1),
}


def test_pictures_without_near_duplicates_all_stay(tmp_path: Path) -> None:
    report = resolve(tmp_path, {f"{split}/{i}": encode(photo(hash_)) for hash_, (split, i) in enumerate(
        (split, i) for split in SPLITS for i in range(4))})  # fmt: skip
    assert len(report.kept) == 12
    assert not report.dropped
    assert not any(report.counts.values())


def test_no_pictures_have_no_near_duplicates() -> None:
    report = resolve_near_duplicates([], distance=6)
    assert report.kept == ()
    assert not any(report.counts.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_of_a_test_picture_does_not_stay_in_train(tmp_path: Path, variant: str) -> None:
    copy = encode(VARIANTS[variant](photo(1)), quality=40)
    report = resolve(tmp_path, {"test/a": encode(photo(1)), "train/b": copy, "train/c": encode(photo(2))})
    assert kept(report) == {"test/a", "train/c"}
    reason = report.dropped["train/b.jpg"]
    assert reason.startswith(
        "near-duplicate of test/a.jpg (" + ("mirrored, " if variant == "mirrored" else "") + "distance "
    )
    assert report.counts["near_pairs_mirrored"] == (variant == "mirrored")
    assert report.counts["near_groups_across_splits"] == 1
    assert report.counts["test_with_near_duplicate_in_train"] == 1
    assert report.counts["dropped_train"] == 1


def test_test_goes_before_valid_and_valid_before_train(tmp_path: Path) -> None:
    pictures = {
        "train/a": encode(photo(1)),
        "valid/a": encode(photo(1), quality=50),
        "test/a": encode(photo(1), quality=40),
        "train/b": encode(photo(2)),
        "valid/b": encode(photo(2), quality=50),
    }
    report = resolve(tmp_path, pictures)
    assert kept(report) == {"test/a", "valid/b"}
    assert report.counts["test_with_near_duplicate_in_valid"] == 1
    assert report.counts["valid_with_near_duplicate_in_train"] == 2
    assert (report.counts["dropped_train"], report.counts["dropped_valid"], report.counts["dropped_test"]) == (2, 1, 0)


def test_near_duplicates_within_a_split_stay(tmp_path: Path) -> None:
    pictures = {
        f"{split}/{quality}": encode(photo(i), quality=quality)
        for i, split in enumerate(SPLITS)
        for quality in (90, 50)
    }
    report = resolve(tmp_path, pictures)
    assert not report.dropped
    assert report.counts["near_groups"] == 3
    assert report.counts["near_groups_across_splits"] == 0


@pytest.mark.parametrize("split", SPLITS)
def test_of_identical_files_in_a_split_the_first_stays(tmp_path: Path, split: str) -> None:
    report = resolve(tmp_path, {f"{split}/{name}": encode(photo(1)) for name in "abc"})
    assert kept(report) == {f"{split}/a"}
    assert report.dropped == {f"{split}/{name}.jpg": f"byte-identical to {split}/a.jpg" for name in "bc"}
    assert report.counts["exact_groups"] == 1
    assert report.counts["largest_group"] == 3


def test_identical_files_with_contradicting_labels_all_leave_train(tmp_path: Path) -> None:
    report = resolve(tmp_path, {"train/a": (encode(photo(1)), 0), "train/b": (encode(photo(1)), 1)})
    assert not report.kept
    assert report.dropped == {
        "train/a.jpg": "byte-identical to train/b.jpg, with another label",
        "train/b.jpg": "byte-identical to train/a.jpg, with another label",
    }
    assert report.counts["exact_groups_contradicting"] == 1


@pytest.mark.parametrize("split", ["valid", "test"])
def test_of_identical_files_with_contradicting_labels_one_stays_where_it_is_measured(
    tmp_path: Path, split: str
) -> None:
    report = resolve(tmp_path, {f"{split}/a": (encode(photo(1)), 0), f"{split}/b": (encode(photo(1)), 1)})
    assert kept(report) == {f"{split}/a"}


def test_an_identical_file_leaves_the_less_protected_split(tmp_path: Path) -> None:
    report = resolve(tmp_path, {f"{split}/a": (encode(photo(1)), cls) for cls, split in enumerate(SPLITS)})
    assert kept(report) == {"test/a"}
    assert report.dropped == {f"{split}/a.jpg": "byte-identical to test/a.jpg" for split in ("train", "valid")}
    assert report.counts["exact_groups_across_splits"] == 1


def test_the_nearest_near_duplicate_is_named(tmp_path: Path) -> None:
    pictures = {
        "test/far": encode(shift(photo(1), 2), quality=30),
        "test/near": encode(photo(1), quality=91),
        "train/a": encode(photo(1)),
    }
    report = resolve(tmp_path, pictures)
    assert report.dropped == {"train/a.jpg": "near-duplicate of test/near.jpg (distance 0)"}
    assert report.counts["near_pairs"] == 3


def record(name: str, *, phash: int, thumb: bytes, mirrored: int | None = None) -> Record:
    """Build a record with hashes of choice; all it lacks is a file."""
    split, file = name.split("/")
    labels = Labels(np.zeros(1, np.int64), np.array([[0.5, 0.5, 1, 1]]))
    mirrored = ~phash & (1 << 64) - 1 if mirrored is None else mirrored
    return Record(split, Path(file), labels, (96, 96), name, phash, mirrored, thumb)  # type: ignore[arg-type]


def thumb(seed: int) -> bytes:
    return photo(seed).convert("L").resize((32, 32)).tobytes()


def test_a_chain_of_near_duplicates_is_resolved_as_one_group() -> None:
    chain = [record(f"train/{i}", phash=(1 << 5 * i) - 1, thumb=thumb(1)) for i in range(3)]
    report = resolve_near_duplicates([*chain, record("test/end", phash=(1 << 15) - 1, thumb=thumb(1))], distance=5)
    assert not any(kept.split == "train" for kept in report.kept)
    assert report.dropped == {
        "train/0": "near-duplicate of train/1 (distance 5), in a chain of near-duplicates with test/end",
        "train/1": "near-duplicate of train/0 (distance 5), in a chain of near-duplicates with test/end",
        "train/2": "near-duplicate of test/end (distance 5)",
    }


def test_portraits_of_two_people_whose_hashes_agree_are_no_near_duplicates() -> None:
    report = resolve_near_duplicates(
        [record("test/a", phash=7, thumb=thumb(1)), record("train/b", phash=7, thumb=thumb(2))], distance=12
    )
    assert not report.dropped


def test_blank_pictures_are_no_near_duplicates() -> None:
    blank = [record(f"{split}/a", phash=0, mirrored=0, thumb=bytes([v]) * 1024) for v, split in enumerate(SPLITS)]
    assert not resolve_near_duplicates(blank, distance=12).dropped


@pytest.mark.parametrize(("distance", "dropped"), [(3, []), (4, ["train/b"])])
def test_the_distance_counts_bits(distance: int, dropped: list[str]) -> None:
    pair = [record("test/a", phash=0, thumb=thumb(1)), record("train/b", phash=0b10111 << 59, thumb=thumb(1))]
    assert list(resolve_near_duplicates(pair, distance=distance).dropped) == dropped


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_yolo.preparation.near_duplicates._BLOCK", 7)
    monkeypatch.setattr("emotion_yolo.preparation.near_duplicates._PART", 2)
    everyone = [record(f"train/{i}", phash=0, mirrored=0, thumb=thumb(i % 3)) for i in range(9)]
    report = resolve_near_duplicates(everyone, distance=0)
    assert report.counts["near_groups"] == 3
    assert report.counts["largest_group"] == 3
    assert report.counts["near_pairs"] - report.counts["near_pairs_mirrored"] == 9


def test_the_order_of_the_pictures_does_not_change_who_is_protected(tmp_path: Path) -> None:
    pictures = {
        "train/a": (encode(photo(1)), 0),
        "test/a": (encode(photo(1), quality=50), 0),
        "valid/b": (encode(photo(2)), 0),
        "train/b": (encode(photo(2), quality=50), 0),
    }
    found = records(tmp_path, pictures)
    report, reverse = resolve_near_duplicates(found, distance=6), resolve_near_duplicates(found[::-1], distance=6)
    assert report.kept == reverse.kept[::-1]
    assert report.dropped == reverse.dropped


def test_the_report_goes_into_json(tmp_path: Path) -> None:
    report = resolve(tmp_path, {"train/a": encode(photo(1)), "test/a": encode(photo(1))}, distance=7)
    answer = json.loads(json.dumps(report.as_dict()))
    assert answer["distance"] == 7
    assert answer["dropped"] == {"train/a.jpg": "byte-identical to test/a.jpg"}
    assert answer["counts"]["dropped_train"] == 1
    assert 0 < answer["min_correlation"] < 1


def test_near_duplicates_are_found_across_sets() -> None:
    one = replace(record("test/a", phash=7, thumb=thumb(1)), set="one")
    two = replace(record("train/b", phash=7, thumb=thumb(1)), set="two")
    report = resolve_near_duplicates([two, one], distance=4)
    assert report.kept == (one,)
    assert report.dropped == {"two/train/b": "near-duplicate of one/test/a (distance 0)"}
