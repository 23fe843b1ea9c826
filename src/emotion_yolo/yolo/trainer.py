"""The training loop: Ultralytics' trainer with eight classes, the loss of `assigner`, and resumable checkpoints."""

import ctypes
import math
import shutil
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import RANK, nms
from ultralytics.utils.torch_utils import unwrap_model

from emotion_yolo.errors import ModelError
from emotion_yolo.params import Train
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.yolo import CPU_THREADS
from emotion_yolo.yolo.assigner import criterion
from emotion_yolo.yolo.view import attach_targets
from emotion_yolo.yolo.weights import check_weights

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called with the number of the finished epoch, from 1, and its losses, valid metrics and learning rates."""

OURS = {"weights", "wise_ft_alpha", "scene_repeat", "valid_pictures", "amp", "device"}
"""What of `params.Train` is not Ultralytics' own argument of the same name."""


class EmotionValidator(DetectionValidator):
    """Ultralytics' validator without its time limit: the same weights give the same figures on a busy machine."""

    def postprocess(self, preds: Any) -> list[dict[str, Any]]:
        """Suppress overlapping boxes of the same class in every picture of the batch."""
        # DetectionValidator.postprocess of Ultralytics 8.4.190, which passes no `max_time_img`: its default stops after
        # 2 s + 0.05 s a picture, and the remaining pictures of the batch count as without a detection.
        outputs = nms.non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            multi_label=True,
            agnostic=self.args.single_cls or self.args.agnostic_nms,
            max_det=self.args.max_det,
            max_time_img=math.inf,
            end2end=self.end2end,
        )
        return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in outputs]


class EmotionTrainer(DetectionTrainer):
    """Ultralytics' detection trainer with eight classes, the face-aware loss, and a checkpoint that survives kill -9.

    What has to hold in the processes of a multi-GPU training too is in the class: Ultralytics starts these by the
    class's name, and callbacks do not travel.
    """

    on_epoch: ClassVar[OnEpoch | None] = None
    cpu_bf16: ClassVar[bool] = False
    names: ClassVar[dict[int, str]] = dict(enumerate(NAMES))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Ultralytics loads in the training process on a CPU; a process of its own was measured to be faster.
        if self.device.type == "cpu":
            self.args.workers = kwargs["overrides"]["workers"]
            torch.set_num_threads(CPU_THREADS)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> DetectionModel:
        """Build a network of eight classes, whatever the set's table says of faces without an emotion."""
        model = DetectionModel(cfg, nc=len(NAMES), ch=self.data["channels"], verbose=False)
        model.names = self.names
        if weights:
            model.load(weights, verbose=verbose)
        return model

    def set_model_attributes(self) -> None:
        """Name the eight classes."""
        self.model.nc, self.model.names, self.model.args = len(NAMES), self.names, self.args
        if self.device.type == "cpu":  # measured: 20 to 25 % faster than NCHW with oneDNN, in fp32 and in bf16
            self.model.to(memory_format=torch.channels_last)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build Ultralytics' dataset; that for training with the prepared set's targets."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train":
            self.targets = attach_targets(dataset.labels)
        return dataset

    def get_validator(self) -> EmotionValidator:
        """Return the validator that every epoch and the final evaluation use."""
        return EmotionValidator(
            self.test_loader, save_dir=self.save_dir, args=copy(self.args), _callbacks=self.callbacks
        )

    def get_class_counts(self) -> Any:
        """Count the eight classes, targets by their shares; faces without an emotion weigh nothing."""
        classes = np.concatenate([label["cls"].ravel() for label in self.train_loader.dataset.labels]).astype(np.int64)
        plain = np.bincount(classes[classes < FACE_ID], minlength=len(NAMES))
        return (plain + self.targets.numpy().sum(axis=0)).astype(np.float32)

    def _setup_train(self) -> None:
        super()._setup_train()
        model = unwrap_model(self.model)
        model.criterion = criterion(model, self.targets)
        if self.cpu_bf16:
            # Ultralytics 8.4.190 refuses bf16 on a CPU, where it was measured to take 0.6 of the time. The EMA, which
            # is what gets saved, was copied before and keeps its plain `forward`.
            model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scale to 0-1, in the memory order of the weights."""
        batch = super().preprocess_batch(batch)
        if self.device.type == "cpu":
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Append the epoch to results.csv, and tell `on_epoch`."""
        super().save_metrics(metrics)
        on_epoch = type(self).on_epoch  # from the class: from the instance it would be a method
        if RANK == -1 and on_epoch is not None:
            on_epoch(self.epoch + 1, {k: float(v) for k, v in metrics.items()})

    def save_model(self) -> bool:
        """Save, then keep a whole copy: a kill in the middle of the next save leaves this one."""
        saved = bool(super().save_model())
        if saved:
            _replace_with_copy(self.last, self.save_dir / RESUME_NAME)
        return saved


