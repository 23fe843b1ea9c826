"""Writes a two-stage model as one folder: a detector, a trained classifier's ONNX file, and YuNet for alignment."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ModelError
from emotion_yolo.export.parity import refuse_differences
from emotion_yolo.expression.baselines import weights_file
from emotion_yolo.expression.crops import Crops
from emotion_yolo.expression.exporting import export_classifier, temperature_of
from emotion_yolo.expression.networks import FaceClassifier
from emotion_yolo.expression.training import logits_of
from emotion_yolo.inference.artefact import (
    File,
    Lineage,
    ModelSpec,
    SecondStage,
    checked_file,
    describe,
    digest_of,
    read_spec,
    write_spec,
)
from emotion_yolo.inference.backends import Backend
from emotion_yolo.inference.calibration import expected_calibration_error
from emotion_yolo.inference.classifier import CropClassifier, Probabilities
from emotion_yolo.params import Params, model_path
from emotion_yolo.paths import RUN
from emotion_yolo.progress import say
from emotion_yolo.structures.images import Image
from emotion_yolo.tracking.lineage import data_digest, git_revision, read_environment

REPORT_NAME = "report.json"

_PARITY_CROPS = 16
_SECTIONS = {"prepare", "classifier", "baselines"}


def assemble(
    params: Params, name: str, *, net: FaceClassifier, folder: Path, valid: Crops, pin: Path, out: Path, report: Path
) -> ModelSpec:
    """Write the two-stage model of the classifier `net`, read from `folder`, into `out`, which `model.json` completes.

    The temperature is fitted on `valid`. The threshold of a face stays the detector's, as do its other settings.

    Raises:
        ModelError: a detector or a record of the training that is not there.
        ParityError: an export that answers otherwise than PyTorch.
    """
    settings = params.baselines
    source = Path(settings.detector)
    detector = read_spec(source)
    if detector.classifier:
        raise ModelError(f"{source}: a two-stage model; name a detector in baselines.detector")
    for file in detector.files.values():
        shutil.copyfile(checked_file(source, file), out / file.path)
    logits = logits_of(net, valid)
    temperature = round(temperature_of(logits, valid), 4)
    onnx = out / "classifier.onnx"
    export_classifier(net, temperature, onnx)
    probabilities = (logits / temperature).softmax(1).numpy()
    parity = _parity(onnx, valid.pictures.permute(0, 2, 3, 1).numpy(), probabilities)
    ece = expected_calibration_error(probabilities, valid.emotions.numpy())
    content = {"parity": parity, "parity_tolerance": params.export.parity, "temperature": temperature, "valid_ece": ece}
    written = report / REPORT_NAME
    written.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
    refuse_differences(parity, params.export.parity, report=str(written))
    landmarks: File | None = None
    if path := model_path(settings.landmarks):
        landmarks = describe(Path(shutil.copyfile(path, out / "landmarks.onnx")))
    second = SecondStage(
        architecture=net.spec.architecture,
        onnx=describe(onnx),
        imgsz=net.imgsz,
        margin=settings.margin,
        landmarks=landmarks,
        temperature=temperature,
    )
    spec = ModelSpec.model_validate(
        {
            **detector.model_dump(exclude={"name", "version", "classes", "lineage"}),
            "name": f"{detector.name}+{name}",
            "version": digest_of(detector.files["onnx"], second.onnx, landmarks)[:12],
            "classes": net.spec.classes,
            "lineage": _lineage(params, name, detector, landmarks, folder=folder, pin=pin),
            "classifier": second,
        }
    )
    write_spec(out, spec)
    size = sum(path.stat().st_size for path in out.iterdir()) / 2**20
    say(f"assemble@{name}", f"{out}: version {spec.version}, {size:.1f} MiB, {len(spec.classes)} classes")
    return spec


def _parity(onnx: Path, crops: Image, expected: Probabilities) -> dict[str, dict[str, float]]:
    """Return by backend the largest difference of a probability from PyTorch's, on some of the crops [N, S, S, 3]."""
    some = slice(None, None, max(len(crops) // _PARITY_CROPS, 1))
    backends: Sequence[Backend] = ("onnx", "openvino")
    differences: dict[str, dict[str, float]] = {}
    for backend in backends:
        got = CropClassifier(onnx, classes=expected.shape[1], backend=backend)(np.ascontiguousarray(crops[some]))
        differences[backend] = {"score": round(float(np.abs(got - expected[some]).max()), 6)}
    return differences


def _lineage(
    params: Params, name: str, detector: ModelSpec, landmarks: File | None, *, folder: Path, pin: Path
) -> Lineage:
    inputs = {"baselines.detector": detector.files["onnx"].sha256}
    if landmarks:
        inputs["baselines.landmarks"] = landmarks.sha256
    start = model_path(params.baselines.models[name].weights)
    if start and start.is_file():
        inputs[f"baselines.models.{name}.weights"] = sha256_of(start)
    elif start:
        inputs[f"baselines.models.{name}.weights"] = sha256_of(weights_file(start))
    return Lineage(
        data=data_digest(pin),
        params=hashlib.sha256(params.model_dump_json(include=_SECTIONS).encode()).hexdigest(),
        revision=git_revision(),
        weights=sha256_of(weights_file(folder)),
        inputs=inputs,
        settings=params.model_dump(include=_SECTIONS, mode="json"),
        environment=read_environment(folder / RUN.name, command="make baselines"),
    )
