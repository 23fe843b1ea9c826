import cv2
import numpy as np
import pytest

from emotion_yolo.data.negatives import HELD_OUT, LEARNT, draw_learnt

KINDS = LEARNT | HELD_OUT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wh", [(64, 48), (1, 1), (33, 640)])
def test_a_picture_has_the_size_asked_for(kind: str, wh: tuple[int, int]) -> None:
    image = KINDS[kind](np.random.default_rng(0), wh)
    assert (image.shape, image.dtype) == ((wh[1], wh[0], 3), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_is_another_and_the_same_seed_draws_the_same(kind: str) -> None:
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    pictures = [KINDS[kind](rng, (64, 48)) for _ in range(5)]
    assert len({picture.tobytes() for picture in pictures}) == 5
    assert [p.tobytes() for p in pictures] == [KINDS[kind](again, (64, 48)).tobytes() for _ in range(5)]


def test_kinds_are_what_they_are_called() -> None:
    colours = {
        k: len(np.unique(draw(np.random.default_rng(2), (96, 96)).reshape(-1, 3), axis=0)) for k, draw in KINDS.items()
    }
    assert (colours["one_colour"], colours["stripes"]) == (1, 2)
    smooth, rough = (KINDS[kind](np.random.default_rng(2), (96, 96)) for kind in ("gradient", "noise"))
    assert cv2.Laplacian(smooth, cv2.CV_64F).var() < 10 < 1000 < cv2.Laplacian(rough, cv2.CV_64F).var()


def test_all_learnt_kinds_are_drawn_for_training() -> None:
    pictures = [draw_learnt(np.random.default_rng([0, i]), side=64) for i in range(30)]
    plain = sum(len(np.unique(picture.reshape(-1, 3), axis=0)) == 1 for picture in pictures)
    rough = sum(cv2.Laplacian(picture, cv2.CV_64F).var() > 500 for picture in pictures)
    assert plain >= 4
    assert rough >= 4
    assert 30 - plain - rough >= 4
