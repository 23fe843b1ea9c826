"""The interface of models that find faces and name their expressions, as used by the service and `predict`."""

from collections.abc import Callable
from typing import Literal, Protocol

from emotion_yolo.imaging import Picture
from emotion_yolo.inference.artefact import ModelSpec
from emotion_yolo.inference.decoding import MAX_FACES
from emotion_yolo.inference.letterbox import Canvas
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.images import Image

Phase = Literal["preprocess", "inference", "postprocess"]

OnPhase = Callable[[Phase], object]
"""Called at the end of each piece of work with the phase it was of; a phase may come in several pieces. What it raises
ends the work."""

Keep = Callable[[Detections], Detections]
"""Chooses among the faces that were found."""


def unobserved(_: Phase) -> None:
    """Ignore a phase."""


def as_they_are(detections: Detections) -> Detections:
    """Keep all faces."""
    return detections


class FaceModel(Protocol):
    """A loaded model: one network, or a detector with a classifier behind it. Threads may share it."""

    spec: ModelSpec
    canvases: tuple[Canvas, ...]
    """The detector's inputs in px."""
    imgsz: int
    """Long side of the detector's input in px."""
    backend: str

    def predict_picture(
        self,
        picture: Picture,
        *,
        conf: float | None = None,
        max_faces: int = MAX_FACES,
        keep: Keep = as_they_are,
        on_phase: OnPhase = unobserved,
    ) -> Detections:
        """Find the faces in a decoded picture; boxes are in px of the full picture, even if it was decoded smaller.

        `conf` is the minimum confidence of a face, the model's own if None. `keep` chooses among the `max_faces` most
        confident ones before any further work is done on them.
        """

    def predict(self, image: Image, *, conf: float | None = None, max_faces: int = MAX_FACES) -> Detections:
        """Find the faces in an RGB picture [H, W, 3] uint8 and name their expressions."""

    def name(self, found: Detections, image: Image, *, factor: int = 1, on_phase: OnPhase = unobserved) -> Detections:
        """Return the faces of a picture with the probabilities that a second look gives, if the model takes one.

        `image` is the RGB picture [H, W, 3], decoded `factor` times smaller than the one that `found` is of.
        """
