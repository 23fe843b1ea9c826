"""Random changes of colour and quality, so that neither reveals the source of a face, and with it the expression.

Sources differ in what cameras and archives left of them: one is grey, another of a few pixels, a third of a studio's
quality. Each change below has a chance of its own, whatever the source.
"""

import cv2
import numpy as np

from emotion_yolo.data.sheets import compressed
from emotion_yolo.params import Appearance
from emotion_yolo.structures.images import Image

_FACE_PX = (26, 80)  # px, heights of a face that `coarsened` leaves, drawn evenly on a logarithmic scale


def changed(image: Image, appearance: Appearance, rng: np.random.Generator, *, face_height: float = 0) -> Image:
    """Return an RGB picture whose colours, tones and pixels may have changed; `face_height` is in px.

    With a `face_height`, resolution may be lost too.
    """
    image = _recoloured(image, appearance, rng)
    if rng.random() < appearance.tone:
        image = _toned(image, rng)
    if face_height and rng.random() < appearance.low_res:
        image = _coarsened(image, face_height, rng)
    return image


def finished(image: Image, appearance: Appearance, rng: np.random.Generator) -> Image:
    """Return an RGB picture that may have been blurred or sharpened, made noisy, and compressed, at its final size."""
    if rng.random() < appearance.blur:
        image = _uint8(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.2)))
    elif rng.random() < appearance.sharpen:
        image = _uint8(cv2.addWeighted(image, 1.8, cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 3)), -0.8, 0))
    if rng.random() < appearance.noise:
        channels = 1 if rng.random() < 0.5 else 3
        image = _uint8(image + rng.normal(0, rng.uniform(3, 14), (*image.shape[:2], channels)))
    if rng.random() < appearance.jpeg:
        image = compressed(image, quality=int(rng.integers(15, 60)))
    return image


def _recoloured(image: Image, appearance: Appearance, rng: np.random.Generator) -> Image:
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
    if not grey and rng.random() < appearance.grey:
        image = _uint8(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
        grey = True
    if rng.random() >= (appearance.tint if grey else appearance.cast):
        return image
    if grey and rng.random() < 0.6:  # the tone of an old print, or of skin under one light
        gain = rng.uniform([0.95, 0.70, 0.50], [1.15, 0.95, 0.90])
        return _uint8(255 * (image[..., :1] / 255.0) ** (1 / gain))
    return _uint8(image * rng.uniform(0.75, 1.25, 3))


def _toned(image: Image, rng: np.random.Generator) -> Image:
    gamma, contrast, brightness = rng.uniform(0.55, 1.7), rng.uniform(0.65, 1.35), rng.uniform(-25, 25)
    values = np.arange(256) / 255
    return _uint8(cv2.LUT(image, _uint8(((values**gamma - 0.5) * contrast + 0.5) * 255 + brightness)))


def _coarsened(image: Image, face_height: float, rng: np.random.Generator) -> Image:
    scale = np.exp(rng.uniform(*np.log(_FACE_PX))) / face_height
    if scale >= 0.9:
        return image
    height, width = image.shape[:2]
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    small = _uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if rng.random() < 0.35:
        small = compressed(small, quality=int(rng.integers(30, 80)))
    interpolation = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    return _uint8(cv2.resize(small, (width, height), interpolation=interpolation))


def _uint8(values: object) -> Image:
    clipped: Image = np.clip(np.asarray(values), 0, 255).astype(np.uint8)
    return clipped
