"""A network that names the expression of a single face crop, run from its ONNX file. No torch."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.inference.backends import OpenVinoRequests
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import Image


class ExpressionClassifier:
    """An ONNX file of [B, 3, S, S] float RGB in 0-1 to [B, 8] probabilities. Threads may share it."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Load the network at `path` for as many calls at once as there are `threads`.

        Raises:
            ModelError: no such file, or a network of other shapes.
        """
        import openvino as ov

        if not path.is_file():
            raise ModelError(f"{path}: no such file; make it with `emotion-yolo train-classifier`")
        try:
            network = ov.Core().read_model(path)
            shape, answer = network.input(0).partial_shape, network.output(0).partial_shape
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO cannot read it: {error}") from error
        sides = {dimension.to_string() for dimension in list(shape)[2:]}
        if len(shape) != 4 or len(sides) != 1 or not shape[2].is_static or answer[-1] != len(NAMES):
            message = f"takes {shape} and answers {answer}, expected [?,3,S,S] and [?,{len(NAMES)}]"
            raise ModelError(f"{path}: {message}; make it with `emotion-yolo train-classifier`")
        self.side = int(shape[2].get_length())
        network.reshape([2, 3, self.side, self.side])
        self._infer = OpenVinoRequests(network, streams=threads, threads=1)

    def soft_label(self, crop: Image) -> NDArray[np.float32]:
        """Return the probabilities [8] for an RGB crop [H, W, 3] uint8: the mean of it and of its mirror image."""
        interpolation = cv2.INTER_AREA if max(crop.shape[:2]) > self.side else cv2.INTER_CUBIC
        face = cv2.resize(crop, (self.side, self.side), interpolation=interpolation)
        planes = face.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        answers = self._infer(np.stack([planes, planes[:, :, ::-1]]))
        return np.asarray(answers.mean(axis=0), np.float32)
