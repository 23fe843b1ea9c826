"""Synthetic negatives: drawn pictures without a face that a detector trained on faces alone mistakes for faces.

Of the kinds, `LEARNT` are mixed into the train split; `HELD_OUT` are not, and measure whether that generalises.
"""

from collections.abc import Callable

import cv2
import numpy as np

from emotion_yolo.structures.images import Image

Draw = Callable[[np.random.Generator, tuple[int, int]], Image]
"""Draws an RGB picture of the given width and height in px."""


def one_colour(rng: np.random.Generator, wh: tuple[int, int]) -> Image:
    """Draw one random colour."""
    return np.full((wh[1], wh[0], 3), rng.integers(0, 256, 3), np.uint8)


def gradient(rng: np.random.Generator, wh: tuple[int, int]) -> Image:
    """Draw a smooth gradient between 4 to 25 random colours, like a background out of focus."""
    few = rng.integers(0, 256, (*rng.integers(2, 6, 2), 3)).astype(np.uint8)
    return np.asarray(cv2.resize(few, wh, interpolation=cv2.INTER_CUBIC), np.uint8)


def noise(rng: np.random.Generator, wh: tuple[int, int]) -> Image:
    """Draw random pixels, of one px up to a sixteenth of the picture."""
    coarse = rng.integers(1, max(min(wh) // 16, 2))
    pixels = rng.integers(0, 256, (-(-wh[1] // coarse), -(-wh[0] // coarse), 3)).astype(np.uint8)
    return np.asarray(cv2.resize(pixels, wh, interpolation=cv2.INTER_NEAREST), np.uint8)


def stripes(rng: np.random.Generator, wh: tuple[int, int]) -> Image:
    """Draw stripes of two random colours, at any angle, 8 to 80 px from one to the next."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 80)
    y, x = np.mgrid[: wh[1], : wh[0]]
    second = (x * np.cos(angle) + y * np.sin(angle)) % period < period / 2
    colour, other = rng.integers(0, 256, (2, 3))
    return np.asarray(np.where(second[..., None], colour, other), np.uint8)


def discs(rng: np.random.Generator, wh: tuple[int, int]) -> Image:
    """Draw one to six discs of random colours on another, like balls, plates and lamps."""
    image = one_colour(rng, wh)
    for _ in range(rng.integers(1, 7)):
        centre = (int(rng.integers(wh[0])), int(rng.integers(wh[1])))
        radius = int(rng.uniform(0.05, 0.3) * min(wh))
        cv2.circle(image, centre, radius, rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
    return image


LEARNT: dict[str, Draw] = {"one_colour": one_colour, "gradient": gradient, "noise": noise}
HELD_OUT: dict[str, Draw] = {"stripes": stripes, "discs": discs}


def draw_learnt(rng: np.random.Generator, *, side: int) -> Image:
    """Draw a square picture [side, side, 3] of one of the kinds to train on."""
    draw = list(LEARNT.values())[rng.integers(len(LEARNT))]
    return draw(rng, (side, side))
