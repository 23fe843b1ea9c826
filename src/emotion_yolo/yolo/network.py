"""The trained network as an ONNX file, and as a function to compare exports with."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from emotion_yolo.errors import ModelError
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.yolo.weights import one_to_many


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
        one_to_many(model.model)
        # onnxslim would be one more dependency; both runtimes fold constants themselves when they load.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's tracer, which Ultralytics still exports with, warns of its age
            exported = Path(model.export(format="onnx", imgsz=imgsz, dynamic=True, simplify=False, device="cpu"))
        shutil.move(exported, out)


def batch_norm_scales(weights: Path) -> dict[str, NDArray[np.float32]]:
    """Return the factors of a convolution's output channels [O] when its batch norm is fused into it.

    Keys are the names of the fused weights in the ONNX file.
    """
    model = YOLO(weights).model.float().eval()
    return {
        f"{name}.conv.weight": (module.bn.weight / torch.sqrt(module.bn.running_var + module.bn.eps)).detach().numpy()
        for name, module in model.named_modules()
        if isinstance(getattr(module, "conv", None), torch.nn.Conv2d)
        and isinstance(getattr(module, "bn", None), torch.nn.BatchNorm2d)
    }


def torch_forward(weights: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the trained network itself as a function of [B, 3, H, W] in 0-1 to [B, 12, A], to compare exports with."""
    model = YOLO(weights).model.float().eval()
    one_to_many(model)

    def forward(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer = model(torch.from_numpy(tensor))
        return np.asarray((answer[0] if isinstance(answer, tuple) else answer).numpy(), np.float32)

    return forward
