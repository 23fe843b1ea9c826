"""A second look at faces: what the network is shown, which of its boxes count, and whose names change."""

from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.inference.artefact import CloseUp, read_spec
from emotion_yolo.inference.close_up import MAX_UPSCALE, cut_out, mirrored, scores_of
from emotion_yolo.inference.detector import Detector
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES, Emotion
from tests.builders import CELL, COLOURS, GREY, Image, exported_model

GIVEN = CloseUp(faces=2, side=96, face=32)


def box(*xyxy: float) -> np.ndarray:
    return np.asarray(xyxy, np.float32)


def scene(width: int, height: int, faces: dict[tuple[int, int, int, int], Emotion]) -> Image:
    image = np.full((height, width, 3), GREY, np.uint8)
    for (x1, y1, x2, y2), emotion in faces.items():
        image[y1:y2, x1:x2] = COLOURS[emotion]
    return image


@pytest.mark.parametrize("high", [16, 32, 60, 160, 900])
def test_a_face_of_any_size_has_one_size_in_its_close_up(high: int) -> None:
    x, y = 3 * high, 2 * high
    face = (x, y, x + high * 3 // 4, y + high)
    image = scene(6 * high, 5 * high, {face: Emotion.HAPPY})
    seen, where = cut_out(image, box(*face), GIVEN)
    assert (seen.shape, seen.dtype) == ((1, 96, 96, 3), np.uint8)
    coloured = (np.abs(seen[0].astype(int) - COLOURS[Emotion.HAPPY]).sum(axis=2) < 60).nonzero()
    rows, columns = coloured
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert extent == pytest.approx([36, 32, 60, 64], abs=1.5)
    assert where == pytest.approx([36, 32, 60, 64], abs=1)


def test_a_small_face_is_enlarged_no_more_than_pays() -> None:
    _, where = cut_out(scene(100, 100, {}), box(40, 40, 48, 48), GIVEN)
    assert where[2] - where[0] == pytest.approx(8 * MAX_UPSCALE)


def test_outside_the_picture_is_grey_and_the_face_stays_in_the_middle() -> None:
    image = scene(40, 40, {(0, 0, 40, 40): Emotion.FEAR})
    seen, where = cut_out(image, box(0, 0, 32, 32), GIVEN, pad=7)
    assert (seen[0, :30, :, :] == 7).all()
    assert (seen[0, 33:70, 33:70] == COLOURS[Emotion.FEAR]).all()
    assert where.tolist() == [32, 32, 64, 64]


def test_many_pixels_are_averaged_and_none_skipped() -> None:
    image = np.zeros((800, 800, 3), np.uint8)
    image[:, ::8] = 255  # lines of a pixel, an eighth of all
    seen, _ = cut_out(image, box(200, 200, 600, 600), GIVEN)
    assert seen[0, 40:56, 40:56].mean() == pytest.approx(255 / 8, abs=8)


def test_a_box_without_extent_is_looked_at_all_the_same() -> None:
    seen, _ = cut_out(scene(64, 64, {}), box(10, 10, 10, 10), GIVEN)
    assert (seen == 114).all()


def answer(*boxes: tuple[list[float], Emotion, float]) -> np.ndarray:
    rows = []
    for cxcywh, emotion, value in boxes:
        scores = np.full(8, 0.01)
        scores[emotion] = value
        rows.append([*cxcywh, *scores])
    return np.asarray(rows, np.float32).T


def test_the_surest_box_that_overlaps_the_face_names_it() -> None:
    raw = answer(
        ([48, 48, 32, 32], Emotion.SAD, 0.3),
        ([50, 48, 30, 34], Emotion.HAPPY, 0.6),
        ([10, 10, 32, 32], Emotion.ANGER, 0.9),
    )
    scores = scores_of(raw, box(32, 32, 64, 64))
    assert scores is not None
    assert (scores.argmax(), scores.sum()) == (Emotion.HAPPY, pytest.approx(1))


def test_a_face_that_is_not_seen_again_has_no_scores() -> None:
    elsewhere = answer(([10, 10, 32, 32], Emotion.ANGER, 0.9))
    nothing = elsewhere.copy()
    nothing[:4, 0], nothing[4:] = [48, 48, 32, 32], 0
    assert scores_of(elsewhere, box(32, 32, 64, 64)) is None
    assert scores_of(nothing, box(32, 32, 64, 64)) is None


def test_a_mirror_image_is_one() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3)
    assert mirrored(image)[0, 0, 0].tolist() == image[0, 0, 2].tolist()
    assert mirrored(mirrored(image)).tolist() == image.tolist()


# The detector


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("plain"), imgsz=96, temperature=2.0)


def with_close_ups(folder: Path, given: CloseUp = GIVEN, **load: object) -> Detector:
    spec = read_spec(folder).model_copy(update={"close_up": given})
    return Detector.load(folder, spec=spec, threads=1, **load)  # type: ignore[arg-type]


