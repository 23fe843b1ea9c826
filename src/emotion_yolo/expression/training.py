"""Trains the network that names the expression of a single crop: a teacher that knows more than its student.

The detector has to find faces of any size with 2.6 million weights, and starts from a network that knows things, not
people. This one sees nothing but crops, and starts from one that has seen three million faces (`face_net.py`). What it
thinks of the train crops becomes a part of their targets (`teacher.py`).
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from emotion_yolo.data.prepared import Sample, decoded
from emotion_yolo.errors import DataError
from emotion_yolo.export.onnx_store import store_in_half
from emotion_yolo.expression.face_net import SIDE, FaceNet, Weights, face_net
from emotion_yolo.inference.calibration import fit_temperature
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import CROP_SIDE

OnEpoch = Callable[[int, float, float], None]
"""Called with the number of the finished epoch, from 1, its mean loss, and the top-1 on the valid crops."""

_SMOOTHING = 0.1
_MIXED = (0.5, 0.3)  # chance of a batch to be blended with itself in another order (mixup), and its beta distribution
_CALIBRATION = 768  # crops behind the batch norms' first statistics
_WARMUP = 200  # steps


@dataclass(frozen=True, eq=False)
class Crops:
    """RGB pictures [N, 3, 96, 96] uint8 and their emotions' ids [N]."""

    pictures: Tensor
    emotions: Tensor

    @classmethod
    def read(cls, samples: Sequence[Sample]) -> "Crops":
        """Read the crops of a prepared split into memory: 28 kB each.

        Raises:
            DataError: no pictures of one named face among them.
        """
        samples = [sample for sample in samples if FACE_ID not in sample.labels.cls]
        if not samples:
            raise DataError("no single crops in the train split; prepare it with prepare.sheets.singles: 1.0")
        pictures = [
            cv2.resize(picture, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA) for _, picture in decoded(samples)
        ]
        emotions = [int(sample.labels.cls[0]) for sample in samples]
        return cls(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), torch.tensor(emotions))


def fingerprint(train: Crops, weights: Weights, *, epochs: int) -> str:
    """Return 16 hexadecimal digits that change with what is trained on, from and for how long: a checkpoint's name."""
    digest = hashlib.sha256(f"{epochs}".encode())
    for array in (train.pictures.numpy(), train.emotions.numpy(), *weights.values()):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def train_classifier(
    train: Crops,
    valid: Crops,
    *,
    weights: Weights,
    epochs: int,
    checkpoint: Path,
    lr: float = 8e-4,
    batch: int = 128,
    seed: int = 0,
    on_epoch: OnEpoch = lambda *_: None,
) -> tuple[FaceNet, float]:
    """Fine-tune the recognition network on crops; returns the network, in eval mode, and its temperature on valid.

    AdamW, one cosine, smoothed labels, mixup, and an average of the weights over some 200 steps, which is what is
    returned. After each epoch the state is written to `checkpoint`, from which a second call goes on: name it by the
    `fingerprint`.
    """
    torch.manual_seed(seed)
    chosen = torch.randperm(len(train.emotions))[:_CALIBRATION]
    net = face_net(weights, plain(train.pictures[chosen]))
    average = deepcopy(net)
    optimizer = _optimizer(net, lr)
    batch = min(batch, len(train.emotions))
    steps_an_epoch = len(train.emotions) // batch
    total, begun = epochs * steps_an_epoch, 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        begun = state["epochs"]
    for epoch in range(begun, epochs):
        net.train()
        order = torch.randperm(len(train.emotions))
        losses = 0.0
        for index in range(steps_an_epoch):
            step = epoch * steps_an_epoch + index
            chosen = order[index * batch : (index + 1) * batch]
            pictures, targets = augmented(train.pictures[chosen]), smoothed(train.emotions[chosen])
            if torch.rand(()) < _MIXED[0]:
                pictures, targets = mixed(pictures, targets)
            rate = lr * min(1.0, (step + 1) / _WARMUP) * (0.5 * (1 + math.cos(math.pi * step / total)) + 0.01)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["times"]
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(pictures)
            loss = F.cross_entropy(logits.float(), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            _follow(average, net, share=1 - min(0.995, (step + 1) / (step + 21)))
            losses += loss.item()
        top1 = (logits_of(average, valid).argmax(1) == valid.emotions).float().mean().item()
        on_epoch(epoch + 1, losses / steps_an_epoch, top1)
        state = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = checkpoint.with_name(f"{checkpoint.name}.part")
        torch.save({**state, "random": torch.get_rng_state(), "epochs": epoch + 1}, partial)
        partial.replace(checkpoint)
    shares = logits_of(average, valid).softmax(1).numpy()
    return average.eval(), fit_temperature(shares, valid.emotions.numpy())


def logits_of(net: FaceNet, crops: Crops, *, batch: int = 256) -> Tensor:
    """Return the logits [N, 8] of crops as they are."""
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(plain(part)) for part in torch.split(crops.pictures, batch)])


