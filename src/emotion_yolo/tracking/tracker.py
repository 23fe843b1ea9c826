"""One `dvclive.Live` and one Weights & Biases run a training; the evaluation, a later process, reopens that run.

DVCLive's files are outs of a stage, so they are right or the stage fails; W&B is a convenience. See `docs/tracking.md`.
"""

import csv
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from emotion_yolo.errors import StorageError
from emotion_yolo.params import Params
from emotion_yolo.tracking.wandb_run import GuardedRun, RunInfo, wandb_mode

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Epoch:
    epoch: int
    metrics: dict[str, float]


def flat_name(name: str) -> str:
    """Return a metric's name in letters a shell needs no quotes for: `metrics/mAP50-95(B)` becomes `map50_95`."""
    bare = re.sub(r"\(.*?\)", "", name.removeprefix("metrics/"))
    return re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_")


class _Curves:
    """DVCLive's files, rebuilt from a journal after an interruption."""

    def __init__(self, live_dir: Path, journal: Path, past: list[_Epoch], info: RunInfo) -> None:
        from dvclive.live import Live

        self._dir = live_dir
        self._journal = journal
        self._info = info
        self._past = past
        self._write_journal(past)
        with _writing(live_dir):
            self._live: Any = Live(  # its methods have no types
                str(live_dir), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False
            )

    def add(self, line: _Epoch) -> None:
        self._replay(before=line.epoch)
        self._plot(line)
        _write(self._journal, json.dumps(asdict(line)) + "\n", "a")

    def end(self) -> None:
        self._replay(before=None)
        with _writing(self._dir):
            self._live.end()

    def _replay(self, *, before: int | None) -> None:
        """Plot the journal's epochs below `before` (None: all), once; forget the others."""
        keep = [line for line in self._past if before is None or line.epoch < before]
        if keep != self._past:
            self._write_journal(keep)
        self._past = []
        for line in keep:
            self._plot(line)

    def _plot(self, line: _Epoch) -> None:
        self._live.step = line.epoch
        with _writing(self._dir):
            for name, value in line.metrics.items():
                self._live.log_metric(name, value)
            self._live.next_step()

    def _write_journal(self, lines: list[_Epoch]) -> None:
        records = [asdict(self._info), *(asdict(line) for line in lines)]
        _write(self._journal, "".join(json.dumps(record) + "\n" for record in records), "w")


