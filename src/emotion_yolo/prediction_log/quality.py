"""Brightness and sharpness of a picture, comparable between pictures of any size."""

from dataclasses import dataclass

import cv2
import numpy as np

from emotion_yolo.imaging import Pixels

_SIDE = 256
"""px, long side at which a picture is looked at: below every size that a decoder reduces pictures to."""


@dataclass(frozen=True)
class InputQuality:
    """Quality of a picture's pixels."""

    brightness: float
    """Mean grey value, 0-255."""
    sharpness: float
    """Standard deviation of the Laplacian of the grey picture at a long side of 256 px; about 0 for a blank one."""


def input_quality(pixels: Pixels) -> InputQuality:
    """Measure an RGB picture [H, W, 3] uint8, whether it was decoded whole or reduced."""
    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        grey = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    else:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)
    return InputQuality(round(float(grey.mean()), 2), round(float(np.std(laplacian)), 3))
