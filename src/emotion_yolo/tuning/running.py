"""Runs a sweep: its trials one after another as experiments of DVC in a clone, resumed after any kill.

The checkout stays as it is, params.yaml included: `dvc exp run` changes params, outs and HEAD where it works, and a
kill leaves them so. The clone shares the DVC cache, and what a trial has finished is fetched as an experiment.
"""

import csv
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from emotion_yolo.errors import RecipeError
from emotion_yolo.params import Params, load_yaml, validation_lines
from emotion_yolo.paths import CHECKPOINTS, PARAMS, TRAIN_REPORT
from emotion_yolo.progress import duration
from emotion_yolo.recipes.recipe import Overrides, merged
from emotion_yolo.recipes.workspace import Workspace, clean_revision, hold
from emotion_yolo.tuning.study import EXPERIMENT, Study
from emotion_yolo.tuning.sweep import Sweep, Values, load_sweep, nested, overrides_for_dvc, sweep_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.trial import Trial

Say = Callable[[str], None]

RUNS = Path(".tune")
"""Folder of the clones and studies, by sweep."""
STUDY_NAME = "study.db"

_POLL_S = 1.0  # between two looks at the epochs of the training at work
_FAILURES = 3  # trials that fail one after another until something other than their values is taken to be wrong


def tune(name: str, *, root: Path, trials: int | None, restart: bool, say: Say) -> tuple[Sweep, Study]:
    """Run trials of `configs/sweeps/<name>.yaml` until `trials` are finished, those of earlier calls included.

    `trials` of None are as many as the sweep says. `restart` begins anew.

    Raises:
        ParamsError: a sweep that does not fit the project; all findings.
        RecipeError: uncommitted changes, another sweep at work, trials of another commit, or several that failed.
    """
    sweep = load_sweep(name, root=root)
    revision = clean_revision(root, why="a trial is an experiment of the commit", but=sweep_path(name))
    wandb = {"WANDB_DIR": str(root.absolute())}  # the runs of trials lie beside all others
    workspace = Workspace(root / RUNS / name, environment=wandb)
    with _alone(root):
        if workspace.end_left_behind():
            say("ended the trial that an earlier call had left running when it was killed")
        with workspace.locked():
            path = workspace.folder / STUDY_NAME
            if restart:
                workspace.remove()
                path.unlink(missing_ok=True)
            base = load_yaml(root / PARAMS)
            study = Study(path, sweep, base=base, revision=revision)
            workspace.create(root)
            for experiment in study.recover():
                say(f"{experiment}: was interrupted; goes on")
            search = _Search(name, sweep, study, workspace, base=base, revision=revision, root=root, say=say)
            search.run_until(sweep.trials if trials is None else trials)
    return sweep, study


@contextmanager
def _alone(root: Path) -> "Iterator[None]":
    # Not inherited by the trial, unlike the workspace's lock: held, it means that another command is at work.
    with hold(root / RUNS / "lock") as lock:
        if lock is None:
            raise RecipeError(f"{root.absolute()}: another sweep is at work; wait for it, or end it with Ctrl-C")
        yield


class _PrunedError(Exception):
    """A trial is not worth its end."""


