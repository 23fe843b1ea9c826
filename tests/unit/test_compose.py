from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_yolo.data.cards import Split
from emotion_yolo.data.prepared import CLASSES, Writer, read_crops, read_scenes
from emotion_yolo.errors import StorageError
from emotion_yolo.params import Scenes, Sheets
from emotion_yolo.preparation.checks import Record
from emotion_yolo.preparation.compose import Crop, write_crops, write_scenes, write_train
from emotion_yolo.structures import emotions
from emotion_yolo.structures.images import read_rgb
from emotion_yolo.structures.labels import Labels, read
from tests.builders import COLOURS, labels_of, painted, save_picture

SCENES = Scenes(use=True, valid=0.1, test=0.1, side=64, min_face=8)


def crops_of(folder: Path, count: int) -> list[Crop]:
    return [
        Crop(save_picture(folder / f"{i}.jpg", painted({(1, 1): i % 8})), i % 8, np.asarray([0.5, 0.5, 1 / 3, 1 / 3]))
        for i in range(count)
    ]


def scene_of(folder: Path, name: str = "street.jpg") -> Record:
    picture = save_picture(folder / name, painted({(0, 0): 1, (2, 2): 5}, width=128, height=96))
    labels = labels_of([0, 0], [[0, 0, 32, 32], [64, 64, 74, 74]], image_wh=(128, 96))
    return Record(
        split="train", image=picture, labels=labels, image_wh=(128, 96), sha256="0" * 64,
        phash=0, phash_mirrored=0, thumb=b"",
    )  # fmt: skip


def scenes_written(records: list[Record], writer: Writer, split: Split) -> tuple[int, int]:
    return write_scenes(records, writer, split, SCENES, threads=1, progress=silent)


def silent(_done: int, _total: int) -> None: ...


def test_crops_keep_their_bytes_and_get_tight_labels(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 3)
    writer = Writer(tmp_path / "out")
    write_crops(crops, writer, "valid")
    writer.close()
    for crop, sample in zip(crops, read_crops(tmp_path / "out", "valid"), strict=True):
        assert sample.image.read_bytes() == crop.image.read_bytes()
        assert sample.labels.cls.tolist() == [crop.cls]
        np.testing.assert_allclose(sample.labels.xywhn[0], crop.xywhn, atol=1e-6)


def test_a_copy_is_no_link_so_that_rewriting_it_leaves_the_raw_picture(tmp_path: Path) -> None:
    (crop,) = crops_of(tmp_path / "raw", 1)
    before = crop.image.read_bytes()
    write_crops([crop], Writer(tmp_path / "out"), "valid")
    (tmp_path / "out" / "images" / "valid" / crop.image.name).write_bytes(b"rewritten")
    assert crop.image.read_bytes() == before


def test_train_crops_lie_on_sheets_and_some_are_single_too(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 40)
    sheets = Sheets(side=192, grids=[2], singles=0.5, degraded=0.0, rounds=1, negatives=0.0)
    count = write_train(crops, Writer(tmp_path / "out"), sheets, seed=0, workers=1, progress=silent)
    names = sorted(path.name for path in (tmp_path / "out" / "images" / "train").iterdir())
    on_sheets = [name for name in names if name.startswith("sheet_")]
    assert len(on_sheets) == count == 10
    assert 8 <= len(names) - count <= 32
    labels = [
        read(path, class_names=CLASSES) for path in sorted((tmp_path / "out" / "labels" / "train").glob("sheet_*"))
    ]
    assert sorted(np.concatenate([label.cls for label in labels])) == sorted(i % 8 for i in range(40))


def test_pictures_without_a_face_are_added_to_the_sheets_with_no_label(tmp_path: Path) -> None:
    sheets = Sheets(side=64, grids=[1], singles=0.0, degraded=0.0, rounds=2, negatives=0.25)
    count = write_train(
        crops_of(tmp_path / "raw", 8), Writer(tmp_path / "out"), sheets, seed=0, workers=1, progress=silent
    )
    negatives = sorted((tmp_path / "out" / "images" / "train").glob("negative_*"))
    assert (count, len(negatives)) == (16, 4)
    assert len({path.read_bytes() for path in negatives}) == 4
    for path in negatives:
        assert read_rgb(path).shape == (64, 64, 3)
        assert len(read(tmp_path / "out" / "labels" / "train" / f"{path.stem}.txt", class_names=CLASSES)) == 0
    assert not (tmp_path / "out" / "targets").exists()


def test_the_face_on_a_sheet_is_where_its_label_says(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 4)
    write_train(
        crops,
        Writer(tmp_path / "out"),
        Sheets(side=192, grids=[2], singles=0, degraded=0.0, rounds=1, negatives=0.0),
        seed=0,
        workers=1,
        progress=silent,
    )
    sheet = cv2.imread(str(tmp_path / "out" / "images" / "train" / "sheet_000000.jpg"))
    labels = read(tmp_path / "out" / "labels" / "train" / "sheet_000000.txt", class_names=CLASSES)
    for cls, (x, y, _, _) in zip(labels.cls, labels.xywhn, strict=True):
        blue, green, red = sheet[int(y * 192), int(x * 192)]
        assert np.abs(np.asarray([red, green, blue], int) - COLOURS[cls]).max() < 25


