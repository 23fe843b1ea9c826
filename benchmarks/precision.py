"""Accuracy against time of a model in fp32, bf16 and INT8 at several input sizes, on the valid split; prints a table.

INT8 is quantised here by NNCF from pictures of the train split, activations of the head's last layers left out.
"""

import argparse
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.timing import median_ms
from emotion_yolo.data.prepared import Sample, read_crops, read_scenes, read_split
from emotion_yolo.drawing import evenly
from emotion_yolo.evaluation.figures import EmotionMetrics, FaceMetrics
from emotion_yolo.evaluation.runs import run_plain
from emotion_yolo.inference.artefact import describe, read_spec, write_spec
from emotion_yolo.inference.backends import Precision, as_planes
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import load_params
from emotion_yolo.paths import PREPARED, RELEASE
from emotion_yolo.structures.images import read_rgb

if TYPE_CHECKING:
    import nncf
    import openvino as ov

COLUMNS = (
    "precision", "input, px", "emotion top-1", "mAP50", "face AP50 ≥ 32 px", "face AP50 ≥ 128 px",
    "ms, 1 thread", "ms, 2 threads", "MB",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One network file and what it computes in."""

    name: str
    folder: Path
    precision: Precision


def quantise(model: Path, pictures: Sequence[Path], out: Path) -> Path:
    """Write the artefact in `model` as INT8 into `out`, calibrated on `pictures` at its own input size."""
    os.environ.setdefault("NNCF_CI", "1")  # which is how NNCF is told not to report its use
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    spec = read_spec(model)
    detector = Detector.load(model)
    network = ov.Core().read_model(model / spec.files["onnx"].path)
    given = nncf.Dataset(list(pictures), lambda path: as_planes(detector.preprocess(read_rgb(path))[0]))
    quantised = nncf.quantize(
        network, given, subset_size=len(pictures), preset=nncf.QuantizationPreset.MIXED, ignored_scope=_head(network)
    )
    out.mkdir(parents=True)
    shutil.copyfile(model / spec.files["onnx"].path, out / "model.onnx")
    ov.save_model(quantised, out / "model.xml", compress_to_fp16=True)
    names = {"onnx": "model.onnx", "openvino_xml": "model.xml", "openvino_bin": "model.bin"}
    write_spec(out, spec.model_copy(update={"files": {kind: describe(out / name) for kind, name in names.items()}}))
    return out


def _head(network: "ov.Model") -> "nncf.IgnoredScope":
    """Return NNCF's scope of what stays in floating point: all from the last convolutions of the head on.

    They answer with pixels, to 640 and more, and scores, to 1, that are joined in one tensor.
    """
    import nncf

    found = (re.match(r"/model\.(\d+)/", op.get_friendly_name()) for op in network.get_ordered_ops())
    head = max((int(match[1]) for match in found if match), default=0)
    last = [rf"/model\.{head}/cv[23]\.\d/cv[23]\.\d\.2/.*", rf"/model\.{head}/dfl/.*", rf"/model\.{head}/[A-Z].*"]
    return nncf.IgnoredScope(patterns=last, validate=False)


def calibration_pictures(prepared: Path, count: int) -> list[Path]:
    """Pick pictures evenly from the train split, where crops, sheets and scenes lie side by side."""
    return evenly([sample.image for sample in read_split(prepared, "train")], count)


def accuracy(variant: Variant, side: int, crops: Sequence[Sample], scenes: Sequence[Sample]) -> list[str]:
    """Return the cells of emotion top-1 and mAP50 on crops, and face AP50 on scenes from 32 and from 128 px."""
    params = load_params().evaluate
    detector = Detector.load(variant.folder, imgsz=side, threads=1, precision=variant.precision)
    of_crops = EmotionMetrics(run_plain(detector, crops, params=params, title=variant.name), conf=params.conf)
    metrics = of_crops(np.ones(len(crops)))
    if scenes:
        of_scenes = FaceMetrics(run_plain(detector, scenes, params=params, title=variant.name))
        metrics |= of_scenes(np.ones(len(scenes)))
    names = ("emotion_top1", "map50", "face_ap50_32px", "face_ap50_128px")
    return [f"{metrics[name]:.3f}" if isfinite(metrics.get(name, nan)) else "-" for name in names]


def milliseconds(variant: Variant, side: int, threads: int, rounds: int) -> str:
    """Return the median time of the network alone, for a whole square."""
    detector = Detector.load(variant.folder, imgsz=side, threads=threads, precision=variant.precision, square=True)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    tensor, _ = detector.preprocess(noise)
    return f"{median_ms(lambda: detector.infer(tensor), count=rounds):.1f}"


def megabytes(variant: Variant) -> str:
    """Return the size of the network's own file or files."""
    files = read_spec(variant.folder).files
    kinds = ("openvino_xml", "openvino_bin") if variant.name.startswith("INT8") else ("onnx",)
    return f"{sum(files[kind].bytes for kind in kinds) / 1e6:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=RELEASE, help="folder with model.json")
    parser.add_argument("--data", type=Path, default=PREPARED, help="prepared set with train and valid")
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 512, 640], help="px")
    parser.add_argument("--crops", type=int, default=600, help="valid crops, evenly picked")
    parser.add_argument("--scenes", type=int, default=1000, help="valid photographs, evenly picked")
    parser.add_argument("--calibration", type=int, default=300, help="train pictures that INT8 is calibrated on")
    parser.add_argument("--rounds", type=int, default=60, help="inferences behind each time")
    given = parser.parse_args()
    crops = evenly(read_crops(given.data, "valid"), given.crops) if given.crops else []
    scenes = evenly(read_scenes(given.data, "valid"), given.scenes) if given.scenes else []
    with tempfile.TemporaryDirectory() as folder:
        pictures = calibration_pictures(given.data, given.calibration)
        int8 = quantise(given.model, pictures, Path(folder) / "int8")
        variants = [
            Variant("fp32", given.model, "f32"),
            Variant("bf16", given.model, "bf16"),
            Variant("INT8, the rest fp32", int8, "f32"),
            Variant("INT8, the rest bf16", int8, "bf16"),
        ]
        print(f"{len(crops)} valid crops, {len(scenes)} valid scenes, {len(pictures)} train pictures for INT8\n")
        for cells in (COLUMNS, ["---"] * len(COLUMNS)):
            print("| " + " | ".join(cells) + " |")
        for side in given.sizes:
            for variant in variants:
                measured = accuracy(variant, side, crops, scenes) if crops else ["-"] * 4
                times = [milliseconds(variant, side, threads, given.rounds) for threads in (1, 2)]
                print("| " + " | ".join((variant.name, str(side), *measured, *times, megabytes(variant))) + " |")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
