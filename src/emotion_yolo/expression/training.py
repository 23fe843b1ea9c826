"""The training loop of every network that names the expression of a single face: teachers and baselines alike.

The network is given: dlib's with a new head (`face_net.py`), or one of the factory's (`networks.py`).
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion_yolo.devices import has_bf16, torch_device
from emotion_yolo.expression.augmentation import augmented, mixed, plain, smoothed
from emotion_yolo.expression.crops import Crops
from emotion_yolo.params import Fitting


class Network(Protocol):
    """What the loop asks of a network, an `nn.Module` of RGB crops [B, 3, imgsz, imgsz] in 0-1 to logits [B, C]."""

    @property
    def imgsz(self) -> int:
        """Side of its input in px."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the last layer, which learns `head_lr` times as fast."""


N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its number from 1, its costs, and the valid figures of the averaged weights."""

    number: int
    loss: float
    lr: float
    seconds: float
    valid_loss: float
    valid_top1: float
    valid_macro_recall: float
    best: bool

    def metrics(self) -> dict[str, float]:
        """Return the figures that are the same whenever the training is repeated."""
        names = ("loss", "lr", "valid_loss", "valid_top1", "valid_macro_recall")
        return {name: getattr(self, name) for name in names}


OnEpoch = Callable[[Epoch], None]


class Batches(Protocol):
    """What is trained on, a batch at a time."""

    share: Tensor
    """[C] part of each class in the targets."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def epoch(self, number: int, *, imgsz: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pictures [B, 3, imgsz, imgsz] in 0-1 and targets [B, C] of an epoch, counted from 0."""


