"""The layers of one portrait, and the strokes, masks and textures that every part of it is painted with."""

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.portraits.anatomy import Floats

_LEFT, _RIGHT, _TOP, _BOTTOM = -2.4, 2.4, -2.3, 2.7
_SUBPIXEL_BITS = 4


def mix(canvas: Floats, mask: Floats, colour: Floats | tuple[float, float, float]) -> None:
    """Paint `colour` over `canvas` where `mask` (0-1) says so, in place."""
    canvas += mask[..., None] * (np.asarray(colour, np.float32) - canvas)


class Brush:
    """Hold a portrait's layers, all of one size, and make masks for them.

    `albedo` is what the parts are made of (RGB, 0-1), `alpha` where there is a part at all, `relief` each pixel's
    height above the picture's plane in face units, `head_relief` the same of the head alone, `glints` light on top.
    """

    def __init__(self, pixels_per_unit: float, texture_seed: int) -> None:
        self.pixels_per_unit = pixels_per_unit
        self.rng = np.random.default_rng(texture_seed)
        width = round((_RIGHT - _LEFT) * pixels_per_unit)
        height = round((_BOTTOM - _TOP) * pixels_per_unit)
        self.row = np.linspace(_LEFT, _RIGHT, width, dtype=np.float32)[None, :]
        self.column = np.linspace(_TOP, _BOTTOM, height, dtype=np.float32)[:, None]
        self.x, self.y = np.broadcast_arrays(self.row, self.column)
        self.albedo: Floats = np.zeros((height, width, 3), np.float32)
        self.alpha: Floats = np.zeros((height, width), np.float32)
        self.relief: Floats = np.zeros((height, width), np.float32)
        self.head_relief: Floats = np.zeros((height, width), np.float32)
        self.glints: Floats = np.zeros((height, width), np.float32)

    def to_pixels(self, points: Floats) -> Floats:
        """Return points of face units in this portrait's pixels."""
        return ((points - np.array([_LEFT, _TOP], np.float32)) * self.pixels_per_unit).astype(np.float32)

    def inside(self, distance: Floats, softness: float = 0.0) -> Floats:
        """Return 1 where `distance` is positive and 0 where negative, over an edge `softness` wide or one pixel."""
        edge = max(softness, 1.0 / self.pixels_per_unit)
        return np.asarray(np.clip(0.5 + distance / edge, 0, 1), np.float32)

    def bump(self, x: float, y: float, sigma_x: float, sigma_y: float) -> Floats:
        """Return a Gaussian hill of height 1 at `x`, `y`."""
        across = np.exp(-(((self.row - x) / sigma_x) ** 2))
        down = np.exp(-(((self.column - y) / sigma_y) ** 2))
        return np.asarray(across * down, np.float32)

    def bumps(self, x: float, y: float, sigma_x: float, sigma_y: float) -> Floats:
        """Return two such hills, one on each side of the face."""
        return self.bump(-x, y, sigma_x, sigma_y) + self.bump(x, y, sigma_x, sigma_y)

    def polygon(self, points: Floats, blur: float = 0.0) -> Floats:
        """Return the mask of a closed polygon, [n, 2]."""
        mask: NDArray[np.uint8] = np.zeros(self.alpha.shape, np.uint8)
        cv2.fillPoly(mask, [self._fixed(points)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return self._softened(mask, blur)

    def line(self, points: Floats, width: float, blur: float = 0.0) -> Floats:
        """Return a stroke's mask; one thinner than a pixel is drawn a pixel wide and fainter."""
        pixels = width * self.pixels_per_unit
        mask: NDArray[np.uint8] = np.zeros(self.alpha.shape, np.uint8)
        strength = int(255 * min(pixels, 1.0))
        cv2.polylines(mask, [self._fixed(points)], False, strength, max(round(pixels), 1), cv2.LINE_AA, _SUBPIXEL_BITS)
        return self._softened(mask, blur)

    def _fixed(self, points: Floats) -> NDArray[np.int32]:
        return np.asarray(np.round(self.to_pixels(points) * 2**_SUBPIXEL_BITS), np.int32)

    def _softened(self, mask: NDArray[np.uint8], blur: float) -> Floats:
        soft = mask.astype(np.float32) / 255
        return np.asarray(cv2.GaussianBlur(soft, (0, 0), blur * self.pixels_per_unit) if blur else soft, np.float32)

    def noise(self, grain: float) -> Floats:
        """Return smooth noise of unit deviation with features about `grain` face units wide."""
        shape = (max(int(5 / grain), 2), max(int(4.8 / grain), 2))
        coarse = self.rng.standard_normal(shape).astype(np.float32)
        size_wh = (self.alpha.shape[1], self.alpha.shape[0])
        return np.asarray(cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC), np.float32)

    def strand_texture(self) -> Floats:
        """Return streaks that fan out from the crown, about -1 to 1."""
        table = self.rng.standard_normal((24, 1440)).astype(np.float32)
        soft = cv2.GaussianBlur(table, (0, 0), sigmaX=2.0, sigmaY=3)
        soft = soft / soft.std()
        angle = np.arctan2(self.x + 0.12, self.y + 1.9)
        radius = np.hypot(self.x, self.y + 1.9)
        column = (angle / (2 * np.pi) + 0.5) * 1439
        streaks = cv2.remap(soft, column.astype(np.float32), (radius * 6).astype(np.float32), cv2.INTER_LINEAR)
        return np.asarray(np.tanh(streaks), np.float32)

    def cover(self, mask: Floats, colour: Floats | tuple[float, float, float]) -> None:
        """Paint an opaque part: it hides what lies behind it."""
        mix(self.albedo, mask, colour)
        self.alpha = np.maximum(self.alpha, mask)
