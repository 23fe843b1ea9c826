"""The training loop: Ultralytics' trainer with eight classes, the loss of `assigner`, and resumable checkpoints."""

import math
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import RANK, nms
from ultralytics.utils.torch_utils import unwrap_model

from emotion_yolo.composition.loader import COMPLETE, LABELS, SHARES, ComposedLoader, most_close_ups
from emotion_yolo.composition.material import Material, read_material
from emotion_yolo.expression.teaching import load_teachers
from emotion_yolo.params import Compose, model_path
from emotion_yolo.progress import Bar, say, show_progress
from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES
from emotion_yolo.yolo import CPU_THREADS
from emotion_yolo.yolo.assigner import criterion
from emotion_yolo.yolo.console import epoch_line, start_line
from emotion_yolo.yolo.mirror import mirrored
from emotion_yolo.yolo.own_teacher import Ask, OwnTeacher
from emotion_yolo.yolo.view import attach_targets

RESUME_NAME = "resume.pt"
FITNESS = "metrics/mAP50(B)"
"""Metric of the valid split by which the best epoch is chosen. Ultralytics takes mAP50-95, which judges how tight boxes
are; those of crops were drawn by a detector, and what counts here is that a face is found and named."""

BATCH_NAME, TRUTH_NAME, ANSWERS_NAME = "train_batch.jpg", "valid_truth.jpg", "valid_answers.jpg"
"""Pictures in the checkpoint folder: a batch as augmented, valid pictures with their labels, and with the answers."""

_SHOWN, _COLUMNS = 16, 4  # pictures on each, and beside each other
_SURE = 0.25  # least confidence of an answer that is drawn


@dataclass(frozen=True)
class Epoch:
    """A finished epoch."""

    number: int
    """From 1."""
    metrics: Mapping[str, float]
    """Losses, valid metrics and learning rates by Ultralytics' names."""
    best: bool
    """Whether it is the best so far by valid mAP50; the last such epoch's weights are the result."""
    seconds: float = 0.0
    memory_gib: float = 0.0
    """Peak so far, of the GPU or else of the process."""

    @property
    def costs(self) -> dict[str, float]:
        """Return what differs from run to run."""
        return {"epoch_seconds": self.seconds, "memory_gib": self.memory_gib}


OnEpoch = Callable[[Epoch], None]


class EmotionValidator(DetectionValidator):
    """Ultralytics' validator with mAP50 as fitness, and without its time limit.

    The same weights give the same figures on a busy machine.
    """

    def get_stats(self) -> dict[str, Any]:
        """Return the metrics with mAP50 as `fitness`."""
        stats: dict[str, Any] = super().get_stats()
        return stats | {"fitness": stats[FITNESS]}

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

    def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        """Count the batch; of the final validation, draw the first one."""
        super().update_metrics(preds, batch)
        if self.training or self.batch_i or RANK not in {-1, 0}:
            return
        draw_batch(batch, self.save_dir / TRUTH_NAME)
        sure = [picture["conf"] >= _SURE for picture in preds]
        index = torch.cat(
            [torch.full_like(p["conf"][keep], i) for i, (p, keep) in enumerate(zip(preds, sure, strict=True))]
        )
        boxes, classes = (
            torch.cat([p[key][keep] for p, keep in zip(preds, sure, strict=True)]) for key in ("bboxes", "cls")
        )
        height, width = batch["img"].shape[2:]
        sides = torch.tensor([width, height, width, height], device=boxes.device)
        xywhn = torch.cat([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], dim=1) / 2 / sides
        answers = {"img": batch["img"], "batch_idx": index, "cls": classes, "bboxes": xywhn}
        draw_batch(answers, self.save_dir / ANSWERS_NAME)


def draw_batch(batch: Mapping[str, Any], path: Path) -> None:
    """Draw the first pictures of a batch side by side, with their faces: `img` [B, 3, H, W] in 0-1, `bboxes` xywhn.

    Not Ultralytics' `plot_images`, which scales the batch in place and looks for a font on the network (8.4.190).
    """
    images = (batch["img"][:_SHOWN].permute(0, 2, 3, 1) * 255).byte().cpu().numpy()
    tiles = [np.ascontiguousarray(image[:, :, ::-1]) for image in images]  # OpenCV's order
    for index, cls, box in zip(*(batch[key].cpu().tolist() for key in ("batch_idx", "cls", "bboxes")), strict=True):
        if index < len(tiles):
            tile = tiles[int(index)]
            (x, y, w, h), (height, width) = box, tile.shape[:2]
            left, right = (int((x + sign * w / 2) * width) for sign in (-1, 1))
            top, bottom = (int((y + sign * h / 2) * height) for sign in (-1, 1))
            cv2.rectangle(tile, (left, top), (right, bottom), (0, 255, 0))
            # Class ids above are the rows of soft targets, see `FaceAwareAssigner`.
            number = int(np.ravel(cls)[0])
            name = NAMES[number] if number < FACE_ID else FACE_NAME if number == FACE_ID else "soft label"
            cv2.putText(tile, name, (left, top + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 255, 0))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    path.write_bytes(cv2.imencode(path.suffix, np.vstack(rows))[1].tobytes())


