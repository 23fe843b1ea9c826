"""Pictures on disk: which files are ones, and their pixels."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import ImageError

Image = NDArray[np.uint8]
"""RGB picture [H, W, 3]."""

PAD_GREY = 114
"""Value of all three channels around a picture that does not fill its canvas, as Ultralytics pads."""

CROP_SIDE = 96
"""Width and height in px of a face crop as AffectNet has them, which classifiers and teachers are shown."""

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings, in lower case, of the picture files that are looked at."""


def read_rgb(path: Path) -> Image:
    """Read a picture as RGB [H, W, 3] uint8, turned as its EXIF says.

    Raises:
        ImageError: it cannot be decoded.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ImageError(f"{path}: cannot be decoded; restore the file or drop it with its label")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
