from pathlib import Path

import numpy as np
import pytest
import yaml

from emotion_yolo.data.prepared import decoded, read_crops, read_scenes, read_split
from emotion_yolo.errors import ImageError, LabelError, LayoutError
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from tests.builders import painted, painted_labels, prepared_set

CROPS = {
    "image2.png": (painted({(0, 0): 4}), painted_labels({(0, 0): 4})),
    "ffhq_7.png": (painted({(1, 1): 2}), painted_labels({(1, 1): 2})),
}
SCENES = {"street.png": (painted({(0, 0): 4, (2, 2): 1}), painted_labels({(0, 0): 4, (2, 2): 1}, cls=FACE_ID))}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return prepared_set(tmp_path / "prepared", crops=CROPS, scenes=SCENES)


def test_crops_come_by_name_with_their_labels_and_source(prepared: Path) -> None:
    samples = read_crops(prepared, "test")
    assert [sample.image.name for sample in samples] == ["ffhq_7.png", "image2.png"]
    assert [sample.labels.cls.tolist() for sample in samples] == [[2], [4]]
    assert [sample.source for sample in samples] == ["ffhq", "other"]


def test_scenes_may_hold_faces_of_unknown_expression(prepared: Path) -> None:
    assert [sample.labels.cls.tolist() for sample in read_scenes(prepared, "test")] == [[FACE_ID, FACE_ID]]


def test_a_set_without_scenes_has_none(tmp_path: Path) -> None:
    assert read_scenes(prepared_set(tmp_path, crops=CROPS), "test") == []


def test_what_ultralytics_leaves_beside_pictures_is_not_read(prepared: Path) -> None:
    (prepared / "images" / "test" / "test.cache").write_bytes(b"\0")
    (prepared / "labels" / "test.cache").write_bytes(b"\0")
    assert len(read_crops(prepared, "test")) == 2


def test_a_split_without_pictures_is_an_error(prepared: Path) -> None:
    with pytest.raises(LayoutError, match=r"prepared: no pictures of valid; run `dvc repro prepare`"):
        read_split(prepared, "valid")


def test_no_prepared_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no prepared set there"):
        read_crops(tmp_path, "test")


@pytest.mark.parametrize("content", ["[]", "nc: 8", "names: ["])
def test_a_set_without_class_names_is_an_error(prepared: Path, content: str) -> None:
    (prepared / "data.yaml").write_text(content, "utf-8")
    with pytest.raises(LayoutError, match="has no table of class names"):
        read_scenes(prepared, "test")


def test_a_set_of_other_classes_is_an_error(prepared: Path) -> None:
    (prepared / "data.yaml").write_text(yaml.safe_dump({"names": dict(enumerate(NAMES))}), "utf-8")
    with pytest.raises(LayoutError, match=r"classes are .* expected .*8: 'face'"):
        read_crops(prepared, "test")


def test_a_missing_label_file_is_an_error(prepared: Path) -> None:
    (prepared / "labels" / "test" / "image2.txt").unlink()
    with pytest.raises(LabelError, match=r"image2\.txt"):
        read_crops(prepared, "test")


def test_pictures_are_decoded_in_order_however_many_are_read_ahead(tmp_path: Path) -> None:
    crops = {f"{i:02d}.png": (painted({(i % 3, 0): i % 8}), painted_labels({(i % 3, 0): i % 8})) for i in range(20)}
    samples = read_crops(prepared_set(tmp_path, crops=crops), "test")
    for ahead in (1, 8, 50):
        seen = list(decoded(samples, ahead=ahead))
        assert [sample.image.name for sample, _ in seen] == sorted(crops)
        assert all(np.array_equal(image, crops[sample.image.name][0]) for sample, image in seen)


def test_a_picture_that_cannot_be_decoded_is_named(prepared: Path) -> None:
    (prepared / "images" / "test" / "image2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"image2\.png"):
        list(decoded(read_crops(prepared, "test")))
