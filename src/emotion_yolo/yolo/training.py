"""One training from params to a checkpoint: checked before it starts, resumed after an interruption."""

import csv
import hashlib
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ParamsError, TrainingError
from emotion_yolo.params import Train, model_path
from emotion_yolo.paths import TEACHER_NAME
from emotion_yolo.progress import say
from emotion_yolo.yolo.hardware import (
    environment,
    keep_memory,
    resolve_amp,
    resolve_device,
    several_gpus,
    workers_that_fit,
)
from emotion_yolo.yolo.trainer import (
    ANSWERS_NAME,
    BATCH_NAME,
    FITNESS,
    RESUME_NAME,
    TRUTH_NAME,
    EmotionTrainer,
    Epoch,
    OnEpoch,
)
from emotion_yolo.yolo.weights import check_weights

OURS = {
    "weights", "wise_ft_alpha", "scene_repeat", "valid_pictures", "amp", "device", "sizes", "mirror", "mirror_epochs",
    "shares", "freeze_bn", "compose",
}  # fmt: skip
"""What of `params.Train` is not Ultralytics' own argument of the same name."""
PICTURES = (BATCH_NAME, TRUTH_NAME, ANSWERS_NAME)

_DONE_NAME = "done"


@dataclass(frozen=True)
class Trained:
    """What a training leaves in its checkpoint folder."""

    weights: Path
    results: Path
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class Setup:
    """Where and how a training runs on this machine."""

    device: str
    """Ultralytics' name."""
    amp: str
    workers: int

    @property
    def environment(self) -> dict[str, Any]:
        """Return the record of hardware and libraries; see `hardware.environment`."""
        return environment(device=self.device, amp=self.amp, workers=self.workers)

    def write(self, run: Path) -> None:
        """Write the record of a training that `export` reads."""
        run.write_text(json.dumps({"environment": self.environment}, indent=2) + "\n", "utf-8")


def check(params: Train) -> Setup:
    """Resolve what `params` leave to the machine, before anything is loaded.

    Raises:
        ParamsError: a device that is not there, or several where one is needed; `own_share` without teachers.
        ModelError: a precision that the device does not train in.
    """
    device = resolve_device(params.device)
    single = params.sizes or params.mirror or params.shares or params.freeze_bn or params.compose.updates
    if single and several_gpus(device):
        raise ParamsError(
            "train.sizes, train.mirror, train.shares, train.freeze_bn and train.compose need a single device; set "
            "train.device to one, or leave them out"
        )
    if params.compose.own_share and model_path(params.compose.teachers) is None:
        raise ParamsError(
            f"train.compose.own_share is {params.compose.own_share:g}, but train.compose.teachers names no folder; "
            "name one, or set own_share to 0"
        )
    workers = workers_that_fit(params.workers, batch=params.batch, imgsz=params.imgsz)
    if workers < params.workers:
        message = f"{workers} data-loading processes instead of {params.workers}: /dev/shm has no room for more"
        say("train", f"warning: {message}; enlarge it (docker run --shm-size=1g), or set train.workers to {workers}")
    return Setup(device, resolve_amp(params.amp, device=device), workers)


