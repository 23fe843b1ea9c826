"""Classifiers as teachers of the detector, asked about each close-up of a training as it is composed.

A teacher that sees the very view that the student sees says what can be told from it; one that has seen the crop
before it was turned, darkened and coarsened asks for what cannot (Beyer et al., arXiv:2106.05237).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from emotion_yolo.devices import has_bf16
from emotion_yolo.errors import ModelError
from emotion_yolo.expression.face_mobile_net import FaceMobileNet
from emotion_yolo.expression.face_net import FaceNet
from emotion_yolo.paths import TEACHER_NAME

Teacher = FaceNet | FaceMobileNet

_NETWORKS: dict[str, type[Teacher]] = {net.__name__: net for net in (FaceNet, FaceMobileNet)}
_ADVICE = "make it with `emotion-yolo train-classifier`"


class Teachers:
    """Some classifiers of expressions, whose mean counts."""

    def __init__(self, nets: Sequence[Teacher], temperatures: Sequence[float], device: torch.device) -> None:
        self._nets = [net.to(device).eval().requires_grad_(requires_grad=False) for net in nets]
        self._temperatures, self._bf16 = tuple(temperatures), has_bf16(device)

    def __len__(self) -> int:
        return len(self._nets)

    @torch.no_grad()
    def __call__(self, close_ups: Tensor) -> Tensor:
        """Return the probabilities [B, 8] of the expressions on close-ups [B, 3, S, S] in 0-1."""
        answers = []
        for net, temperature in zip(self._nets, self._temperatures, strict=True):
            with torch.autocast(close_ups.device.type, torch.bfloat16, enabled=self._bf16):
                logits = net(resized(close_ups, net.imgsz))
            answers.append((logits.float() / temperature).softmax(1))
        return torch.stack(answers).mean(0)


def resized(pictures: Tensor, imgsz: int) -> Tensor:
    """Scale square pictures [B, 3, S, S] to a network's input."""
    if pictures.shape[-1] == imgsz:
        return pictures
    return F.interpolate(pictures, size=(imgsz, imgsz), mode="bilinear", antialias=True)


def save_teacher(net: Teacher, temperature: float, out: Path) -> None:
    """Write a classifier for `load_teachers`: the network's name, its temperature, and its weights, kernels in fp16."""
    state = {name: _half(value) for name, value in net.state_dict().items()}
    partial = out.with_name(f"{out.name}.part")
    torch.save({"network": type(net).__name__, "temperature": temperature, "state": state}, partial)
    partial.replace(out)


def _half(value: Tensor) -> Tensor:
    # A batch norm's variance of pixels in 0-255 can be beyond fp16.
    return value.half() if value.is_floating_point() and value.ndim > 1 else value


def load_teachers(folder: Path, device: torch.device) -> Teachers:
    """Load all classifiers (`paths.TEACHER_NAME`) in `folder` and below, in the order of their paths.

    Raises:
        ModelError: none is there, or one that `train-classifier` did not write.
    """
    files = sorted(folder.rglob(TEACHER_NAME))
    if not files:
        raise ModelError(f"{folder}: no {TEACHER_NAME} in it, expected at least one teacher; {_ADVICE}")
    nets: list[Teacher] = []
    temperatures: list[float] = []
    for path in files:
        try:
            given = torch.load(path, weights_only=True, map_location="cpu")
            net = _NETWORKS[given["network"]](dropout=0.0)
            net.load_state_dict(given["state"])
            temperatures.append(float(given["temperature"]))
        except Exception as error:  # whatever PyTorch raises of a file that it cannot read
            raise ModelError(f"{path}: not a teacher ({type(error).__name__}: {error}); {_ADVICE}") from error
        nets.append(net)
    return Teachers(nets, temperatures, device)
