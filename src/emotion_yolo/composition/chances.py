"""Which face is drawn how often: by data set, by emotion within its set, by source within both."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.composition.material import Faces
from emotion_yolo.data.prepared import CLASSES
from emotion_yolo.errors import ParamsError
from emotion_yolo.params import Compose, model_path
from emotion_yolo.structures.emotions import FACE_ID


def chances_of(sets: Sequence[Faces], compose: Compose) -> NDArray[np.float64]:
    """Return the chance of each face to be the next one, [N] of all sets in order, 1 together.

    Raises:
        ParamsError: a share for a set that is not there, or shares that leave no face.
    """
    names = [faces.name for faces in sets]
    if unknown := sorted(set(compose.sets) - set(names)):
        expected = ", ".join(names)
        raise ParamsError(f"params.yaml: train.compose.sets: {unknown[0]} is not there; expected one of {expected}")
    share = {faces.name: float(len(faces)) for faces in sets} | dict.fromkeys(names if compose.sets else (), 0.0)
    share |= compose.sets
    chances = np.concatenate([share[faces.name] * _within(faces, compose) for faces in sets])
    if not chances.sum():
        raise ParamsError(
            "params.yaml: train.compose.sets and class_weights leave no face to draw; give some a share above 0"
        )
    return np.asarray(chances / chances.sum())


def teachers_shares(sets: Sequence[Faces], compose: Compose) -> NDArray[np.float64]:
    """Return the teachers' share in the target of each face, [N] of all sets in order; 1 where nobody named an emotion.

    Without teachers all are 0.

    Raises:
        ParamsError: a share for a set that is not there.
    """
    if unknown := sorted(set(compose.teacher_share) - {faces.name for faces in sets}):
        expected = ", ".join(faces.name for faces in sets)
        message = f"params.yaml: train.compose.teacher_share: {unknown[0]} is not there; expected one of {expected}"
        raise ParamsError(message)
    if model_path(compose.teachers) is None:
        return np.zeros(sum(len(faces) for faces in sets))
    shares = [np.where(faces.emotions == FACE_ID, 1.0, compose.teacher_share.get(faces.name, 0.0)) for faces in sets]
    return np.concatenate(shares)


def _within(faces: Faces, compose: Compose) -> NDArray[np.float64]:
    """Return the chances [N] within one set; 1 together, or 0 where weights leave no face."""
    chances, weights = np.zeros(len(faces)), {str(name): weight for name, weight in compose.class_weights.items()}
    for emotion, count in enumerate(np.bincount(faces.emotions, minlength=len(CLASSES))):
        of_emotion = faces.emotions == emotion
        sources, source_of, counts = np.unique(faces.sources[of_emotion], return_inverse=True, return_counts=True)
        if not len(sources):
            continue
        weight = weights.get(CLASSES[emotion], 1.0)
        of_source = counts**compose.source_power
        of_source = of_source / of_source.sum() / counts
        chances[of_emotion] = weight * count**compose.class_power * of_source[source_of]
    return np.asarray(chances / max(float(chances.sum()), 1e-12))
