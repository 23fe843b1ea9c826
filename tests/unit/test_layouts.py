"""Every layout that `pull` reads, on small sets drawn for it: what lands, how it is labelled, what is said."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from emotion_yolo.data.cards import load_card
from emotion_yolo.data.sets import class_ids
from emotion_yolo.errors import DataError, LayoutError
from emotion_yolo.sources import Choices, LandedSet
from emotion_yolo.sources.classes import parse_mapping
from emotion_yolo.sources.describing import stage_sets
from emotion_yolo.sources.fetching import Fetched
from emotion_yolo.structures.emotions import FACE_ID, NAMES, Emotion
from emotion_yolo.structures.labels import read
from tests.pull_builders import (
    AFFECTNET_NAMES,
    REPOSITORY,
    RecordedProgress,
    files_of,
    pictures_of,
    write_fer2013,
    write_picture,
    write_scenes,
)

CARDS = {path.stem: load_card(path) for path in (REPOSITORY / "configs/datasets").glob("*.yaml")}
FACES = ((0, "0.3 0.4 0.2 0.3"), (4, "0.7 0.5 0.25 0.4"))
"""Class ids and boxes of the two faces of a photograph."""


def stage(path: Path, out: Path, *, choices: Choices | None = None, archive: bool = False) -> list[LandedSet]:
    """Read a folder or file as `pull` does, without DVC; `archive` as one that was unpacked for it."""
    fetched = Fetched(path, path.name, {"kind": "folder", "name": path.name}, owned=archive, beside=path.parent)
    staged = stage_sets(fetched, out, CARDS, choices or Choices(), linked=False, progress=RecordedProgress())
    return [landed for _, landed in staged]


def stage_one(path: Path, out: Path, *, choices: Choices | None = None, archive: bool = False) -> LandedSet:
    (landed,) = stage(path, out, choices=choices, archive=archive)
    return landed


def write_photographs(
    root: Path,
    *,
    splits: Sequence[str] = ("train", "valid", "test"),
    pattern: str = "{split}/{part}",
    names: Sequence[str] = AFFECTNET_NAMES,
    faces: Sequence[tuple[int, str]] = FACES,
    table: object = None,
    count: int = 3,
) -> Path:
    """Write photographs of several labelled faces, as labelling tools export them."""
    for number, split in enumerate(splits):
        images, labels = (root / pattern.format(split=split, part=part) for part in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            write_picture(images / f"p{i}.png", number * 100 + i)
            (labels / f"p{i}.txt").write_text("".join(f"{cls} {box}\n" for cls, box in faces))
    content = {"names": list(names)} if table is None else table
    (root / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    return root


def labels_of(out: Path, landed: LandedSet, split: str = "train") -> list[list[int]]:
    """Return the class ids of the model for each picture of a split, in the order of the label lines."""
    folder = out / landed.record.name
    ids = class_ids(landed.record, folder)
    names = list(landed.record.classes)
    files = sorted((folder / split / "labels").rglob("*.txt"))
    return [[ids[c] for c in read(f, class_names=names).cls.tolist() if c in ids] for f in files]


class TestYolo:
    def test_photographs_with_several_labelled_faces(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine")
        landed = stage_one(source, tmp_path / "out")
        assert pictures_of(tmp_path / "out/mine") == pictures_of(source)
        assert (landed.record.boxes, landed.record.emotions, landed.record.dealt) == ("tight", "named", None)
        assert landed.record.pictures["train"] == {"anger": 3, "happy": 3}
        assert labels_of(tmp_path / "out", landed) == [[Emotion.ANGER, Emotion.HAPPY]] * 3
        assert "no picture shows contempt, disgust, fear, neutral, sad, surprise" in landed.notes

    @pytest.mark.parametrize("path", [".", None, "absolute", "../mine"])
    @pytest.mark.parametrize("val", ["val", "valid"])
    def test_the_layout_of_ultralytics(self, tmp_path: Path, path: str | None, val: str) -> None:
        root = tmp_path / "mine"
        table = {"train": "images/train", "val": f"images/{val}", "test": "images/test"}
        table |= {"names": dict(enumerate(AFFECTNET_NAMES))}
        if path:
            table["path"] = str(root) if path == "absolute" else path
        write_photographs(root, splits=("train", val, "test"), pattern="{part}/{split}", table=table)
        landed = stage_one(root, tmp_path / "out")
        assert {split: sum(counts.values()) for split, counts in landed.record.pictures.items()} == {
            "train": 6, "valid": 6, "test": 6
        }  # fmt: skip
        assert (landed.found, landed.left_out, landed.record.dealt) == (9, (), None)

    def test_a_data_yaml_beside_its_folder(self, tmp_path: Path) -> None:
        write_photographs(tmp_path / "all/mine", pattern="{part}/{split}")
        (tmp_path / "all/mine/data.yaml").unlink()
        write_photographs(tmp_path / "all/other", pattern="{part}/{split}")
        table = {"path": "mine", "train": "images/train", "val": "images/valid", "names": list(AFFECTNET_NAMES)}
        (tmp_path / "all/mine.yaml").write_text(yaml.safe_dump(table))
        landed = stage_one(tmp_path / "all/mine.yaml", tmp_path / "out")
        assert (landed.found, landed.landed) == (9, 9)

    def test_a_data_yaml_that_names_nothing_that_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("train: nowhere\nval: nowhere\nnames: [Anger]\n")
        with pytest.raises(LayoutError, match=r"a\.yaml: none of the folders and lists it names is there"):
            stage(tmp_path / "a.yaml", tmp_path / "out")

    def test_folders_val_without_test_and_without_a_data_yaml_key(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine", splits=("train", "val"), count=20)
        landed = stage_one(source, tmp_path / "out")
        dealt = landed.record.dealt
        assert dealt is not None
        assert (dealt.valid, dealt.test, dealt.seed) == (0.0, 0.1, 0)
        assert {s: counts["anger"] for s, counts in landed.record.pictures.items()} == {
            "train": 18, "valid": 20, "test": 2
        }  # fmt: skip
        assert any("dealt by groups of near-duplicates, seed 0: test 10%" in line for line in landed.lines())

    def test_lists_of_folders_and_of_pictures(self, tmp_path: Path) -> None:
        root = write_photographs(tmp_path / "mine", splits=("a", "b", "c"), pattern="{split}/{part}")
        (root / "valid.txt").write_text("\ufeff./c/images/p0.png\nc/images/p1.png\r\n\nc/images/gone.png\n")
        (root / "test.txt").write_text(f"{root / 'c/images/p2.png'}\n")
        table = {"train": ["a/images", "b/images"], "val": "valid.txt", "test": "test.txt"}
        (root / "data.yaml").write_text(yaml.safe_dump({**table, "names": list(AFFECTNET_NAMES)}))
        landed = stage_one(root, tmp_path / "out")
        assert {s: counts["anger"] for s, counts in landed.record.pictures.items()} == {
            "train": 6, "valid": 2, "test": 1
        }  # fmt: skip
        assert landed.left_out == (("valid.txt:4", "c/images/gone.png is not there; restore it or drop the line"),)
        assert landed.found == 10  # 9 pictures and the one that is not there
        trained = {name for name in files_of(tmp_path / "out/mine") if name.startswith("train/images")}
        assert len(trained) == 6  # pictures of the same name keep names of their own

    def test_nested_folders_and_pictures_beside_their_labels(self, tmp_path: Path) -> None:
        nested = write_photographs(tmp_path / "nested", pattern="{split}/{part}/shoot/one")
        landed = stage_one(nested, tmp_path / "out")
        assert landed.landed == 9
        assert (tmp_path / "out/nested/train/labels/shoot/one/p0.txt").is_file()
        beside = tmp_path / "beside"
        for split in ("train", "valid", "test"):
            write_photographs(beside / split, splits=("",), pattern="")
            (beside / split / "data.yaml").unlink()
        (beside / "data.yaml").write_text(f"names: {list(AFFECTNET_NAMES)}\n")
        landed = stage_one(beside, tmp_path / "out")
        assert (landed.landed, landed.record.pictures["test"]["happy"]) == (9, 3)
        assert len(list((tmp_path / "out/beside/train/labels").iterdir())) == 3

    def test_links_are_followed_once(self, tmp_path: Path) -> None:
        root = write_photographs(tmp_path / "mine")
        (tmp_path / "elsewhere").mkdir()
        write_picture(tmp_path / "elsewhere/linked.png", 77)
        (root / "train/images/album").symlink_to(tmp_path / "elsewhere")
        (root / "train/images/again").symlink_to(root / "train/images")
        (root / "train/labels/album").mkdir()
        (root / "train/labels/album/linked.txt").write_text("4 0.5 0.5 0.2 0.2\n")
        landed = stage_one(root, tmp_path / "out")
        assert landed.record.pictures["train"] == {"anger": 3, "happy": 4}
        assert not (tmp_path / "out/mine/train/images/album/linked.png").is_symlink()

    @pytest.mark.parametrize(
        ("names", "faces", "expected"),
        [
            (AFFECTNET_NAMES[::-1], ((0, FACES[0][1]), (3, FACES[1][1])), [Emotion.SURPRISE, Emotion.HAPPY]),
            (("Surprised", "Happiness", "Neutrality"), ((1, FACES[0][1]), (2, FACES[1][1])), [4, 5]),
            ({"0": "anger", "1": "happy"}, ((0, FACES[0][1]), (1, FACES[1][1])), [0, 4]),
            ([n for n in NAMES if n != "contempt"], ((0, FACES[0][1]), (6, FACES[1][1])), [0, 7]),
            (("Face", "happy"), ((0, FACES[0][1]), (1, FACES[1][1])), [FACE_ID, 4]),
        ],
        ids=["another order", "synonyms", "string keys", "seven classes", "faces beside emotions"],
    )
    def test_classes_go_by_their_names(
        self, tmp_path: Path, names: object, faces: Sequence[tuple[int, str]], expected: list[int]
    ) -> None:
        names = list(names) if isinstance(names, tuple) else names
        source = write_photographs(tmp_path / "mine", table={"names": names}, faces=faces)
        landed = stage_one(source, tmp_path / "out")
        assert labels_of(tmp_path / "out", landed) == [expected] * 3

    def test_faces_without_an_expression(self, tmp_path: Path) -> None:
        landed = stage_one(write_scenes(tmp_path / "photos", count=20), tmp_path / "out")
        assert (landed.record.emotions, landed.record.classes) == ("unnamed", {"face": "face"})
        assert landed.record.pictures == {"train": {"face": 16}, "valid": {"face": 2}, "test": {"face": 2}}

    def test_a_set_without_class_names_has_to_be_of_one_class(self, tmp_path: Path) -> None:
        root = write_scenes(tmp_path / "photos")
        (root / "labels/scene1.txt").write_text("3 0.5 0.5 0.2 0.2\n")
        with pytest.raises(LayoutError, match=r"got class id 3 in labels/scene1\.txt and no data\.yaml"):
            stage(root, tmp_path / "out")
        (root / "classes.txt").write_text("\n".join(NAMES))
        landed = stage_one(root, tmp_path / "out")
        assert set(landed.record.pictures["train"]) <= {"anger", "fear"}

    def test_polygons_and_oriented_boxes_become_boxes(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine", faces=((4, "0.1 0.2 0.5 0.2 0.3 0.8"),))
        landed = stage_one(source, tmp_path / "out")
        assert pictures_of(tmp_path / "out/mine") == pictures_of(source)
        assert "9 polygons or oriented boxes stand for the upright boxes around them" in landed.notes

    def test_keypoints_are_dropped(self, tmp_path: Path) -> None:
        points = " ".join(["0.5 0.5 2"] * 5)
        table = {"names": ["face"], "kpt_shape": [5, 3]}
        source = write_photographs(tmp_path / "mine", faces=((0, f"0.5 0.5 0.4 0.4 {points}"),), table=table)
        landed = stage_one(source, tmp_path / "out")
        assert (tmp_path / "out/mine/train/labels/p0.txt").read_text() == "0 0.5 0.5 0.4 0.4\n"
        assert landed.record.pictures["train"] == {"face": 3}

    def test_byte_order_marks_and_capital_suffixes_are_read_as_prepare_reads_them(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine")
        for path in list((source / "train/labels").iterdir()):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
            path.rename(path.with_suffix(".TXT"))
        landed = stage_one(source, tmp_path / "out")
        assert landed.record.pictures["train"] == {"anger": 3, "happy": 3}
        assert (tmp_path / "out/mine/train/labels/p0.txt").is_file()

    def test_every_picture_is_landed_or_left_out_with_a_reason(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine")
        for name in ("train/images/._p0.png", "train/images/Thumbs.db", "train/images/@eaDir/p0.png", "__MACOSX/a.png"):
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(b"left by a desktop")
        for name in ("phone.HEIC", "download.jfif", "scan.pgm"):
            (source / "train/images" / name).write_bytes(b"no format that is read")
        (source / "extra").mkdir()
        write_picture(source / "extra/unsorted.jpg", 5)
        write_picture(source / "train/images/alone.png", 6)
        landed = stage_one(source, tmp_path / "out")
        assert dict(landed.left_out) == {
            "extra/unsorted.jpg": "outside the folders and lists of its splits",
            "train/images/download.jfif": ".jfif is not read; convert it to JPEG or PNG",
            "train/images/phone.HEIC": ".HEIC is not read; convert it to JPEG or PNG",
            "train/images/scan.pgm": ".pgm is not read; convert it to JPEG or PNG",
        }
        assert (landed.found, landed.landed) == (14, 10)
        assert "  14 pictures found, 10 landed, 4 left out" in landed.lines()
        assert landed.record.pictures["train"] == {"anger": 3, "happy": 3, "unlabelled": 1}

    def test_a_name_that_is_not_utf_8_is_left_out(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine")
        raw = bytes(source) + b"/train/images/caf\xe9.png"
        Path(raw.decode("utf-8", "surrogateescape")).write_bytes((source / "train/images/p0.png").read_bytes())
        landed = stage_one(source, tmp_path / "out")
        assert landed.left_out == (("caf\\udce9.png", "its name is not UTF-8; rename it with its label"),)

    def test_an_archive_may_not_name_pictures_outside_of_itself(self, tmp_path: Path) -> None:
        outside = write_photographs(tmp_path / "private", pattern="{part}/{split}")
        source = write_photographs(tmp_path / "mine", pattern="{part}/{split}")
        table = {"path": str(outside), "train": "images/train", "val": "../private/images/valid"}
        (source / "data.yaml").write_text(yaml.safe_dump({**table, "names": list(AFFECTNET_NAMES)}))
        before = files_of(outside)
        landed = stage_one(source, tmp_path / "out", archive=True)
        assert landed.landed == 9
        assert files_of(outside) == before

    def test_files_of_an_archive_are_moved(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine")
        before = pictures_of(source)
        landed = stage_one(source, tmp_path / "out", archive=True)
        assert pictures_of(tmp_path / "out/mine") == before
        assert pictures_of(source) == {}
        assert landed.left_out == ()

    @pytest.mark.parametrize("archive", [False, True])
    def test_pictures_in_two_splits_land_in_both(self, tmp_path: Path, archive: bool) -> None:
        source = write_photographs(tmp_path / "mine", pattern="{part}/{split}")
        table = {"train": "images/train", "val": ["images/valid", "images/train"], "test": "images/test"}
        (source / "data.yaml").write_text(yaml.safe_dump({**table, "names": list(AFFECTNET_NAMES)}))
        landed = stage_one(source, tmp_path / "out", archive=archive)
        assert landed.record.pictures["train"] == {"anger": 3, "happy": 3}

    def test_a_pulled_set_is_read_again_as_it_is(self, tmp_path: Path) -> None:
        write_scenes(tmp_path / "photos/all")
        (tmp_path / "photos/data.yaml").write_text("names: [face]\n")
        landed = stage_one(tmp_path / "photos", tmp_path / "out", choices=Choices(card="wider-face"))
        assert landed.record.pictures == {"all": {"face": 2}}

    def test_two_classes_that_are_no_emotion_are_refused(self, tmp_path: Path) -> None:
        source = write_photographs(
            tmp_path / "masks", names=("mask", "no-mask"), faces=((0, FACES[0][1]), (1, FACES[1][1]))
        )
        with pytest.raises(
            LayoutError, match=r"(?s)no class is an emotion or a face; got mask, no-mask; expected some"
        ):
            stage(source, tmp_path / "out")

    def test_unknown_classes_are_listed_with_the_nearest_and_how_to_map_them(self, tmp_path: Path) -> None:
        names = ("Joy", "Mad", "sad", "Bored")
        faces = ((0, FACES[0][1]), (1, FACES[1][1]), (2, "0.5 0.5 0.1 0.1"))
        source = write_photographs(tmp_path / "mine", names=names, faces=faces)
        with pytest.raises(LayoutError) as caught:
            stage(source, tmp_path / "out")
        message = str(caught.value)
        assert message.startswith("mine: mine: 2 of 4 classes are unknown")
        assert "Joy (9 pictures; nearest: happy)" in message
        assert "Mad (9 pictures; nearest: anger)" in message
        assert "--map 'Joy=happy'" in message
        assert "Bored" not in message  # no picture shows it
        choices = Choices(mapping=parse_mapping(["Joy=happy", "Mad=ignore"]))
        landed = stage_one(source, tmp_path / "again", choices=choices)
        assert landed.record.classes == {"Joy": "happy", "Mad": None, "sad": "sad", "Bored": None}
        assert labels_of(tmp_path / "again", landed) == [[Emotion.HAPPY, Emotion.SAD]] * 3
        assert "classes that no picture shows were ignored: Bored" in landed.notes

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("Joy", "expected 'class name=emotion'"),
            ("=happy", "expected 'class name=emotion'"),
            ("Joy=fun", "'fun' is no class; expected one of anger"),
        ],
    )
    def test_a_mapping_that_says_nothing_is_refused(self, option: str, message: str) -> None:
        with pytest.raises(LayoutError, match=message):
            parse_mapping([option])
        with pytest.raises(LayoutError, match="Joy is given twice"):
            parse_mapping(["Joy=happy", "Joy=sad"])

    def test_a_mapping_of_a_class_that_the_set_lacks_is_refused(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine")
        with pytest.raises(LayoutError, match="--map names Joy, which is no class of this set; its classes are Anger"):
            stage(source, tmp_path / "out", choices=Choices(mapping={"Joy": "happy"}))

    def test_a_mixture_of_boxes_is_said_and_a_card_decides(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine", faces=((0, "0.5 0.5 1 1"), (4, "0.5 0.5 0.5 0.5")))
        landed = stage_one(source, tmp_path / "out")
        assert landed.record.boxes == "tight"
        assert any(note.startswith("50% of 18 boxes are the whole picture; taken for tight") for note in landed.notes)
        framed = stage_one(source, tmp_path / "framed", choices=Choices(card="sample"))
        assert framed.record.boxes == "frame"

    def test_a_set_without_train_is_refused(self, tmp_path: Path) -> None:
        source = write_photographs(tmp_path / "mine", splits=("valid", "test"))
        with pytest.raises(LayoutError, match="got the splits test, valid, expected train"):
            stage(source, tmp_path / "out")

    def test_no_set_names_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "x/pictures").mkdir(parents=True)
        (tmp_path / "x/read.me").write_text("")
        with pytest.raises(
            LayoutError, match=r"x: no data set found; got pictures/, read\.me; expected one in a layout"
        ):
            stage(tmp_path / "x", tmp_path / "out")


def write_coco(root: Path, *, splits: Sequence[str] = ("train", "valid", "test"), roboflow: bool = False) -> Path:
    """Write COCO JSON as COCO has it (annotations/, images/) or as Roboflow does (a JSON beside the pictures)."""
    categories = [{"id": 7, "name": "Happy"}, {"id": 3, "name": "Sad"}, {"id": 0, "name": "emotions"}]
    for number, split in enumerate(splits):
        folder = root / split if roboflow else root / "images" / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for i in range(3):
            write_picture(folder / f"{split}{i}.png", number * 10 + i)
            images.append({"id": i, "file_name": f"{split}{i}.png", "width": 24, "height": 24})
            annotations += [
                {"id": 2 * i, "image_id": i, "category_id": 7, "bbox": [-6, 6, 12, 6], "iscrowd": 0},
                {"id": 2 * i + 1, "image_id": i, "category_id": 3, "segmentation": [[12, 12, 18, 12, 18, 24]]},
            ]
        path = folder / "_annotations.coco.json" if roboflow else root / f"annotations/instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
        path.write_text(json.dumps(content))
    return root


class TestCoco:
    @pytest.mark.parametrize("roboflow", [False, True])
    def test_boxes_are_clipped_and_polygons_taken(self, tmp_path: Path, roboflow: bool) -> None:
        landed = stage_one(write_coco(tmp_path / "mine", roboflow=roboflow), tmp_path / "out")
        assert (landed.layout, landed.landed, landed.left_out) == ("COCO JSON", 9, ())
        assert landed.record.classes == {"emotions": None, "Sad": "sad", "Happy": "happy"}
        labels = read(tmp_path / "out/mine/train/labels/train0.txt", class_names=["emotions", "Sad", "Happy"])
        assert labels.cls.tolist() == [2, 1]
        np.testing.assert_allclose(labels.xywhn, [[0.125, 0.375, 0.25, 0.25], [0.625, 0.75, 0.25, 0.5]], atol=1e-6)
        assert "9 polygons without a bbox became the boxes around them" in landed.notes

    def test_pictures_without_an_entry_and_entries_without_a_picture_are_listed(self, tmp_path: Path) -> None:
        root = write_coco(tmp_path / "mine")
        (root / "images/test/test0.png").unlink()
        write_picture(root / "images/train/more.png", 99)
        landed = stage_one(root, tmp_path / "out")
        assert dict(landed.left_out) == {
            "instances_test.json: image 0": "no file test0.png below mine/; restore it or drop its entry",
            "images/train/more.png": "not in any file of annotations",
        }
        assert (landed.found, landed.landed) == (10, 8)

    def test_crowds_empty_boxes_and_strangers_are_left_out_and_counted(self, tmp_path: Path) -> None:
        root = write_coco(tmp_path / "mine")
        path = root / "annotations/instances_train.json"
        content = json.loads(path.read_text())
        content["annotations"] += [
            {"image_id": 0, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": 0, "category_id": 7, "bbox": [30, 30, 9, 9]},
            {"image_id": 0, "category_id": 7, "segmentation": {"counts": "abc", "size": [24, 24]}},
            {"image_id": 99, "category_id": 7, "bbox": [0, 0, 9, 9]},
        ]
        path.write_text(json.dumps(content))
        notes = stage_one(root, tmp_path / "out").notes
        assert "1 annotations of crowds (iscrowd) were left out" in notes
        assert "2 annotations without a box inside their picture were left out" in notes
        assert "1 annotations belong to no listed picture and were left out" in notes

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c["images"][0].update(width=0), r"images\.0\.width: input should be greater than 0"),
            (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\.0\.bbox"),
            (
                lambda c: c["annotations"][0].update(category_id=5),
                "has category 5; expected one of 7, 3, 0|expected one of",
            ),
            (lambda c: c["categories"][0].update(name="Anger"), "category 7 is .*, in another file"),
            (lambda c: c.update(categories=[]), "categories"),
        ],
    )
    def test_a_mistake_in_the_json_is_named(
        self, tmp_path: Path, change: Callable[[dict[str, list[dict[str, object]]]], None], message: str
    ) -> None:
        root = write_coco(tmp_path / "mine")
        path = root / "annotations/instances_train.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(LayoutError, match=message):
            stage(root, tmp_path / "out")

    def test_a_json_that_is_cut_off_is_named(self, tmp_path: Path) -> None:
        root = write_coco(tmp_path / "mine")
        path = root / "annotations/instances_train.json"
        path.write_text(path.read_text()[:50])
        with pytest.raises(LayoutError, match=r"instances_train\.json: cannot be read as JSON"):
            stage(root, tmp_path / "out")


VOC = """<annotation><filename>{name}</filename><size><width>24</width><height>24</height></size>
<object><name>surprised</name><bndbox><xmin>6</xmin><ymin>6</ymin><xmax>12</xmax><ymax>18</ymax></bndbox></object>
</annotation>"""


def write_voc(root: Path, *, lists: bool) -> Path:
    """Write Pascal VOC with ImageSets/Main, or an XML beside each picture of a split."""
    for number, split in enumerate(("train", "val", "test")):
        images = root / "JPEGImages" if lists else root / split
        annotations = root / "Annotations" if lists else root / split
        for folder in (images, annotations):
            folder.mkdir(parents=True, exist_ok=True)
        for i in range(3):
            write_picture(images / f"{split}{i}.png", number * 10 + i)
            (annotations / f"{split}{i}.xml").write_text(VOC.format(name=f"{split}{i}.png"))
        if lists:
            (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
            (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{split}{i}\n" for i in range(3)))
    return root


class TestVoc:
    @pytest.mark.parametrize("lists", [False, True])
    def test_splits_come_from_lists_or_folders(self, tmp_path: Path, lists: bool) -> None:
        landed = stage_one(write_voc(tmp_path / "mine", lists=lists), tmp_path / "out")
        assert (landed.layout, landed.landed, landed.left_out) == ("Pascal VOC", 9, ())
        assert landed.record.pictures == {split: {"surprise": 3} for split in ("train", "valid", "test")}
        labels = read(tmp_path / "out/mine/valid/labels/val0.txt", class_names=["surprised"])
        np.testing.assert_allclose(labels.xywhn, [[0.375, 0.5, 0.25, 0.5]])

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("<width>24</width>", "<width>0</width>", "got a picture of 0×24 px, expected its size"),
            ("<xmin>6</xmin>", "<xmin>six</xmin>", "bndbox/xmin is 'six', expected a number"),
            ("<xmin>6</xmin>", "", "bndbox/xmin is None, expected a number"),
            ("<xmin>6</xmin>", "<xmin>inf</xmin>", "expected a finite number"),
            ("</annotation>", "", "not an XML file of one annotation"),
        ],
    )
    def test_a_file_with_a_mistake_is_left_out_with_its_reason(
        self, tmp_path: Path, old: str, new: str, reason: str
    ) -> None:
        root = write_voc(tmp_path / "mine", lists=True)
        path = root / "Annotations/train1.xml"
        path.write_text(path.read_text().replace(old, new))
        landed = stage_one(root, tmp_path / "out")
        assert any(reason in why for _, why in landed.left_out)
        assert landed.record.pictures["train"] == {"surprise": 2}

    def test_entities_are_not_expanded(self, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "mine", lists=True)
        bomb = '<!DOCTYPE x [<!ENTITY a "surprised">]>' + VOC.format(name="train1.png").replace("surprised", "&a;")
        (root / "Annotations/train1.xml").write_text(bomb)
        landed = stage_one(root, tmp_path / "out")
        assert any("not an XML file" in why for _, why in landed.left_out)


def write_class_folders(root: Path, *, splits: Sequence[str], classes: dict[str, int]) -> Path:
    for number, split in enumerate(splits or ("",)):
        for place, (name, count) in enumerate(classes.items()):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                write_picture(root / split / name / f"{i}.png", number * 10_000 + place * 1000 + i)
    return root


class TestClassFolders:
    def test_labels_are_of_whole_pictures(self, tmp_path: Path) -> None:
        source = write_class_folders(tmp_path / "mine", splits=("train", "test"), classes={"angry": 20, "happy": 10})
        landed = stage_one(source, tmp_path / "out")
        assert (landed.layout, landed.record.boxes, landed.record.emotions) == ("folders of classes", "frame", "named")
        assert landed.record.pictures == {
            "train": {"anger": 18, "happy": 9}, "valid": {"anger": 2, "happy": 1}, "test": {"anger": 20, "happy": 10}
        }  # fmt: skip
        labels = sorted((tmp_path / "out/mine/test/labels/happy").iterdir())
        assert [path.read_text() for path in labels] == ["1 0.5 0.5 1 1\n"] * 10

    def test_people_are_kept_in_one_split_where_names_tell_them(self, tmp_path: Path) -> None:
        root = tmp_path / "lfw-expressions"
        for place, emotion in enumerate(("happy", "neutral")):
            (root / emotion).mkdir(parents=True)
            for i in range(40):
                write_picture(root / emotion / f"Some_Body_{i % 13}_{i:04}.png", place * 100 + i)
        landed = stage_one(root, tmp_path / "out")
        assert landed.record.card == "lfw-expressions"
        people = {
            split: {
                path.name.rsplit("_", 1)[0]
                for path in (tmp_path / f"out/lfw-expressions/{split}/images").rglob("*.png")
            }
            for split in ("train", "valid", "test")
        }
        assert all(people.values())
        assert people["train"].isdisjoint(people["test"] | people["valid"])
        assert people["valid"].isdisjoint(people["test"])

    def test_near_duplicates_are_dealt_to_one_split(self, tmp_path: Path) -> None:
        root = write_class_folders(tmp_path / "mine", splits=(), classes={"happy": 40, "sad": 40})
        for i in range(40):
            content = (root / f"happy/{i}.png").read_bytes()
            (root / f"happy/{i}-copy.png").write_bytes(content)
        stage_one(root, tmp_path / "out")
        where: dict[str, set[str]] = {}
        for path in (tmp_path / "out/mine").rglob("happy/*.png"):
            where.setdefault(path.stem.removesuffix("-copy"), set()).add(path.parts[-4])
        assert len(where) == 40
        assert all(len(splits) == 1 for splits in where.values())
        assert set().union(*where.values()) == {"train", "valid", "test"}

    def test_the_same_set_is_dealt_alike(self, tmp_path: Path) -> None:
        source = write_class_folders(tmp_path / "mine", splits=(), classes={"happy": 15, "sad": 15})
        stage_one(source, tmp_path / "one")
        stage_one(source, tmp_path / "two")
        assert files_of(tmp_path / "one") == files_of(tmp_path / "two")

    def test_folders_of_other_classes_are_mapped_or_refused(self, tmp_path: Path) -> None:
        source = write_class_folders(tmp_path / "mine", splits=(), classes={"Freude": 20, "Trauer": 20})
        with pytest.raises(LayoutError, match="no data set found"):
            stage(source, tmp_path / "out")
        choices = Choices(mapping={"Freude": "happy", "Trauer": "sad"})
        landed = stage_one(source, tmp_path / "out", choices=choices)
        assert landed.record.pictures["train"] == {"happy": 16, "sad": 16}


FERPLUS_HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


class TestFer2013:
    def test_the_table_becomes_pictures_of_three_splits(self, tmp_path: Path) -> None:
        usages = ["Training"] * 7 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
        table = write_fer2013(tmp_path / "fer2013.csv", usages)
        landed = stage_one(table, tmp_path / "out")
        assert (landed.layout, landed.landed, landed.record.card) == ("FER2013 table", 21, "fer2013")
        expected = {name: 1 for name in NAMES if name != "contempt"}
        assert landed.record.pictures == dict.fromkeys(("train", "valid", "test"), expected)
        # class ids of the table are another order than the model's
        assert [ids for (ids,) in labels_of(tmp_path / "out", landed)] == [0, 2, 3, 4, 6, 7, 5]

    def test_votes_beside_the_table_become_soft_labels(self, tmp_path: Path) -> None:
        table = write_fer2013(tmp_path / "fer2013.csv", ["Training", "Training", "PublicTest", "PrivateTest"])
        rows = [
            "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",
            "Training,,0,0,0,0,0,0,0,0,0,10",
            "PublicTest,fer0000002.png,x",
        ]
        (tmp_path / "fer2013new.csv").write_text("\n".join([FERPLUS_HEADER, *rows]) + "\n")
        landed = stage_one(table, tmp_path / "out")
        assert landed.record.emotions == "votes"
        assert (tmp_path / "out/fer2013/votes.csv").read_text().splitlines() == [
            "image,anger,contempt,disgust,fear,happy,neutral,sad,surprise,unknown,not_a_face",
            "fer0000000,3,0,2,0,0,4,1,0,0,0",
            "fer0000001,0,0,0,0,0,0,0,0,0,10",
        ]
        assert "votes of fer2013new.csv on 2 of 4 pictures" in landed.notes
        assert any(note.startswith("fer2013new.csv:4: got 'PublicTest,fer0000002.png,x'") for note in landed.notes)

    def test_votes_join_kaggles_folders_by_name_and_say_when_they_do_not(self, tmp_path: Path) -> None:
        root = tmp_path / "fer"
        for split in ("train", "test"):
            for name in ("happy", "sad"):
                (root / split / name).mkdir(parents=True)
        for i in range(8):
            write_picture(root / ("train", "test")[i % 2] / ("happy", "sad")[i // 4] / f"fer000000{i}.png", i)
        rows = [f"Training,fer000000{i}.png,0,9,0,0,0,0,0,1,0,0" for i in range(8)]
        (root / "fer2013new.csv").write_text("\n".join([FERPLUS_HEADER, *rows]) + "\n")
        landed = stage_one(root, tmp_path / "out")
        assert landed.record.emotions == "votes"
        assert "votes of fer2013new.csv on 8 of 8 pictures" in landed.notes
        (root / "fer2013new.csv").write_text("\n".join([FERPLUS_HEADER, rows[0].replace("fer0", "other0")]) + "\n")
        landed = stage_one(root, tmp_path / "again")
        assert landed.record.emotions == "named"
        assert any("on 0 of 8 pictures: none of its names is a picture's" in note for note in landed.notes)

    def test_the_folders_of_fer_plus(self, tmp_path: Path) -> None:
        for number, folder in enumerate(("FER2013Train", "FER2013Valid", "FER2013Test")):
            (tmp_path / "data" / folder).mkdir(parents=True)
            write_picture(tmp_path / "data" / folder / "fer0000000.png", number)
            write_picture(tmp_path / "data" / folder / "fer0000001.png", number + 10)
            rows = [
                'fer0000000.png,"(0, 0, 48, 48)",1,0,0,0,0,0,0,9,0,0',
                'fer0000001.png,"(0, 0, 48, 48)",1,0,0,0,0,0,0,0,0,9',
                'gone.png,"(0, 0, 48, 48)",1,0,0,0,0,0,0,9,0,0',
                'fer0000000.png,"(0, 0, 48, 48)",1,0,0,0,0,0,0,9,0,-1',
            ]
            (tmp_path / "data" / folder / "label.csv").write_text("\n".join(rows))
        landed = stage_one(tmp_path / "data", tmp_path / "out")
        assert (landed.layout, landed.record.emotions, landed.landed) == ("FER+ folders", "votes", 6)
        assert landed.record.pictures["train"] == {"contempt": 1, "unlabelled": 1}
        assert len(landed.left_out) == 6

    def test_a_few_bad_rows_are_left_out_by_number(self, tmp_path: Path) -> None:
        table = write_fer2013(tmp_path / "fer2013.csv", ["Training"] * 20 + ["PublicTest"] * 8 + ["PrivateTest"] * 8)
        lines = table.read_text().splitlines()
        lines[2] = lines[2].replace("1,", "7,", 1)
        lines[5] = lines[5].replace("Training", "Trainig")
        table.write_text("\n".join(lines)[:-30])  # the last row is cut off
        landed = stage_one(table, tmp_path / "out")
        assert [where for where, _ in landed.left_out] == ["fer2013.csv:3", "fer2013.csv:6", "fer2013.csv:37"]
        assert landed.left_out[0][1] == "emotion: got '7', expected 0-6; correct or drop the row"
        assert (landed.found, landed.landed) == (36, 33)

    def test_more_bad_rows_than_good_ones_stop(self, tmp_path: Path) -> None:
        table = write_fer2013(tmp_path / "fer2013.csv", ["Training"] * 4, emotions=[0, 9, 9, 9])
        with pytest.raises(
            DataError, match=r"(?s)fer2013\.csv: 3 of 4 rows cannot be used.*fer2013\.csv:3: emotion: got '9'"
        ):
            stage(table, tmp_path / "out")

    def test_a_table_without_a_header_is_refused(self, tmp_path: Path) -> None:
        table = write_fer2013(tmp_path / "mine.csv", ["Training"])
        table.write_text(table.read_text().split("\n", 1)[1])
        with pytest.raises(LayoutError, match=r"mine\.csv:1: got '0,.*expected the header emotion,pixels,Usage"):
            stage(table, tmp_path / "out")

    def test_a_csv_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "iris.csv").write_text("a,b\n1,2\n")
        with pytest.raises(LayoutError, match=r"iris\.csv:1: not FER2013's table"):
            stage(tmp_path / "iris.csv", tmp_path / "out")

    def test_votes_of_another_kind_are_refused(self, tmp_path: Path) -> None:
        table = write_fer2013(tmp_path / "fer2013.csv", ["Training"])
        (tmp_path / "fer2013new.csv").write_text("a,b\n")
        with pytest.raises(LayoutError, match=r"fer2013new\.csv:1: got 'a,b', expected Usage,Image name"):
            stage(table, tmp_path / "out")