def plain(pictures: Tensor) -> Tensor:
    """Enlarge crops [B, 3, H, W] uint8 to the network's input [B, 3, 150, 150] in 0-1."""
    return F.interpolate(pictures.float() / 255, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)


def smoothed(emotions: Tensor) -> Tensor:
    """Return targets [B, 8] that leave a tenth to all emotions alike: one label in three is another annotator's no."""
    return F.one_hot(emotions, len(NAMES)).float() * (1 - _SMOOTHING) + _SMOOTHING / len(NAMES)


def mixed(pictures: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Blend a batch with itself in another order (Zhang et al., mixup, arXiv:1710.09412)."""
    share = float(torch.distributions.Beta(_MIXED[1], _MIXED[1]).sample())
    other = torch.randperm(len(pictures))
    return torch.lerp(pictures[other], pictures, share), torch.lerp(targets[other], targets, share)


def augmented(pictures: Tensor) -> Tensor:
    """Turn, shift, scale, mirror, recolour, blur and cover crops [B, 3, H, W] uint8; returns [B, 3, 150, 150] in 0-1.

    A batch at once: picture by picture it would take longer than the network.
    """
    count = len(pictures)

    def jitter(reach: float, *shape: int) -> Tensor:
        return (torch.rand(count, *(shape or (1, 1, 1))) * 2 - 1) * reach

    angle, zoom, aspect = jitter(math.radians(15), 1), 1 + jitter(0.15, 1), 1 + jitter(0.06, 1)
    mirror = torch.where(torch.rand(count, 1) < 0.5, -1.0, 1.0)
    turn = torch.cat([angle.cos() * mirror * aspect, -angle.sin(), angle.sin() * mirror, angle.cos() / aspect], 1)
    affine = torch.cat([(turn * zoom).view(count, 2, 2), jitter(0.12, 2, 1)], 2)
    grid = F.affine_grid(affine, [count, 3, SIDE, SIDE], align_corners=False)
    faces = F.grid_sample(pictures.float() / 255, grid, padding_mode="reflection", align_corners=False)

    faces = faces * (1 + jitter(0.35)) * (1 + jitter(0.08, 3, 1, 1))  # brightness, and a cast of colour
    mean = faces.mean((1, 2, 3), keepdim=True)
    faces = (faces - mean) * (1 + jitter(0.3)) + mean  # contrast
    saturation = torch.where(torch.rand(count, 1, 1, 1) < 0.1, torch.zeros(()), 1 + jitter(0.5))
    grey = faces.mean(1, keepdim=True)
    faces = grey + (faces - grey) * saturation
    for side in (48, 64):
        coarse = torch.rand(count) < 0.08
        if coarse.any():
            small = F.interpolate(faces[coarse], size=(side, side), mode="area")
            faces[coarse] = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    for row in torch.nonzero(torch.rand(count) < 0.25).flatten():
        high, wide = (int(SIDE * (0.1 + 0.25 * torch.rand(()))) for _ in range(2))
        top, left = int(torch.rand(()) * (SIDE - high)), int(torch.rand(()) * (SIDE - wide))
        faces[row, :, top : top + high, left : left + wide] = torch.rand(3, 1, 1)
    return faces.clamp(0, 1)


def export_classifier(net: FaceNet, temperature: float, out: Path) -> None:
    """Write the network as ONNX, fp16 weights: [B, 3, 150, 150] in 0-1 to calibrated probabilities [B, 8]."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's tracer warns of its age; its successor needs a package more
        torch.onnx.export(
            _Calibrated(net, temperature).eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            out,
            input_names=["crops"],
            output_names=["probabilities"],
            dynamic_axes={"crops": {0: "batch"}, "probabilities": {0: "batch"}},
            dynamo=False,
        )
    store_in_half(out)


class _Calibrated(nn.Module):
    def __init__(self, net: FaceNet, temperature: float) -> None:
        super().__init__()
        self._net, self._temperature = net, temperature

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self._net(crops)
        return (logits / self._temperature).softmax(1)


def _optimizer(net: FaceNet, lr: float) -> torch.optim.AdamW:
    head = list(net.head.parameters())
    body = [parameter for name, parameter in net.named_parameters() if not name.startswith("head.")]
    groups = [
        {"params": [parameter for parameter in body if parameter.ndim > 1], "weight_decay": 0.05, "times": 1.0},
        {"params": [parameter for parameter in body if parameter.ndim == 1], "weight_decay": 0.0, "times": 1.0},
        {"params": head, "weight_decay": 0.05, "times": 3.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def _follow(average: nn.Module, net: nn.Module, *, share: float) -> None:
    present = net.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(present[name], share)
        else:
            value.copy_(present[name])
