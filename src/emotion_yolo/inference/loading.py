"""Loads a model of one or two stages, as its `model.json` says."""

from pathlib import Path

from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.backends import Backend, Precision
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.model import FaceModel
from emotion_yolo.inference.two_stage import TwoStage


def load_model(
    folder: str | Path,
    *,
    backend: Backend = "auto",
    imgsz: int | None = None,
    threads: int = 0,
    precision: Precision = "f32",
) -> FaceModel:
    """Load the model in `folder`; the options are those of `Detector.load`.

    Raises:
        ModelError: no model there, a damaged one, or options that do not fit.
    """
    folder = Path(folder)
    spec = read_spec(folder)
    detector = Detector.load(folder, spec=spec, backend=backend, imgsz=imgsz, threads=threads, precision=precision)
    return TwoStage.load(folder, spec, detector, threads=threads) if spec.classifier else detector
