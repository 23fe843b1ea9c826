"""From a trained classifier to an ONNX file that answers alike, calibrated on valid."""

import warnings
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from emotion_yolo.expression.crops import Crops
from emotion_yolo.expression.training import Network
from emotion_yolo.inference.calibration import fit_temperature
from emotion_yolo.onnx_store import store_in_half


def temperature_of(logits: Tensor, valid: Crops) -> float:
    """Return the temperature that calibrates a network, from its logits [N, C] of valid crops."""
    return fit_temperature(logits.softmax(1).numpy(), valid.emotions.numpy())


def export_classifier(net: Network, temperature: float, out: Path) -> None:
    """Write the network as ONNX, fp16 weights: [B, 3, S, S] in 0-1 to calibrated probabilities [B, C]."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's tracer warns of its age; its successor needs a package more
        torch.onnx.export(
            _Calibrated(net, temperature).eval(),
            (torch.zeros(1, 3, net.imgsz, net.imgsz),),
            partial,
            input_names=["crops"],
            output_names=["probabilities"],
            dynamic_axes={"crops": {0: "batch"}, "probabilities": {0: "batch"}},
            dynamo=False,
        )
    store_in_half(partial, exact=False)
    partial.replace(out)


class _Calibrated(nn.Module):
    def __init__(self, net: Network, temperature: float) -> None:
        super().__init__()
        self._net, self._temperature = cast(nn.Module, net), temperature

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self._net(crops)
        return (logits / self._temperature).softmax(1)
