"""The settings that determine an answer besides the picture, so that a run is resumed only with the same ones."""

from typing import Any

from emotion_yolo.inference.artefact import ModelSpec


def settings_of(
    spec: ModelSpec, *, imgsz: int | None = None, conf: float | None = None, min_face: int = 0
) -> dict[str, Any]:
    """Return the digest of the networks and every setting of model and run that changes answers, as JSON values.

    The digest alone is not enough: models with the same network can differ in close-ups, scaling, thresholds and
    temperature. `imgsz` (px), `conf` and `min_face` (px) are the run's; None stands for the model's own.
    """
    return {
        "model": spec.digest,
        "min_face": min_face,
        "classes": list(spec.classes),
        **spec.input.model_dump(mode="json"),
        **spec.thresholds.model_dump(mode="json"),
        **spec.calibration.model_dump(mode="json"),
        "close_up": spec.close_up.model_dump(mode="json") if spec.close_up else None,
        "classifier": spec.classifier.model_dump(mode="json") if spec.classifier else None,
        "imgsz": imgsz or spec.input.imgsz,
        "conf": spec.thresholds.conf if conf is None else conf,
    }