class CropBatches:
    """Crops as prepared, each once an epoch, augmented."""

    def __init__(self, crops: Crops, params: Fitting) -> None:
        self._crops, self._params = crops, params
        self._batch = min(params.batch, len(crops))
        self.share = crops.targets.sum(0) / len(crops)

    def __len__(self) -> int:
        return len(self._crops) // self._batch

    def epoch(self, number: int, *, imgsz: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: ARG002 - drawn from PyTorch's state, which checkpoints hold
        """Yield the batches in a new order."""
        order = _order(self._crops, _class_weights(self.share), self._params)
        for chosen in torch.split(order, self._batch)[: len(self)]:
            pictures = augmented(self._crops.pictures[chosen].to(device), self._params, imgsz=imgsz)
            yield pictures, self._crops.targets[chosen].to(device)


def fingerprint(
    train: Crops, params: Fitting, start: Mapping[str, NDArray[np.float32] | Tensor], *, more: str = ""
) -> str:
    """Return 16 hexadecimal digits that change with what is trained on, from and how: the name of a checkpoint.

    `start` are the weights by name that the training starts from, in an order that does not change; `more` is whatever
    else matters.
    """
    digest = hashlib.sha256((params.model_dump_json(include=set(Fitting.model_fields)) + more).encode())
    for array in (train.pictures, train.targets, train.emotions, *start.values()):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def train_classifier(
    net: N, train: Batches, valid: Crops, params: Fitting, *, checkpoint: Path, on_epoch: OnEpoch = lambda _: None
) -> N:
    """Train `net`; returns the trained network, on the CPU and in eval mode.

    AdamW, one cosine, label smoothing, mixup, classes balanced as `params.balance` says, and an exponential moving
    average of the weights, which is what is measured and returned: that of the last epoch, or with `params.patience`
    that of the best valid top-1. After each epoch the state is written to `checkpoint`, from which a second call
    resumes: name it by the `fingerprint`.

    Raises:
        ParamsError: a device that this machine does not have.
    """
    device = torch_device(params.device, param="classifier.device")
    torch.manual_seed(params.seed)
    module = cast(nn.Module, net).to(device)
    ema = deepcopy(module)
    optimizer = _optimizer(net, params)
    steps_per_epoch = len(train)
    loss_weights = _class_weights(train.share).to(device) if params.balance == "weights" else None
    bf16 = params.amp == "bf16" or (params.amp == "auto" and has_bf16(device))
    run = _Run(params, total=params.epochs * steps_per_epoch)
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        module.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        run.epochs, run.top1, run.best, run.since = (state[name] for name in ("epochs", "top1", "best", "since"))
    while not run.finished:
        started, losses = time.monotonic(), 0.0
        module.train()
        batches = train.epoch(run.epochs, imgsz=net.imgsz, device=device)
        for step, (pictures, given) in enumerate(batches, start=run.epochs * steps_per_epoch):
            targets = smoothed(given, params)
            if torch.rand(()) < params.mixup:
                pictures, targets = mixed(pictures, targets, params)
            for group in optimizer.param_groups:
                group["lr"] = run.lr(step) * group["times"]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = module(pictures)
            loss = F.cross_entropy(logits.float(), targets, weight=loss_weights)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), params.grad_clip)
            optimizer.step()
            _update(ema, module, decay=min(params.ema_decay, (step + 1) / (step + 1 + params.ema_warmup)))
            losses += loss.item()
        epoch = run.finish(ema, valid, loss=losses / steps_per_epoch, lr=run.lr(step), started=started)
        on_epoch(epoch)
        state = {"net": module.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = checkpoint.with_name(f"{checkpoint.name}.part")
        torch.save({**state, **run.state(), "random": torch.get_rng_state()}, partial)
        partial.replace(checkpoint)
    if run.best is not None:
        ema.load_state_dict(run.best)
    return cast(N, ema.cpu().eval())


class _Run:
    """How far a training is, and the best of it."""

    def __init__(self, params: Fitting, *, total: int) -> None:
        self._params, self._total = params, total
        self.epochs, self.since, self.top1 = 0, 0, -1.0
        self.best: dict[str, Tensor] | None = None

    @property
    def finished(self) -> bool:
        patience = self._params.patience
        return self.epochs >= self._params.epochs or bool(patience and self.since >= patience)

    def lr(self, step: int) -> float:
        params = self._params
        cosine = 0.5 * (1 + math.cos(math.pi * step / self._total))
        return params.lr * min(1.0, (step + 1) / params.warmup_steps) * (cosine + params.lrf)

    def finish(self, net: nn.Module, valid: Crops, *, loss: float, lr: float, started: float) -> Epoch:
        logits = logits_of(cast(Network, net), valid)
        predicted, truth = logits.argmax(1), valid.emotions
        top1 = (predicted == truth).float().mean().item()
        recalls = [
            (predicted[truth == cls] == cls).float().mean() for cls in range(logits.shape[1]) if (truth == cls).any()
        ]
        best = top1 > self.top1
        self.epochs, self.since, self.top1 = self.epochs + 1, 0 if best else self.since + 1, max(top1, self.top1)
        if best and self._params.patience:
            self.best = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}
        return Epoch(
            number=self.epochs,
            loss=loss,
            lr=lr,
            seconds=time.monotonic() - started,
            valid_loss=F.cross_entropy(logits, truth).item(),
            valid_top1=top1,
            valid_macro_recall=torch.stack(recalls).mean().item(),
            best=best or not self._params.patience,
        )

    def state(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "top1": self.top1, "best": self.best, "since": self.since}


def logits_of(net: Network, crops: Crops, *, batch: int = 256) -> Tensor:
    """Return the logits [N, C] of crops as they are, on the CPU."""
    module = cast(nn.Module, net).eval()
    device = next(module.parameters()).device
    with torch.inference_mode():
        parts = torch.split(crops.pictures, batch)
        return torch.cat([module(plain(part.to(device), imgsz=net.imgsz)).float().cpu() for part in parts])


def _class_weights(share: Tensor) -> Tensor:
    return (1 / (share * len(share)).clamp(min=1e-3)).clamp(max=20)


def _order(train: Crops, class_weights: Tensor, params: Fitting) -> Tensor:
    if params.balance != "sampling":
        return torch.randperm(len(train))
    return torch.multinomial(class_weights[train.emotions], len(train), replacement=True)


def _optimizer(net: Network, params: Fitting) -> torch.optim.AdamW:
    head = net.head_parameters()
    new = {id(parameter) for parameter in head}
    backbone = [parameter for parameter in cast(nn.Module, net).parameters() if id(parameter) not in new]
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
