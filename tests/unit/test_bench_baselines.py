"""The table of one pass beside two stages: what counts, and for whom."""

import numpy as np
import pytest

from benchmarks.baselines import Answers, Figures, sheet
from emotion_yolo.structures.emotions import Emotion

HAPPY, SAD, CONTEMPT = int(Emotion.HAPPY), int(Emotion.SAD), int(Emotion.CONTEMPT)


def answers(rows: list[dict[int, float]], cls: list[int], *, shown: tuple[int, ...], soft: object = None) -> Answers:
    probabilities = np.zeros((len(rows), 8), np.float32)
    for row, given in zip(probabilities, rows, strict=True):
        for emotion, probability in given.items():
            row[emotion] = probability
    votes = np.full((len(rows), 8), np.nan, np.float32) if soft is None else np.asarray(soft, np.float32)
    return Answers(shown, np.asarray(cls), votes, probabilities)


def measured(given: Answers) -> dict[str, float]:
    return Figures(given)(np.ones(len(given.cls)))


def test_a_face_that_is_not_found_is_named_wrongly() -> None:
    figures = measured(answers([{HAPPY: 1.0}, {}], [HAPPY, HAPPY], shown=(HAPPY, SAD)))
    assert figures["top1"] == 0.5
    assert figures["ece"] == pytest.approx(0)  # of what was found


def test_an_emotion_that_is_not_shared_is_neither_asked_for_nor_credited() -> None:
    # Contempt leads for the first face, of which the set shows none: among the shared it is happy.
    given = answers([{CONTEMPT: 0.6, HAPPY: 0.3, SAD: 0.1}, {CONTEMPT: 1.0}], [HAPPY, CONTEMPT], shown=(HAPPY, SAD))
    figures = Figures(given)
    assert figures.faces == 1
    assert figures(np.ones(2))["top1"] == 1
    assert figures(np.ones(2))["ece"] == pytest.approx(0.25, abs=1e-6)


def test_macro_recall_is_the_mean_over_the_emotions_that_are_there() -> None:
    given = answers([{HAPPY: 1.0}, {HAPPY: 1.0}, {HAPPY: 1.0}], [HAPPY, HAPPY, SAD], shown=(HAPPY, SAD))
    assert measured(given)["macro_recall"] == pytest.approx(0.5)
    assert measured(given)["top1"] == pytest.approx(2 / 3)


def test_votes_count_where_one_emotion_has_half_of_them() -> None:
    votes = np.zeros((3, 8), np.float32)
    votes[0, [HAPPY, SAD]] = (0.4, 0.6)
    votes[1, [HAPPY, SAD, 0]] = (0.4, 0.3, 0.3)
    votes[2, HAPPY] = 1
    given = answers([{SAD: 1.0}] * 3, [HAPPY] * 3, shown=(HAPPY, SAD), soft=votes)
    assert measured(given)["votes_top1"] == pytest.approx(0.5)
    assert measured(given)["top1"] == 0
    assert np.isnan(measured(answers([{SAD: 1.0}], [SAD], shown=(HAPPY, SAD)))["votes_top1"])


def test_a_picture_of_sixteen_faces_is_a_grid_in_which_few_crops_recur() -> None:
    tiles = [np.full((20, 20, 3), shade, np.uint8) for shade in (10, 200)]
    picture = sheet(tiles, 16)
    assert picture.shape == (640, 640, 3)
    assert picture[80::160, 80::160, 0].flatten().tolist() == [10, 200] * 8
