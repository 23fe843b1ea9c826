"""A detector followed by a classifier: faces are found, cut out, aligned, and their expressions classified.

picture ── detector ──▶ boxes ── align ──▶ [B, S, S, 3] ── classifier ──▶ [B, C] ──▶ `Detections`
"""

import threading
from collections import Counter
from pathlib import Path
from typing import Self

import numpy as np

from emotion_yolo.imaging import Picture
from emotion_yolo.inference.alignment import Box, FaceCrop, Landmarks, YuNetLandmarks, align
from emotion_yolo.inference.artefact import ModelSpec, SecondStage, checked_file
from emotion_yolo.inference.backends import Backend, available_cores
from emotion_yolo.inference.classifier import CropClassifier
from emotion_yolo.inference.decoding import MAX_FACES
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.model import Keep, OnPhase, as_they_are, unobserved
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.images import Image


class TwoStage:
    """A `FaceModel` of two networks."""

    def __init__(
        self, spec: ModelSpec, detector: Detector, classifier: CropClassifier, landmarks: Landmarks | None
    ) -> None:
        assert spec.classifier is not None
        self.spec = spec
        self.canvases, self.imgsz, self.backend = detector.canvases, detector.imgsz, detector.backend
        self._second: SecondStage = spec.classifier
        self.detector = detector
        self._classifier, self._landmarks = classifier, landmarks
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @classmethod
    def load(cls, folder: Path, spec: ModelSpec, detector: Detector, *, threads: int) -> Self:
        """Load the parts beside the detector in `folder`.

        Raises:
            ModelError: a file missing, damaged, or of something else.
        """
        second = spec.classifier
        assert second is not None
        landmarks = YuNetLandmarks(checked_file(folder, second.landmarks)) if second.landmarks else None
        path = checked_file(folder, second.onnx)
        backend: Backend = "onnx" if detector.backend == "onnx" else "openvino"
        streams = max(available_cores() // threads, 1) if threads else 1  # as many calls at once as the detector takes
        classifier = CropClassifier(path, classes=len(spec.classes), backend=backend, streams=streams, threads=threads)
        return cls(spec, detector, classifier, landmarks)

    def without_landmarks(self) -> Self:
        """Return the same model without alignment, to measure what alignment is worth."""
        return type(self)(self.spec, self.detector, self._classifier, None)

    @property
    def crops(self) -> dict[str, int]:
        """Numbers of faces so far that were `aligned`, and cut out without alignment (`plain`)."""
        with self._lock:
            return {name: self._counts[name] for name in ("aligned", "plain")}

    def predict_picture(
        self,
        picture: Picture,
        *,
        conf: float | None = None,
        max_faces: int = MAX_FACES,
        keep: Keep = as_they_are,
        on_phase: OnPhase = unobserved,
    ) -> Detections:
        """See `FaceModel`."""
        found = self.detector.predict_picture(picture, conf=conf, max_faces=max_faces, keep=keep, on_phase=on_phase)
        return self.name(found, picture.pixels, factor=picture.factor, on_phase=on_phase)

    def name(self, found: Detections, image: Image, *, factor: int = 1, on_phase: OnPhase = unobserved) -> Detections:
        """See `FaceModel`."""
        if not len(found):
            return Detections.empty(found.image_wh, self.spec.classes)
        crops = [self._crop(image, box / factor) for box in found.xyxy]
        with self._lock:
            self._counts.update("aligned" if crop.aligned else "plain" for crop in crops)
        on_phase("preprocess")
        probabilities = self._classifier(np.stack([crop.pixels for crop in crops]))
        on_phase("inference")
        # fp16 weights leave a sum of 1 within rounding: answers promise it.
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
        return found.renamed(probabilities, self.spec.classes)

    def predict(self, image: Image, *, conf: float | None = None, max_faces: int = MAX_FACES) -> Detections:
        """See `FaceModel`."""
        whole = Picture(image, (image.shape[1], image.shape[0]), 1, "array")
        return self.predict_picture(whole, conf=conf, max_faces=max_faces)

    def _crop(self, image: Image, xyxy: Box) -> FaceCrop:
        second = self._second
        return align(image, xyxy, imgsz=second.imgsz, margin=second.margin, landmarks=self._landmarks)