def test_without_sheets_every_crop_stays_single(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 5)
    sheets = Sheets(side=0, grids=[2], singles=0, degraded=0.0, rounds=1, negatives=0.0)
    assert write_train(crops, Writer(tmp_path / "out"), sheets, seed=0, workers=1, progress=silent) == 0
    assert len(list((tmp_path / "out" / "images" / "train").iterdir())) == 5


def test_degraded_crops_are_other_pixels_with_the_same_labels_and_always_the_same(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 8)
    for name, share in (("clean", 0.0), ("poor", 1.0), ("again", 1.0)):
        sheets = Sheets(side=192, grids=[2], singles=0.0, degraded=share, rounds=1, negatives=0.0)
        write_train(crops, Writer(tmp_path / name), sheets, seed=0, workers=1, progress=silent)
    for sheet in (tmp_path / "clean/images/train").iterdir():
        others = [(tmp_path / name / "images/train" / sheet.name).read_bytes() for name in ("poor", "again")]
        assert sheet.read_bytes() != others[0] == others[1]
    labels = [
        {p.name: p.read_text() for p in (tmp_path / name / "labels/train").iterdir()} for name in ("clean", "poor")
    ]
    assert labels[0] == labels[1]


def test_targets_lie_beside_labels_line_by_line(tmp_path: Path) -> None:
    crops = [
        replace(crop, target=np.eye(8, dtype=np.float32)[i] * 0.5 + 0.0625)
        for i, crop in enumerate(crops_of(tmp_path / "raw", 8))
    ]
    sheets = Sheets(side=192, grids=[2], singles=1.0, degraded=0.0, rounds=1, negatives=0.0)
    write_train(crops, Writer(tmp_path / "out"), sheets, seed=0, workers=1, progress=silent)
    for path in (tmp_path / "out/labels/train").iterdir():
        labels = read(path, class_names=CLASSES)
        targets = np.loadtxt(tmp_path / "out/targets/train" / path.name, ndmin=2)
        assert targets.argmax(axis=1).tolist() == labels.cls.tolist()
        np.testing.assert_allclose(targets.max(axis=1), 0.5625, atol=1e-4)


def test_crops_without_targets_leave_no_files_of_them(tmp_path: Path) -> None:
    sheets = Sheets(side=192, grids=[2], singles=0.5, degraded=0.0, rounds=1, negatives=0.0)
    write_train(crops_of(tmp_path / "raw", 8), Writer(tmp_path / "out"), sheets, seed=0, workers=1, progress=silent)
    assert not (tmp_path / "out/targets").exists()


def test_a_box_given_twice_is_one_face(tmp_path: Path) -> None:
    record = scene_of(tmp_path / "raw")
    twice = Labels(np.repeat(record.labels.cls, 2), np.repeat(record.labels.xywhn, 2, axis=0))
    assert scenes_written([replace(record, labels=twice)], Writer(tmp_path / "out"), "valid") == (2, 0)


def test_processes_write_the_same_sheets_as_one_does(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 210)
    sheets = Sheets(side=64, grids=[1], singles=0, degraded=0.0, rounds=1, negatives=0.0)
    done: list[int] = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        write_train(crops, Writer(out), sheets, seed=0, workers=workers, progress=lambda n, _: done.append(n))
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / f"out{w}").rglob("*.*")} for w in (1, 2))
    assert one == two
    assert done == [*range(1, 211), *range(1, 211)]


def test_train_scenes_are_scaled_down_prefixed_and_lose_unreadable_faces(tmp_path: Path) -> None:
    assert scenes_written([scene_of(tmp_path / "raw")], Writer(tmp_path / "out"), "train") == (1, 0)
    image = cv2.imread(str(tmp_path / "out" / "images" / "train" / "scene_street.jpg"))
    assert image.shape == (48, 64, 3)
    labels = read(tmp_path / "out" / "labels" / "train" / "scene_street.txt", class_names=CLASSES)
    assert labels.cls.tolist() == [emotions.FACE_ID]


def test_test_scenes_stay_as_they_came_with_all_their_faces(tmp_path: Path) -> None:
    record = scene_of(tmp_path / "raw")
    writer = Writer(tmp_path / "out")
    assert scenes_written([record], writer, "test") == (2, 0)
    writer.close()
    (sample,) = read_scenes(tmp_path / "out", "test")
    assert sample.image.read_bytes() == record.image.read_bytes()
    assert sample.labels.cls.tolist() == [emotions.FACE_ID] * 2


def test_a_picture_that_cannot_be_written_stops_the_stage(tmp_path: Path) -> None:
    (tmp_path / "out" / "images" / "train" / "scene_street.jpg").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"scene_street\.jpg: could not be written"):
        scenes_written([scene_of(tmp_path / "raw")], Writer(tmp_path / "out"), "train")