# mallopt(3): M_MMAP_MAX no mappings of their own, M_TRIM_THRESHOLD nothing given back, M_TOP_PAD half a GiB at once.
_KEEP = ((-4, 0), (-1, 2**31 - 1), (-2, 2**29))
RESUME_NAME = "resume.pt"
DONE_NAME = "done"


def _replace_with_copy(source: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


@dataclass(frozen=True)
class Trained:
    """What a training leaves in its checkpoint folder."""

    weights: Path
    results: Path


def resolve_device(device: str) -> str:
    """Return Ultralytics' name for the `device` of params: `auto` is the first GPU, or the CPU where there is none."""
    if device != "auto":
        return device
    return "0" if torch.cuda.is_available() else "cpu"


def resolve_amp(amp: str, *, device: str) -> str:
    """Return Ultralytics' `amp` for that of params; bf16 on a CPU pays only where the instructions are there."""
    if amp == "auto":
        amp = "fp16" if device != "cpu" else ("bf16" if _cpu_has_bf16() else "fp32")
    if amp == "fp16" and device == "cpu":
        raise ModelError("train.amp is fp16, which Ultralytics trains in on GPUs only; set auto, bf16 or fp32")
    return amp


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step; elsewhere do nothing.

    By default it maps each large tensor anew and gives it back, and the kernel clears the same pages at every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in _KEEP:
        mallopt(option, value)


def _cpu_has_bf16() -> bool:
    # PyTorch has no public query for it (2.15); both of these are what its own tests and Inductor ask.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def train(data: Path, params: Train, *, checkpoints: Path, on_epoch: OnEpoch | None = None) -> Trained:
    """Fine-tune on Ultralytics' `data` YAML, going on from what an interrupted call left in `checkpoints`.

    The same `checkpoints` folder stands for the same data and params: the caller names it by their digest.

    Raises:
        ModelError: weights that are no YOLO detection checkpoint, or cannot be had.
    """
    checkpoints = checkpoints.absolute()
    finished = Trained(checkpoints / "weights" / "best.pt", checkpoints / "results.csv")
    if (checkpoints / DONE_NAME).exists():
        return finished
    device = resolve_device(params.device)
    amp = resolve_amp(params.amp, device=device)
    cpu_bf16 = amp == "bf16" and device == "cpu"
    if device == "cpu":
        keep_memory()
    overrides: dict[str, Any] = {
        **{k: v for k, v in params.model_dump().items() if k not in OURS},
        "model": params.weights,
        "data": str(data.absolute()),
        "device": device,
        "amp": False if cpu_bf16 else amp,
        # Absolute, or Ultralytics nests it below its runs folder; exist_ok, or it counts the name up.
        "project": str(checkpoints.parent),
        "name": checkpoints.name,
        "exist_ok": True,
        "plots": False,
        "verbose": False,
    }
    if (checkpoints / RESUME_NAME).exists():
        overrides["resume"] = str(checkpoints / RESUME_NAME)
    else:
        check_weights(params.weights, alpha=params.wise_ft_alpha)
    EmotionTrainer.on_epoch, EmotionTrainer.cpu_bf16 = on_epoch, cpu_bf16
    try:
        EmotionTrainer(overrides=overrides).train()
    finally:
        EmotionTrainer.on_epoch, EmotionTrainer.cpu_bf16 = None, False
    (checkpoints / DONE_NAME).touch()
    return finished
