"""Faces turned upright: by landmarks that are known, and by those that YuNet sees in a real portrait."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emotion_yolo.inference.alignment import YuNetLandmarks, align, similarity
from emotion_yolo.structures.images import Image
from tests.builders import yunet_network

# Not of the product: present in this project's working copies only.
YUNET = Path(__file__).parents[3] / "shared/weights/face_detection_yunet_2026may.onnx"

UPRIGHT = np.asarray([(160.0, 170.0), (240.0, 170.0), (200.0, 215.0), (168.0, 262.0), (232.0, 262.0)])
BOX = np.asarray([140.0, 110.0, 260.0, 290.0])
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))


def turned(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    matrix = cv2.getRotationMatrix2D((200.0, 200.0), degrees, 1.0)
    return points @ matrix[:, :2].T + matrix[:, 2]


def dotted(points: NDArray[np.float64]) -> Image:
    """Paint a dot of its own colour at each landmark."""
    image = np.full((400, 400, 3), 40, np.uint8)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        cv2.circle(image, (round(x), round(y)), 12, colour, -1)
    return image


def places(crop: Image) -> NDArray[np.float64]:
    """Find the dots again: the middle of what is close to each colour, in px."""
    found = []
    for colour in COLOURS:
        distance = np.abs(crop.astype(int) - colour).sum(2)
        rows, columns = np.nonzero(distance < 150)
        found.append((columns.mean() + 0.5, rows.mean() + 0.5))
    return np.asarray(found)


def tilt(points: NDArray[np.float64]) -> float:
    """Return the angle of the line of the eyes in degrees."""
    x, y = points[1] - points[0]
    return float(np.degrees(np.arctan2(y, x)))


@pytest.mark.parametrize("imgsz", [64, 112, 224])
@pytest.mark.parametrize("degrees", [-30, -12, 0, 30])
def test_a_turned_face_comes_back_upright_at_the_same_places(degrees: float, imgsz: int) -> None:
    points = turned(UPRIGHT, degrees)
    crop = align(dotted(points), BOX, imgsz=imgsz, margin=1.3, landmarks=lambda *_: points)
    assert crop.aligned
    assert crop.pixels.shape == (imgsz, imgsz, 3)
    found = places(crop.pixels)
    assert abs(tilt(found)) < 3
    straight = places(align(dotted(UPRIGHT), BOX, imgsz=imgsz, margin=1.3, landmarks=lambda *_: UPRIGHT).pixels)
    np.testing.assert_allclose(found / imgsz, straight / imgsz, atol=0.03)


def test_without_landmarks_a_face_is_cut_out_as_it_lies() -> None:
    points = turned(UPRIGHT, 30)
    crop = align(dotted(points), BOX, imgsz=112, margin=1.3)
    assert not crop.aligned
    assert tilt(places(crop.pixels)) == pytest.approx(-30, abs=3)


@pytest.mark.parametrize("seen", [None, UPRIGHT * (0.02, 1) + (196, 0)])
def test_a_face_whose_landmarks_are_of_no_use_is_cut_out_as_it_lies(seen: NDArray[np.float64] | None) -> None:
    image = dotted(UPRIGHT)
    crop = align(image, BOX, imgsz=64, margin=1.3, landmarks=lambda *_: seen)
    assert not crop.aligned
    np.testing.assert_array_equal(crop.pixels, align(image, BOX, imgsz=64, margin=1.3).pixels)


def test_a_plain_crop_shows_the_box_with_its_margin() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[80:120, 80:120] = 255
    crop = align(image, np.asarray([80.0, 80, 120, 120]), imgsz=100, margin=2.0).pixels
    bright = np.flatnonzero(crop[50, :, 0] > 127)
    assert (bright[0], bright[-1]) == pytest.approx((25, 74), abs=1)


@pytest.mark.parametrize("box", [[-30, -30, 20, 20], [380, 380, 440, 460], [0, 0, 400, 400], [10, 10, 10, 10]])
@pytest.mark.parametrize("landmarks", [None, UPRIGHT])
def test_a_box_at_the_edge_gives_a_whole_square(box: list[float], landmarks: NDArray[np.float64] | None) -> None:
    crop = align(
        dotted(UPRIGHT), np.asarray(box, float), imgsz=48, margin=1.3, landmarks=lambda *_: landmarks
    )  # fmt: skip
    assert crop.pixels.shape == (48, 48, 3)
    assert crop.pixels.dtype == np.uint8


@given(
    angle=st.floats(-3.1, 3.1), scale=st.floats(0.1, 10), x=st.floats(-500, 500), y=st.floats(-500, 500)
)  # fmt: skip
def test_a_similarity_is_found_again(angle: float, scale: float, x: float, y: float) -> None:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.asarray([[cos, -sin, x], [sin, cos, y]])
    target = UPRIGHT @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(similarity(UPRIGHT, target), matrix, atol=1e-6 * (1 + abs(x) + abs(y) + scale))


def test_landmarks_are_those_of_the_face_in_the_box(tmp_path: Path) -> None:
    # This YuNet sees one face in the middle of whatever it is shown, its landmarks all at one point.
    network = yunet_network(tmp_path / "yunet.onnx", side=320, box=(80.0, 80.0, 160.0, 160.0))
    find = YuNetLandmarks(network)
    image = np.zeros((300, 300, 3), np.uint8)
    points = find(image, np.asarray([100.0, 120, 180, 200]))
    assert points is not None
    assert points.shape == (5, 2)
    assert (points > 60).all() and (points < 240).all()
    far = yunet_network(tmp_path / "far.onnx", side=320, box=(256.0, 256.0, 60.0, 60.0))
    assert YuNetLandmarks(far)(image, np.asarray([100.0, 120, 180, 200])) is None


@pytest.mark.skipif(not YUNET.is_file(), reason="YuNet's file is not part of the product")
def test_a_real_face_comes_back_as_upright_as_it_was() -> None:
    from skimage.data import astronaut

    find = YuNetLandmarks(YUNET)

    def eyes(image: Image, xyxy: list[float]) -> float:
        points = find(image, np.asarray(xyxy))
        assert points is not None
        return tilt(points)

    given, in_crop = [175.0, 60.0, 275.0, 190.0], [40.0, 30.0, 184.0, 210.0]
    tilts = {}
    for degrees in (-30, 0, 30):
        matrix = cv2.getRotationMatrix2D((225.0, 125.0), degrees, 1.0)
        image = cv2.warpAffine(astronaut(), matrix, (512, 512))
        crop = align(image, np.asarray(given), imgsz=224, margin=1.3, landmarks=find)
        assert crop.aligned
        tilts[degrees] = (eyes(image, given), eyes(crop.pixels, in_crop))
    for degrees in (-30, 30):
        assert abs(tilts[degrees][0] - tilts[0][0]) > 25
        assert abs(tilts[degrees][1] - tilts[0][1]) < 3
