from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_yolo.data.cards import Split
from emotion_yolo.data.prepared import Sample, Writer, read_scenes
from emotion_yolo.data.sets import UNDEALT
from emotion_yolo.errors import StorageError
from emotion_yolo.params import Prepare, load_params
from emotion_yolo.preparation.checks import Record, Scan
from emotion_yolo.preparation.photographs import Written, dealt, without_repetition, write_photographs
from emotion_yolo.preparation.preparing import with_splits
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels
from tests.builders import COLOURS, labels_of, painted, save_picture

REPOSITORY = Path(__file__).parents[2]


def params(**scenes: Any) -> Prepare:
    given = load_params(REPOSITORY / "params.yaml").prepare.model_dump()
    given["scenes"] |= {"side": 64, "min_face": 8, **scenes}
    return Prepare.model_validate(given)


def photograph(folder: Path, name: str = "street.jpg", *, classes: tuple[int, int] = (FACE_ID, FACE_ID)) -> Record:
    """A photograph with a face of 32 px at the left and one of 10 px at the right."""
    picture = save_picture(folder / name, painted({(0, 0): 1, (2, 2): 5}, width=128, height=96))
    labels = labels_of(list(classes), [[0, 0, 32, 32], [64, 64, 74, 74]], image_wh=(128, 96))
    return Record("train", picture, labels, (128, 96), "0" * 64, 0, 0, b"", set="town", source="web")


def silent(_done: int, _total: int) -> None: ...


def write(
    records: list[Record], out: Path, split: Split, settings: Prepare | None = None, **options: Any
) -> tuple[Written, list[Sample]]:
    writer = Writer(out)
    settings = settings or params()
    written = write_photographs(records, writer, split, settings, threads=2, progress=silent, **options)
    writer.close()
    return written, read_scenes(out, split)


def test_train_photographs_are_scaled_down_and_lose_unreadable_faces(tmp_path: Path) -> None:
    written, (sample,) = write([photograph(tmp_path / "raw")], tmp_path / "out", "train")
    assert written == Written(faces=1, named=0)
    assert read_rgb(sample.image).shape == (48, 64, 3)
    assert sample.labels.cls.tolist() == [FACE_ID]
    assert (sample.set, sample.source) == ("town", "web")


def test_test_photographs_stay_as_they_came_with_all_their_faces(tmp_path: Path) -> None:
    record = photograph(tmp_path / "raw")
    written, (sample,) = write([record], tmp_path / "out", "test")
    assert written.faces == 2
    assert sample.image.read_bytes() == record.image.read_bytes()
    assert sample.labels.cls.tolist() == [FACE_ID] * 2


def test_emotions_are_taught_where_they_are(tmp_path: Path) -> None:
    record = photograph(tmp_path / "raw", classes=(1, 5))
    _, (train,) = write([record], tmp_path / "train", "train", params(side=128))
    _, (test,) = write([record], tmp_path / "test", "test")
    assert train.labels.cls.tolist() == test.labels.cls.tolist() == [1, 5]


def test_the_teacher_names_unknown_faces_and_has_a_share_in_named_ones(tmp_path: Path) -> None:
    shown: list[tuple[int, ...]] = []

    def fear(image: Image, boxes: np.ndarray) -> np.ndarray:
        shown.append(image.shape)
        return np.repeat(np.eye(8, dtype=np.float32)[[3]], len(boxes), axis=0)

    records = [photograph(tmp_path / "raw", "a.jpg", classes=(FACE_ID, 5)), photograph(tmp_path / "raw", "b.jpg")]
    written, (mixed, unnamed) = write(records, tmp_path / "out", "train", params(side=128, rounds=1), name_faces=fear)
    assert written == Written(faces=4, named=3)
    assert shown == [(96, 128, 3)] * 2
    assert mixed.soft is not None and unnamed.soft is not None
    share = params().teacher.crops
    by_class = dict(zip(mixed.labels.cls.tolist(), mixed.soft, strict=True))
    assert by_class[FACE_ID][3] == pytest.approx(1)
    assert by_class[5][[3, 5]] == pytest.approx([share, 1 - share], abs=1e-3)
    assert unnamed.soft[:, 3].tolist() == [1, 1]


def test_a_box_given_twice_is_one_face_and_the_named_one_stays(tmp_path: Path) -> None:
    record = photograph(tmp_path / "raw")
    twice = Labels(np.asarray([FACE_ID, FACE_ID, 4, FACE_ID]), np.repeat(record.labels.xywhn, 2, axis=0)[[0, 2, 1, 3]])
    labels, _ = without_repetition(replace(record, labels=twice))
    assert sorted(labels.cls.tolist()) == [4, FACE_ID]


def test_several_pictures_are_made_of_a_photograph_and_show_parts_of_it(tmp_path: Path) -> None:
    settings = params(side=128, rounds=12, cut=0.4, zoomed=0.4)
    _, samples = write([photograph(tmp_path / "raw", classes=(1, 5))], tmp_path / "out", "train", settings)
    assert len(samples) == 12
    assert len({sample.image.read_bytes() for sample in samples}) > 6
    heights = set()
    for sample in samples:
        image = read_rgb(sample.image)
        height, width = image.shape[:2]
        assert max(height, width) <= 128
        for cls, (x1, y1, x2, y2) in zip(
            sample.labels.cls, xywhn_to_xyxy(sample.labels.xywhn, image_wh=(width, height)), strict=True
        ):
            heights.add(round(y2 - y1))
            if cls == 1:  # painted where its label says
                assert np.abs(image[int(y1 + y2) // 2, int(x1 + x2) // 2].astype(int) - COLOURS[1]).max() < 40
    assert max(heights) > 60


def test_two_photographs_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    records = [photograph(tmp_path / "a"), replace(photograph(tmp_path / "b"), set="city")]
    _, samples = write(records, tmp_path / "out", "test")
    assert sorted(sample.image.name for sample in samples) == ["city-street.jpg", "street.jpg"]


def test_photographs_are_dealt_out_by_share(tmp_path: Path) -> None:
    record = photograph(tmp_path)
    records = [replace(record, image=Path(f"{i}.jpg")) for i in range(20)]
    splits = [each.split for each in dealt(records, valid=0.1, test=0.25, seed=0)]
    assert [splits.count(split) for split in ("train", "valid", "test")] == [13, 2, 5]


def test_another_seed_of_the_sheets_leaves_the_splits_of_photographs_as_they_are(tmp_path: Path) -> None:
    (tmp_path / UNDEALT).mkdir()
    record = photograph(tmp_path)
    records = tuple(replace(record, image=Path(f"{i}.jpg")) for i in range(40))
    found = Scan(tmp_path, records, (), {}, (), {})

    def splits(settings: Prepare) -> list[str]:
        return [each.split for each in with_splits(found, tmp_path, settings)]

    drawn = splits(params())
    assert splits(params().model_copy(update={"seed": 5})) == drawn
    assert splits(params(seed=5)) != drawn


def test_a_picture_that_cannot_be_written_stops_the_stage(tmp_path: Path) -> None:
    (tmp_path / "out/images/train/scene_street.jpg").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"scene_street\.jpg: could not be written"):
        write([photograph(tmp_path / "raw")], tmp_path / "out", "train")
