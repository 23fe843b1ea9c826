"""Parity of an exported network with the trained one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from emotion_yolo.data.prepared import Sample, decoded
from emotion_yolo.errors import ParityError
from emotion_yolo.inference.artefact import ModelSpec
from emotion_yolo.inference.backends import Backend, as_planes
from emotion_yolo.inference.decoding import Tensor
from emotion_yolo.inference.detector import Detector

Parity = dict[str, dict[str, float]]
"""By backend, the largest difference of a class score (`score`, 0-1) and of a box (`box_px`)."""


def check_parity(
    folder: Path, spec: ModelSpec, reference: Callable[[Tensor], Tensor], samples: Sequence[Sample]
) -> Parity:
    """Compare both exports in `folder` with `reference`, [B, 3, H, W] in 0-1 to [B, 12, A], on pictures.

    Boxes are compared where the reference sees a face with a score of 0.1 or more: elsewhere they mean nothing.
    """
    backends: tuple[Backend, ...] = ("onnx", "openvino")
    differences: Parity = {}
    for backend in backends:
        detector = Detector.load(folder, spec=spec, backend=backend)
        scores, boxes = 0.0, 0.0
        for _, image in decoded(samples):
            tensor, _ = detector.preprocess(image)
            expected, got = reference(as_planes(tensor))[0], detector.infer(tensor)[0]
            scores = max(scores, float(np.abs(expected[4:] - got[4:]).max()))
            seen = expected[4:].sum(axis=0) >= 0.1
            if seen.any():
                boxes = max(boxes, float(np.abs(expected[:4, seen] - got[:4, seen]).max()))
        differences[backend] = {"score": round(scores, 9), "box_px": round(boxes, 4)}
    return differences


def refuse_differences(
    parity: Mapping[str, Mapping[str, float]], tolerance: float, *, report: str = "reports/export/report.json"
) -> None:
    """Refuse an export whose answers differ from PyTorch's.

    Raises:
        ParityError: a score differs by more than `tolerance`.
    """
    for backend, difference in parity.items():
        if not difference["score"] <= tolerance:  # also refuses nan
            message = f"{backend}: a class score differs from PyTorch's by {difference['score']:.4f}"
            advice = f"the export is wrong, or the runtime computes in less than fp32; see {report}"
            raise ParityError(f"{message}, expected at most {tolerance} (export.parity); {advice}")
