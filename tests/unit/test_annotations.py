import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.drawing import (
    COLOURS,
    TRUTH_COLOUR,
    Tile,
    check_sheet,
    contact_sheet,
    draw_box,
    draw_detections,
    enlarged,
    evenly,
    fitted,
    stacked,
    to_check,
)
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import Emotion
from tests.builders import detections_of

GREY = np.full((400, 600, 3), 114, np.uint8)


def changed(image: NDArray[np.uint8], before: NDArray[np.uint8] = GREY) -> NDArray[np.bool_]:
    return (image != before).any(axis=2)


def one(xyxy: list[float], emotion: Emotion, *, wh: tuple[int, int] = (600, 400)) -> Detections:
    return detections_of([xyxy], confidence=[0.9], emotions=[emotion], image_wh=wh)


@pytest.mark.parametrize("emotion", list(Emotion))
def test_a_box_has_its_emotions_colour_on_all_four_sides(emotion: Emotion) -> None:
    drawn = draw_detections(GREY, one([100, 150, 300, 350], emotion))
    for x, y in ((200, 350), (100, 250), (300, 250), (280, 150)):
        assert tuple(drawn[y, x]) == COLOURS[emotion]
    assert tuple(drawn[250, 200]) == (114, 114, 114)


def test_colours_tell_emotions_apart() -> None:
    colours = np.asarray(list(COLOURS.values()), int)
    assert len(colours) == len(Emotion)
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=2)
    assert distances[np.triu_indices(len(colours), 1)].min() > 60


def test_the_picture_itself_is_left_alone() -> None:
    before = GREY.copy()
    drawn = draw_detections(GREY, one([100, 150, 300, 350], Emotion.HAPPY))
    assert np.array_equal(GREY, before)
    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8


def test_without_faces_nothing_is_drawn() -> None:
    assert not changed(draw_detections(GREY, Detections.empty((600, 400)))).any()


def test_the_label_stands_above_the_box_and_differs_by_emotion_and_probability() -> None:
    happy = draw_detections(GREY, one([100, 150, 300, 350], Emotion.HAPPY))
    assert changed(happy)[130:148, 100:160].any()
    surer = detections_of([[100, 150, 300, 350]], confidence=[0.9], emotions=[4], sure=0.99, image_wh=(600, 400))
    assert changed(draw_detections(GREY, surer), happy).any()


def test_the_label_goes_inside_where_there_is_no_room_above() -> None:
    drawn = changed(draw_detections(GREY, one([100, 0, 300, 200], Emotion.HAPPY)))
    assert drawn[5:15, 104:150].any()


def test_the_label_moves_left_at_the_right_edge() -> None:
    drawn = changed(draw_detections(GREY, one([590, 150, 600, 170], Emotion.SURPRISE)))
    assert drawn[130:149, 500:585].any()


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0, 0, 600, 400], [599, 399, 600, 400], [300, 200, 300, 200]])
def test_boxes_of_any_size_can_be_drawn(box: list[float]) -> None:
    assert changed(draw_detections(GREY, one(box, Emotion.SAD))).any()


def test_a_picture_of_one_pixel_can_be_drawn_on() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    assert draw_detections(pixel, one([0, 0, 1, 1], Emotion.SAD, wh=(1, 1))).shape == (1, 1, 3)


def test_lines_grow_with_the_picture() -> None:
    large = np.full((2000, 3000, 3), 114, np.uint8)
    drawn = changed(draw_detections(large, one([500, 750, 1500, 1750], Emotion.HAPPY, wh=(3000, 2000))), large)
    small = changed(draw_detections(GREY, one([100, 150, 300, 350], Emotion.HAPPY)))
    assert drawn[1600].sum() == 5 * small[320].sum()


def test_the_surest_answer_lies_on_top() -> None:
    boxes = [[100.0, 150, 300, 350]] * 2
    both = detections_of(boxes, confidence=[0.9, 0.3], emotions=[4, 6], image_wh=(600, 400))
    assert tuple(draw_detections(GREY, both)[350, 200]) == COLOURS[Emotion.HAPPY]


def test_a_true_box_is_white_and_may_go_without_a_label() -> None:
    drawn = draw_box(GREY, [100, 150, 300, 350])
    assert tuple(drawn[350, 200]) == TRUTH_COLOUR
    assert not changed(drawn)[:150].any()


