"""Image files: which suffixes count as pictures, and their pixels."""

from emotion_yolo.imaging import Pixels as Image
from emotion_yolo.imaging import read_rgb

__all__ = ["SUFFIXES", "Image", "read_rgb"]

PAD_GREY = 114
"""Value of all three channels around a picture that does not fill its canvas, as Ultralytics pads."""

CROP_SIDE = 96
"""Width and height in px of a face crop as AffectNet has them, which classifiers and teachers are shown."""

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes, in lower case, of the picture files that are read."""
