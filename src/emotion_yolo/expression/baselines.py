"""From a prepared set to what a baseline is trained on: the faces of its pictures, cut out as they will be served."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emotion_yolo import devices
from emotion_yolo.data.prepared import Sample, decoded, read_crops, read_split
from emotion_yolo.devices import has_bf16, torch_device
from emotion_yolo.errors import DataError, ModelError, ParamsError
from emotion_yolo.expression.crops import Crops, as_tensor
from emotion_yolo.inference.alignment import Landmarks, YuNetLandmarks, align
from emotion_yolo.params import BaselineModel, Baselines, Fitting, model_path
from emotion_yolo.progress import counting
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_ID, NAMES

_ADVICE = "prepare a set with emotions, or correct baselines.sets and baselines.classes"


@dataclass(frozen=True, eq=False)
class FaceCrops:
    """Crops of faces, and how many of them were turned by their landmarks; the others were cut out as they lay."""

    crops: Crops
    aligned: int


def baseline(settings: Baselines, name: str) -> BaselineModel:
    """Return the entry of a baseline.

    Raises:
        ParamsError: there is none of this name.
    """
    if name not in settings.models:
        known = ", ".join(settings.models)
        raise ParamsError(f"baselines.models has no {name!r}; add it to params.yaml, or name one of {known}")
    return settings.models[name]


def landmarks_of(settings: Baselines) -> Landmarks | None:
    """Load what finds landmarks, or return None where faces are cut out as they lie.

    Raises:
        ModelError: no such file, or one that is not YuNet.
    """
    path = model_path(settings.landmarks)
    if path and not path.is_file():
        raise ModelError(f"{path}: no such file; baselines.landmarks names YuNet's .onnx file, or models/none")
    return YuNetLandmarks(path) if path else None


def classes_of(train: Sequence[Sample], settings: Baselines) -> tuple[str, ...]:
    """Return the emotions that baselines name: those of params, else those of which there is a train face.

    Raises:
        DataError: fewer than two.
    """
    present = {NAMES[cls] for sample, index in _faces(train, settings, NAMES) for cls in [sample.labels.cls[index]]}
    classes = tuple(name for name in NAMES if name in (settings.classes or present))
    if len(classes) < 2:
        raise DataError(f"train faces show {len(classes)} emotions, expected at least 2; {_ADVICE}")
    return classes


@dataclass(frozen=True, eq=False)
class TrainingFaces:
    """What one baseline is trained and chosen on."""

    classes: tuple[str, ...]
    train: FaceCrops
    valid: FaceCrops


def training_faces(prepared: Path, settings: Baselines, *, imgsz: int) -> TrainingFaces:
    """Cut out the train and valid faces of a prepared set.

    Raises:
        DataError: no faces, or of fewer than two emotions.
        ModelError: `settings.landmarks` names no YuNet.
    """
    split, landmarks = read_split(prepared, "train"), landmarks_of(settings)
    classes = classes_of(split, settings)
    cut = partial(read_faces, settings=settings, classes=classes, imgsz=imgsz, landmarks=landmarks)
    train = cut(split, most=settings.train_faces, title="train faces")
    return TrainingFaces(classes, train, cut(read_crops(prepared, "valid"), title="valid faces"))


def read_faces(
    samples: Sequence[Sample],
    *,
    settings: Baselines,
    classes: Sequence[str],
    imgsz: int,
    landmarks: Landmarks | None,
    most: int = 0,
    title: str = "faces",
) -> FaceCrops:
    """Cut out the faces of `samples` whose emotion is one of `classes`; at most `most` of them, evenly picked, 0 = all.

    A target is the face's soft label where it has one and params say so, as far as it is of `classes`; else its label.
    With `settings.sets`, faces of sheets are left out, which may be of any set.

    Raises:
        DataError: no faces.
    """
    faces = list(_faces(samples, settings, classes))
    if not faces:
        raise DataError(f"no {title} of {', '.join(classes)}; {_ADVICE}")
    if 0 < most < len(faces):
        faces = [faces[place] for place in np.linspace(0, len(faces) - 1, most).round().astype(int)]
    ids = [NAMES.index(name) for name in classes]
    pictures, targets, emotions, aligned = [], [], [], 0
    with counting(title) as progress:
        for done, ((_, image), (sample, index)) in enumerate(
            zip(decoded([sample for sample, _ in faces]), faces, strict=True), start=1
        ):
            height, width = image.shape[:2]
            (xyxy,) = xywhn_to_xyxy(sample.labels.xywhn[index : index + 1], image_wh=(width, height))
            crop = align(image, xyxy, imgsz=imgsz, margin=settings.margin, landmarks=landmarks)
            aligned += crop.aligned
            pictures.append(crop.pixels)
            emotions.append(ids.index(int(sample.labels.cls[index])))
            targets.append(_target(sample, index, ids, soft=settings.soft_labels))
            progress(done, len(faces))
    stacked = torch.from_numpy(np.asarray(targets, np.float32))
    return FaceCrops(Crops(as_tensor(pictures), stacked, torch.tensor(emotions)), aligned)


def _faces(samples: Sequence[Sample], settings: Baselines, classes: Sequence[str]) -> Iterator[tuple[Sample, int]]:
    for sample in samples:
        if settings.sets and sample.set not in settings.sets:
            continue
        for index, cls in enumerate(sample.labels.cls):
            if cls != FACE_ID and NAMES[cls] in classes:
                yield sample, index


def _target(sample: Sample, index: int, ids: Sequence[int], *, soft: bool) -> NDArray[np.float32]:
    if soft and sample.soft is not None and np.isfinite(sample.soft[index]).all():
        of_classes = sample.soft[index][list(ids)]
        if of_classes.sum() > 0:
            return np.asarray(of_classes / of_classes.sum(), np.float32)
    hard = np.zeros(len(ids), np.float32)
    hard[ids.index(int(sample.labels.cls[index]))] = 1
    return hard


def weights_file(folder: Path) -> Path:
    """Return the file of a saved network's weights."""
    return next(path for path in sorted(folder.iterdir()) if path.suffix in {".pt", ".safetensors"})


def write_record(path: Path, params: Fitting, faces: TrainingFaces, *, best_epoch: int | None, seconds: float) -> None:
    """Write where and on how many faces a classifier was trained; `best_epoch` is the one kept."""
    device = torch_device(params.device, param="classifier.device")
    bf16 = params.amp == "bf16" or (params.amp == "auto" and has_bf16(device))
    environment = devices.environment(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        precision="bf16" if bf16 else "fp32",
        threads=torch.get_num_threads(),
        workers=0,
        libraries=("torch", "timm", "numpy", "opencv-python-headless"),
    )
    record = {
        "environment": environment,
        "minutes": round(seconds / 60, 1),
        "epochs": best_epoch,
        "train_faces": len(faces.train.crops),
        "train_aligned": faces.train.aligned,
        "valid_faces": len(faces.valid.crops),
        "valid_aligned": faces.valid.aligned,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
