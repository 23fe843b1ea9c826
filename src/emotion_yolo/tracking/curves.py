"""DVCLive's curves and metrics of a training, rebuilt from a journal after an interruption.

They are outs of the stage, so they are right or the stage fails, and the same training gives the same files: times and
ids of runs are for the tracker.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from emotion_yolo.errors import StorageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Line:
    epoch: int
    metrics: dict[str, float]
    best: bool


def flat_name(name: str) -> str:
    """Return a metric's name in letters a shell needs no quotes for: `metrics/mAP50-95(B)` becomes `map50_95`."""
    bare = re.sub(r"\(.*?\)", "", name.removeprefix("metrics/"))
    return re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_")


class Curves:
    """DVCLive's files of one training; a context manager that completes them on exit."""

    def __init__(self, live_dir: Path, *, journal: Path, resume: bool) -> None:
        """Begin a training, or continue an interrupted one.

        Args:
            live_dir: DVCLive's folder, an out of the stage.
            journal: A line an epoch, beside the checkpoints: DVC deletes the outs before the stage runs again, so this
                is what the curves are rebuilt from.
            resume: Whether the training resumes from a checkpoint; False forgets the journal.

        Raises:
            StorageError: one of them may not be written.
        """
        os.environ |= {"DVC_STUDIO_OFFLINE": "true", "DVC_NO_ANALYTICS": "true"}  # otherwise DVCLive uses the network
        from dvclive.live import Live

        self._dir, self._journal = live_dir, journal
        self._past = _read_journal(journal) if resume else []
        self._lines: list[_Line] = []
        self._finished = False
        self._write_journal(self._past)
        with _writing(live_dir):
            self._live: Any = Live(  # its methods have no types
                str(live_dir), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights are the result."""
        best = self._best()
        return best.epoch if best else None

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], *, best: bool) -> None:
        """Add an epoch under flat names; `best` says that it is the best so far.

        An epoch logged before an interruption and trained again after it replaces its line.

        Raises:
            StorageError: the files may not be written.
        """
        line = _Line(epoch, {flat_name(name): float(value) for name, value in metrics.items()}, best)
        self._replay(before=line.epoch)
        self._plot(line)
        _write(self._journal, json.dumps(asdict(line)) + "\n", "a")

    def finish(self) -> None:
        """Complete the files: metrics.json holds the best epoch's figures, and the last one's under `last`.

        A second call does nothing.

        Raises:
            StorageError: they may not be written.
        """
        if self._finished:
            return
        self._finished = True
        self._replay(before=None)
        with _writing(self._dir):
            self._live.end()
        if best := self._best():
            last = self._lines[-1]
            metrics = {**best.metrics, "best_epoch": best.epoch, "step": last.epoch, "last": last.metrics}
            _write(self._dir / "metrics.json", json.dumps(_written(metrics), indent=4) + "\n", "w")

    def _best(self) -> _Line | None:
        return next((line for line in reversed(self._lines) if line.best), self._lines[-1] if self._lines else None)

    def _replay(self, *, before: int | None) -> None:
        """Plot the journal's epochs below `before` (None: all), once; forget the others."""
        keep = [line for line in self._past if before is None or line.epoch < before]
        if keep != self._past:
            self._write_journal(keep)
        self._past = []
        for line in keep:
            self._plot(line)

    def _plot(self, line: _Line) -> None:
        self._lines.append(line)
        self._live.step = line.epoch
        with _writing(self._dir):
            for name, value in line.metrics.items():
                self._live.log_metric(name, value)
            self._live.next_step()

    def _write_journal(self, lines: list[_Line]) -> None:
        _write(self._journal, "".join(json.dumps(asdict(line)) + "\n" for line in lines), "w")


def _written(value: Any) -> Any:
    """Write what is no number as DVCLive does, as text: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _written(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value


def _read_journal(path: Path) -> list[_Line]:
    """Read as many lines as are whole: the last one may have been torn when the process died."""
    lines: list[_Line] = []
    try:
        lines.extend(_Line(**json.loads(text)) for text in path.read_text("utf-8").splitlines())
    except (OSError, ValueError, TypeError) as error:
        _log.debug("%s: read up to epoch line %d (%s)", path, len(lines), error)
    return lines


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
