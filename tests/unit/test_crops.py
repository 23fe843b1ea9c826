from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.data.prepared import Writer, read_crops
from emotion_yolo.preparation.checks import Record
from emotion_yolo.preparation.crops import Crop, LocalisedCrops, localise_crops, with_targets, write_crops
from emotion_yolo.preparation.localise import Localised, face_finder
from emotion_yolo.preparation.teacher import Teacher
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.labels import Labels
from tests.builders import exported_model, painted, save_picture

MIDDLE = np.asarray([0.5, 0.5, 1 / 3, 1 / 3])


def crop_of(folder: Path, emotion: int, **values: object) -> Crop:
    picture = save_picture(folder / f"{emotion}.png", painted({(1, 1): emotion}))
    return Crop(picture, **{"cls": emotion, "xywhn": MIDDLE, "set": "a", "source": "s", **values})  # type: ignore[arg-type]


def record_of(image: Path, dataset: str) -> Record:
    labels = Labels(np.asarray([3]), np.asarray([[0.5, 0.5, 1, 1]]))
    return Record("train", image, labels, (96, 96), "0" * 64, 0, 0, b"", set=dataset, source=dataset)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return Teacher(exported_model(tmp_path_factory.mktemp("model"), temperature=4.0), imgsz=96)


def test_crops_keep_their_bytes_and_get_tight_labels(tmp_path: Path) -> None:
    crops = [crop_of(tmp_path / "raw", emotion) for emotion in range(3)]
    writer = Writer(tmp_path / "out")
    write_crops(crops, writer, "valid")
    writer.close()
    for crop, sample in zip(crops, read_crops(tmp_path / "out", "valid"), strict=True):
        assert sample.image.read_bytes() == crop.image.read_bytes()
        assert sample.labels.cls.tolist() == [crop.cls]
        assert (sample.set, sample.source) == ("a", "s")
        np.testing.assert_allclose(sample.labels.xywhn[0], crop.xywhn, atol=1e-6)


def test_a_copy_is_no_link_so_that_rewriting_it_leaves_the_raw_picture(tmp_path: Path) -> None:
    crop = crop_of(tmp_path / "raw", 1)
    before = crop.image.read_bytes()
    writer = Writer(tmp_path / "out")
    write_crops([crop], writer, "valid")
    writer.close()
    read_crops(tmp_path / "out", "valid")[0].image.write_bytes(b"rewritten")
    assert crop.image.read_bytes() == before


def test_the_target_of_votes_is_left_alone_and_others_are_mixed_with_the_teachers(
    teacher: Teacher, tmp_path: Path
) -> None:
    votes = np.full(8, 0.125, np.float32)
    crops = [crop_of(tmp_path, 2), crop_of(tmp_path, 3, target=votes), crop_of(tmp_path, 4, set="b")]
    named, voted, other = with_targets(crops, teacher, share=0.5, sets=["a"], smoothing={}, threads=1)
    assert named.target is not None
    assert 0.5 < named.target[2] < 1
    assert voted.target is votes
    assert other.target is None  # of a set that the teacher is not asked about


def test_a_crop_of_unknown_expression_takes_the_teachers(teacher: Teacher, tmp_path: Path) -> None:
    (crop,) = with_targets([crop_of(tmp_path, 6, cls=FACE_ID)], teacher, share=0.0, sets=[], smoothing={}, threads=1)
    assert crop.cls == FACE_ID
    assert crop.target is not None
    assert crop.target.argmax() == 6


def test_labels_of_a_source_can_be_smoothed(tmp_path: Path) -> None:
    crops = [crop_of(tmp_path, 5), crop_of(tmp_path, 6, source="t")]
    smoothed, other = with_targets(crops, None, share=0.0, sets=[], smoothing={"s": 0.16}, threads=1)
    assert smoothed.target is not None
    assert smoothed.target[5] == pytest.approx(0.86)
    assert smoothed.target[0] == pytest.approx(0.02)
    assert other.target is None


def test_each_set_has_its_own_typical_box(tmp_path: Path) -> None:
    find = face_finder(str(exported_model(tmp_path / "model")), imgsz=96, conf=0.1)
    small = [save_picture(tmp_path / f"s{i}.png", painted({(i, 1): 3})) for i in range(2)]
    wide = save_picture(tmp_path / "w.png", painted({(0, 1): 3}, width=192, height=96))
    nothing = save_picture(tmp_path / "n.png", painted({}))
    records = [*(record_of(path, "one") for path in small), record_of(nothing, "one"), record_of(small[0], "two")]
    crops = localise_crops(records, find, pad=0, threads=1)
    np.testing.assert_allclose(crops.typical["one"], [1 / 3, 0.5, 1 / 3, 1 / 3], atol=2e-3)
    np.testing.assert_allclose(crops.typical["two"], [1 / 6, 0.5, 1 / 3, 1 / 3], atol=2e-3)
    assert crops.summary()["one"]["not_found"] == ["one/train/n.png"]  # type: ignore[index]
    assert [crop.set for crop in crops.of("train")] == ["one", "one", "one", "two"]
    assert wide.is_file()


def test_the_frame_of_photographs_is_that_of_the_set_which_shows_most_around_faces() -> None:
    tight, loose = np.asarray([0.5, 0.5, 0.8, 0.98]), np.asarray([0.5, 0.5, 0.6, 0.8])
    crops = LocalisedCrops((), (), {"tight": tight, "loose": loose})
    assert crops.frame is loose
    assert LocalisedCrops((), (), {}).frame is None


def test_votes_of_a_record_become_the_target_of_its_crop(tmp_path: Path) -> None:
    soft = np.eye(8, dtype=np.float32)[[NAMES.index("happy")]]
    record = record_of(save_picture(tmp_path / "a.png", painted({(1, 1): 3})), "one")
    voted = Record(**{**vars(record), "soft": soft})
    crops = LocalisedCrops((voted,), (Localised(MIDDLE, 0.9, "found"),), {"one": MIDDLE})
    (crop,) = crops.of("train")
    assert crop.target is not None
    assert crop.target.argmax() == NAMES.index("happy")


def test_a_face_that_leaves_the_picture_is_found_with_a_border_around(tmp_path: Path) -> None:
    # The painted network sees 32 px cells of its 96 px input: a face that fills the crop is one only beside grey.
    find = face_finder(str(exported_model(tmp_path / "model")), imgsz=96, conf=0.1)
    filled = np.full((32, 32, 3), 114, np.uint8)
    filled[8:24, 8:24] = painted({(0, 0): 4}, width=32, height=32)[:16, :16]
    path = save_picture(tmp_path / "full.png", filled)
    whole = save_picture(tmp_path / "whole.png", painted({(1, 1): 4}))
    crops = localise_crops([record_of(path, "one"), record_of(whole, "one")], find, pad=0.5, threads=1)
    assert [box.how for box in crops.boxes][1] == "found"
    for box in crops.boxes:
        assert (box.xywhn[:2] - box.xywhn[2:] / 2 >= -1e-6).all()
        assert (box.xywhn[:2] + box.xywhn[2:] / 2 <= 1 + 1e-6).all()
