from pathlib import Path

import numpy as np
import pytest
import yaml

from emotion_yolo.data.prepared import Kind, Writer, copy_split, decoded, link, read_crops, read_scenes, read_split
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


def test_pictures_of_every_kind_come_back_with_what_was_written(tmp_path: Path) -> None:
    soft = np.asarray([[0.25, 0, 0, 0, 0.75, 0, 0, 0]], np.float32)
    crops = {"sheet_1.png": CROPS["image2.png"], "ffhq_7.png": CROPS["ffhq_7.png"]}
    root = prepared_set(tmp_path / "prepared", crops=crops, scenes=SCENES, split="train", soft={"ffhq_7.png": soft})
    samples = {sample.image.stem: sample for sample in read_split(root, "train")}
    assert [samples[stem].kind for stem in ("sheet_1", "ffhq_7", "street")] == [Kind.SHEET, Kind.SINGLE, Kind.SCENE]
    assert [samples[stem].source for stem in ("sheet_1", "ffhq_7")] == ["other", "ffhq"]
    assert [samples[stem].set for stem in ("ffhq_7", "street")] == ["crops", "scenes"]
    assert samples["sheet_1"].soft is None
    np.testing.assert_array_equal(samples["ffhq_7"].soft, soft)
    assert [sample.image.stem for sample in read_crops(root, "train")] == ["ffhq_7"]


def test_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    slots = [writer.add("a", split="test", kind=Kind.SINGLE, dataset=name) for name in ("x", "y", "y")]
    scene = writer.add("a", split="test", kind=Kind.SCENE, dataset="x")
    assert [slot.image.name for slot in slots] == ["a.jpg", "y-a.jpg", "y-a-2.jpg"]
    assert scene.image.name == "a.jpg"  # photographs of test lie in a folder of their own


def test_a_view_is_a_prepared_set_whose_caches_stay_out_of_the_original(prepared: Path, tmp_path: Path) -> None:
    view = tmp_path / "view"
    link(prepared, view)
    assert [sample.labels.cls.tolist() for sample in read_split(view, "test")] == [
        sample.labels.cls.tolist() for sample in read_split(prepared, "test")
    ]
    for sample in read_split(view, "test"):
        labels = Path(str(sample.image).replace("images", "labels")).parent  # as Ultralytics looks for them
        labels.with_suffix(".cache").write_bytes(b"\0")
    assert not list(prepared.rglob("*.cache"))


def test_a_copied_split_is_the_same_as_before(prepared: Path, tmp_path: Path) -> None:
    copy_split(prepared, "test", tmp_path / "copy")
    before, after = (read_split(root, "test") for root in (prepared, tmp_path / "copy"))
    assert [s.image.read_bytes() for s in before] == [s.image.read_bytes() for s in after]
    assert [(s.kind, s.set, s.source) for s in before] == [(s.kind, s.set, s.source) for s in after]


@pytest.mark.parametrize("content", ["", "file,split\na.jpg,test\n", "file,split,kind,set,source\na.jpg,test,cat,,\n"])
def test_an_index_that_cannot_be_read_is_an_error(prepared: Path, content: str) -> None:
    (prepared / "index.csv").write_text(content + "x\n" * (not content), "utf-8")
    with pytest.raises(LayoutError, match=r"no pictures of test|index\.csv: not the index of a prepared set"):
        read_split(prepared, "test")


def test_soft_labels_that_are_not_one_a_label_are_an_error(tmp_path: Path) -> None:
    soft = np.full((2, 8), 0.125, np.float32)
    root = prepared_set(tmp_path, crops=CROPS, soft={"image2.png": soft})
    with pytest.raises(LabelError, match=r"image2\.txt: holds 2 soft labels for 1 labels"):
        read_split(root, "test")
