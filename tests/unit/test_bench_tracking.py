"""The benchmark of tracks: what it asks for, and how it counts."""

import numpy as np
import pytest

from benchmarks.tracking import RATE, Score, Truth, as_answer, cast, frames, to_find
from emotion_yolo.structures.emotions import Emotion

HAPPY, SAD = Emotion.HAPPY, Emotion.SAD


def pair(*emotions: Emotion) -> Truth:
    return Truth(np.arange(2), emotions, np.asarray([[10.0, 10, 60, 70], [200, 10, 250, 70]]))


def test_faces_that_are_hidden_or_outside_by_more_than_half_are_not_asked_for() -> None:
    boxes = np.asarray([[0, 0, 100, 100], [-60, 0, 40, 100], [30, 0, 130, 100], [300, 0, 400, 100]], np.float64)
    truth = to_find(boxes, [HAPPY, HAPPY, SAD, HAPPY])
    # The first is hidden by the third from x = 30 on; the second is outside by 60 of its 100 px.
    assert truth.people.tolist() == [2, 3]
    assert truth.emotions == (SAD, HAPPY)
    assert truth.xyxy[0].tolist() == [30, 0, 130, 100]


def test_a_perfect_run_has_no_switch_and_the_flicker_of_the_people() -> None:
    score = Score()
    for number in range(RATE * 6):
        truth = pair(HAPPY, SAD if number < RATE * 3 else HAPPY)
        score.add(truth, as_answer(truth))
    figures = score.figures()
    assert (figures["num_switches"], figures["mota"], figures["idf1"], figures["right"]) == (0, 1, 1, 1)
    assert figures["flicker"] == pytest.approx(5)  # one change in twice six seconds


def test_exchanged_numbers_are_switches_and_wrong_names_are_not_right() -> None:
    score = Score()
    for number in range(10):
        truth = pair(HAPPY, HAPPY)
        faces = as_answer(truth)
        if number >= 5:
            faces[0]["track"], faces[1]["track"] = 1, 0
            faces[0]["emotion"] = "sad"
        score.add(truth, faces)
    figures = score.figures()
    assert figures["num_switches"] == 2
    assert figures["mota"] == pytest.approx(0.9)
    assert figures["idf1"] == pytest.approx(0.5)
    assert figures["right"] == pytest.approx(0.75)


def test_answers_without_a_track_count_for_names_and_for_no_track() -> None:
    score = Score()
    for _ in range(4):
        truth = pair(HAPPY, SAD)
        score.add(truth, [face | {"track": None} for face in as_answer(truth)])
        score.add(truth, [])
    assert score.figures()["mota"] == 0
    assert score.figures()["right"] == 1


def test_the_drawn_people_move_and_change() -> None:
    rng = np.random.default_rng(0)
    people = cast(rng)
    drawn = [(time_s, image, truth) for time_s, image, truth in frames(people, 0.08, rng)]
    assert [time_s for time_s, _, _ in drawn] == [0, 0.04]
    assert drawn[0][1].shape == (360, 640, 3)
    assert not np.array_equal(drawn[0][2].xyxy, drawn[1][2].xyxy)
    assert {person.at(0)[2] for person in people} != {person.at(2.6)[2] for person in people}