def train(
    data: Path, params: Train, *, checkpoints: Path, setup: Setup | None = None, on_epoch: OnEpoch | None = None
) -> Trained:
    """Fine-tune on Ultralytics' `data` YAML, resuming from an interrupted call's `checkpoints`.

    The same `checkpoints` folder stands for the same data and params: the caller names it by their digest. `setup` is
    the result of `check`, if it was called before.

    Raises:
        ParamsError: a device that is not there.
        ModelError: weights that this pipeline cannot train, export and serve, or that cannot be had.
        TrainingError: a data-loading process has died; the finished epochs are kept.
    """
    checkpoints = checkpoints.absolute()
    pictures = tuple(checkpoints / name for name in PICTURES)
    trained = Trained(checkpoints / "weights" / "best.pt", checkpoints / "results.csv", pictures)
    if (checkpoints / _DONE_NAME).exists():
        return trained
    setup = setup or check(params)
    cpu_bf16 = setup.amp == "bf16" and setup.device == "cpu"
    if setup.device == "cpu":
        keep_memory()
    overrides: dict[str, Any] = {
        **{k: v for k, v in params.model_dump().items() if k not in OURS},
        "model": params.weights,
        "data": str(data.absolute()),
        "device": setup.device,
        "workers": setup.workers,
        "amp": False if cpu_bf16 else setup.amp,
        # Absolute, or Ultralytics nests it below its runs folder; exist_ok, or it counts the name up.
        "project": str(checkpoints.parent),
        "name": checkpoints.name,
        "exist_ok": True,
        "plots": False,
        "verbose": False,
        "patience": 0,  # all epochs are trained: the default stops after 100 without progress
        "augmentations": [],  # the default adds Albumentations' where that happens to be installed
    }
    if params.compose.updates:
        # Its loader says where an update ends: Ultralytics is not to add up gradients, nor to scale the weight decay.
        overrides["nbs"] = params.batch
    if (checkpoints / RESUME_NAME).exists():
        overrides["resume"] = str(checkpoints / RESUME_NAME)
    else:
        check_weights(params.weights, alpha=params.wise_ft_alpha, own_share=params.compose.own_share)
    EmotionTrainer.on_epoch, EmotionTrainer.cpu_bf16 = on_epoch, cpu_bf16
    EmotionTrainer.sizes = tuple(params.sizes)
    EmotionTrainer.mirror, EmotionTrainer.mirror_epochs = params.mirror, params.mirror_epochs
    EmotionTrainer.shares, EmotionTrainer.freeze_bn = params.shares, params.freeze_bn
    EmotionTrainer.compose = params.compose if params.compose.updates else None
    EmotionTrainer.start = params.weights
    EmotionTrainer.environment = setup.environment
    try:
        EmotionTrainer(overrides=overrides).train()
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if hasattr(signal, "SIGCHLD"):  # PyTorch's handler raises again, wherever we are, for each further dead worker
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reason = "memory or shared memory (/dev/shm) ran out, or it was killed"
        message = f"a data-loading process has died: {reason} ({str(error).splitlines()[0]})"
        advice = "set train.workers to 0, which needs no shared memory, or run `dvc repro` again to resume"
        raise TrainingError(f"{message}; {advice}") from error
    finally:
        EmotionTrainer.on_epoch, EmotionTrainer.cpu_bf16, EmotionTrainer.environment = None, False, None
    if several_gpus(setup.device) and on_epoch:  # their processes cannot call back: the curves come afterwards
        for epoch in read_results(trained.results):
            on_epoch(epoch)
    (checkpoints / _DONE_NAME).touch()
    return trained


def fingerprint(params: Train, prepared: Path) -> str:
    """Return 16 hexadecimal digits that change with the params, the models they name and the prepared set."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    if Path(params.weights).is_file():
        digest.update(sha256_of(Path(params.weights)).encode())
    if folder := model_path(params.compose.teachers):
        for path in sorted(folder.rglob(TEACHER_NAME)):
            digest.update(sha256_of(path).encode())
    for path in sorted(prepared.rglob("*")):
        if path.is_file():
            # Of pictures the name and size will do: a set composed otherwise differs in its labels too.
            digest.update(f"{path.relative_to(prepared)} {path.stat().st_size}\n".encode())
            if path.suffix == ".txt":
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def copy_pictures(trained: Trained, out: Path) -> list[Path]:
    """Copy the pictures of a training into `out`; returns the copies."""
    out.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, out / path.name)) for path in trained.pictures if path.exists()]


def read_results(path: Path) -> Iterator[Epoch]:
    """Yield the epochs of Ultralytics' results.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name.strip(): float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    best, before = -1.0, 0.0
    for row in rows:
        number, elapsed = int(row.pop("epoch")), row.pop("time")
        fitness = row.get(FITNESS, 0.0)
        yield Epoch(number, row, best=fitness >= best, seconds=elapsed - before)
        best, before = max(best, fitness), elapsed