def found(image: Image, *boxes: tuple[int, int, int, int]) -> Detections:
    """Return faces of which nothing is known: all emotions are as likely."""
    n = len(boxes)
    shape = (image.shape[1], image.shape[0])
    confidence = np.linspace(0.9, 0.5, n)
    return Detections(np.asarray(boxes, np.float32), confidence, np.full((n, 8), 0.125), shape)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_faces_take_their_names_from_close_ups(plain: Path, backend: str) -> None:
    big, small = (20, 20, 212, 212), (240, 240, 260, 260)
    image = scene(300, 300, {big: Emotion.HAPPY, small: Emotion.FEAR})
    blank = found(image, big, small)
    named = with_close_ups(plain, backend=backend).name(blank, image)
    assert named.emotions == [Emotion.HAPPY, Emotion.FEAR]
    assert named.xyxy.tolist() == blank.xyxy.tolist()
    assert named.confidence.tolist() == blank.confidence.tolist()
    # Tempered by 2 like the first look: without it the share would be 0.9998 or more.
    assert 0.98 < named.probabilities[0].max() < 0.996


def test_names_from_close_ups_are_biased_as_those_of_the_first_look_are(plain: Path) -> None:
    box = (20, 20, 212, 212)
    image = scene(300, 300, {box: Emotion.HAPPY})
    spec = read_spec(plain).model_copy(update={"close_up": GIVEN})
    bias = tuple(40.0 if name == "sad" else 0.0 for name in NAMES)
    biased = spec.model_copy(update={"calibration": spec.calibration.model_copy(update={"bias": bias})})
    detector = Detector.load(plain, spec=biased, threads=1)
    assert detector.name(found(image, box), image).emotions == [Emotion.SAD]
    first = Detector.load(plain, spec=biased, threads=1, close_ups=False).predict(image)
    assert set(first.emotions) == set(detector.predict(image).emotions) == {Emotion.SAD}


def test_only_the_most_confident_faces_are_looked_at(plain: Path) -> None:
    boxes = [(0, 0, 32, 32), (64, 0, 96, 32), (0, 64, 32, 96)]
    image = scene(96, 96, dict.fromkeys(boxes, Emotion.SAD))
    named = with_close_ups(plain).name(found(image, *boxes), image)
    assert named.probabilities.max(axis=1) == pytest.approx([0.97, 0.97, 0.125], abs=0.1)


def test_a_face_not_seen_in_its_close_up_keeps_its_name(plain: Path) -> None:
    image = scene(96, 96, {})
    named = with_close_ups(plain).name(found(image, (0, 0, 40, 40)), image)
    assert named.probabilities.tolist() == [[0.125] * 8]


def test_names_do_not_change_in_the_mirror(plain: Path) -> None:
    rng = np.random.default_rng(0)
    detector = with_close_ups(plain)
    for _ in range(5):
        image = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        face, turned = (20, 30, 60, 74), (96 - 60, 30, 96 - 20, 74)
        one = detector.name(found(image, face), image)
        other = np.ascontiguousarray(image[:, ::-1])
        assert detector.name(found(other, turned), other).probabilities == pytest.approx(one.probabilities, abs=1e-4)


def test_a_reduced_picture_is_cut_where_the_face_lies_in_it(plain: Path) -> None:
    image = scene(96, 96, {(8, 8, 40, 40): Emotion.DISGUST})
    blank = found(np.zeros((384, 384, 3), np.uint8), (32, 32, 160, 160))
    named = with_close_ups(plain).name(blank, image, factor=4)
    assert (named.emotions, named.image_wh) == ([Emotion.DISGUST], (384, 384))


def test_who_only_wants_boxes_gets_no_close_ups(plain: Path) -> None:
    image = scene(96, 96, {(0, 0, 32, 32): Emotion.HAPPY})
    detector = with_close_ups(plain, close_ups=False)
    assert detector.name(found(image, (0, 0, 32, 32)), image).probabilities.tolist() == [[0.125] * 8]
    assert detector.predict(image).emotions == [Emotion.HAPPY]


def test_prediction_includes_the_second_look(plain: Path) -> None:
    image = scene(96, 96, {(0, 0, CELL, CELL): Emotion.HAPPY})
    first = Detector.load(plain, threads=1).predict(image)
    both = with_close_ups(plain, CloseUp(faces=2, side=64, face=32)).predict(image)
    assert first.emotions == [Emotion.HAPPY]
    assert both.xyxy.tolist() == first.xyxy.tolist()
    # In a close-up of 64 px the face lies across four cells, a quarter of each: none of them sees it.
    assert both.probabilities.tolist() == first.probabilities.tolist()
    centred = with_close_ups(plain).predict(image)
    assert centred.probabilities == pytest.approx(first.probabilities, abs=0.01)
