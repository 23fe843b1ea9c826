"""Runs a recipe: its phases in order in a workspace, resumed after an interruption, then the release."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_yolo.errors import RecipeError
from emotion_yolo.params import load_params, load_yaml
from emotion_yolo.paths import (
    CHECKPOINTS,
    CLASSIFIER,
    EXPORT,
    INPUTS,
    PARAMS,
    PHASES,
    RECIPE_RUNS,
    TRAINED,
    WEIGHTS_NAME,
)
from emotion_yolo.recipes.checking import check_recipe
from emotion_yolo.recipes.inputs import parse_given, place_inputs
from emotion_yolo.recipes.recipe import Phase, Recipe, dump_params, load_recipe, phase_params, recipe_path
from emotion_yolo.recipes.workspace import State, Workspace, clean_revision

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A recipe that has run to its end."""

    recipe: Recipe
    path: Path
    """Of the recipe, relative to the project's root."""
    revision: str
    project: Path
    """The clone it ran in, which holds the outs of the last phase."""


def run_recipe(name: str, *, root: Path, given: list[str], restart: bool, say: Say) -> Finished:
    """Run a recipe in `.recipes/<name>`, resuming an interrupted run.

    `given` are inputs as `NAME=PATH`. `restart` discards an earlier run.

    Raises:
        ParamsError: a recipe that does not fit the project; all findings.
        RecipeError: uncommitted changes, an input that is missing, a run of another commit, a step that failed.
    """
    revision = clean_revision(root, why="a release names the commit it was made from")
    recipe = load_recipe(name, root=root)
    check_recipe(name, recipe, root=root)
    paths = parse_given(given, recipe.inputs)
    workspace = Workspace(root / RECIPE_RUNS / name)
    with workspace.locked():
        if restart:
            workspace.remove()
        digest = hashlib.sha256((root / recipe_path(name)).read_bytes()).hexdigest()
        state = workspace.read_state() or State(revision=revision, recipe=digest)
        _refuse_another_run(state, revision, digest, workspace)
        workspace.create(root)
        workspace.write_state(state)
        place_inputs(recipe.inputs, paths, folder=workspace.project / INPUTS, root=root)
        base = load_yaml(root / PARAMS)
        for phase in recipe.phases:
            if phase.name in state.done:
                say(f"phase {phase.name}: done already")
                continue
            text = dump_params(phase_params(recipe, phase, base))
            workspace.set_params(text, message=f"{recipe_path(name)}: params of phase {phase.name}")
            _PhaseRun(workspace, recipe, phase, state, say)()
    return Finished(recipe=recipe, path=recipe_path(name), revision=revision, project=workspace.project)


def _refuse_another_run(state: State, revision: str, digest: str, workspace: Workspace) -> None:
    if state.revision == revision and state.recipe == digest:
        return
    raise RecipeError(
        f"{workspace.folder}: holds a run of commit {state.revision[:12]}, and {revision[:12]} is checked out; "
        f"`git checkout {state.revision[:12]}` to resume it, or add --restart to discard it"
    )