class Tracker:
    """Where a stage's metrics, pictures and model go; a context manager that finishes on exit."""

    def __init__(self, run: GuardedRun, *, last: _Epoch | None, run_file: Path | None) -> None:
        """Use `start` or `reopen`."""
        self._run = run
        self._last = last
        self._sent = last.epoch if last else -1
        self._step = max(self._sent + 1, run.first_step)
        self._run_file = run_file
        self._curves: _Curves | None = None
        self._finished = False

    @property
    def info(self) -> RunInfo:
        """The W&B run."""
        return self._run.info

    @classmethod
    def start(
        cls,
        params: Params,
        *,
        live_dir: Path,
        run_file: Path,
        journal: Path,
        wandb_dir: Path,
        resume: bool,
        lineage: Mapping[str, str],
    ) -> Self:
        """Begin tracking a training, or go on with an interrupted one.

        Args:
            params: Say whether and where to W&B; become the run's config.
            live_dir: DVCLive's folder, an out of the stage.
            run_file: Where `reopen` finds the run, an out of the stage.
            journal: A line an epoch, beside the checkpoints: DVC deletes the outs before the stage runs again, so
                this is what the curves are rebuilt from, and where the run's id survives.
            wandb_dir: See `GuardedRun.open`.
            resume: Whether the training goes on from a checkpoint; False forgets the journal.
            lineage: What the training was made from; becomes the config's section `lineage`.

        Raises:
            StorageError: one of the first three may not be written.
        """
        _set_environment()
        info, past = _read_journal(journal) if resume else (None, [])
        run = _open(params, wandb_dir, info, lineage)
        tracker = cls(run, last=past[-1] if past else None, run_file=run_file)
        try:
            tracker._curves = _Curves(live_dir, journal, past, run.info)
            tracker._write_run_file()
        except BaseException:
            run.close(1)
            raise
        return tracker

    @classmethod
    def reopen(cls, params: Params, *, run_file: Path, wandb_dir: Path, lineage: Mapping[str, str]) -> Self:
        """Go on with the W&B run that `start` left in `run_file`, or begin one if that has none; no DVCLive."""
        _set_environment()
        try:
            left = json.loads(run_file.read_text("utf-8"))
            info, last = RunInfo(**left["run"]), _Epoch(**left["last"]) if left["last"] else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: names no W&B run (%s); a new one is begun", run_file, error)
            info, last = None, None
        tracker = cls(_open(params, wandb_dir, info, lineage), last=last, run_file=None)
        # `wandb sync` uploads a run's second part with a summary of its own: the first part's has to be in it.
        tracker.log_summary(last.metrics if last else {})
        return tracker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(exit_code=0 if error is None else 1)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add an epoch's line, under flat names, to DVCLive and to the W&B run, whose step is `epoch`.

        An epoch logged before the interruption and trained again after it replaces its line in DVCLive; the W&B run
        keeps the first one.

        Raises:
            StorageError: DVCLive or the journal may not be written.
        """
        line = _Epoch(epoch, {flat_name(name): float(value) for name, value in metrics.items()})
        if self._curves:
            self._curves.add(line)
        self._last, self._step = line, epoch + 1
        if epoch > self._sent:
            self._sent = epoch
            self._run.call("logging an epoch", lambda run: run.log(line.metrics, step=epoch, commit=True))

    def log_summary(self, metrics: Mapping[str, float]) -> None:
        """Set final figures of the W&B run, under flat names."""
        flat = {flat_name(name): float(value) for name, value in metrics.items()}
        self._run.call("logging the summary", lambda run: run.summary.update(flat))

    def log_image(self, name: str, path: Path) -> None:
        """Add a picture to the W&B run."""

        def log(run: "wandb.Run") -> None:
            import wandb

            run.log({name: wandb.Image(str(path))}, step=self._step)

        self._run.call(f"logging {path}", log)

    def log_table(self, name: str, path: Path) -> None:
        """Add a CSV file with a header to the W&B run as a table; a column of numbers becomes one."""

        def log(run: "wandb.Run") -> None:
            import wandb

            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file))
            columns = [_numbers(column) for column in zip(*rows, strict=True)]
            data = [list(row) for row in zip(*columns, strict=True)]
            run.log({name: wandb.Table(columns=[*header], data=data)}, step=self._step)

        self._run.call(f"logging {path}", log)

    def log_model(self, folder: Path, *, name: str, metadata: Mapping[str, object]) -> None:
        """Add a folder to the W&B run as an artifact of type `model`; files are copied, so they may change later."""

        def log(run: "wandb.Run") -> None:
            import wandb

            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)

        self._run.call(f"logging {folder}", log)

    def finish(self, *, exit_code: int = 0) -> None:
        """Write what is left and close both; a second call does nothing.

        Raises:
            StorageError: DVCLive's files or the run file may not be written.
        """
        if self._finished:
            return
        self._finished = True
        try:
            if self._curves:
                self._curves.end()
            self._write_run_file()
        finally:
            self._run.close(exit_code)

    def _write_run_file(self) -> None:
        if self._run_file:
            left = {"run": asdict(self.info), "last": asdict(self._last) if self._last else None}
            _write(self._run_file, json.dumps(left, indent=2) + "\n", "w")


def _open(params: Params, folder: Path, known: RunInfo | None, lineage: Mapping[str, str]) -> GuardedRun:
    mode = wandb_mode(params.tracking.wandb, os.environ)
    experiment = {"experiment": os.environ["DVC_EXP_NAME"]} if os.environ.get("DVC_EXP_NAME") else {}
    config = {**params.model_dump(), "lineage": {**lineage, **experiment}}
    return GuardedRun.open(mode, known=known, folder=folder, project=params.tracking.project, config=config)


def _set_environment() -> None:
    """Keep DVCLive from asking the network about DVC Studio."""
    os.environ |= {"DVC_STUDIO_OFFLINE": "true", "DVC_NO_ANALYTICS": "true"}


def _read_journal(path: Path) -> tuple[RunInfo | None, list[_Epoch]]:
    """Read as many lines as are whole: the last one may have been torn when the process died."""
    info: RunInfo | None = None
    lines: list[_Epoch] = []
    try:
        first, *rest = path.read_text("utf-8").splitlines()
        info = RunInfo(**json.loads(first))
        lines.extend(_Epoch(**json.loads(text)) for text in rest)
    except (OSError, ValueError, TypeError) as error:
        _log.debug("%s: read up to epoch line %d (%s)", path, len(lines), error)
    return info, lines


def _numbers(column: tuple[str, ...]) -> list[float] | list[str]:
    try:
        return [float(value) for value in column]
    except ValueError:
        return list(column)


def _write(path: Path, text: str, mode: Literal["a", "w"]) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror}); free space or correct the permissions"
        raise StorageError(message) from error
