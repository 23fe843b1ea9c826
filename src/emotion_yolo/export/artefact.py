"""Writes the exported artefact: both networks, compared with PyTorch and fitted on valid, then model.json."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import openvino as ov

from emotion_yolo.data.prepared import read_crops, read_scenes
from emotion_yolo.digests import sha256_of
from emotion_yolo.export.fitting import fit
from emotion_yolo.export.parity import check_parity, refuse_differences
from emotion_yolo.inference.artefact import (
    Calibration,
    CloseUp,
    Input,
    Lineage,
    ModelSpec,
    Thresholds,
    describe,
    write_spec,
)
from emotion_yolo.onnx_store import store_in_half
from emotion_yolo.params import Params
from emotion_yolo.progress import say
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.tracking.lineage import data_digest, git_revision, input_digests, read_environment
from emotion_yolo.yolo.network import batch_norm_scales, export_onnx, torch_forward

MODEL_NAME = "emotion-yolo"
REPORT_NAME = "report.json"

_PARITY_PICTURES = 16
_SECTIONS = {"prepare", "train", "export"}

Storage = Literal["fp16", "mixed", "fp32"]


def export(
    params: Params, *, weights: Path, prepared: Path, pin: Path, run: Path, out: Path, report: Path
) -> ModelSpec:
    """Export `weights` into `out`, and write the report beside; `model.json`, written last, makes it an artefact.

    Raises:
        ModelError: a network of other classes, or no record of its training.
        ParityError: an export whose answers differ from PyTorch's; the report says by how much.
    """
    lineage = collect(params, weights=weights, pin=pin, run=run)
    storage = write_networks(weights, out, imgsz=params.export.imgsz)
    # Until they are fitted: every box counts as a face, and scores are not tempered.
    spec = first_spec(out, params, lineage, storage)
    valid, scenes = read_crops(prepared, "valid"), read_scenes(prepared, "valid")
    parity = check_parity(out, spec, torch_forward(weights), valid[:: max(len(valid) // _PARITY_PICTURES, 1)])
    content: dict[str, object] = {"parity": parity, "parity_tolerance": params.export.parity, "storage": storage}
    _write_report(report, content)
    refuse_differences(parity, params.export.parity)
    fitted = fit(
        out,
        spec,
        valid,
        scenes,
        scene_imgsz=params.evaluate.scene_imgsz,
        train_imgsz=params.train.imgsz,
        fallback_conf=params.export.fallback_conf,
        bias_prior=params.export.bias_prior,
    )
    _write_report(report, {**content, **fitted.report, "warnings": list(fitted.warnings)})
    thresholds = spec.thresholds.model_copy(update={"conf": fitted.conf})
    spec = spec.model_copy(update={"thresholds": thresholds, "calibration": fitted.calibration})
    write_spec(out, spec)
    for warning in fitted.warnings:
        say("export", f"warning: {warning}")
    size = sum(file.bytes for file in spec.files.values()) / 2**20
    differs = max(difference["score"] for difference in parity.values())
    say("export", f"{out}: version {spec.version}, {size:.1f} MiB, weights stored in {storage}")
    say("export", f"class scores within {differs:.1e} of PyTorch's, tolerance {params.export.parity:g}")
    temperature = f"temperature {fitted.calibration.temperature:g}"
    say("export", f"conf {fitted.conf:g} from {fitted.report['conf_chosen_on']}, {temperature}")
    return spec


def collect(params: Params, *, weights: Path, pin: Path, run: Path) -> Lineage:
    """Gather the lineage of `weights` in the project at the working folder; `run` is the train stage's record.

    Raises:
        ModelError: no such record, or one of something else.
    """
    return Lineage(
        data=data_digest(pin),
        params=hashlib.sha256(params.model_dump_json(include=_SECTIONS).encode()).hexdigest(),
        revision=git_revision(),
        weights=sha256_of(weights),
        inputs=input_digests(params),
        settings=params.model_dump(include=_SECTIONS, mode="json"),
        environment=read_environment(run, command="dvc repro train"),
    )


def write_networks(weights: Path, out: Path, *, imgsz: int) -> Storage:
    """Write `model.onnx` and the same network as OpenVINO IR; returns how their weights are stored."""
    onnx = out / "model.onnx"
    export_onnx(weights, onnx, imgsz=imgsz)
    halved, large = store_in_half(onnx, scales=batch_norm_scales(weights))
    # Not compressed once more: that would round what `store_in_half` left in fp32 because it is no fp16 number.
    ov.save_model(ov.Core().read_model(onnx), out / "model.xml", compress_to_fp16=False)
    return "fp16" if halved == large else "mixed" if halved else "fp32"


def first_spec(folder: Path, params: Params, lineage: Lineage, storage: Storage) -> ModelSpec:
    """Describe the files in `folder`, before thresholds and calibration are known."""
    onnx, close_up = describe(folder / "model.onnx"), params.export.close_up
    return ModelSpec(
        name=MODEL_NAME,
        version=onnx.sha256[:12],
        classes=NAMES,
        input=Input(
            imgsz=params.export.imgsz, max_upscale=params.export.max_upscale, upscale_to=params.export.upscale_to
        ),
        files={
            "onnx": onnx,
            "openvino_xml": describe(folder / "model.xml"),
            "openvino_bin": describe(folder / "model.bin"),
        },
        thresholds=Thresholds(conf=params.export.fallback_conf, iou=params.export.iou, ios=params.export.ios),
        calibration=Calibration(temperature=1.0),
        close_up=CloseUp(**close_up.model_dump()) if close_up.faces else None,
        storage=storage,
        lineage=lineage,
    )


def _write_report(folder: Path, content: Mapping[str, Any]) -> None:
    (folder / REPORT_NAME).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
