import numpy as np
import pytest

from emotion_yolo.structures.boxes import area, clip_xyxy, ios_matrix, iou_matrix, xywhn_to_xyxy, xyxy_to_xywhn

NONE = np.zeros((0, 4), np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(rows, np.float64).reshape(-1, 4)


def test_a_centre_box_becomes_pixel_corners() -> None:
    answer = xywhn_to_xyxy(boxes((0.5, 0.25, 0.5, 0.5), (0.5, 0.5, 1, 1)), image_wh=(200, 100))
    assert answer.tolist() == [[50, 0, 150, 50], [0, 0, 200, 100]]


def test_pixel_corners_become_a_centre_box() -> None:
    assert xyxy_to_xywhn(boxes((50, 0, 150, 50)), image_wh=(200, 100)).tolist() == [[0.5, 0.25, 0.5, 0.5]]


def test_a_box_is_cut_at_the_edges_of_the_picture() -> None:
    answer = clip_xyxy(boxes((-5, 10, 250, 120), (210, 110, 220, 130)), image_wh=(200, 100))
    assert answer.tolist() == [[0, 10, 200, 100], [200, 100, 200, 100]]


def test_a_box_turned_inside_out_has_no_area() -> None:
    assert area(boxes((0, 0, 2, 3), (2, 0, 0, 3), (2, 3, 0, 0), (1, 1, 1, 5))).tolist() == [6, 0, 0, 0]


def test_overlap_is_one_row_a_box_of_the_first_and_a_column_of_the_second() -> None:
    first = boxes((0, 0, 2, 2), (10, 10, 12, 12))
    second = boxes((0, 0, 2, 2), (1, 0, 3, 2), (2, 0, 4, 2))
    np.testing.assert_allclose(iou_matrix(first, second), [[1, 1 / 3, 0], [0, 0, 0]])


def test_nesting_is_the_part_of_the_smaller_box_that_lies_in_the_other() -> None:
    whole, half_in, inside = boxes((0, 0, 4, 4)), boxes((3, 0, 5, 2)), boxes((1, 1, 2, 2))
    assert ios_matrix(whole, np.concatenate([half_in, inside])).tolist() == [[0.5, 1]]
    assert ios_matrix(inside, whole).tolist() == [[1]]


def test_two_empty_boxes_do_not_overlap() -> None:
    point = boxes((1, 1, 1, 1))
    assert iou_matrix(point, point).tolist() == [[0]]
    assert ios_matrix(point, point).tolist() == [[0]]


def test_no_boxes_are_taken_too() -> None:
    assert xywhn_to_xyxy(NONE, image_wh=(10, 10)).shape == (0, 4)
    assert xyxy_to_xywhn(NONE, image_wh=(10, 10)).shape == (0, 4)
    assert clip_xyxy(NONE, image_wh=(10, 10)).shape == (0, 4)
    assert area(NONE).shape == (0,)
    assert iou_matrix(NONE, boxes((0, 0, 1, 1))).shape == (0, 1)
    assert ios_matrix(NONE, boxes((0, 0, 1, 1))).shape == (0, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_stays_that_of_the_boxes(dtype: type[np.floating]) -> None:
    given = np.array([[0.5, 0.5, 0.2, 0.2]], dtype)
    corners = xywhn_to_xyxy(given, image_wh=(96, 96))
    for answer in (corners, xyxy_to_xywhn(corners, image_wh=(96, 96)), clip_xyxy(corners, image_wh=(96, 96))):
        assert answer.dtype == dtype
    assert iou_matrix(corners, corners).dtype == dtype


def test_the_given_boxes_are_not_changed() -> None:
    given = boxes((-5, -5, 250, 120))
    before = given.copy()
    clip_xyxy(given, image_wh=(200, 100))
    xyxy_to_xywhn(given, image_wh=(200, 100))
    xywhn_to_xyxy(given, image_wh=(200, 100))
    assert (given == before).all()
