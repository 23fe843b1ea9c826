"""Stage `export`: models/trained/ → models/export/, compared with PyTorch; thresholds, calibration fitted on valid."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from emotion_yolo.data.prepared import Sample, decoded, read_crops, read_scenes
from emotion_yolo.errors import ModelError, ParityError
from emotion_yolo.evaluation.metrics import Pair, assign, best_confidence
from emotion_yolo.export.onnx_store import store_in_half
from emotion_yolo.inference.artefact import Calibration, Input, Lineage, ModelSpec, Thresholds, describe, write_spec
from emotion_yolo.inference.backends import Backend, as_planes
from emotion_yolo.inference.calibration import expected_calibration_error, fit_temperature, probabilities
from emotion_yolo.inference.decoding import Tensor
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import Export, load_params
from emotion_yolo.paths import DATA_PIN, EXPORT, EXPORT_REPORT, PREPARED, TRAINED
from emotion_yolo.progress import counting
from emotion_yolo.stages import run_stage
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.tracking.lineage import collect
from emotion_yolo.yolo.network import export_onnx, torch_forward

MODEL_NAME = "emotion-yolo"
_PARITY_PICTURES = 16


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params()
    shutil.rmtree(EXPORT, ignore_errors=True)
    EXPORT.mkdir(parents=True)
    EXPORT_REPORT.mkdir(parents=True, exist_ok=True)
    weights = TRAINED / "weights.pt"
    lineage = collect(params, weights=weights, pin=DATA_PIN)
    write_networks(weights, EXPORT, imgsz=params.export.imgsz)
    # Until they are fitted: everything is a face, and scores are taken at their word.
    spec = first_spec(EXPORT, params.export, lineage)
    write_spec(EXPORT, spec)
    valid = read_crops(PREPARED, "valid")
    parity = check_parity(EXPORT, torch_forward(weights), valid[:: max(len(valid) // _PARITY_PICTURES, 1)])
    fitted = fit(EXPORT, valid, read_scenes(PREPARED, "valid"), scene_imgsz=params.evaluate.scene_imgsz)
    write_spec(EXPORT, spec.model_copy(update=fitted[0]))
    report = {"parity": parity, "parity_tolerance": params.export.parity, **fitted[1]}
    (EXPORT_REPORT / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", "utf-8")
    refuse_differences(parity, params.export.parity)


def write_networks(weights: Path, out: Path, *, imgsz: int) -> None:
    """Write `model.onnx` and the same network as OpenVINO IR, weights stored in fp16."""
    onnx = out / "model.onnx"
    export_onnx(weights, onnx, imgsz=imgsz)
    store_in_half(onnx)
    # Not compressed once more: the large weights are fp16 already, and rounding biases too triples the difference.
    ov.save_model(ov.Core().read_model(onnx), out / "model.xml", compress_to_fp16=False)


def first_spec(folder: Path, params: Export, lineage: Lineage) -> ModelSpec:
    """Describe the files in `folder`, before thresholds and calibration are known."""
    onnx = describe(folder / "model.onnx")
    return ModelSpec(
        name=MODEL_NAME,
        version=onnx.sha256[:12],
        classes=NAMES,
        input=Input(imgsz=params.imgsz, max_upscale=params.max_upscale),
        files={
            "onnx": onnx,
            "openvino_xml": describe(folder / "model.xml"),
            "openvino_bin": describe(folder / "model.bin"),
        },
        thresholds=Thresholds(conf=0.0, iou=params.iou, ios=params.ios),
        calibration=Calibration(temperature=1.0),
        lineage=lineage,
    )


def check_parity(
    folder: Path, reference: Callable[[Tensor], Tensor], samples: Sequence[Sample]
) -> dict[str, dict[str, float]]:
    """Compare both exports with PyTorch on pictures; returns the largest differences of scores (0-1) and boxes (px).

    Boxes are compared where PyTorch sees a face with a score of 0.1 or more: elsewhere they mean nothing.
    """
    backends: tuple[Backend, ...] = ("onnx", "openvino")
    differences: dict[str, dict[str, float]] = {}
    for backend in backends:
        detector = Detector.load(folder, backend=backend)
        scores, boxes = 0.0, 0.0
        for _, image in decoded(samples):
            tensor, _ = detector.preprocess(image)
            expected, got = reference(as_planes(tensor))[0], detector.infer(tensor)[0]
            scores = max(scores, float(np.abs(expected[4:] - got[4:]).max()))
            seen = expected[4:].sum(axis=0) >= 0.1
            if seen.any():
                boxes = max(boxes, float(np.abs(expected[:4, seen] - got[:4, seen]).max()))
        differences[backend] = {"score": round(scores, 6), "box_px": round(boxes, 4)}
    return differences


def refuse_differences(parity: dict[str, dict[str, float]], tolerance: float) -> None:
    """Stop where an export answers otherwise than PyTorch.

    Raises:
        ParityError: a score differs by more than `tolerance`.
    """
    for backend, difference in parity.items():
        if difference["score"] > tolerance:
            message = f"{backend}: a class score differs from PyTorch's by {difference['score']:.4f}"
            raise ParityError(
                f"{message}, expected at most {tolerance}; see {EXPORT_REPORT}/report.json, or raise export.parity"
            )


def fit(
    folder: Path, valid: Sequence[Sample], valid_scenes: Sequence[Sample], *, scene_imgsz: int
) -> tuple[dict[str, object], dict[str, object]]:
    """Choose the confidence threshold and the temperature on valid; returns changes of the spec, and what to report.

    The threshold is that of the best face F1 on scenes, which is where there is something other than faces to see; on
    the crops where there are no scenes. The temperature is fitted to the emotions of the crops' faces that were found.

    Raises:
        ModelError: no face of valid is found: the network has not learnt.
    """
    crop_detector = Detector.load(folder)
    pairs = list(predict(crop_detector, valid, "valid crops"))
    found = [
        (detections.probabilities[finder], cls)
        for detections, labels in pairs
        for finder, cls in zip(assign(detections, labels), labels.cls, strict=True)
        if finder >= 0
    ]
    if not found:
        raise ModelError("no face of the valid split is found; train longer, or check train.weights and prepare")
    where = list(predict(Detector.load(folder, imgsz=scene_imgsz), valid_scenes, "valid scenes")) or pairs
    try:
        conf = best_confidence(where)
    except ValueError as error:
        raise ModelError(f"no threshold can be chosen on valid: {error}; train longer") from error
    at_one, truth = np.stack([p for p, _ in found]), np.asarray([cls for _, cls in found])
    # At temperature 1 probabilities are the scores but for a factor, which no temperature sees.
    temperature = round(fit_temperature(at_one, truth), 4)
    calibrated = probabilities(at_one, temperature=temperature)
    changes: dict[str, object] = {
        "thresholds": crop_detector.spec.thresholds.model_copy(update={"conf": round(conf, 3)}),
        "calibration": Calibration(temperature=temperature),
    }
    report: dict[str, object] = {
        "conf": round(conf, 3),
        "conf_chosen_on": "valid scenes" if valid_scenes else "valid crops",
        "temperature": temperature,
        "valid_faces_found": len(found),
        "valid_ece_before": round(expected_calibration_error(at_one, truth), 5),
        "valid_ece": round(expected_calibration_error(calibrated, truth), 5),
    }
    return changes, report


def predict(detector: Detector, samples: Sequence[Sample], title: str) -> Iterator[Pair]:
    """Yield detections, at next to no threshold, with the truth."""
    with counting(title) as progress:
        for done, (sample, image) in enumerate(decoded(samples), start=1):
            yield detector.predict(image, conf=0.01), sample.labels
            progress(done, len(samples))


if __name__ == "__main__":
    run_stage(main)