class _PhaseRun:
    """One phase in the workspace: DVC's stages, then what the phase hands on."""

    def __init__(self, workspace: Workspace, recipe: Recipe, phase: Phase, state: State, say: Say) -> None:
        self._workspace, self._recipe, self._phase, self._state, self._say = workspace, recipe, phase, state, say
        self._before = state.seconds.get(phase.name, 0.0)
        self._begin = time.monotonic()

    def __call__(self) -> None:
        number = self._recipe.phases.index(self._phase) + 1
        resumed = f", resumed after {_minutes(self._before)}" if self._phase.name in self._state.seconds else ""
        self._say(f"phase {number} of {len(self._recipe.phases)}, {self._phase.name}{resumed}; {self._left()}")
        self._state.seconds[self._phase.name] = self._before
        self._workspace.write_state(self._state)  # begun, also if it is killed before the first tick
        kept = self._workspace.project / PHASES / self._phase.name
        try:
            if self._phase.kind == "classifier":
                self._train_classifier(kept)
            else:
                last = self._phase is self._recipe.phases[-1]
                self._run("-m", "dvc", "repro", *(() if last else ("export",)))
                if self._phase.hands_on:
                    self._keep_detector(kept)
        except KeyboardInterrupt:
            self._say("interrupted; the same command resumes it")
            raise
        finally:
            self._tick(silent=True)
        self._state.done.append(self._phase.name)
        self._workspace.write_state(self._state)
        self._say(f"phase {self._phase.name}: finished in {_minutes(self._state.seconds[self._phase.name])}")

    def _train_classifier(self, kept: Path) -> None:
        self._run("-m", "dvc", "repro", "prepare")
        out = PHASES / self._phase.name / CLASSIFIER.name
        if not (kept / CLASSIFIER.name).is_file():
            code = "from emotion_yolo.cli import main; main()"
            self._run("-c", code, "train-classifier", "--out", str(out))

    def _keep_detector(self, kept: Path) -> None:
        part = kept.with_name(f"{kept.name}.part")
        for folder in (part, kept):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._workspace.project / EXPORT, part)
        shutil.copyfile(self._workspace.project / TRAINED / WEIGHTS_NAME, part / WEIGHTS_NAME)
        part.rename(kept)

    def _run(self, *arguments: str) -> None:
        self._workspace.run(*arguments, on_tick=self._tick)

    def _tick(self, *, silent: bool = False) -> None:
        self._state.seconds[self._phase.name] = self._before + time.monotonic() - self._begin
        self._workspace.write_state(self._state)
        if not silent:
            self._say(f"phase {self._phase.name}: {_minutes(self._spent())} so far; {self._left()}")

    def _spent(self) -> float:
        return self._before + time.monotonic() - self._begin

    def _left(self) -> str:
        index = self._recipe.phases.index(self._phase)
        done = [
            (self._state.seconds[phase.name], phase.minutes * 60)
            for phase in self._recipe.phases[:index]
            if phase.minutes and phase.name in self._state.seconds
        ]
        left = seconds_left(
            spent=self._spent(),
            share=self._share_done(),
            expected=[phase.minutes * 60 if phase.minutes else None for phase in self._recipe.phases[index:]],
            done=done,
        )
        return "no estimate of the time left yet" if left is None else f"about {_minutes(left)} left"

    def _share_done(self) -> float:
        # The training at work keeps a line of JSON for each finished epoch, after one that describes the run.
        journals = list((self._workspace.project / CHECKPOINTS).glob("*/epochs.jsonl"))
        if not journals:
            return 0.0
        newest = max(journals, key=lambda path: path.stat().st_mtime)
        epochs = load_params(self._workspace.project / PARAMS).train.epochs
        finished = sum('"epoch"' in line for line in newest.read_text("utf-8").splitlines())
        return min(finished / epochs, 1.0)


def seconds_left(
    *, spent: float, share: float, expected: list[float | None], done: list[tuple[float, float]]
) -> float | None:
    """Estimate the time until the end of a recipe, or return None if it cannot be estimated.

    Args:
        spent: Seconds spent on the present phase.
        share: Part of its training that is done, 0-1.
        expected: Seconds of the present phase and the ones after it on the recipe's machine, None where unknown.
        done: Seconds taken and seconds expected, of phases before.
    """
    pace = sum(took for took, _ in done) / sum(wanted for _, wanted in done) if done else 1.0
    present, *later = expected
    if share > 0:
        left = spent * (1 - share) / share
        if not done and present:
            pace = (spent + left) / present
    elif present is not None:
        left = max(present * pace - spent, 0.0)
    else:
        return None
    if any(phase is None for phase in later):
        return None
    return left + pace * sum(phase for phase in later if phase is not None)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def compare(finished: Finished) -> list[str]:
    """Return a table of the figures that the recipe expects and those that the run has reached."""
    lines = []
    for group in finished.recipe.expected:
        path = finished.project / group.file
        got: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        lines.append(f"{group.split} split, {group.file}; expected by {group.command}:")
        lines.append(f"  {'figure':<24} expected      got   difference")
        for name, expected in group.figures.items():
            value = got.get(name)
            if not isinstance(value, int | float):
                lines.append(f"  {name:<24} {expected:>8.3f}  missing")
                continue
            outside = "" if abs(value - expected) <= group.tolerance else f"  more than {group.tolerance:g} apart"
            lines.append(f"  {name:<24} {expected:>8.3f} {value:>8.3f}     {value - expected:+.3f}{outside}")
    return lines
