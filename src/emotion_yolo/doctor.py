"""The package on this machine: versions, CPU, precision, model, speed, free disk."""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from emotion_yolo.devices import describe_cpu
from emotion_yolo.inference.artefact import checked_file, read_spec
from emotion_yolo.inference.backends import available_cores
from emotion_yolo.inference.detector import Detector

_LIBRARIES = ("numpy", "opencv-python-headless", "openvino", "onnxruntime", "pillow", "simplejpeg")
_EXTRAS = {
    "api": "fastapi", "heic": "pillow-heif", "table": "polars", "video": "av", "track": "trackers", "log": "pyarrow",
    "monitor": "evidently", "train": "ultralytics", "vit": "transformers",
}  # fmt: skip
"""A package that stands for each extra."""
_ROUNDS = 15


def examine(model: Path) -> Iterator[tuple[str, str]]:
    """Yield pairs of a subject and what was found.

    Raises:
        ModelError: `model` cannot be loaded.
    """
    yield "emotion-yolo", f"{version('emotion-yolo')}, Python {platform.python_version()}, {platform.platform()}"
    yield "libraries", ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    yield "extras", ", ".join(f"{name}: {'yes' if _version(of) != 'no' else 'no'}" for name, of in _EXTRAS.items())
    cpu, features = describe_cpu()
    yield "CPU", f"{cpu}, {available_cores()} of {os.cpu_count()} cores"
    yield "CPU features", ", ".join(features) or "none of those that choose kernels"
    yield "free disk", f"{shutil.disk_usage(Path.cwd()).free / 1e9:,.1f} GB here"
    spec = read_spec(model)
    yield "model", f"{model}, version {spec.version}"
    for name, file in spec.files.items():
        checked_file(model, file)
        yield f"  {name}", f"sha256 {file.sha256}, as model.json says"
    detector = Detector.load(model, spec=spec, precision="auto")
    yield "inference", f"{detector.backend}, {_precision(detector.backend)}, {detector.imgsz} px"
    yield "one inference", f"{_inference_ms(detector):.1f} ms (median of {_ROUNDS})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "no"


def _precision(backend: str) -> str:
    """Return the precision that OpenVINO chooses on this CPU; ONNX Runtime has only fp32."""
    if backend != "openvino":
        return "f32"
    import openvino as ov

    return "bf16" if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _inference_ms(detector: Detector) -> float:
    width, height = detector.canvases[0]
    tensor = np.full((1, height, width, 3), 114, np.uint8)
    taken = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        detector.infer(tensor)
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken)
