"""The table of one pass beside two stages: what counts, and for whom."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.baselines import Answers, Figures, composed, sheet
from emotion_yolo.data.prepared import Sample
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES, Emotion
from emotion_yolo.structures.labels import Labels

HAPPY, SAD, CONTEMPT = int(Emotion.HAPPY), int(Emotion.SAD), int(Emotion.CONTEMPT)
SEVEN = tuple(name for name in NAMES if name != "contempt")
WHOLE = np.asarray([[0.5, 0.5, 1.0, 1.0]])
CONF = 0.35


def found(shares: dict[int, float], *, confidence: float = 0.9, names: tuple[str, ...] = NAMES) -> Detections:
    """Return one face that fills a picture of 20 px."""
    row = np.zeros((1, len(names)), np.float32)
    for emotion, share in shares.items():
        row[0, names.index(NAMES[emotion])] = share
    box = np.asarray([[0, 0, 20, 20]], np.float32)
    return Detections(box, np.asarray([confidence], np.float32), row, (20, 20), names)


def answers(
    given: list[dict[int, float] | Detections], cls: list[int], *, shown: tuple[int, ...], votes: object = None
) -> Answers:
    faces = [face if isinstance(face, Detections) else found(face) for face in given]
    rows = np.full((len(cls), 1, 8), np.nan, np.float32) if votes is None else np.asarray(votes, np.float32)[:, None]
    pairs = [(face, Labels(np.asarray([of]), WHOLE)) for face, of in zip(faces, cls, strict=True)]
    return Answers(shown, pairs, list(rows), CONF)


def measured(given: Answers) -> dict[str, float]:
    return Figures(given)(np.ones(len(given.pairs)))


def test_a_face_that_is_not_found_is_named_wrongly() -> None:
    nothing = Detections.empty((20, 20))
    figures = measured(answers([{HAPPY: 1.0}, nothing], [HAPPY, HAPPY], shown=(HAPPY, SAD)))
    assert figures["top1"] == 0.5
    assert figures["map50"] == pytest.approx(0.5, abs=0.02)
    assert figures["ece"] == pytest.approx(0)  # of what was found


def test_a_face_below_the_threshold_is_ranked_but_not_answered() -> None:
    unsure = found({HAPPY: 1.0}, confidence=0.2)
    figures = measured(answers([{HAPPY: 1.0}, unsure], [HAPPY, HAPPY], shown=(HAPPY, SAD)))
    assert figures["top1"] == 0.5
    assert figures["map50"] == pytest.approx(1, abs=0.01)


def test_an_emotion_that_is_not_shared_is_neither_asked_for_nor_credited() -> None:
    # Contempt leads for the first face, of which the set shows none: among the shared it is happy.
    given = answers(
        [{CONTEMPT: 0.6, HAPPY: 0.3, SAD: 0.1}, {CONTEMPT: 1.0}], [HAPPY, CONTEMPT], shown=(HAPPY, SAD)
    )  # fmt: skip
    figures = Figures(given)
    assert figures.faces == 1
    assert figures(np.ones(2))["top1"] == 1
    assert figures(np.ones(2))["ece"] == pytest.approx(0.25, abs=1e-6)


def test_a_model_of_seven_emotions_is_measured_by_name() -> None:
    given = answers([found({SAD: 0.9, HAPPY: 0.1}, names=SEVEN)], [SAD], shown=(HAPPY, SAD))
    assert measured(given)["top1"] == 1
    assert measured(given)["map50"] == pytest.approx(1, abs=0.01)


def test_macro_recall_is_the_mean_over_the_emotions_that_are_there() -> None:
    given = answers([{HAPPY: 1.0}, {HAPPY: 1.0}, {HAPPY: 1.0}], [HAPPY, HAPPY, SAD], shown=(HAPPY, SAD))
    assert measured(given)["macro_recall"] == pytest.approx(0.5)
    assert measured(given)["top1"] == pytest.approx(2 / 3)


def test_votes_count_where_one_emotion_has_half_of_them() -> None:
    votes = np.zeros((3, 8), np.float32)
    votes[0, [HAPPY, SAD]] = (0.4, 0.6)
    votes[1, [HAPPY, SAD, 0]] = (0.4, 0.3, 0.3)
    votes[2, HAPPY] = 1
    given = answers([{SAD: 1.0}] * 3, [HAPPY] * 3, shown=(HAPPY, SAD), votes=votes)
    assert measured(given)["votes_top1"] == pytest.approx(0.5)
    assert measured(given)["top1"] == 0
    assert np.isnan(measured(answers([{SAD: 1.0}], [SAD], shown=(HAPPY, SAD)))["votes_top1"])


def test_a_resample_counts_a_picture_as_often_as_it_was_drawn() -> None:
    figures = Figures(answers([{HAPPY: 1.0}, {HAPPY: 1.0}], [HAPPY, SAD], shown=(HAPPY, SAD)))
    assert figures(np.asarray([3.0, 1.0]))["top1"] == pytest.approx(0.75)


def test_a_picture_of_sixteen_faces_is_a_grid_in_which_few_crops_recur() -> None:
    tiles = [np.full((20, 20, 3), shade, np.uint8) for shade in (10, 200)]
    picture = sheet(tiles, 16)
    assert picture.shape == (640, 640, 3)
    assert picture[80::160, 80::160, 0].flatten().tolist() == [10, 200] * 8


def test_a_composed_picture_has_each_face_where_its_label_says(tmp_path: Path) -> None:
    samples = []
    for place, shade in enumerate((10, 60, 110, 160)):
        image = np.zeros((40, 40, 3), np.uint8)
        image[10:30, 10:30] = shade
        cv2.imwrite(str(tmp_path / f"{place}.png"), image)
        label = Labels(np.asarray([place]), np.asarray([[0.5, 0.5, 0.5, 0.5]]))
        samples.append(Sample(tmp_path / f"{place}.png", label))
    shown = composed(samples)
    assert shown.image.shape == (320, 320, 3)
    for (x, y, w, h), shade in zip(shown.labels.xywhn * 320, (10, 60, 110, 160), strict=True):
        assert (w, h) == (80, 80)
        assert shown.image[int(y), int(x), 0] == shade
    assert shown.labels.cls.tolist() == [0, 1, 2, 3]
    assert shown.votes.shape == (4, 8)
