import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES, Emotion

WH = (200, 100)


def probabilities(*emotions: Emotion) -> NDArray[np.float64]:
    rows = np.full((len(emotions), len(NAMES)), 0.04)
    rows[np.arange(len(emotions)), list(emotions)] = 0.72
    return rows


@pytest.fixture
def parts() -> dict[str, object]:
    """Three faces, as the arguments of `Detections`."""
    return {
        "xyxy": np.array([[0, 0, 50, 50], [60, 10, 200, 100], [5, 5, 5, 5]], np.float64),
        "confidence": [0.9, 0.5, 0.5],
        "probabilities": probabilities(Emotion.SAD, Emotion.HAPPY, Emotion.ANGER),
        "image_wh": WH,
    }


def build(parts: dict[str, object], **changes: object) -> Detections:
    return Detections(**{**parts, **changes})  # type: ignore[arg-type]


def test_holds_faces_as_read_only_float32(parts: dict[str, object]) -> None:
    faces = build(parts)
    assert len(faces) == 3
    for array in (faces.xyxy, faces.confidence, faces.probabilities):
        assert array.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_does_not_change_when_the_given_array_does(parts: dict[str, object]) -> None:
    given = np.array([[0, 0, 50, 50]] * 3, np.float32)
    faces = build(parts, xyxy=given)
    given[:] = 7
    assert faces.xyxy[0].tolist() == [0, 0, 50, 50]
    assert given.flags.writeable


def test_names_the_most_probable_emotion_of_each_face(parts: dict[str, object]) -> None:
    faces = build(parts)
    assert faces.emotion_ids.tolist() == [6, 4, 0]
    assert faces.emotions == [Emotion.SAD, Emotion.HAPPY, Emotion.ANGER]


def test_selects_faces_and_keeps_the_size_of_the_picture(parts: dict[str, object]) -> None:
    faces = build(parts).select(np.array([False, True, True]))
    assert faces.emotions == [Emotion.HAPPY, Emotion.ANGER]
    assert faces.xyxy[0].tolist() == [60, 10, 200, 100]
    assert faces.confidence.tolist() == [0.5, 0.5]
    assert faces.image_wh == WH


def test_a_picture_may_hold_no_face() -> None:
    none = Detections.empty(WH)
    assert len(none) == 0
    assert none.emotions == []
    assert none.xyxy.shape == (0, 4)
    assert none.probabilities.shape == (0, len(NAMES))
    assert none.image_wh == WH
    assert len(none.select(np.zeros(0, bool))) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xyxy": np.zeros((2, 4))}, r"xyxy has shape \(2, 4\), expected \(3, 4\)"),
        ({"xyxy": np.zeros((3, 5))}, r"xyxy has shape \(3, 5\), expected \(3, 4\)"),
        ({"confidence": np.zeros((3, 1))}, r"confidence has shape \(3, 1\), expected \(3,\)"),
        ({"probabilities": np.zeros((3, 7))}, r"probabilities has shape \(3, 7\), expected \(3, 8\)"),
        ({"xyxy": np.full((3, 4), np.nan)}, "xyxy holds values that are not finite"),
        ({"confidence": [np.inf, 0, 0]}, "confidence holds values that are not finite"),
        ({"probabilities": np.full((3, 8), np.nan)}, "probabilities holds values that are not finite"),
        ({"xyxy": [[-1, 0, 5, 5]] * 3}, "leaves the picture of 200×100 px"),
        ({"xyxy": [[0, 0, 201, 5]] * 3}, "leaves the picture of 200×100 px"),
        ({"xyxy": [[0, 0, 5, 101]] * 3}, "leaves the picture of 200×100 px"),
        ({"xyxy": [[9, 0, 5, 5]] * 3}, "right or lower edge comes before"),
        ({"xyxy": [[0, 9, 5, 5]] * 3}, "right or lower edge comes before"),
        ({"confidence": [1.1, 0.5, 0.5]}, "confidence is outside 0-1"),
        ({"confidence": [0.5, 0.5, -0.1]}, "confidence is outside 0-1"),
        ({"confidence": [0.5, 0.6, 0.1]}, "not sorted by falling confidence"),
        ({"probabilities": np.full((3, 8), 0.2)}, "does not sum to 1"),
        ({"probabilities": [[1.5, -0.5, 0, 0, 0, 0, 0, 0]] * 3}, "is negative"),
        ({"image_wh": (0, 100)}, r"image_wh is \(0, 100\)"),
        ({"image_wh": (200, -1)}, r"image_wh is \(200, -1\)"),
    ],
)
def test_refuses_what_is_no_list_of_faces(parts: dict[str, object], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(parts, **changes)


def test_a_picture_without_faces_has_a_size_too() -> None:
    with pytest.raises(ValueError, match="at least 1 px"):
        Detections.empty((0, 0))


def test_shows_faces_of_a_model_that_names_fewer_emotions() -> None:
    names = tuple(name for name in NAMES if name != "contempt")
    row = [0.03, 0.03, 0.03, 0.03, 0.03, 0.03, 0.82]
    faces = Detections(np.asarray([[0, 0, 8, 8]]), np.asarray([0.9]), np.asarray([row]), WH, names)  # type: ignore[arg-type]
    assert repr(faces) == "<Detections: 1 face in 200×100 px: surprise 0.82>"
    assert "<td>surprise</td><td>0.82</td>" in faces._repr_html_()


def test_tells_the_shorter_side_of_each_box(parts: dict[str, object]) -> None:
    assert build(parts).shorter_sides.tolist() == [50, 90, 0]
    assert Detections.empty(WH).shorter_sides.tolist() == []