class EmotionTrainer(DetectionTrainer):
    """Ultralytics' detection trainer with eight classes, the face-aware loss, and a checkpoint that survives kill -9.

    What has to hold in the processes of a multi-GPU training too is in the class: Ultralytics starts these by the
    class's name, and callbacks do not travel.
    """

    on_epoch: ClassVar[OnEpoch | None] = None
    cpu_bf16: ClassVar[bool] = False
    sizes: ClassVar[tuple[int, ...]] = ()
    mirror: ClassVar[float] = 0.0
    mirror_epochs: ClassVar[int] = 0
    shares: ClassVar[float] = 0.0
    freeze_bn: ClassVar[bool] = False
    start: ClassVar[str] = ""
    """The checkpoint that training starts from, for `compose.own_share`."""
    compose: ClassVar[Compose | None] = None
    """How batches are composed; None where they hold pictures as prepared."""
    channels_last: ClassVar[frozenset[str]] = frozenset({"cpu", "cuda"})
    """Kinds of device on which pictures and weights lie in the order NHWC."""
    environment: ClassVar[Mapping[str, Any] | None] = None
    names: ClassVar[dict[int, str]] = dict(enumerate(NAMES))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bar: Bar | None = None
        self._material: Material | None = None
        self._teachers: Ask | None = None
        self._batch_asked_for = self._batch_said = self.batch_size
        self._complete = True  # whether gradients are those of a whole update
        if sys.stderr.isatty():
            self.add_callback("on_train_epoch_start", EmotionTrainer._begin_bar)
            self.add_callback("on_train_batch_end", lambda trainer: trainer._bar.update())
            self.add_callback("on_train_epoch_end", EmotionTrainer._end_bar)
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
        # Measured: 20 to 25 % faster than NCHW with oneDNN, in fp32 and in bf16; 7 % on an H200 in bf16.
        if self.device.type in self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build Ultralytics' dataset; that for training with the prepared set's targets."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train":
            self.targets = attach_targets(dataset.labels)
        return dataset

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return Ultralytics' loader, or for training one that composes batches from the prepared set's view."""
        if mode != "train" or not self.compose:
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        if self._material is None:
            self._material = read_material(Path(dataset_path).parent, device=self.device)
            if folder := model_path(self.compose.teachers):
                self._teachers = load_teachers(folder, self.device)
                if share := self.compose.own_share:
                    self._teachers = OwnTeacher(self.start, beside=self._teachers, share=share, device=self.device)
        # The last rows are for what teachers say of the present close-ups.
        room = torch.zeros(most_close_ups(self.compose) if self._teachers else 0, len(NAMES))
        self.targets = torch.cat([torch.from_numpy(self._material.targets), room]).to(self.device)
        return ComposedLoader(
            self._material,
            self.compose,
            sides=self.sizes or (self.args.imgsz,),
            seed=self.args.seed,
            epoch=lambda: self.epoch,
            device=self.device,
            part=batch_size / self._batch_asked_for,  # below 1 after Ultralytics has halved batches for lack of memory
        )

    def get_validator(self) -> EmotionValidator:
        """Return the validator that every epoch and the final evaluation use."""
        return EmotionValidator(
            self.test_loader, save_dir=self.save_dir, args=copy(self.args), _callbacks=self.callbacks
        )

    def get_class_counts(self) -> Any:
        """Count the eight classes, targets by their shares; faces without an emotion weigh nothing."""
        classes = np.concatenate([label["cls"].ravel() for label in self.train_loader.dataset.labels]).astype(np.int64)
        plain = np.bincount(classes[classes < FACE_ID], minlength=len(NAMES))
        return (plain + self.targets.sum(0).cpu().numpy()).astype(np.float32)

    def _setup_train(self) -> None:
        super()._setup_train()
        model = unwrap_model(self.model)
        # Composed, a few pictures weigh as much as many close-ups: they are halves of one update.
        model.criterion = criterion(
            model, self.targets, mirror=self.mirror, shares=self.shares, mean=self.compose is not None
        )
        momentum = batch_norm_momentum(len(self.train_loader))
        for module in (*model.modules(), *(self.ema.ema.modules() if self.ema else ())):
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = momentum
        if self.cpu_bf16:
            # Ultralytics 8.4.190 refuses bf16 on a CPU, where it was measured to take 0.6 of the time. The EMA, which
            # is what gets saved, was copied before and keeps its plain `forward`.
            model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
        if self.environment:
            pictures, valid = len(self.train_loader.dataset), len(self.test_loader.dataset)
            counts = {"pictures": pictures, "valid": valid, "epochs": self.epochs, "finished": self.start_epoch}
            say("train", start_line(**counts, environment=self.environment))

    def _model_train(self) -> None:
        super()._model_train()
        if self.freeze_bn:
            for module in unwrap_model(self.model).modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scale to 0-1, resize, in the memory order of the weights; draw the very first batch.

        Composed batches come scaled and sized.
        """
        self._complete = batch.get(COMPLETE, True)
        if self._teachers and LABELS in batch:
            batch = self._taught(batch, self._teachers)
        if self.mirror and self.epoch >= self.epochs - self.mirror_epochs:
            batch = mirrored(batch)
        if not self.compose:
            batch = super().preprocess_batch(batch)
            if self.sizes:
                side = random.choice(self.sizes)  # noqa: S311 - of Ultralytics' seeded generator, as its multi_scale
                batch["img"] = torch.nn.functional.interpolate(batch["img"], size=(side, side), mode="bilinear")
        if RANK in {-1, 0} and not (self.save_dir / BATCH_NAME).exists():
            draw_batch(batch, self.save_dir / BATCH_NAME)
        if self.device.type in self.channels_last:
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def _taught(self, batch: dict[str, Any], teachers: Ask) -> dict[str, Any]:
        """Return a batch of close-ups whose targets are their labels mixed with what the teachers see in them."""
        taught = torch.lerp(batch[LABELS], teachers(batch["img"]), batch[SHARES])
        first = len(self.targets) - len(taught)
        self.targets[first:] = taught
        rows = torch.arange(FACE_ID + 1 + first, FACE_ID + 1 + len(self.targets), device=taught.device)
        return {**batch, "cls": rows.float().view(-1, 1)}

    def optimizer_step(self) -> None:
        """Update the weights, once the gradients are those of a whole update."""
        if self._complete:
            super().optimizer_step()

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Append the epoch to results.csv, say it, and tell `on_epoch`."""
        super().save_metrics(metrics)
        if RANK not in {-1, 0}:
            return
        now = time.time()
        done = self.epoch + 1 - self.start_epoch
        seconds = now - self.epoch_time_start
        # As `save_model` decides which weights are the best.
        epoch = Epoch(
            self.epoch + 1,
            {name: float(value) for name, value in metrics.items()},
            best=bool(self.best_fitness == self.fitness),
            seconds=seconds,
            memory_gib=self._get_memory() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        )
        left = (now - self.train_time_start) / done * (self.epochs - epoch.number)
        line = epoch_line(
            epoch=epoch.number, epochs=self.epochs, metrics=epoch.metrics, seconds=seconds, left=left, best=epoch.best
        )
        say("train", line)
        if self.batch_size != self._batch_said:
            say("train", f"warning: batches of {self._batch_said} did not fit the memory; halved to {self.batch_size}")
            self._batch_said = self.batch_size
        on_epoch = type(self).on_epoch  # from the class: from the instance it would be a method
        if on_epoch is not None:
            on_epoch(epoch)

    def save_model(self) -> bool:
        """Save, then keep a whole copy: a kill in the middle of the next save leaves this one."""
        saved = bool(super().save_model())
        if saved:
            _replace_with_copy(self.last, self.save_dir / RESUME_NAME)
        return saved

    def _begin_bar(self) -> None:
        self._end_bar()  # of an epoch begun again with smaller batches
        title = f"epoch {self.epoch + 1}/{self.epochs}"
        self._bar = show_progress(title, total=len(self.train_loader), unit="batches").__enter__()

    def _end_bar(self) -> None:
        if self._bar:
            self._bar.__exit__(None, None, None)
            self._bar = None


def batch_norm_momentum(batches: int) -> float:
    """Return the share of a batch in the running statistics of batch normalisation, for epochs of so many batches.

    Ultralytics' 0.03 replaces two thirds of the pretrained network's statistics in an epoch of 33 batches, but a fifth
    in one of 8, while the weights move on: for some epochs the network answers worse than before training. Shorter
    epochs have a larger share, up to PyTorch's default of 0.1.
    """
    return min(max(1 / batches, 0.03), 0.1)


def _replace_with_copy(source: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