class _Search:
    """The trials of a sweep in a workspace."""

    def __init__(
        self,
        name: str,
        sweep: Sweep,
        study: Study,
        workspace: Workspace,
        *,
        base: Overrides,
        revision: str,
        root: Path,
        say: Say,
    ) -> None:
        self._name, self._sweep, self._study, self._workspace = name, sweep, study, workspace
        self._base, self._revision, self._root, self._say = base, revision, root, say

    def run_until(self, count: int) -> None:
        """Run trials until `count` are finished."""
        failed = 0
        seconds = list[float]()
        while (finished := len(self._study.finished)) < count:
            left = f", about {duration(sum(seconds) / len(seconds) * (count - finished))} left" if seconds else ""
            trial, values = self._study.ask(prefix=f"{self._name}-{self._revision[:7]}-")
            shown = ", ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
            )
            self._say(f"trial {finished + 1} of {count}, {trial.user_attrs[EXPERIMENT]}: {shown}{left}")
            begin = time.monotonic()
            if self._run(trial, values):
                failed = 0
                seconds.append(time.monotonic() - begin)
            elif (failed := failed + 1) == _FAILURES:
                raise RecipeError(
                    f"{failed} trials failed one after another; {self._log(trial)} says why. Put it right and repeat "
                    "the command: finished trials are kept"
                )

    def _run(self, trial: "Trial", values: Values) -> bool:
        """Run one trial; returns whether its experiment, if it came to one, has run to its end."""
        experiment = trial.user_attrs[EXPERIMENT]
        if twin := self._study.twin_of(trial):
            self._say(f"{experiment}: has the values of {twin.user_attrs[EXPERIMENT]}, whose result it takes over")
            trial.set_user_attr(EXPERIMENT, twin.user_attrs[EXPERIMENT])
            self._study.take_over(trial, twin)
            return True
        overrides = merged(self._sweep.params, nested(values))
        try:
            Params.model_validate(merged(self._base, overrides))
        except ValidationError as error:  # values that exclude each other, each of which params.yaml could have
            reason = "; ".join(validation_lines(error, sweep_path(self._name)))
            self._say(f"{experiment}: failed: {reason}")
            self._study.fail(trial, reason)
            return True
        ref = f"refs/exps/{self._revision[:2]}/{self._revision[2:]}/{experiment}"
        try:
            if not self._workspace.has_ref(ref):  # else finished, and killed before its figure was noted
                self._train(trial, overrides)
            for epoch, figure in _curve(self._workspace.project, self._sweep.metric):
                self._study.report(trial, figure, epoch)  # those that ended since the last look
        except _PrunedError:
            self._say(f"{experiment}: pruned")
            self._study.prune(trial)
            return True
        except RecipeError:
            reason = f"`dvc exp run` failed; {self._log(trial)} says why"
            self._say(f"{experiment}: {reason}")
            self._study.fail(trial, reason)
            return False
        fetch = ["git", "fetch", "-q", "--no-tags", "--no-write-fetch-head", str(self._workspace.project)]
        subprocess.run([*fetch, f"+{ref}:{ref}"], cwd=self._root, check=True)
        value = float(json.loads(self._workspace.show(ref, TRAIN_REPORT / "metrics.json"))[self._sweep.metric])
        self._study.complete(trial, value)
        best = self._study.best
        shown = f", the best so far {best.value:.4f}" if best and best.value is not None else ""
        self._say(f"{experiment}: {self._sweep.metric} {value:.4f}{shown}")
        return True

    def _train(self, trial: "Trial", overrides: Overrides) -> None:
        """Run the trial's experiment.

        Raises:
            _PrunedError: it was ended early.
            RecipeError: it failed.
        """
        self._workspace.reset()
        epochs = _Epochs(self._workspace.project, self._sweep.metric)

        def on_tick() -> None:
            for epoch, value in epochs.new():
                self._study.report(trial, value, epoch)
                if trial.should_prune():
                    raise _PrunedError

        arguments = overrides_for_dvc(overrides, self._base)
        experiment = trial.user_attrs[EXPERIMENT]
        try:
            # Up to the training: what comes after it measures the test split.
            self._workspace.run(
                *("-m", "dvc", "exp", "run", "-n", experiment, *arguments, "train"),
                on_tick=on_tick, tick_s=_POLL_S, log=self._log(trial),
            )  # fmt: skip
        except _PrunedError:
            epochs.discard()
            raise

    def _log(self, trial: "Trial") -> Path:
        return self._workspace.folder / f"{trial.user_attrs[EXPERIMENT]}.log"


class _Epochs:
    """The figure of each epoch of the training at work."""

    def __init__(self, project: Path, metric: str) -> None:
        self._project, self._metric = project, metric
        self._before = self._journals()  # of trainings that were interrupted earlier
        self._seen = 0

    def _journals(self) -> dict[Path, int]:
        found = {}
        for path in (self._project / CHECKPOINTS).glob("*/epochs.jsonl"):
            try:
                found[path] = path.stat().st_mtime_ns
            except FileNotFoundError:  # its training has just ended
                continue
        return found

    def _at_work(self) -> Path | None:
        changed = [path for path, time_ns in self._journals().items() if self._before.get(path) != time_ns]
        return changed[0] if changed else None

    def new(self) -> list[tuple[int, float]]:
        """Return the epochs that ended since the last call."""
        found = []
        journal = self._at_work()
        try:
            text = journal.read_text("utf-8") if journal else ""
        except FileNotFoundError:
            text = ""
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):  # being written
                break
            content = json.loads(line)
            if content["epoch"] > self._seen:
                self._seen = content["epoch"]
                found.append((self._seen, float(content["metrics"][self._metric])))
        return found

    def discard(self) -> None:
        """Remove what the training has left to be resumed from."""
        if journal := self._at_work():
            shutil.rmtree(journal.parent)


def _curve(project: Path, metric: str) -> list[tuple[int, float]]:
    """Return the epochs of the training that ended last."""
    with (project / TRAIN_REPORT / f"plots/metrics/{metric}.tsv").open(encoding="utf-8") as file:
        return [(int(row["step"]), float(row[metric])) for row in csv.DictReader(file, delimiter="\t")]
