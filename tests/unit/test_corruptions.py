import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.evaluation.corruptions import (
    CORRUPTIONS,
    FACE_HEIGHTS,
    PLAIN,
    at_face_height,
    face_heights,
    rolled,
    side_for_corruptions,
)
from emotion_yolo.evaluation.metrics import truth_xyxy
from emotion_yolo.inference.artefact import Input
from emotion_yolo.structures.labels import Labels
from tests.builders import Image, labels_of

BOX = [30.0, 20.0, 70.0, 80.0]
RED = (255, 0, 0)


def face(*, width: int = 96, height: int = 96) -> tuple[Image, Labels]:
    """Draw a red ellipse within `BOX` on noise, with its label."""
    noise = np.random.default_rng(0).integers(100, 200, (height, width, 3)).astype(np.uint8)
    cv2.ellipse(noise, (50, 50), (20, 30), 0, 0, 360, RED, -1)
    return noise, labels_of([4], [BOX], image_wh=(width, height))


def red(image: Image) -> NDArray[np.bool_]:
    return (image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60)


def around_red(image: Image) -> list[int]:
    """Return the box (xyxy) of what is red."""
    rows, columns = np.flatnonzero(red(image).any(axis=1)), np.flatnonzero(red(image).any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def box_of(image: Image, labels: Labels) -> list[float]:
    return [float(v) for v in truth_xyxy(labels, (image.shape[1], image.shape[0]))[0]]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_change_keeps_the_truth_and_leaves_its_picture_alone(name: str) -> None:
    image, labels = face()
    before, box_before = image.copy(), labels.xywhn.copy()
    after, changed = CORRUPTIONS[name](image, labels)
    assert np.array_equal(image, before)
    assert np.array_equal(labels.xywhn, box_before)
    assert (after.dtype, after.ndim, changed.cls.tolist()) == (np.uint8, 3, [4])
    assert np.array_equal(after, before) == (name == PLAIN)


@pytest.mark.parametrize("name", ["roll_left", "roll_right", "mirrored", PLAIN])
@pytest.mark.parametrize(("width", "height"), [(96, 96), (140, 100)])
def test_boxes_follow_the_face(name: str, width: int, height: int) -> None:
    after, labels = CORRUPTIONS[name](*face(width=width, height=height))
    assert box_of(after, labels) == pytest.approx(around_red(after), abs=2.2)  # what OpenCV draws is a pixel wider


def test_to_the_left_is_counter_clockwise() -> None:
    image = np.full((100, 100, 3), 114, np.uint8)
    image[:20, 40:60] = RED  # at the top
    after, _ = rolled(image, labels_of([0], [[40, 0, 60, 20]], image_wh=(100, 100)), degrees=90)
    assert after.shape == (100, 100, 3)
    assert around_red(after) == [0, 40, 20, 60]


def test_nothing_is_lost_by_a_turn() -> None:
    image, labels = np.full((96, 96, 3), RED, np.uint8), labels_of([0], [[0, 0, 96, 96]])
    after, _ = CORRUPTIONS["roll_left"](image, labels)
    assert after.shape[0] == pytest.approx(96 * 1.366, abs=1)
    assert red(after).sum() == pytest.approx(96 * 96, rel=0.03)
    assert tuple(after[0, 0]) == (114, 114, 114)


def test_mirroring_twice_gives_the_picture_back() -> None:
    image, labels = face()
    after, again = CORRUPTIONS["mirrored"](*CORRUPTIONS["mirrored"](image, labels))
    assert np.array_equal(after, image)
    assert again.xywhn == pytest.approx(labels.xywhn)


@pytest.mark.parametrize(("name", "rows"), [("mouth_covered", (60, 80)), ("eyes_covered", (35, 50))])
def test_a_covering_is_a_band_of_the_face_and_nothing_else(name: str, rows: tuple[int, int]) -> None:
    image, labels = face()
    after, _ = CORRUPTIONS[name](image, labels)
    covered = np.zeros((96, 96), bool)
    covered[rows[0] : rows[1], 30:70] = True
    assert (after[covered] == 128).all()
    assert np.array_equal(after[~covered], image[~covered])


def test_a_covering_ends_at_the_pictures_edge() -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    after, _ = CORRUPTIONS["mouth_covered"](image, Labels(np.asarray([0]), np.asarray([[0.02, 0.5, 0.2, 1.002]])))
    assert (after[70:, :11] == 128).all()
    assert not after[70:, 12:].any()


def test_each_change_of_light_and_detail_does_what_it_says() -> None:
    image, labels = face()
    after = {name: CORRUPTIONS[name](image, labels)[0].astype(float) for name in ("blur", "jpeg10", "dark", "grey")}
    sharpness = {name: np.abs(np.diff(picture[..., 1], axis=1)).mean() for name, picture in after.items()}
    assert sharpness["blur"] < sharpness["jpeg10"] < np.abs(np.diff(image[..., 1].astype(float), axis=1)).mean()
    assert after["dark"] == pytest.approx(image * 0.3, abs=0.51)
    assert np.ptp(after["grey"], axis=2).max() == 0
    assert {picture.shape for picture in after.values()} == {(96, 96, 3)}


@pytest.mark.parametrize("height", [24, 60, 128])
def test_a_face_gets_the_height_that_is_asked_for(height: int) -> None:
    after, labels = at_face_height(*face(), height=height, side=224)
    x1, y1, x2, y2 = box_of(after, labels)
    assert after.shape == (224, 224, 3)
    assert y2 - y1 == pytest.approx(height, abs=1)
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == (pytest.approx(112, abs=1), pytest.approx(112, abs=1))
    assert [x1, y1, x2, y2] == pytest.approx(around_red(after), abs=4)
    assert tuple(after[0, 0]) == (114, 114, 114)


def test_what_does_not_fit_beside_the_face_is_cut_off() -> None:
    after, labels = at_face_height(*face(), height=60, side=80)
    assert after.shape == (80, 80, 3)
    assert box_of(after, labels) == pytest.approx([20, 10, 60, 70], abs=1)
    assert not (after == 114).all(axis=2).any()


def test_only_heights_that_fit_the_input_are_measured() -> None:
    assert tuple(face_heights(512)) == FACE_HEIGHTS
    assert FACE_HEIGHTS[-1] == 500
    few = face_heights(96)
    assert list(few) == [24, 32, 48, 64, 96]
    for side, change in few.values():
        assert side % 32 == 0
        assert side <= 96
        assert change(*face())[0].shape == (side, side, 3)


def test_a_face_as_high_as_the_input_fills_it() -> None:
    side, change = face_heights(512)[500]
    after, labels = change(*face())
    _, y1, _, y2 = box_of(after, labels)
    assert side == 512
    assert (y1, y2) == (pytest.approx(6, abs=1), pytest.approx(506, abs=1))
    assert not (after == 114).all(axis=2).any()


def test_the_input_is_no_larger_than_the_rotated_pictures_need() -> None:
    assert side_for_corruptions(96, Input(imgsz=416, max_upscale=1.17)) == 160  # 96 · 1.366 · 1.17 = 153
    assert side_for_corruptions(96, Input(imgsz=128, max_upscale=1.17)) == 128
    assert side_for_corruptions(96, Input(imgsz=416, max_upscale=8)) == 416
    assert side_for_corruptions(96, Input(imgsz=416, max_upscale=2, upscale_to=192)) == 192
    assert side_for_corruptions(96, Input(imgsz=416, max_upscale=2, upscale_to=100)) == 160  # turned, 131 as it is
