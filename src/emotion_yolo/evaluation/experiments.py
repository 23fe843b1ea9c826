"""The table of DVC's experiments: a few metrics, the params that differ, the best first; made to fit a terminal."""

import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_yolo.errors import EmotionYoloError
from emotion_yolo.paths import METRICS, PARAMS

RANK = "recall_served"
"""The metric to rank by: of all labelled faces, so that a face missed counts."""

COLUMNS: dict[str, str] = {
    RANK: "right",
    "emotion_top1": "of found",
    "map50": "mAP50",
    "worst_cell": "worst",
    "face_ap50_32px": "face AP",
    "ece": "ECE",
}
"""Metrics of `metrics.json` by title; all but the calibration error (ECE) are better when higher."""

_FOOTER = """right: share of all test faces whose expression is right, a missed face counts as wrong; of found: of the
faces found; worst: the lowest share by expression and source; face AP: AP50 of faces ≥ 32 px in photographs. The
experiments of all commits are listed. `dvc exp run` leaves its params in params.yaml; `git restore params.yaml` undoes
that."""

_DONE = "done"
_WORKSPACE = "workspace"
_LEAST_WIDTH = 60


@dataclass(frozen=True)
class Experiment:
    """A version of the project: the workspace, the commit that is checked out, or an experiment.

    `state` is done, queued, running or failed. DVC copies the metrics of the commit into an experiment without its own,
    so `metrics` are empty unless it is done.
    """

    name: str
    state: str
    commit: str
    """The commit it derives from, abbreviated; empty for the workspace."""
    metrics: Mapping[str, float]
    params: Mapping[str, Any]
    """By full name."""


def read_experiments(root: Path = Path()) -> list[Experiment]:
    """Read DVC's experiments of all commits of the project in `root`.

    Raises:
        EmotionYoloError: DVC is not installed, or `root` is no project of its.
    """
    revisions = [argument for commit in ("HEAD", *_commits_with_experiments(root)) for argument in ("--rev", commit)]
    return parse(json.loads(_output(sys.executable, "-m", "dvc", "exp", "show", "--json", *revisions, root=root)))


def parse(content: Sequence[Mapping[str, Any]]) -> list[Experiment]:
    """Read the JSON of `dvc exp show`: the workspace, the commit that is checked out, and every experiment."""
    found = []
    for position, baseline in enumerate(content):
        commit = "" if baseline["rev"] == _WORKSPACE else baseline["rev"][:7]
        if position < 2:  # the workspace comes first, then HEAD
            found.append(
                _experiment(baseline, name=baseline["name"] or baseline["rev"][:9], state=_DONE, commit=commit)
            )
        for entry in baseline["experiments"] or ():
            last = entry["revs"][0]
            executor = (entry["executor"] or {}).get("state")
            state = _DONE if executor in (None, "success") else executor
            state = "failed" if last["error"] else state
            found.append(_experiment(last, name=entry["name"] or last["rev"][:7], state=state, commit=commit))
    return found


def table(experiments: Sequence[Experiment], *, width: int) -> str:
    """Return the table, at most `width` characters wide: a line for each experiment, its differing params below it.

    Params are compared with those of the commit that is checked out.
    """
    ranked = sorted(experiments, key=lambda e: (e.name != _WORKSPACE, e.state != _DONE, -e.metrics.get(RANK, -1.0)))
    shown = [name for name in COLUMNS if any(name in e.metrics for e in ranked)]
    reference: Mapping[str, Any] = next((e.params for e in experiments if e.commit), {})
    head = ["experiment", "state", "commit", *(COLUMNS[name] for name in shown)]
    rows = [[e.name, e.state, e.commit, *(_cell(e.metrics.get(name)) for name in shown)] for e in ranked]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    widths[0] = min(widths[0], max(width - sum(widths[1:]) - 2 * len(widths[1:]), 8))
    lines = [_line(head, widths)]
    for experiment, row in zip(ranked, rows, strict=True):
        lines.append(_line(row, widths))
        differing = ", ".join(_differing(experiment.params, reference))
        lines += textwrap.wrap(differing, width, initial_indent="    ", subsequent_indent="    ")
    footer = textwrap.wrap(_FOOTER, max(width, _LEAST_WIDTH), break_on_hyphens=False)
    return "\n".join([*lines, "", *footer])


def _commits_with_experiments(root: Path) -> list[str]:
    """Return the commits that experiments derive from, but HEAD.

    `dvc exp show --all-commits` reads the params and metrics of every commit there is. DVC 3 keeps an experiment as the
    git reference refs/exps/<commit>/<name>, and those in the queue in the reflogs of two more references.
    """
    names = _output("git", "for-each-ref", "--format=%(refname)", "refs/exps", root=root)
    found = [one + rest for one, rest in re.findall(r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/", names, re.MULTILINE)]
    for queue in ("refs/exps/celery/stash", "refs/exps/celery/failed"):
        if re.search(rf"^{queue}$", names, re.MULTILINE):
            log = _output("git", "log", "--walk-reflogs", "--format=%gs", queue, root=root)
            found += re.findall(r"dvc-exp:[0-9a-f]{40}:([0-9a-f]{40})", log)
    head = _output("git", "rev-parse", "HEAD", root=root).strip()
    return [commit for commit in dict.fromkeys(found) if commit != head]


def _output(*command: str, root: Path) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise EmotionYoloError(
            f"{root.absolute()}: experiments cannot be read, `{shlex.join(command)}` failed: {said}; "
            "run from the root of a project of git and DVC"
        )
    return done.stdout


def _experiment(rev: Mapping[str, Any], *, name: str, state: str, commit: str) -> Experiment:
    data = rev["data"] or {}
    files = data.get("metrics") or {}
    metrics = files.get(str(METRICS), {}).get("data") or {}
    params = (data.get("params") or {}).get(str(PARAMS), {}).get("data") or {}
    return Experiment(name, state, commit, metrics if state == _DONE else {}, dict(_flat(params)))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _differing(params: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in params.items() if reference.get(name, value) != value]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else f"{cells[0][: widths[0] - 1]}…"
    texts = [name.ljust(widths[0]), *(c.ljust(w) for c, w in zip(cells[1:3], widths[1:3], strict=True))]
    texts += [c.rjust(w) for c, w in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join(texts).rstrip()
