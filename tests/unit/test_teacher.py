from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.errors import ModelError
from emotion_yolo.expression.classifier import ExpressionClassifier
from emotion_yolo.preparation.teacher import Teacher, blended, framed
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from tests.builders import CELL, GREY, classifier, exported_model, painted, painted_labels, save_picture

FRAME = np.asarray([0.5, 0.5, 1 / 3, 1 / 3])
"""Where the face lies in a crop that the painted network can read: its middle cell."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return Teacher(exported_model(tmp_path_factory.mktemp("model"), temperature=4.0), imgsz=96)


def test_a_face_of_a_photograph_is_framed_as_a_crop_is() -> None:
    photograph = painted({(2, 3): 4}, width=320, height=256)
    (box,) = xywhn_to_xyxy(painted_labels({(2, 3): 4}, image_wh=(320, 256)).xywhn, image_wh=(320, 256))
    np.testing.assert_array_equal(framed(photograph, box, frame=FRAME), painted({(1, 1): 4}))


def test_a_frame_puts_the_face_where_crops_have_it() -> None:
    photograph = painted({(2, 3): 4}, width=320, height=256)
    crop = framed(photograph, np.asarray([64.0, 96, 96, 128]), frame=np.asarray([1 / 6, 5 / 6, 1 / 3, 1 / 3]))
    np.testing.assert_array_equal(crop, painted({(0, 2): 4}))


def test_what_lies_outside_the_photograph_is_grey() -> None:
    photograph = np.full((64, 64, 3), 255, np.uint8)
    crop = framed(photograph, np.asarray([0.0, 0, 32, 32]), frame=FRAME)
    assert tuple(crop[10, 10]) == GREY
    assert tuple(crop[60, 60]) == (255, 255, 255)


def test_large_faces_are_averaged_down_and_small_ones_enlarged() -> None:
    stripes = np.zeros((960, 960, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = framed(stripes, np.asarray([320.0, 320, 640, 640]), frame=FRAME)
    assert crop.shape == (96, 96, 3)
    assert set(np.unique(crop)) <= {99, 100, 101}
    assert framed(stripes, np.asarray([320.0, 320, 326, 326]), frame=FRAME).shape == (96, 96, 3)


def test_faces_get_calibrated_probabilities_and_small_ones_none(teacher: Teacher) -> None:
    photograph = painted({(1, 1): 6, (5, 4): 2}, width=320, height=256)
    labels = painted_labels({(1, 1): 6, (5, 4): 2}, image_wh=(320, 256))
    soft_labels = teacher.of_faces(photograph, labels.xywhn, frame=FRAME, min_face=CELL)
    assert soft_labels.argmax(axis=1).tolist() == [6, 2]
    np.testing.assert_allclose(soft_labels.sum(axis=1), 1, atol=1e-5)
    # At temperature 1 the painted network is surer than that.
    assert 0.5 < soft_labels.max() < 0.98
    assert np.isnan(teacher.of_faces(photograph, labels.xywhn, frame=FRAME, min_face=CELL + 1)).all()


def test_a_face_that_the_teacher_does_not_see_stays_unnamed(teacher: Teacher) -> None:
    photograph = painted({}, width=320, height=256)
    boxes = painted_labels({(1, 1): 6}, image_wh=(320, 256)).xywhn
    assert np.isnan(teacher.of_faces(photograph, boxes, frame=FRAME, min_face=8)).all()


def test_a_face_beside_the_one_asked_for_is_not_taken_for_it(teacher: Teacher, tmp_path: Path) -> None:
    crop = save_picture(tmp_path / "crop.png", painted({(0, 0): 3}))
    (soft_label,) = teacher.of_crops([(crop, np.asarray([0.8, 0.8, 0.3, 0.3]))], threads=1)
    assert np.isnan(soft_label).all()


def test_the_soft_label_is_that_of_the_crop_and_of_its_mirror_image(teacher: Teacher, tmp_path: Path) -> None:
    # Of two cells that fill the box alike the network's first one is taken: the left one, in the mirror the right one.
    crop = save_picture(tmp_path / "crop.png", painted({(0, 1): 3, (1, 1): 5}))
    (soft_label,) = teacher.of_crops([(crop, np.asarray([1 / 3, 0.5, 2 / 3, 1 / 3]))], threads=1)
    assert soft_label[3] == pytest.approx(soft_label[5], abs=1e-4)
    assert soft_label[3] + soft_label[5] > 0.5
    assert soft_label.sum() == pytest.approx(1, abs=1e-5)


def test_a_classifier_has_half_of_the_say(tmp_path: Path) -> None:
    detector = exported_model(tmp_path / "model", temperature=4.0)
    names = classifier(tmp_path / "classifier.onnx")
    # The face is of emotion 3, and most of the picture of the colour of emotion 6.
    colours = {(x, y): 6 for x in range(3) for y in range(3)} | {(1, 1): 3}
    crop = save_picture(tmp_path / "crop.png", painted(colours))
    (alone,) = Teacher(detector, imgsz=96).of_crops([(crop, FRAME)], threads=1)
    both = Teacher(detector, imgsz=96, classifier=names, classifier_share=0.75)
    (soft_label,) = both.of_crops([(crop, FRAME)], threads=1)
    other = ExpressionClassifier(names, threads=1).soft_label(painted(colours))
    assert other.argmax() == 6
    np.testing.assert_allclose(soft_label, 0.25 * alone + 0.75 * other, atol=1e-6)


def test_where_the_detector_sees_no_face_the_classifier_is_not_asked(tmp_path: Path) -> None:
    teacher = Teacher(exported_model(tmp_path / "m"), imgsz=96, classifier=classifier(tmp_path / "classifier.onnx"))
    crop = save_picture(tmp_path / "crop.png", painted({}))
    (soft_label,) = teacher.of_crops([(crop, FRAME)], threads=1)
    assert np.isnan(soft_label).all()


def test_crops_are_answered_in_order(teacher: Teacher, tmp_path: Path) -> None:
    crops = [(save_picture(tmp_path / f"{i}.png", painted({(1, 1): i % 8})), FRAME) for i in range(20)]
    soft_labels = np.stack(list(teacher.of_crops(crops, threads=2)))
    assert soft_labels.argmax(axis=1).tolist() == [i % 8 for i in range(20)]


def test_a_photograph_without_faces_gives_no_rows(teacher: Teacher) -> None:
    assert teacher.of_faces(painted({}), np.zeros((0, 4)), frame=FRAME, min_face=8).shape == (0, 8)


def test_a_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere/model\.json"):
        Teacher(tmp_path / "nowhere", imgsz=96)


def test_a_target_is_the_label_and_a_share_of_the_soft_label() -> None:
    soft_label = np.full(8, 0.125, np.float32)
    target = blended(3, soft_label, share=0.4)
    assert target.sum() == pytest.approx(1)
    assert target[3] == pytest.approx(0.65)
    assert target[0] == pytest.approx(0.05)


def test_without_an_soft_label_the_label_is_the_target() -> None:
    target = blended(2, np.full(8, np.nan, np.float32), share=0.4)
    assert target.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
