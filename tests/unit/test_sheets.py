from collections import Counter

import numpy as np
import pytest

from emotion_yolo.data.sheets import compose_sheet, compressed, degraded, plan_sheets, shrink_scene, split_scenes
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.labels import Labels
from tests.builders import labels_of


def crop_of(value: int, *, cls: int = 0, box: tuple[float, ...] = (0.5, 0.6, 0.4, 0.6)) -> tuple[np.ndarray, Labels]:
    return np.full((96, 96, 3), value, np.uint8), Labels(np.asarray([cls]), np.asarray([box]))


def test_every_crop_lies_on_exactly_one_sheet() -> None:
    plans = plan_sheets(100, grids=[2, 3], seed=5)
    members = [member for plan in plans for member in plan.members]
    assert sorted(members) == list(range(100))
    assert {plan.grid for plan in plans} == {2, 3}
    assert all(len(plan.members) == plan.grid**2 for plan in plans[:-1])


def test_in_each_round_every_crop_is_dealt_once_among_others() -> None:
    once, twice = (plan_sheets(90, grids=[1, 2, 3], seed=5, rounds=rounds) for rounds in (1, 2))
    assert twice[: len(once)] == once
    second = twice[len(once) :]
    assert sorted(member for plan in second for member in plan.members) == list(range(90))
    grids = [{member: plan.grid for plan in plans for member in plan.members} for plans in (once, second)]
    assert sum(grids[0][i] != grids[1][i] for i in range(90)) > 20  # and often at another size


def test_the_same_seed_deals_the_same_sheets_and_another_deals_others() -> None:
    assert plan_sheets(50, grids=[2, 3], seed=1) == plan_sheets(50, grids=[2, 3], seed=1)
    assert plan_sheets(50, grids=[2, 3], seed=1) != plan_sheets(50, grids=[2, 3], seed=2)


def test_a_sheet_holds_each_crop_in_its_tile_and_moves_its_box_along() -> None:
    sheet, labels = compose_sheet([crop_of(10, cls=1), crop_of(20, cls=2), crop_of(30, cls=3)], grid=2, size=200)
    assert sheet.shape == (200, 200, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((50, 50), (50, 150), (150, 50), (150, 150))] == [10, 20, 30, 114]
    assert labels.cls.tolist() == [1, 2, 3]
    boxes = xywhn_to_xyxy(labels.xywhn, image_wh=(200, 200))
    np.testing.assert_allclose(boxes[0], [30, 30, 70, 90])
    np.testing.assert_allclose(boxes[1], [130, 30, 170, 90])
    np.testing.assert_allclose(boxes[2], [30, 130, 70, 190])


def test_no_edge_of_a_box_is_an_edge_of_its_tile() -> None:
    _, labels = compose_sheet([crop_of(1), crop_of(2), crop_of(3), crop_of(4)], grid=2, size=256)
    boxes = xywhn_to_xyxy(labels.xywhn, image_wh=(256, 256))
    assert (np.abs((boxes % 128) - 0) > 1).all()


def test_scenes_are_dealt_out_by_share_without_overlap() -> None:
    names = [f"{i}.jpg" for i in range(40)]
    splits = split_scenes(names, valid=0.1, test=0.25, seed=0)
    assert Counter(splits.values()) == {"test": 10, "valid": 4, "train": 26}
    assert sorted(splits) == sorted(names)


def test_the_order_in_which_scenes_are_listed_does_not_move_them() -> None:
    names = [f"{i}.jpg" for i in range(40)]
    assert split_scenes(names, valid=0.1, test=0.2, seed=3) == split_scenes(names[::-1], valid=0.1, test=0.2, seed=3)


def test_a_scene_is_scaled_down_to_its_long_side_and_never_up() -> None:
    labels = labels_of([8], [[100, 100, 200, 220]], image_wh=(800, 400))
    image, kept, stays = shrink_scene(np.zeros((400, 800, 3), np.uint8), labels, size=400, min_face=8)
    assert image.shape == (200, 400, 3)
    np.testing.assert_allclose(kept.xywhn, labels.xywhn)
    assert stays.tolist() == [True]
    image, _, _ = shrink_scene(np.zeros((100, 50, 3), np.uint8), labels, size=400, min_face=0)
    assert image.shape == (100, 50, 3)


@pytest.mark.parametrize(("height", "stays"), [(15, False), (16, True)])
def test_faces_too_small_after_scaling_are_blurred_out_and_lose_their_label(height: int, stays: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (200, 200, 3), np.uint8)
    labels = labels_of([8], [[20, 20, 32, 20 + height]], image_wh=(200, 200))
    out, kept, mask = shrink_scene(image, labels, size=200, min_face=16)
    face = out[21 : 20 + height - 1, 21:31]
    assert len(kept) == stays
    assert mask.tolist() == [stays]
    assert bool(face.std(axis=(0, 1)).max() < 1) != stays
    np.testing.assert_array_equal(out[60:], image[60:])


def test_blurring_leaves_the_given_picture_as_it_was() -> None:
    image = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
    before = image.copy()
    shrink_scene(image, labels_of([8], [[1, 1, 4, 4]], image_wh=(50, 50)), size=50, min_face=10)
    np.testing.assert_array_equal(image, before)


def test_degraded_pictures_keep_their_shape_and_what_they_show() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((96, 80, 3), np.uint8)
    image[20:70, 20:60] = 220
    changed = [degraded(image, rng) for _ in range(40)]
    for each in changed:
        assert each.shape == image.shape
        assert each.dtype == np.uint8
        assert not np.array_equal(each, image)
        assert each[30:60, 30:50].mean() > each[:10].mean() + 40
    # Dark ones are dark in the middle of the square, the others nearly as bright as before: several ways were drawn.
    middles = np.asarray([each[40, 40].mean() for each in changed])
    assert 0 < (middles < 160).sum() < 20


def test_compression_keeps_light_better_than_it_would_with_red_and_blue_exchanged() -> None:
    # JPEG weighs red 0.299 and blue 0.114 in the light that it keeps, and halves the resolution of the rest.
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    exchanged = compressed(np.ascontiguousarray(image[..., ::-1]), quality=95)[..., ::-1]
    weights = np.asarray([0.299, 0.587, 0.114])

    def lost(after: np.ndarray) -> float:
        return float(np.abs(after @ weights - image @ weights).mean())

    assert lost(compressed(image, quality=95)) < 0.5 * lost(exchanged)
