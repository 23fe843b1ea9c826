"""Pictures and their faces as columns: the form in which a window of the log and the reference are compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import MonitoringError
from emotion_yolo.prediction_log.quality import InputQuality
from emotion_yolo.structures.detections import Detections

Column = NDArray[np.float64]
Indices = NDArray[np.int64]

PICTURE_COLUMNS = ("brightness", "sharpness", "bits_per_pixel", "log2_megapixels", "faces")
"""Columns of a picture; `sharpness` is in powers of two as well, so that no extreme value rules a mean."""

FACE_COLUMNS = ("log2_face_px", "confidence", "probability", "emotion")
"""Columns of a face: its shorter side, its confidence, the probability of its emotion, and the emotion's id."""

REFERENCE_NAME = "reference.parquet"
"""Of the file of a model's reference: in the report of the evaluation, and beside a released model."""

_FORMAT = b"emotion-yolo.reference"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Observations:
    """Columns of P pictures and of their F faces, in the order of the pictures.

    `pictures` has a [P] column for each of `PICTURE_COLUMNS`, `faces` an [F] column for each of `FACE_COLUMNS`.
    `truth` [F] is the id of the right emotion where it is known, else nan.
    """

    pictures: Mapping[str, Column]
    faces: Mapping[str, Column]
    truth: Column

    @property
    def counts(self) -> Indices:
        """Return the [P] numbers of faces."""
        return self.pictures["faces"].astype(np.int64)

    def __len__(self) -> int:
        return len(self.pictures["faces"])

    def take(self, indices: Indices) -> "Observations":
        """Return the pictures at `indices`, which may repeat, with their faces."""
        counts = self.counts
        starts = np.cumsum(counts) - counts
        taken = counts[indices]
        offsets = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        faces = np.repeat(starts[indices], taken) + offsets
        return Observations(
            {name: column[indices] for name, column in self.pictures.items()},
            {name: column[faces] for name, column in self.faces.items()},
            self.truth[faces],
        )


class Collector:
    """Collects pictures to `Observations`."""

    def __init__(self) -> None:
        self._pictures: list[tuple[float, ...]] = []
        self._faces: list[tuple[float, ...]] = []
        self._truth: list[float] = []

    def add(
        self,
        *,
        image_wh: tuple[int, int],
        bytes_: int,
        quality: InputQuality,
        faces: Sequence[tuple[float, float, float, float]],
        truth: Sequence[float],
    ) -> None:
        """Add a picture; `faces` are (shorter side in px, confidence, probability, emotion's id) each."""
        pixels = image_wh[0] * image_wh[1]
        self._pictures.append(
            (
                quality.brightness,
                float(np.log2(1 + quality.sharpness)),
                8 * bytes_ / pixels,
                float(np.log2(pixels / 1e6)),
                len(faces),
            )
        )
        self._faces += [(float(np.log2(max(side, 1))), *rest) for side, *rest in faces]
        self._truth += truth

    def observations(self) -> Observations:
        """Return what was added, as precisely as a file holds it: equal values have to stay equal."""
        pictures = np.asarray(self._pictures, np.float32).reshape(-1, len(PICTURE_COLUMNS)).astype(np.float64)
        faces = np.asarray(self._faces, np.float32).reshape(-1, len(FACE_COLUMNS)).astype(np.float64)
        return Observations(
            {name: pictures[:, i].copy() for i, name in enumerate(PICTURE_COLUMNS)},
            {name: faces[:, i].copy() for i, name in enumerate(FACE_COLUMNS)},
            np.asarray(self._truth, np.float64),
        )


def face_values(detections: Detections) -> list[tuple[float, float, float, float]]:
    """Return (shorter side in px, confidence, probability, emotion's id) of each face."""
    tops = detections.probabilities.max(axis=1, initial=0)
    rows = zip(
        detections.shorter_sides.tolist(),
        detections.confidence.tolist(),
        tops.tolist(),
        detections.emotion_ids.tolist(),
        strict=True,
    )
    return [(side, round(confidence, 4), round(top, 6), float(emotion)) for side, confidence, top, emotion in rows]


def write_observations(path: Path, observations: Observations, *, model: str, origin: str) -> None:
    """Write a reference as one Parquet file: a row a picture, lists for its faces.

    `model` is the digest of the model, `origin` describes the pictures.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets = pa.array(np.concatenate([[0], np.cumsum(observations.counts)]).astype(np.int32))
    columns = {name: pa.array(column.astype(np.float32)) for name, column in observations.pictures.items()}
    for name, column in {**observations.faces, "truth": observations.truth}.items():
        columns[f"face_{name}"] = pa.ListArray.from_arrays(offsets, pa.array(column.astype(np.float32)))
    table = pa.table(columns)
    about = json.dumps({"version": _VERSION, "model": model, "origin": origin}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(table.replace_schema_metadata({_FORMAT: about}), partial, compression="zstd")
    partial.replace(path)


@dataclass(frozen=True, eq=False)
class Reference:
    """A model's inputs and answers in normal operation."""

    observations: Observations
    model: str
    """Digest of the model."""
    origin: str


def read_reference(path: Path) -> Reference:
    """Read a file of `write_observations`.

    Raises:
        MonitoringError: no such file, or no reference.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_FORMAT])
        if about["version"] != _VERSION:
            raise ValueError(f"it is of version {about['version']}, expected {_VERSION}")
        pictures = {name: table[name].to_numpy().astype(np.float64) for name in PICTURE_COLUMNS}
        lists = {name: table[f"face_{name}"].combine_chunks() for name in (*FACE_COLUMNS, "truth")}
        faces = {name: column.flatten().to_numpy().astype(np.float64) for name, column in lists.items()}
        truth = faces.pop("truth")
        if any(len(column) != pictures["faces"].sum() for column in (*faces.values(), truth)):
            raise ValueError("its numbers of faces do not add up")
        return Reference(Observations(pictures, faces, truth), str(about["model"]), str(about["origin"]))
    except FileNotFoundError as error:
        message = f"{path}: no reference there; `dvc repro evaluate` writes one"
        raise MonitoringError(
            f"{message}, or accept a window of the log: emotion-yolo monitor --accept FILE"
        ) from error
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise MonitoringError(f"{path}: no reference of this version ({error}); write it again") from error
