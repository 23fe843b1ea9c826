"""A network that names the expression of a single face crop, asked as a teacher. No torch."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.inference.classifier import CropClassifier
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import Image


class ExpressionClassifier:
    """An ONNX file of [B, 3, S, S] float RGB in 0-1 to [B, 8] probabilities. Threads may share it."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Load the network at `path` for as many calls at once as there are `threads`.

        Raises:
            ModelError: no such file, or a network of other shapes.
        """
        self._probabilities = CropClassifier(path, classes=len(NAMES), backend="openvino", streams=threads, threads=1)
        self.side = self._probabilities.imgsz

    def soft_label(self, crop: Image) -> NDArray[np.float32]:
        """Return the probabilities [8] for an RGB crop [H, W, 3] uint8: the mean of it and of its mirror image."""
        interpolation = cv2.INTER_AREA if max(crop.shape[:2]) > self.side else cv2.INTER_CUBIC
        face = cv2.resize(crop, (self.side, self.side), interpolation=interpolation)
        answers = self._probabilities(np.stack([face, face[:, ::-1]]).astype(np.uint8, copy=False))
        return np.asarray(answers.mean(axis=0), np.float32)
