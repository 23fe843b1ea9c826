"""The Weights & Biases run of a training; the evaluation, a later process, reopens it. See `docs/tracking.md`.

Nothing here writes an out of a stage, and nothing here can fail one: an edit reruns no training.
"""

import csv
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from emotion_yolo.params import Params
from emotion_yolo.progress import say
from emotion_yolo.tracking.curves import flat_name
from emotion_yolo.tracking.wandb_run import GuardedRun, RunInfo, home_of, wandb_mode

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)

_RECORDS = "trainings"
"""Folder in W&B's own: which run made the weights of a digest."""


class Tracker:
    """Where a stage's metrics, pictures and model go; a context manager that finishes on exit."""

    def __init__(
        self, run: GuardedRun, *, record: Path | None, last: dict[str, float], sent: int, pictures: bool
    ) -> None:
        """Use `start` or `reopen`."""
        self._run = run
        self._record = record
        self._last = last
        self._sent = sent
        self._step = max(sent + 1, run.first_step)
        self._pictures = pictures
        self._finished = False

    @property
    def info(self) -> RunInfo:
        """The W&B run."""
        return self._run.info

    @classmethod
    def start(
        cls, params: Params, *, record: Path, wandb_dir: Path, resume: bool, lineage: Mapping[str, object]
    ) -> Self:
        """Begin tracking a training, or continue an interrupted one.

        Args:
            params: Say whether and where to W&B; become the run's config.
            record: Beside the checkpoints: which run it is, and what of it has been sent.
            wandb_dir: See `GuardedRun.open`.
            resume: Whether the training resumes from a checkpoint; False forgets the record.
            lineage: What the training was made from; becomes the config's section `lineage`.
        """
        info, last, sent = _read_record(record) if resume else (None, {}, -1)
        run = _open(params, wandb_dir, info, lineage)
        tracker = cls(run, record=record, last=last, sent=sent, pictures=params.tracking.pictures)
        tracker._write_record(record)
        if tracker.info.url:  # W&B itself is kept silent
            say("train", f"W&B run: {tracker.info.url}")
        return tracker

    @classmethod
    def reopen(cls, params: Params, *, weights: str, wandb_dir: Path, lineage: Mapping[str, object]) -> Self:
        """Continue the W&B run that trained the weights of this SHA-256, or begin one if there is none."""
        info, last, sent = _read_record(_kept(wandb_dir, weights))
        run = _open(params, wandb_dir, info, lineage)
        tracker = cls(run, record=None, last=last, sent=sent, pictures=params.tracking.pictures)
        # `wandb sync` uploads the summary of a run's second part: it has to include the first part's.
        tracker.log_summary(last)
        return tracker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(exit_code=0 if error is None else 1)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add an epoch's line, under flat names, to the run, whose step is `epoch`.

        Of an epoch logged before an interruption and trained again after it, the run keeps the first line.
        """
        flat = {flat_name(name): float(value) for name, value in metrics.items()}
        new = epoch > self._sent
        self._last, self._step, self._sent = flat, epoch + 1, max(epoch, self._sent)
        if self._record:  # first: killed between the two, the run lacks a line, and has none twice
            self._write_record(self._record)
        if new:
            self._run.call("logging an epoch", lambda run: run.log(flat, step=epoch, commit=True))

    def log_summary(self, metrics: Mapping[str, float]) -> None:
        """Set final figures of the run, under flat names."""
        flat = {flat_name(name): float(value) for name, value in metrics.items()}
        self._last = {**self._last, **flat}
        self._run.call("logging the summary", lambda run: run.summary.update(flat))

    def log_image(self, name: str, path: Path) -> None:
        """Add a picture to the run, unless `tracking.pictures` is false: it shows faces of the data set."""
        if not self._pictures:
            return

        def log(run: "wandb.Run") -> None:
            import wandb

            run.log({name: wandb.Image(str(path))}, step=self._step)

        self._run.call(f"logging {path}", log)

    def log_table(self, name: str, path: Path) -> None:
        """Add a CSV file with a header to the run as a table; a column of numbers becomes one."""

        def log(run: "wandb.Run") -> None:
            import wandb

            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file))
            columns = [_numbers(column) for column in zip(*rows, strict=True)]
            data = [list(row) for row in zip(*columns, strict=True)]
            run.log({name: wandb.Table(columns=[*header], data=data)}, step=self._step)

        self._run.call(f"logging {path}", log)

    def log_model(self, folder: Path, *, name: str, metadata: Mapping[str, object]) -> None:
        """Add a folder to the run as an artifact of type `model`; files are copied, so they may change later."""

        def log(run: "wandb.Run") -> None:
            import wandb

            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)

        self._run.call(f"logging {folder}", log)

    def keep_for(self, weights: str, *, wandb_dir: Path) -> None:
        """Note that this run made the weights of this SHA-256, for `reopen`."""
        if self.info.id:
            self._write_record(_kept(wandb_dir, weights))

    def finish(self, *, exit_code: int = 0) -> None:
        """Close the run; a second call does nothing."""
        if not self._finished:
            self._finished = True
            self._run.close(exit_code)

    def _write_record(self, path: Path) -> None:
        if not self.info.id:
            return
        content = {"run": asdict(self.info), "last": self._last, "sent": self._sent}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
            partial.replace(path)
        except OSError as error:
            _log.warning("%s: cannot be written (%s); the evaluation begins a new W&B run", path, error.strerror)


def _kept(wandb_dir: Path, weights: str) -> Path:
    return home_of(wandb_dir) / _RECORDS / f"{weights[:16]}.json"


def _read_record(path: Path) -> tuple[RunInfo | None, dict[str, float], int]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return RunInfo(**content["run"]), {str(k): float(v) for k, v in content["last"].items()}, int(content["sent"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.debug("%s: names no W&B run (%s)", path, error)
        return None, {}, -1


def _open(params: Params, folder: Path, known: RunInfo | None, lineage: Mapping[str, object]) -> GuardedRun:
    mode = wandb_mode(params.tracking.wandb, os.environ)
    experiment = {"experiment": os.environ["DVC_EXP_NAME"]} if os.environ.get("DVC_EXP_NAME") else {}
    config = {**params.model_dump(), "lineage": {**lineage, **experiment}}
    tracking = params.tracking
    return GuardedRun.open(
        mode, known=known, folder=folder, project=tracking.project, config=config, system=tracking.system
    )


def _numbers(column: tuple[str, ...]) -> list[float] | list[str]:
    try:
        return [float(value) for value in column]
    except ValueError:
        return list(column)
