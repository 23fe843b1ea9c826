"""The trained network as ONNX, and as a function to compare exports with."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from emotion_yolo.errors import ModelError
from emotion_yolo.structures.emotions import NAMES


def export_onnx(weights: Path, out: Path, *, imgsz: int) -> None:
    """Write the network as ONNX with free batch, height and width; it answers [B, 12, A], without suppression.

    Raises:
        ModelError: a network of other classes than the eight emotions.
    """
    with TemporaryDirectory() as folder:  # Ultralytics writes beside the weights
        copy = Path(folder) / "weights.pt"
        shutil.copyfile(weights, copy)
        model = YOLO(copy)
        if tuple(model.names.values()) != NAMES:
            raise ModelError(f"{weights}: classes are {list(model.names.values())}, expected {list(NAMES)}; train it")
        _one_to_many(model.model)
        # onnxslim would be one more dependency; both runtimes fold constants themselves when they load.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's tracer, which Ultralytics still exports with, warns of its age
            exported = Path(model.export(format="onnx", imgsz=imgsz, dynamic=True, simplify=False, device="cpu"))
        shutil.move(exported, out)


def torch_forward(weights: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the trained network itself as a function of [B, 3, H, W] in 0-1 to [B, 12, A], to compare exports with."""
    model = YOLO(weights).model.float().eval()
    _one_to_many(model)

    def forward(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer = model(torch.from_numpy(tensor))
        return np.asarray((answer[0] if isinstance(answer, tuple) else answer).numpy(), np.float32)

    return forward


def _one_to_many(model: Any) -> None:
    # YOLO26 can answer with finished boxes, one class each; the service needs all eight scores of a box.
    head = model.model[-1]
    if getattr(head, "end2end", False):
        head.end2end = False
