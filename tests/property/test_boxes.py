import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from emotion_yolo.structures.boxes import area, clip_xyxy, iou_matrix, xywhn_to_xyxy, xyxy_to_xywhn

Boxes = NDArray[np.float64]

SIZES = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000))
PIXELS = st.floats(-2_000, 12_000, width=32)
ANY_BOXES = arrays(np.float64, st.tuples(st.integers(0, 5), st.just(4)), elements=PIXELS)
BOXES = ANY_BOXES.map(
    lambda a: np.concatenate([np.minimum(a[:, :2], a[:, 2:]), np.maximum(a[:, :2], a[:, 2:])], axis=1)
)


@given(ANY_BOXES, SIZES)
def test_converting_there_and_back_changes_nothing(boxes: Boxes, image_wh: tuple[int, int]) -> None:
    again = xywhn_to_xyxy(xyxy_to_xywhn(boxes, image_wh=image_wh), image_wh=image_wh)
    np.testing.assert_allclose(again, boxes, atol=1e-8)


@given(BOXES, SIZES)
def test_a_clipped_box_lies_in_the_picture_and_in_the_box(boxes: Boxes, image_wh: tuple[int, int]) -> None:
    clipped = clip_xyxy(boxes, image_wh=image_wh)
    assert (clipped >= 0).all()
    assert (clipped <= [*image_wh, *image_wh]).all()
    assert (area(clipped) <= area(boxes)).all()
    assert (clip_xyxy(clipped, image_wh=image_wh) == clipped).all()


@given(ANY_BOXES, ANY_BOXES)
def test_overlap_is_a_share_and_does_not_depend_on_the_order(a: Boxes, b: Boxes) -> None:
    iou = iou_matrix(a, b)
    assert iou.shape == (len(a), len(b))
    assert (iou >= 0).all()
    assert (iou <= 1 + 1e-9).all()
    np.testing.assert_allclose(iou, iou_matrix(b, a).T)


@given(BOXES)
def test_a_box_overlaps_itself_wholly(boxes: Boxes) -> None:
    np.testing.assert_allclose(np.diag(iou_matrix(boxes, boxes)), (area(boxes) > 0).astype(float))


@given(BOXES, BOXES, st.sampled_from([0.5, 2.0, 4.0]), st.integers(-500, 500))
def test_overlap_does_not_change_with_scale_and_place(a: Boxes, b: Boxes, scale: float, shift: int) -> None:
    moved = iou_matrix(a * scale + shift, b * scale + shift)
    large = (area(a)[:, None] > 1) & (area(b)[None, :] > 1)  # below, the shift eats the digits
    np.testing.assert_allclose(moved[large], iou_matrix(a, b)[large], atol=1e-6)
