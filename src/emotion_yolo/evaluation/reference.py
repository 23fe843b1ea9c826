"""The reference that `emotion-yolo monitor` compares a service's pictures with: the test split as the model sees it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_yolo.evaluation.metrics import assign
from emotion_yolo.evaluation.outcomes import Outcome
from emotion_yolo.prediction_log.observations import Collector, Observations, face_values, write_observations
from emotion_yolo.prediction_log.quality import input_quality
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import read_rgb


def observe(outcomes: Sequence[Outcome]) -> Observations:
    """Return what the prediction log would record of these pictures, with the labels of faces as truth.

    Raises:
        ImageError: a picture that cannot be read.
    """
    collector = Collector()
    for outcome in outcomes:
        image, found = read_rgb(outcome.sample.image), outcome.predictions
        truth = np.full(len(found), np.nan)
        labels = outcome.sample.labels.cls
        match = assign(found, outcome.sample.labels)
        named = (match >= 0) & (labels != FACE_ID)
        truth[match[named]] = labels[named]
        collector.add(
            image_wh=found.image_wh,
            bytes_=outcome.sample.image.stat().st_size,
            quality=input_quality(image),
            faces=face_values(found),
            truth=truth.tolist(),
        )
    return collector.observations()


def write_reference(path: Path, outcomes: Sequence[Outcome], *, model: str) -> None:
    """Write the reference of a model, named by the SHA-256 of its ONNX file."""
    origin = f"test split, {len(outcomes):,} pictures"
    write_observations(path, observe(outcomes), model=model, origin=origin)
