"""Training and export with Ultralytics. No other module imports it.

Three things are ours here: a face without a named expression (class `FACE_ID` of the prepared labels) teaches that and
where it is a face and nothing about its expression; a face can have probabilities for a target instead of a class
(`targets/` of the prepared set); and a training that is interrupted, even by `kill -9`, goes on.
"""

import ctypes
import io
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

# Ultralytics reads these once, at import: its settings stay in the project, and loading a model never runs pip.
os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(".ultralytics").absolute()))
os.environ.setdefault("YOLO_AUTOINSTALL", "False")
os.environ.setdefault("YOLO_VERBOSE", "False")
# At import Ultralytics looks up public hosts to learn whether it may report events. Later it may download weights.
_offline_asked = os.environ.get("YOLO_OFFLINE")
os.environ["YOLO_OFFLINE"] = "True"
Path(os.environ["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)
# Read before Ultralytics sets it to 1 where a user has not set it.
_CPU_THREADS = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from ultralytics import YOLO, settings  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402
from ultralytics.nn.tasks import DetectionModel, load_checkpoint  # noqa: E402
from ultralytics.utils import RANK  # noqa: E402
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss  # noqa: E402
from ultralytics.utils.tal import TaskAlignedAssigner  # noqa: E402
from ultralytics.utils.torch_utils import unwrap_model  # noqa: E402

from emotion_yolo.emotions import FACE_ID, FACE_NAME, NAMES  # noqa: E402
from emotion_yolo.errors import ModelError  # noqa: E402
from emotion_yolo.params import Train  # noqa: E402
from emotion_yolo.paths import TARGETS  # noqa: E402

if _offline_asked is None:
    del os.environ["YOLO_OFFLINE"]
else:
    os.environ["YOLO_OFFLINE"] = _offline_asked

# One DVCLive and one W&B run are the train stage's; Ultralytics' own integrations would make second ones.
settings.update({"dvc": False, "wandb": False, "sync": False, "tensorboard": False, "mlflow": False})

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called with the number of the finished epoch, from 1, and its losses, valid metrics and learning rates."""

OURS = {"weights", "keep", "scene_repeat", "valid_pictures", "amp", "device"}
"""What of `params.Train` is not Ultralytics' own argument of the same name."""


class FaceAwareAssigner(TaskAlignedAssigner):
    """Ultralytics' assigner with labels beyond the classes: `FACE_ID`, a face of an expression that nobody has named,
    and from `FACE_ID + 1` on the rows of `targets` [T, 8], probabilities of the eight emotions.

    Such a face takes anchors by the sum of their scores. Its target there is spread over the classes as its row of
    `targets` says; where nobody named an expression, in the network's own present proportions: the loss moves their
    sum and leaves their ratio, the emotion, alone.
    """

    def __init__(self, *args: Any, targets: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = torch.zeros(0, len(NAMES)) if targets is None else targets

    def forward(self, pd_scores: Any, pd_bboxes: Any, anc_points: Any, gt_labels: Any, *args: Any, **extra: Any) -> Any:
        """Assign as the base class does; scores are [B, A, 8], labels [B, N, 1], target scores [B, A, 8]."""
        total = pd_scores.sum(-1, keepdim=True)  # [B, A, 1]
        nine = torch.cat([pd_scores, total.clamp(max=1)], -1)
        faces = gt_labels.clamp(max=FACE_ID)
        labels, boxes, scores, foreground, index = super().forward(nine, pd_bboxes, anc_points, faces, *args, **extra)
        shares = pd_scores / total.clamp(min=self.eps)
        if len(self.targets) and gt_labels.shape[1]:
            row = gt_labels.squeeze(-1).gather(1, index.long()).long() - (FACE_ID + 1)  # [B, A]
            given = self.targets.to(pd_scores.device, pd_scores.dtype)[row.clamp(min=0)]
            shares = torch.where((row >= 0).unsqueeze(-1), given, shares)
        return labels, boxes, scores[..., :FACE_ID] + scores[..., FACE_ID:] * shares, foreground, index


def criterion(model: DetectionModel, targets: Any = None) -> Any:
    """Return Ultralytics' own detection loss for `model`, made aware of faces without a class; `targets` is [T, 8]."""
    loss = model.init_criterion()
    parts: list[v8DetectionLoss] = [loss.one2many, loss.one2one] if isinstance(loss, E2ELoss) else [loss]
    for part in parts:
        old = part.assigner
        part.assigner = FaceAwareAssigner(
            topk=old.topk, num_classes=old.num_classes + 1, alpha=old.alpha, beta=old.beta, stride=old.stride,
            topk2=old.topk2, targets=targets,
        )  # fmt: skip
    return loss


def attach_targets(labels: list[dict[str, Any]]) -> Any:
    """Let Ultralytics' `labels` of train pictures stand for their targets, where there are any; returns these [T, 8].

    A class id is what survives Ultralytics' mosaics and crops, so that it carries the target's row.

    Raises:
        ModelError: a picture whose targets are not one a label.
    """
    rows: list[NDArray[np.float32]] = []
    for label in labels:
        image = Path(label["im_file"])
        path = image.parents[2] / TARGETS / image.parent.name / f"{image.stem}.txt"
        if not path.is_file():
            continue
        text = path.read_text("utf-8")
        targets = np.asarray([line.split() for line in text.splitlines()], np.float32).reshape(-1, len(NAMES))
        if len(targets) != len(label["cls"]):
            message = f"{path}: holds {len(targets)} targets for {len(label['cls'])} labels"
            raise ModelError(f"{message}, expected one each; run `dvc repro --force prepare`")
        named = np.flatnonzero(~np.isnan(targets).any(axis=1))
        label["cls"][named, 0] = FACE_ID + 1 + len(rows) + np.arange(len(named))
        rows.extend(targets[named])
    return torch.from_numpy(np.asarray(rows, np.float32).reshape(-1, len(NAMES)))


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
            torch.set_num_threads(_CPU_THREADS)

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
        check_weights(params.weights, keep=params.keep)
    EmotionTrainer.on_epoch, EmotionTrainer.cpu_bf16 = on_epoch, cpu_bf16
    try:
        EmotionTrainer(overrides=overrides).train()
    finally:
        EmotionTrainer.on_epoch, EmotionTrainer.cpu_bf16 = None, False
    (checkpoints / DONE_NAME).touch()
    return finished


def check_weights(weights: str, *, keep: float = 0.0) -> None:
    """See to it that `weights`, a path or a name that Ultralytics downloads, is a detection checkpoint.

    To be kept in part, it has to be one of the eight emotions.

    Raises:
        ModelError: it is not, or cannot be had.
    """
    if not keep and Path(weights).suffix in {".yaml", ".yml"}:
        return
    try:
        model = YOLO(weights)
    except Exception as error:  # Ultralytics raises whatever unpickling or downloading met
        message = f"train.weights is {weights!r}, which cannot be loaded ({error})"
        raise ModelError(f"{message}; name a checkpoint that is there, or one Ultralytics can download") from error
    if model.task != "detect":
        raise ModelError(f"train.weights is {weights!r}, a model for {model.task!r}; expected one for 'detect'")
    if keep and tuple(model.names.values()) != NAMES:
        message = f"train.keep is {keep:g}, but train.weights {weights!r} does not name the eight emotions"
        raise ModelError(f"{message}; start from a release, or set train.keep to 0")


def data_yaml(train: Path, valid: Path) -> dict[str, object]:
    """Return the contents of Ultralytics' data YAML for two lists of pictures."""
    return {"train": str(train), "val": str(valid), "names": dict(enumerate([*NAMES, FACE_NAME]))}


def save_weights(checkpoint: Path, out: Path, *, start: str = "", keep: float = 0.0) -> None:
    """Write the weights of a finished training in fp16, without dates, paths and optimiser state.

    The same weights give the same bytes, and a plain `YOLO(out)` loads them. They are averaged with those of `start`,
    of which `keep` (0-1) is the share: between the two ends of a fine-tuning often lies a better place than either
    (Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, arXiv:2109.01903).
    """
    model, ckpt = load_checkpoint(checkpoint)
    if keep:
        before = YOLO(start).model.state_dict()
        # Counters of batches, the only integers, stay as training left them.
        averaged = {
            name: torch.lerp(value.float(), before[name].float(), keep) if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(averaged)
    model = model.half().to(memory_format=torch.contiguous_format)
    model.criterion = None
    model.args = {"task": "detect", "imgsz": int(ckpt["train_args"]["imgsz"])}
    for name in ("pt_path", "class_weights"):
        if hasattr(model, name):
            delattr(model, name)
    buffer = io.BytesIO()  # into a file, torch.save would write the file's name into its bytes
    torch.save(
        {
            "epoch": -1,
            "model": model,
            "train_args": {"task": "detect", "imgsz": model.args["imgsz"]},
            "version": ckpt["version"],
            "license": "AGPL-3.0",
        },
        buffer,
    )
    out.write_bytes(buffer.getvalue())


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