def test_a_sheet_holds_every_tile_in_rows() -> None:
    red, blue = np.full((50, 100, 3), (200, 0, 0), np.uint8), np.full((100, 50, 3), (0, 0, 200), np.uint8)
    sheet = contact_sheet([Tile(red, ("one",)), Tile(blue), Tile(red)], title="Sheet", columns=2, side=100)
    assert sheet.shape[1] == 2 * 108 + 8
    assert tuple(sheet[40 + 50, 8 + 50]) == (200, 0, 0)
    assert tuple(sheet[40 + 50, 8 + 108 + 50]) == (0, 0, 200)
    assert tuple(sheet[40 + 50, 8 + 108 + 10]) == (255, 255, 255)  # the tall one is centred
    assert tuple(sheet[40 + 124 + 50, 8 + 50]) == (200, 0, 0)


def test_a_caption_that_is_too_long_is_shortened_to_its_tile() -> None:
    tile = Tile(np.full((100, 100, 3), 0, np.uint8), ("a very long caption indeed, that cannot fit",))
    sheet = contact_sheet([tile, Tile(tile.image)], title="", columns=2, side=100)
    written = (sheet[140:156] != 255).any(axis=2).any(axis=0)
    assert written[8:108].any()
    assert not written[109:].any()


def test_a_sheet_without_tiles_is_its_title() -> None:
    sheet = contact_sheet([], title="Nothing went wrong")
    assert (sheet != 255).any()


def test_small_pictures_are_enlarged_and_large_ones_left() -> None:
    assert enlarged(np.zeros((50, 100, 3), np.uint8), side=320).shape == (160, 320, 3)
    assert enlarged(GREY, side=320) is GREY


def test_any_picture_is_fitted_to_a_side() -> None:
    assert fitted(np.zeros((50, 100, 3), np.uint8), side=320).shape == (160, 320, 3)
    assert fitted(np.zeros((1000, 500, 3), np.uint8), side=320).shape == (320, 160, 3)


def test_sheets_of_different_widths_are_stacked_on_paper() -> None:
    sheet = stacked([np.zeros((10, 40, 3), np.uint8), np.full((5, 60, 3), 9, np.uint8)])
    assert sheet.shape == (15, 60, 3)
    assert (sheet[:10, :40] == 0).all()
    assert (sheet[:10, 40:] == 255).all()
    assert (sheet[10:] == 9).all()


def test_the_least_confident_boxes_are_checked_first_then_those_not_found_then_an_even_pick() -> None:
    boxes = [("found", 0.9 - index / 1000) for index in range(200)]
    for index in (50, 150):
        boxes[index] = ("typical", 0.0)
    chosen = to_check(boxes, count=12)
    assert chosen[:6] == [199, 198, 197, 196, 195, 194]
    assert chosen[6:8] == [50, 150]
    assert len(set(chosen)) == 12
    assert chosen[8] == 0
    assert np.ptp(np.diff(chosen[8:])) <= 2  # even, but for what was chosen before
    assert set(chosen) <= set(range(200))


@pytest.mark.parametrize("count", [0, 3, 5])
def test_of_few_boxes_all_are_checked(count: int) -> None:
    assert sorted(to_check([("found", 0.5)] * count)) == list(range(count))


def test_the_check_sheet_tells_found_boxes_from_others() -> None:
    crop = np.full((96, 96, 3), 114, np.uint8)
    sheet = check_sheet([(crop, (0.5, 0.5, 0.5, 0.5), "found", 0.31), (crop, (0.5, 0.5, 0.5, 0.5), "typical", 0.0)])
    first, second = sheet[40:232, 8:200], sheet[40:232, 208:400]
    for tile, (red, green) in ((first, (44, 190)), (second, (255, 127))):
        left = tile[96, 48]  # a quarter of 192 px from the edge
        assert abs(int(left[0]) - red) < 12
        assert abs(int(left[1]) - green) < 12
        assert tuple(tile[20, 20]) == (114, 114, 114)


def test_drawing_needs_neither_matplotlib_nor_torch() -> None:
    program = (
        "import sys, emotion_yolo.drawing; print({'torch', 'matplotlib', 'ultralytics', 'yaml'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_pictures_are_chosen_at_even_distances() -> None:
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly("abc", 20) == ["a", "b", "c"]
