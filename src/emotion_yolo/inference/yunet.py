"""OpenCV's face detector YuNet, from a file of OpenCV's model zoo: boxes and five landmarks of faces."""

import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.structures.boxes import clip_xyxy
from emotion_yolo.structures.images import Image


@dataclass(frozen=True, eq=False)
class YuNetFaces:
    """Faces in px of the picture: `xyxy` [N, 4], `confidence` [N] in 0-1, and `landmarks` [N, 5, 2].

    Landmarks are x, y of the eye, then the nose's tip, then the corner of the mouth, those on the picture's left first.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    landmarks: NDArray[np.float32]


class YuNet:
    """The face detector. Threads may share it."""

    def __init__(self, path: Path, *, imgsz: int, conf: float) -> None:
        """Load the network at `path`, to be shown pictures scaled to a long side of `imgsz` px.

        Raises:
            ModelError: no network that OpenCV reads as YuNet.
        """
        self._path, self._imgsz, self._conf = str(path), imgsz, conf
        # Errors only: OpenCV 5 warns of a target that it does not use at every YuNet that is made.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._create()
        except cv2.error as error:
            raise ModelError(f"{path}: OpenCV cannot read it as a YuNet face detector: {error}") from error
        self._local = threading.local()  # OpenCV's detector holds buffers, so that each thread needs its own

    def _create(self) -> cv2.FaceDetectorYN:
        return cv2.FaceDetectorYN.create(self._path, "", (self._imgsz, self._imgsz), self._conf)

    def __call__(self, image: Image) -> YuNetFaces:
        """Find the faces in an RGB picture [H, W, 3]."""
        if not hasattr(self._local, "detector"):
            self._local.detector = self._create()
        height, width = image.shape[:2]
        scale = self._imgsz / max(height, width)
        wh = (max(round(width * scale), 1), max(round(height * scale), 1))
        self._local.detector.setInputSize(wh)
        _, faces = self._local.detector.detect(cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), wh))
        faces = np.zeros((0, 15), np.float32) if faces is None else np.asarray(faces, np.float32)
        faces[:, :14] /= scale
        xyxy = np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], axis=1)
        return YuNetFaces(clip_xyxy(xyxy, image_wh=(width, height)), faces[:, 14], faces[:, 4:14].reshape(-1, 5, 2))
