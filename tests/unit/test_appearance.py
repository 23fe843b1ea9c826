import numpy as np
import pytest

from emotion_yolo.params import Appearance
from emotion_yolo.preparation.appearance import changed, finished
from emotion_yolo.structures.images import Image

NOTHING = {
    "grey": 0.0, "tint": 0.0, "cast": 0.0, "tone": 0.0, "low_res": 0.0, "blur": 0.0, "sharpen": 0.0, "noise": 0.0,
    "jpeg": 0.0,
}  # fmt: skip


def appearance(**chances: float) -> Appearance:
    return Appearance.model_validate(NOTHING | chances)


def picture() -> Image:
    image = np.zeros((96, 96, 3), np.uint8)
    image[:] = (150, 110, 90)
    image[24:72, 24:72] = (220, 160, 140)
    image[::2, 40] = (20, 60, 200)
    return image


def is_grey(image: Image) -> bool:
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


def look(image: Image, seed: int, **chances: float) -> Image:
    rng = np.random.default_rng(seed)
    return finished(changed(image, appearance(**chances), rng, face_height=90), appearance(**chances), rng)


def test_without_a_chance_nothing_changes() -> None:
    np.testing.assert_array_equal(look(picture(), 0), picture())


@pytest.mark.parametrize("name", ["grey", "cast", "tone", "low_res", "blur", "sharpen", "noise", "jpeg"])
def test_a_chance_of_one_changes_a_picture_and_keeps_its_shape(name: str) -> None:
    after = look(picture(), 1, **{name: 1.0})
    assert after.shape == (96, 96, 3)
    assert after.dtype == np.uint8
    assert not np.array_equal(after, picture())
    np.testing.assert_array_equal(look(picture(), 1, **{name: 1.0}), after)


def test_as_many_pictures_turn_grey_as_asked_for() -> None:
    assert sum(is_grey(look(picture(), seed, grey=0.4)) for seed in range(300)) == pytest.approx(120, abs=30)


def test_a_grey_picture_takes_on_a_colour_and_one_in_colour_does_not() -> None:
    grey = np.repeat(picture().mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert not any(is_grey(look(grey, seed, tint=1.0)) for seed in range(20))
    np.testing.assert_array_equal(look(picture(), 3, tint=1.0), picture())
    np.testing.assert_array_equal(look(grey, 3, cast=1.0), grey)


def test_only_faces_of_more_pixels_are_coarsened() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(changed(picture(), appearance(low_res=1.0), rng, face_height=24), picture())
    detail = [np.abs(np.diff(look(picture(), seed, low_res=1.0).astype(int), axis=0)).mean() for seed in range(10)]
    assert np.mean(detail) < np.abs(np.diff(picture().astype(int), axis=0)).mean()
