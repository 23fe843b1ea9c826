import io
import os
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from emotion_yolo.data.cards import SPLITS
from emotion_yolo.data.sets import SetRecord
from emotion_yolo.errors import DataError, ImageError, LayoutError
from emotion_yolo.imaging import read_rgb
from emotion_yolo.preparation.checks import Scan, scan, stop_if_untrainable
from emotion_yolo.structures.emotions import NAMES
from tests.builders import set_record

FULL = "0.5 0.5 1 1"
REPORT = Path("reports/findings.txt")


def picture(seed: int, *, wh: tuple[int, int] = (48, 48)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(noise).resize(wh, Image.Resampling.BICUBIC)


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG")
    return buffer.getvalue()


def record(**changes: object) -> SetRecord:
    return set_record("tiny", **{"classes": {"Anger": "anger", "Sad": "sad"}, **changes})


SCENES = record(boxes="tight", emotions="unnamed", classes={"face": "face"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A good set of crops: three pictures a split, of other names in each."""
    folder = tmp_path / "raw"
    for number, split in enumerate(SPLITS):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(3):
            (folder / split / "images" / f"{split}{i}.jpg").write_bytes(jpeg(10 * number + i))
            (folder / split / "labels" / f"{split}{i}.txt").write_text(f"{i % 2} {FULL}\n")
    (folder / "data.yaml").write_text("nc: 2\nnames: [Anger, Sad]\n")
    return folder


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two photographs, one with two faces and one with none."""
    folder = tmp_path / "scenes"
    for kind in ("images", "labels"):
        (folder / "all" / kind).mkdir(parents=True)
    (folder / "data.yaml").write_text("names: {0: face}\n")
    for i, text in enumerate((f"0 {FULL}\n0 0.2 0.2 0.1 0.1\n", "")):
        (folder / "all/images" / f"{i}.jpg").write_bytes(jpeg(i))
        (folder / "all/labels" / f"{i}.txt").write_text(text)
    return folder


def look(root: Path, record: SetRecord = record(), workers: int = 1) -> Scan:  # noqa: B008 - frozen
    return scan(root, record=record, workers=workers)


def codes(found: Scan) -> dict[str, str]:
    return {finding.where: finding.code for finding in found.findings}


def test_takes_a_good_set_without_a_finding(root: Path) -> None:
    found = look(root)
    assert [record.name for record in found.records] == [f"tiny/{s}/{s}{i}.jpg" for s in SPLITS for i in range(3)]
    assert not found.findings
    assert not found.quarantined
    assert found.counts == {split: {"anger": 2, "sad": 1} for split in SPLITS}
    stop_if_untrainable(found, report=REPORT)


def test_a_record_holds_what_later_steps_need(root: Path) -> None:
    Image.new("L", (30, 20), 200).save(root / "train/images/train0.jpg")
    record = look(root).records[1]
    path = root / "train/images/train1.jpg"
    assert record.image == path.resolve()
    assert record.labels.cls.tolist() == [NAMES.index("sad")]
    assert record.image_wh == (48, 48)
    with Image.open(path) as image:
        assert record.phash == int(str(imagehash.phash(image)), 16)
        grey = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    assert record.thumb == grey.tobytes()
    assert record.phash_mirrored == int(str(imagehash.phash(ImageOps.mirror(grey))), 16)
    assert look(root).records[0].image_wh == (30, 20)


def test_turns_a_picture_as_its_exif_says(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    picture(1, wh=(40, 24)).save(root / "train/images/train0.jpg", exif=exif)
    assert look(root).records[0].image_wh == (24, 40)


def test_never_writes_into_the_raw_folder(root: Path) -> None:
    (root / "train/images/train0.jpg").write_bytes(jpeg(0)[:-40])

    def state() -> dict[Path, tuple[int, bytes]]:
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}

    before = state()
    look(root)
    assert state() == before


def test_reports_all_findings_at_once_and_quarantines_their_pictures(root: Path) -> None:
    train = root / "train"
    extra = {
        "cut": (jpeg(50)[:-40], f"0 {FULL}\n"),
        "words": (jpeg(51), f"0 {FULL}\n\nangry 0.5 0.5 1 1\n"),
        "class": (jpeg(52), f"2 {FULL}\n"),
        "outside": (jpeg(53), "0 0.9 0.5 0.5 0.5\n"),
        "flat": (jpeg(54), "0 0.5 0.5 0 0.5\n"),
        "empty": (jpeg(55), "\n"),
        "two": (jpeg(56), f"0 {FULL}\n1 {FULL}\n"),
        "text": (b"not a picture", f"0 {FULL}\n"),
    }
    for name, (data, text) in extra.items():
        (train / "images" / f"{name}.jpg").write_bytes(data)
        (train / "labels" / f"{name}.txt").write_text(text)
    (train / "images" / "alone.jpg").write_bytes(jpeg(57))
    (train / "labels" / "ghost.txt").write_text(f"0 {FULL}\n")
    (train / "labels" / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (train / "images" / "binary.jpg").write_bytes(jpeg(58))
    (train / "images" / "notes.md").write_text("…")

    found = look(root)
    assert codes(found) == {
        "train/images/alone.jpg": "missing_label",
        "train/images/cut.jpg": "unreadable_image",
        "train/images/notes.md": "stray_file",
        "train/images/text.jpg": "unreadable_image",
        "train/labels/binary.txt": "unreadable_label",
        "train/labels/class.txt:1": "class_out_of_range",
        "train/labels/empty.txt": "empty_label",
        "train/labels/flat.txt:1": "degenerate_box",
        "train/labels/ghost.txt": "orphan_label",
        "train/labels/outside.txt:1": "box_out_of_bounds",
        "train/labels/two.txt": "several_faces",
        "train/labels/words.txt:3": "malformed",
    }
    assert list(codes(found)) == sorted(codes(found))
    assert set(found.quarantined) == {f"train/images/{name}.jpg" for name in (*extra, "alone", "binary")}
    assert "truncated" in found.quarantined["train/images/cut.jpg"]
    assert "class id 2 is not in 0-1" in found.quarantined["train/images/class.jpg"]
    assert len(found.records) == 9


def test_sorts_findings_of_a_file_by_line_number(root: Path) -> None:
    (root / "train/labels/train0.txt").write_text("x\n" * 11)
    lines = [finding.where.rpartition(":")[2] for finding in look(root).findings]
    assert lines == [str(number) for number in range(1, 12)]


def test_passes_over_what_desktops_and_ultralytics_leave(root: Path) -> None:
    (root / "train/images/.DS_Store").write_bytes(b"")
    (root / "train/labels/labels.cache").write_bytes(b"")
    assert not look(root).findings


def test_quarantines_pictures_that_share_a_label_file(root: Path) -> None:
    picture(70).save(root / "train/images/train1.PNG")
    found = look(root)
    assert codes(found) == {f"train/images/train1.{end}": "shared_label" for end in ("PNG", "jpg")}
    assert set(found.quarantined) == set(codes(found))
    assert found.counts["train"] == {"anger": 2, "sad": 0}


def test_quarantines_a_picture_too_small_to_train_on(root: Path) -> None:
    picture(1, wh=(96, 9)).save(root / "train/images/train0.jpg")
    (finding,) = look(root).findings
    assert finding.code == "unreadable_image"
    assert "96×9 px; expected at least 10 a side" in finding.message


def test_quarantines_a_picture_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "train0.jpg":  # chmod does not stop root, who runs tests in a container
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (finding,) = look(root).findings
    assert str(finding) == "train/images/train0.jpg: cannot be read (Permission denied); restore it"


def test_takes_labels_with_a_byte_order_mark(root: Path) -> None:
    (root / "train/labels/train0.txt").write_bytes(b"\xef\xbb\xbf" + f"0 {FULL}\r\n".encode())
    assert not look(root).findings


def test_counts_names_that_recur_across_splits_in_one_finding(root: Path) -> None:
    for name in ("train0", "train1"):
        (root / "test/images" / f"{name}.jpg").write_bytes(jpeg(80))
        (root / "test/labels" / f"{name}.txt").write_text(f"0 {FULL}\n")
    found = look(root)
    (finding,) = found.findings
    assert finding.code == "recurring_names"
    assert finding.message.startswith("2 file names in more than one split, train0.jpg for one")
    assert len(found.records) == 11


def test_gives_the_same_answer_for_any_number_of_processes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_yolo.pools._PAYS_FROM", 1)
    (root / "valid/images/valid1.jpg").write_bytes(b"")

    def answer(workers: int) -> list[object]:
        found = look(root, workers=workers)
        records = [(r.name, r.image, r.sha256, r.phash, r.thumb, r.labels.xywhn.tolist()) for r in found.records]
        return [records, found.findings, found.quarantined, found.counts]

    assert answer(1) == answer(2)


def test_tells_how_far_it_is(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    scan(root, record=record(), workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]


@pytest.mark.parametrize(
    "table",
    [
        "names: [Anger, Sad]",
        "names: {0: Anger, 1: Sad}",
        "\ufeffnames:\n- Anger\n- Sad\n",
    ],
)
def test_takes_a_class_table_as_ultralytics_writes_it(root: Path, table: str) -> None:
    (root / "data.yaml").write_text(table, "utf-8")
    assert look(root).counts["train"] == {"anger": 2, "sad": 1}


def test_class_ids_go_by_name_whatever_their_order(root: Path) -> None:
    (root / "data.yaml").write_text("names: [Sad, Anger]")
    found = look(root)
    assert found.counts["train"] == {"anger": 1, "sad": 2}
    assert [int(record.labels.cls[0]) for record in found.records[:2]] == [NAMES.index("sad"), NAMES.index("anger")]


@pytest.mark.parametrize("table", ["names: [Anger, Joy]", "names: {1: Anger, 2: Sad}", "nc: 2", "[]", ""])
def test_stops_at_another_class_table(root: Path, table: str) -> None:
    (root / "data.yaml").write_text(table)
    with pytest.raises(LayoutError, match=r"data\.yaml: "):
        look(root)


def test_labels_of_an_ignored_class_are_left_out_without_a_finding(root: Path) -> None:
    found = look(root, record(classes={"Anger": "anger", "Sad": None}))
    assert found.ignored == tuple(f"{split}/images/{split}1.jpg" for split in SPLITS)
    assert found.counts == {split: {"anger": 2} for split in SPLITS}
    assert not found.findings
    stop_if_untrainable(found, report=REPORT)


def test_votes_become_soft_labels_and_their_majority_the_class(root: Path) -> None:
    header = "image,anger,contempt,disgust,fear,happy,neutral,sad,surprise,unknown,not_a_face"
    rows = ["train0,1,0,0,0,0,2,7,0,0,0", "train1,0,0,0,0,1,0,3,0,6,0", "train2,5,0,0,0,0,0,5,0,0,0"]
    (root / "votes.csv").write_text("\n".join([header, *rows]) + "\n")
    found = look(root, record(emotions="votes"))
    train = [r for r in found.records if r.split == "train"]
    assert found.ignored == ("train/images/train1.jpg",)
    # Most votes for the first; among equals the third keeps its own label.
    assert [NAMES[r.labels.cls[0]] for r in train] == ["sad", "anger"]
    assert train[0].soft is not None
    np.testing.assert_allclose(train[0].soft[0], [0.1, 0, 0, 0, 0, 0.2, 0.7, 0], atol=1e-6)
    assert [r.soft for r in found.records if r.split == "valid"] == [None] * 3


def test_pictures_lie_in_folders_of_any_depth(root: Path) -> None:
    for kind in ("images", "labels"):
        (root / "train" / kind / "a/b").mkdir(parents=True)
    (root / "train/images/a/b/train0.jpg").write_bytes(jpeg(90))
    (root / "train/labels/a/b/train0.txt").write_text(f"1 {FULL}\n")
    found = look(root)
    assert not found.findings
    assert found.counts["train"] == {"anger": 2, "sad": 2}


def test_a_record_knows_its_set_and_its_source(root: Path) -> None:
    found = look(root, record(tag="others", tags={"train0": "first"}))
    assert [(r.set, r.source) for r in found.records[:2]] == [("tiny", "first"), ("tiny", "others")]


def test_stops_without_a_class_table(root: Path) -> None:
    (root / "data.yaml").unlink()
    with pytest.raises(LayoutError, match=r"data\.yaml: not there"):
        look(root)


@pytest.mark.parametrize("data", [b"names: [", b"names: \xff"])
def test_stops_at_a_class_table_that_is_no_yaml(root: Path, data: bytes) -> None:
    (root / "data.yaml").write_bytes(data)
    with pytest.raises(LayoutError, match=r"data\.yaml: cannot be read as YAML"):
        look(root)


def test_stops_at_another_layout_and_says_what_is_there(root: Path) -> None:
    (root / "train/labels").rename(root / "train/texts")
    with pytest.raises(LayoutError) as caught:
        look(root)
    assert "got data.yaml, test, train, valid, expected the folders train/labels" in str(caught.value)
    (root / "train").rename(root / "training")
    with pytest.raises(LayoutError, match=r"got .*training.*, expected the folders train/images and train/labels, or"):
        look(root)


def test_stops_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"data\.yaml: not there"):
        look(tmp_path / "nowhere", SCENES)


def test_scenes_are_all_train_and_may_hold_no_face(scenes: Path) -> None:
    found = look(scenes, SCENES)
    assert [(record.name, len(record.labels)) for record in found.records] == [
        ("tiny/train/0.jpg", 2),
        ("tiny/train/1.jpg", 0),
    ]
    assert not found.findings
    assert found.counts == {"train": {"face": 1}}
    stop_if_untrainable(found, report=REPORT)


def test_a_scene_without_a_label_file_is_quarantined(scenes: Path) -> None:
    (scenes / "all/labels/1.txt").unlink()
    found = look(scenes, SCENES)
    assert list(found.quarantined) == ["all/images/1.jpg"]
    stop_if_untrainable(found, report=REPORT)


def test_stops_when_more_than_half_of_a_split_is_left_out(root: Path) -> None:
    for i in range(2):
        (root / f"test/labels/test{i}.txt").write_text("x\n")
    found = look(root)
    with pytest.raises(DataError) as caught:
        stop_if_untrainable(found, report=REPORT)
    message = str(caught.value)
    assert f"{root / 'test'}: 2 of 3 pictures cannot be used; expected at most half" in message
    assert "test/labels/test1.txt:1: got 1 fields" in message
    assert "train" not in message.replace(str(root), "")


def test_goes_on_when_half_of_a_split_is_left_out(root: Path) -> None:
    (root / "test/labels/test0.txt").write_text("x\n")
    (root / "test/labels/test1.txt").unlink()
    (root / "test/images/test1.jpg").unlink()
    stop_if_untrainable(look(root), report=REPORT)


def test_stops_at_a_split_without_pictures(root: Path) -> None:
    for path in (root / "valid").rglob("*.*"):
        path.unlink()
    with pytest.raises(DataError, match="valid: no picture there"):
        stop_if_untrainable(look(root), report=REPORT)


def test_stops_when_no_scene_holds_a_face(scenes: Path) -> None:
    (scenes / "all/labels/0.txt").write_text("")
    with pytest.raises(DataError, match="no label in any of 2 pictures"):
        stop_if_untrainable(look(scenes, SCENES), report=REPORT)


def test_stops_when_most_scenes_cannot_be_used(scenes: Path) -> None:
    for path in (scenes / "all/images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="2 of 2 pictures cannot be used"):
        stop_if_untrainable(look(scenes, SCENES), report=REPORT)


def test_lists_twenty_findings_and_says_where_the_others_are(root: Path) -> None:
    (root / "test/labels/test0.txt").write_text("x\n" * 25)
    (root / "test/labels/test1.txt").write_text("x\n")
    with pytest.raises(DataError) as caught:
        stop_if_untrainable(look(root), report=REPORT)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == f"  and 6 more; all in {REPORT}"


@pytest.mark.parametrize("kind", ["jpeg cut at 35 %", "jpeg cut and closed", "png without its end"])
def test_quarantines_what_the_decoder_refuses_later(root: Path, kind: str) -> None:
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    files = {
        "jpeg cut at 35 %": jpeg(0)[: len(jpeg(0)) * 35 // 100],
        "jpeg cut and closed": jpeg(0)[:-60] + b"\xff\xd9",
        "png without its end": buffer.getvalue()[:-12],
    }
    path = root / "train/images/train0.jpg"
    path.write_bytes(files[kind])
    (finding,) = look(root).findings
    assert finding.code == "unreadable_image"
    assert "truncated" in finding.message
    with pytest.raises(ImageError, match="truncated"):
        read_rgb(path)


def test_takes_a_picture_whose_name_is_not_utf_8(root: Path) -> None:
    folder = os.fsencode(root / "train")
    for kind, end, data in (("images", b"png", jpeg(90)), ("labels", b"txt", f"0 {FULL}\n".encode())):
        Path(os.fsdecode(folder + b"/" + kind.encode() + b"/caf\xe9." + end)).write_bytes(data)
    assert len(look(root).records) == 10
