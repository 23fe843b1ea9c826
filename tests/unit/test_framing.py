from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.params import Framing
from emotion_yolo.preparation.framing import (
    Region,
    background,
    cut_out,
    free_regions,
    random_part,
    reframed,
    window_around_face,
)
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.images import PAD_GREY
from emotion_yolo.structures.labels import Labels
from tests.builders import labels_of, painted, save_picture

GREEN = (0, 200, 0)


def framing(**changes: float) -> Framing:
    return Framing.model_validate({"share": 1.0, "natural": 0.0, "low": 0.28, "high": 1.12, "empty": 0.0, **changes})


def crop() -> tuple[np.ndarray, Labels]:
    """A grey crop with a green face."""
    image = np.full((96, 96, 3), 90, np.uint8)
    image[16:80, 24:72] = GREEN
    return image, labels_of([3], [[24, 16, 72, 80]])


def tile_of(seed: int, *, grid: int, tile: int = 128, **changes: float) -> tuple[np.ndarray, np.ndarray]:
    image, labels = crop()
    rng = np.random.default_rng(seed)
    placed, found = reframed(image, labels, tile=tile, grid=grid, framing=framing(**changes), regions=[], rng=rng)
    assert placed.shape == (tile, tile, 3)
    assert found.cls.tolist() == [3]
    return placed, xywhn_to_xyxy(found.xywhn, image_wh=(tile, tile))[0]


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("seed", range(12))
def test_the_face_on_a_tile_is_where_its_label_says(grid: int, seed: int) -> None:
    image, (x1, y1, x2, y2) = tile_of(seed, grid=grid)
    green = (image[..., 1] > 150) & (image[..., 0] < 60) & (image[..., 2] < 60)
    assert green[round(y1) + 3 : round(y2) - 3, round(x1) + 3 : round(x2) - 3].all()
    if any((image[y, x] != PAD_GREY).any() for y in (0, -1) for x in (0, -1)):
        return  # on a background that may be green itself
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    edges = np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    np.testing.assert_allclose(edges, [x1, y1, x2, y2], atol=2.5)


def test_faces_have_every_height_up_to_more_than_the_tile() -> None:
    heights = np.asarray([box[3] - box[1] for box in (tile_of(seed, grid=1)[1] for seed in range(60))]) / 128
    assert heights.min() < 0.4
    assert heights.max() > 0.98
    assert np.histogram(heights, bins=4, range=(0.28, 1.0))[0].min() >= 5


def test_on_sheets_of_several_a_face_stays_in_its_tile_and_on_many_is_no_speck() -> None:
    for grid, least in ((2, 0.27), (6, 0.49)):
        for seed in range(30):
            _, (x1, y1, x2, y2) = tile_of(seed, grid=grid)
            assert min(x1, y1) >= 0 and max(x2, y2) <= 128
            assert least * 128 < y2 - y1 <= 0.91 * 128


def test_a_natural_face_stays_about_as_high_as_in_its_crop() -> None:
    for seed in range(20):
        _, (_, y1, _, y2) = tile_of(seed, grid=2, natural=1.0)
        assert (y2 - y1) / 128 == pytest.approx(64 / 96, rel=0.11)


def test_backgrounds_are_of_several_kinds_and_some_are_parts_of_photographs(tmp_path: Path) -> None:
    photograph = save_picture(tmp_path / "photo.png", np.full((200, 300, 3), (10, 20, 200), np.uint8))
    region = Region(photograph, (0, 0, 150, 150))
    rng = np.random.default_rng(0)
    drawn = [background(64, crop()[0], regions=[region], rng=rng) for _ in range(60)]
    colours = [tuple(image[3, 3].tolist()) for image in drawn]
    assert colours.count((114, 114, 114)) > 8
    assert colours.count((10, 20, 200)) > 6
    assert len(set(colours)) > 5


def test_a_region_is_read_at_the_size_asked_for(tmp_path: Path) -> None:
    region = Region(save_picture(tmp_path / "p.png", painted({(0, 0): 4})), (0, 0, 32, 32))
    assert region.read().shape == (32, 32, 3)
    assert region.read((64, 16)).shape == (16, 64, 3)


def test_regions_lie_apart_from_faces(tmp_path: Path) -> None:
    labels = labels_of([8, 8], [[200, 150, 260, 230], [500, 300, 540, 350]], image_wh=(800, 600))
    picture = (tmp_path / "p.jpg", labels, (800, 600))
    crowd = (tmp_path / "c.jpg", labels_of([8], [[5, 5, 795, 595]], image_wh=(800, 600)), (800, 600))
    small = (tmp_path / "s.jpg", labels_of([], [], image_wh=(100, 80)), (100, 80))
    regions = free_regions([picture, crowd, small], seed=0)
    assert len(regions) == 2
    assert free_regions([picture, crowd, small], seed=0) == regions
    for region in regions:
        x1, y1, x2, y2 = region.rect
        assert min(x2 - x1, y2 - y1) >= 120
        for left, top, right, bottom in xywhn_to_xyxy(labels.xywhn, image_wh=(800, 600)):
            assert right <= x1 or left >= x2 or bottom <= y1 or top >= y2


def test_a_window_holds_the_middle_of_a_large_face_at_any_zoom() -> None:
    faces = np.asarray([[300.0, 200, 360, 280], [10, 10, 18, 20]])
    parts = []
    for seed in range(60):
        rect = window_around_face(faces, (800, 600), np.random.default_rng(seed))
        assert rect is not None
        x1, y1, x2, y2 = rect
        assert x1 <= 330 <= x2 and y1 <= 240 <= y2
        assert x1 >= 0 and y1 >= 0 and x2 <= 800 and y2 <= 600
        parts.append(80 / (y2 - y1))
    assert min(parts) < 0.25
    assert max(parts) > 0.8


def test_there_is_no_window_without_a_face_or_around_a_speck() -> None:
    rng = np.random.default_rng(0)
    assert window_around_face(np.zeros((0, 4)), (800, 600), rng) is None
    assert window_around_face(np.asarray([[400.0, 300, 402, 303]]), (800, 600), rng) is None


def test_a_random_part_lies_within_the_picture() -> None:
    for seed in range(40):
        x1, y1, x2, y2 = random_part((120, 80), np.random.default_rng(seed))
        assert 0 <= x1 < x2 <= 120 and 0 <= y1 < y2 <= 80
        assert 0.44 <= (x2 - x1) / 120 <= 0.9


def test_faces_cut_in_half_are_made_unrecognisable_and_lose_their_label() -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8)
    labels = labels_of([8, 2, 5], [[10, 20, 50, 60], [90, 20, 130, 60], [150, 20, 190, 60]], image_wh=(200, 100))
    part, kept, mask = cut_out(image, labels, (0, 0, 105, 100), side=100)
    assert mask.tolist() == [True, False, False]
    assert kept.cls.tolist() == [8]
    np.testing.assert_allclose(xywhn_to_xyxy(kept.xywhn, image_wh=(105, 100)), [[10, 20, 50, 60]])
    assert part[20:60, 90:105].std(axis=(0, 1)).max() < 1
    np.testing.assert_array_equal(part[:, :85], image[:, :85])


def test_a_small_part_is_enlarged() -> None:
    image, labels = crop()
    part, kept, _ = cut_out(image, labels, (20, 10, 80, 90), side=160)
    assert part.shape == (160, 120, 3)
    assert len(kept) == 1
