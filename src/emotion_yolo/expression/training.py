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
from emotion_yolo.devices import cpu_has_bf16
from emotion_yolo.errors import DataError
from emotion_yolo.expression.augmentation import augmented, mixed, plain, smoothed
from emotion_yolo.expression.face_net import SIDE, FaceNet, Weights, face_net
from emotion_yolo.inference.calibration import fit_temperature
from emotion_yolo.onnx_store import store_in_half
from emotion_yolo.params import Classifier
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import CROP_SIDE

OnEpoch = Callable[[int, float, float], None]
"""Called with the number of the finished epoch, from 1, its mean loss, and the top-1 on the valid crops."""


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


def fingerprint(train: Crops, weights: Weights, params: Classifier) -> str:
    """Return 16 hexadecimal digits that change with what is trained on, from and how: the name of a checkpoint."""
    digest = hashlib.sha256(params.model_dump_json(exclude={"weights"}).encode())
    for array in (train.pictures.numpy(), train.emotions.numpy(), *weights.values()):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def train_classifier(
    train: Crops,
    valid: Crops,
    params: Classifier,
    *,
    weights: Weights,
    checkpoint: Path,
    on_epoch: OnEpoch = lambda *_: None,
) -> tuple[FaceNet, float]:
    """Fine-tune the recognition network on crops; returns the network, in eval mode, and its temperature on valid.

    AdamW, one cosine, label smoothing, mixup, and an exponential moving average of the weights, which is what is
    returned. After each epoch the state is written to `checkpoint`, from which a second call resumes: name it by the
    `fingerprint`.
    """
    torch.manual_seed(params.seed)
    chosen = torch.randperm(len(train.emotions))[: params.norm_crops]
    net = face_net(weights, plain(train.pictures[chosen]), dropout=params.dropout)
    ema = deepcopy(net)
    optimizer = _optimizer(net, params)
    batch = min(params.batch, len(train.emotions))
    steps_per_epoch = len(train.emotions) // batch
    total, first = params.epochs * steps_per_epoch, 0
    bf16 = params.amp == "bf16" or (params.amp == "auto" and cpu_has_bf16())
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        first = state["epochs"]
    for epoch in range(first, params.epochs):
        net.train()
        order = torch.randperm(len(train.emotions))
        losses = 0.0
        for index in range(steps_per_epoch):
            step = epoch * steps_per_epoch + index
            chosen = order[index * batch : (index + 1) * batch]
            pictures = augmented(train.pictures[chosen], params)
            targets = smoothed(train.emotions[chosen], params)
            if torch.rand(()) < params.mixup:
                pictures, targets = mixed(pictures, targets, params)
            cosine = 0.5 * (1 + math.cos(math.pi * step / total))
            lr = params.lr * min(1.0, (step + 1) / params.warmup_steps) * (cosine + params.lrf)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["times"]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = net(pictures)
            loss = F.cross_entropy(logits.float(), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), params.grad_clip)
            optimizer.step()
            _update(ema, net, decay=min(params.ema_decay, (step + 1) / (step + 1 + params.ema_warmup)))
            losses += loss.item()
        top1 = (logits_of(ema, valid).argmax(1) == valid.emotions).float().mean().item()
        on_epoch(epoch + 1, losses / steps_per_epoch, top1)
        state = {"net": net.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = checkpoint.with_name(f"{checkpoint.name}.part")
        torch.save({**state, "random": torch.get_rng_state(), "epochs": epoch + 1}, partial)
        partial.replace(checkpoint)
    shares = logits_of(ema, valid).softmax(1).numpy()
    return ema.eval(), fit_temperature(shares, valid.emotions.numpy())


def logits_of(net: FaceNet, crops: Crops, *, batch: int = 256) -> Tensor:
    """Return the logits [N, 8] of crops as they are."""
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(plain(part)) for part in torch.split(crops.pictures, batch)])


def export_classifier(net: FaceNet, temperature: float, out: Path) -> None:
    """Write the network as ONNX, fp16 weights: [B, 3, 150, 150] in 0-1 to calibrated probabilities [B, 8]."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's tracer warns of its age; its successor needs a package more
        torch.onnx.export(
            _Calibrated(net, temperature).eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            partial,
            input_names=["crops"],
            output_names=["probabilities"],
            dynamic_axes={"crops": {0: "batch"}, "probabilities": {0: "batch"}},
            dynamo=False,
        )
    store_in_half(partial, exact=False)
    partial.replace(out)


class _Calibrated(nn.Module):
    def __init__(self, net: FaceNet, temperature: float) -> None:
        super().__init__()
        self._net, self._temperature = net, temperature

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self._net(crops)
        return (logits / self._temperature).softmax(1)


def _optimizer(net: FaceNet, params: Classifier) -> torch.optim.AdamW:
    head = list(net.head.parameters())
    backbone = [parameter for name, parameter in net.named_parameters() if not name.startswith("head.")]
    kernels = [parameter for parameter in backbone if parameter.ndim > 1]
    others = [parameter for parameter in backbone if parameter.ndim == 1]
    groups = [
        {"params": kernels, "weight_decay": params.weight_decay, "times": 1.0},
        {"params": others, "weight_decay": 0.0, "times": 1.0},
        {"params": head, "weight_decay": params.weight_decay, "times": params.head_lr},
    ]
    return torch.optim.AdamW(groups, lr=params.lr)


def _update(ema: nn.Module, net: nn.Module, *, decay: float) -> None:
    present = net.state_dict()
    for name, value in ema.state_dict().items():
        if value.is_floating_point():
            value.lerp_(present[name], 1 - decay)
        else:
            value.copy_(present[name])
