from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.mistakes import mistake_tile, prediction_tile, predictions_sheet, worst_mistakes
from emotion_yolo.evaluation.outcomes import Outcome
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID
from tests.builders import COLOURS, detections_of, labels_of, painted, painted_labels, save_picture

BOX = [0.0, 0.0, 64.0, 64.0]


def outcome(name: str, label: int, predicted: int | None, *, sure: float = 0.86) -> Outcome:
    found = (
        Detections.empty((96, 96))
        if predicted is None
        else detections_of([BOX], confidence=[0.9], emotions=[predicted], sure=sure)
    )
    return Outcome(Sample(Path(name), labels_of([label], [BOX])), found, found)


def scene(name: str, *boxes: list[float], wh: tuple[int, int] = (96, 96)) -> Outcome:
    sample = Sample(Path(name), labels_of([FACE_ID] * len(boxes), boxes, image_wh=wh))
    return Outcome(sample, Detections.empty(wh), Detections.empty(wh))


def worst(crops: list[Outcome], scenes: list[Outcome], count: int) -> list[str]:
    mistakes = worst_mistakes([*crops, *scenes], count=count)
    return [mistake.outcome.sample.image.name for mistake in mistakes]


def test_the_most_confident_wrong_emotions_come_first() -> None:
    crops = [
        outcome("a.jpg", 3, 4, sure=0.5),
        outcome("b.jpg", 3, 4, sure=0.9),
        outcome("right.jpg", 3, 3, sure=0.99),
        outcome("unknown.jpg", FACE_ID, 4, sure=0.99),
    ]
    assert worst(crops, [], 10) == ["b.jpg", "a.jpg"]
    assert worst(crops, [], 1) == ["b.jpg"]


def test_a_third_of_the_places_is_for_the_largest_faces_missed() -> None:
    crops = [outcome(f"{i}.jpg", 3, 4, sure=0.9 - i / 100) for i in range(6)]
    scenes = [scene("small.jpg", [0, 0, 40, 40]), scene("large.jpg", [0, 0, 90, 90]), scene("tiny.jpg", [0, 0, 20, 20])]
    assert worst(crops, scenes, 3) == ["0.jpg", "1.jpg", "large.jpg"]
    assert worst(crops, scenes, 6) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "large.jpg", "small.jpg"]


def test_missed_faces_take_places_that_wrong_emotions_leave_free() -> None:
    scenes = [scene("a.jpg", [0, 0, 40, 40], [40, 40, 90, 90])]
    assert worst([outcome("wrong.jpg", 3, 4)], scenes, 3) == ["wrong.jpg", "a.jpg", "a.jpg"]


def test_wrong_emotions_take_places_that_missed_faces_leave_free() -> None:
    crops = [outcome(f"{i}.jpg", 3, 4) for i in range(5)]
    assert worst(crops, [], 4) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_no_places_no_mistakes() -> None:
    assert worst([outcome("a.jpg", 3, 4)], [scene("b.jpg", BOX)], 0) == []


def test_a_mistake_is_shown_with_label_and_prediction(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", painted({(0, 0): 4, (1, 0): 4, (0, 1): 4, (1, 1): 4}))
    found = detections_of([BOX], confidence=[0.9], emotions=[6])
    crops = [Outcome(Sample(path, labels_of([4], [BOX])), found, found)]
    (mistake,) = worst_mistakes(crops, count=5)
    tile = mistake_tile(mistake)
    assert tile.caption == ("label: happy", "predicted: sad 86%", "a.png")
    assert max(tile.image.shape) == 320
    assert tuple(tile.image[100, 100]) == COLOURS[4]


def test_a_missed_face_is_cut_out_of_its_scene(tmp_path: Path) -> None:
    face = {(20, 10): 2}
    path = save_picture(tmp_path / "scene.png", painted(face, width=1280, height=640))
    labels = painted_labels(face, cls=FACE_ID, image_wh=(1280, 640))
    # 32 px of 1,280 are 16 of 640: too small to show; so look at it directly.
    large = labels_of([FACE_ID], [[608, 288, 704, 384]], image_wh=(1280, 640))
    scenes = [
        Outcome(Sample(path, of), Detections.empty((1280, 640)), Detections.empty((1280, 640)))
        for of in (labels, large)
    ]
    (mistake,) = worst_mistakes(scenes, count=5)
    tile = mistake_tile(mistake)
    assert tile.caption == ("label: face", "not found", "scene.png")
    middle = tile.image[tile.image.shape[0] // 2, tile.image.shape[1] // 2]
    assert np.abs(middle.astype(int) - COLOURS[2]).max() < 40
    assert tile.image.shape[0] == pytest.approx(320, abs=2)


def test_predictions_are_shown_with_the_labels(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", painted({(0, 0): 4}))
    found = detections_of([[0, 0, 32, 32]], confidence=[0.9], emotions=[4])
    named = prediction_tile(Outcome(Sample(path, painted_labels({(0, 0): 4})), found, found), side=400)
    assert named.caption == ("a.png", "label: happy")
    unknown = prediction_tile(Outcome(Sample(path, painted_labels({(0, 0): 4}, cls=FACE_ID)), found, found), side=400)
    assert named.image.shape == (400, 400, 3)
    assert unknown.caption == ("a.png", "1 faces")
    assert np.array_equal(named.image, unknown.image)


def test_the_sheet_shows_photographs_above_crops_and_goes_without_either(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", painted({(0, 0): 4}))
    shown = [Outcome(Sample(path, painted_labels({(0, 0): 4})), Detections.empty((96, 96)), Detections.empty((96, 96)))]
    both, crops, photographs = (
        predictions_sheet(shown, shown),
        predictions_sheet([], shown),
        predictions_sheet(shown, []),
    )
    assert both.shape[0] == crops.shape[0] + photographs.shape[0]
    assert photographs.shape[0] > crops.shape[0]
