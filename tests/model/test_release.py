"""The release as it is committed, on real photographs that dependencies ship."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import ultralytics
from skimage.data import astronaut
from ultralytics import YOLO

from emotion_yolo.artefact import checked_file, read_spec
from emotion_yolo.boxes import iou_matrix
from emotion_yolo.detections import Detections
from emotion_yolo.detector import Detector, Image
from emotion_yolo.emotions import NAMES
from emotion_yolo.localise import read_rgb

RELEASE = Path(__file__).parents[2] / "models" / "release"

# By eye: from the eyebrows' upper end of the forehead to the chin, ear to ear.
ASTRONAUT_FACE = (178.0, 65.0, 272.0, 180.0)
FRONTAL_FACE = (912.0, 90.0, 1056.0, 282.0)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(RELEASE)


@pytest.fixture(scope="module")
def two_men() -> Image:
    return read_rgb(Path(ultralytics.__file__).parent / "assets" / "zidane.jpg")


def best_overlap(faces: Detections, truth: tuple[float, ...]) -> float:
    """Return the IoU of the most confident box with the truth."""
    return float(iou_matrix(faces.xyxy[:1], np.asarray([truth], np.float32))[0, 0])


def test_the_release_is_whole_and_small_enough_for_git() -> None:
    spec = read_spec(RELEASE)
    for file in spec.files.values():
        checked_file(RELEASE, file)
    assert sum(path.stat().st_size for path in RELEASE.iterdir()) <= 15_000_000
    assert (RELEASE / "weights.pt").stat().st_size <= 6_000_000
    assert spec.version in (RELEASE / "MODEL_CARD.md").read_text("utf-8")


def test_the_weights_load_in_plain_ultralytics() -> None:
    model = YOLO(RELEASE / "weights.pt")
    assert tuple(model.names.values()) == NAMES


def test_finds_the_face_of_a_portrait(detector: Detector) -> None:
    faces = detector.predict(astronaut())
    assert best_overlap(faces, ASTRONAUT_FACE) >= 0.6
    assert next(emotion.label for emotion in faces.emotions) == "happy"


def test_finds_a_face_in_a_wide_photograph(detector: Detector, two_men: Image) -> None:
    assert best_overlap(detector.predict(two_men), FRONTAL_FACE) >= 0.6


def test_a_mirrored_picture_has_the_mirrored_face(detector: Detector) -> None:
    left, top, right, bottom = ASTRONAUT_FACE
    faces = detector.predict(np.ascontiguousarray(astronaut()[:, ::-1]))
    assert best_overlap(faces, (512 - right, top, 512 - left, bottom)) >= 0.6


@pytest.mark.parametrize("shrink", [1, 2, 4])
def test_no_best_box_is_the_whole_picture(detector: Detector, two_men: Image, shrink: int) -> None:
    image = np.ascontiguousarray(two_men[::shrink, ::shrink])
    height, width = image.shape[:2]
    assert best_overlap(detector.predict(image, conf=0.01), (0, 0, width, height)) < 0.9


def test_there_is_no_face_in_a_grey_picture(detector: Detector) -> None:
    assert len(detector.predict(np.full((300, 400, 3), 114, np.uint8))) == 0


def test_both_runtimes_give_the_same_answer(detector: Detector, two_men: Image) -> None:
    other = Detector.load(RELEASE, backend="onnx").predict(two_men)
    faces = detector.predict(two_men)
    assert len(faces) == len(other)
    np.testing.assert_allclose(faces.xyxy, other.xyxy, atol=1)
    np.testing.assert_allclose(faces.probabilities, other.probabilities, atol=0.01)


def test_threads_give_the_answers_of_one(detector: Detector, two_men: Image) -> None:
    expected = detector.predict(two_men)
    with ThreadPoolExecutor(4) as pool:
        for faces in pool.map(detector.predict, [two_men] * 8):
            np.testing.assert_array_equal(faces.xyxy, expected.xyxy)
            np.testing.assert_array_equal(faces.probabilities, expected.probabilities)
