"""The table of experiments: what is shown of each, in which order, in which width."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emotion_yolo.errors import EmotionYoloError
from emotion_yolo.evaluation.experiments import COLUMNS, RANK, parse, read_experiments, table

METRICS = dict.fromkeys(COLUMNS, 0.5)


def rev(
    rev: str, metrics: dict[str, float], params: dict[str, Any], *, error: str = "", name: str = ""
) -> dict[str, Any]:
    """Build a version as `dvc exp show --json` gives it."""
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"reports/metrics.json": {"data": metrics}},
    }
    return {
        "rev": rev,
        "name": name or None,
        "data": data,
        "error": {"msg": error} if error else None,
        "experiments": None,
    }


def experiment(
    name: str, metrics: dict[str, float], params: dict[str, Any], *, state: str | None = None
) -> dict[str, Any]:
    error = "Experiment run failed" if state == "failed" else ""
    executor = {"state": state} if state else None
    return {"name": name, "revs": [rev("e" * 40, metrics, params, error=error)], "executor": executor}


def history(*experiments: dict[str, Any], earlier: tuple[dict[str, Any], ...] = ()) -> list[dict[str, Any]]:
    """Build a workspace, the commit `main` with experiments, and the commit before it with others."""
    base = {"train": {"epochs": 12, "lr0": 0.001}}
    return [
        rev("workspace", METRICS, base),
        rev("a" * 40, METRICS, base, name="main") | {"experiments": list(experiments)},
        rev("b" * 40, METRICS, base) | {"experiments": list(earlier) or None},
    ]


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.partition("\n\n")[0].splitlines()[1:] if not line.startswith(" ")]


def test_the_best_comes_first_by_a_metric_that_counts_faces_missed() -> None:
    few = METRICS | {RANK: 0.35, "emotion_top1": 0.79}  # of 44 % of the faces
    all_of_them = METRICS | {RANK: 0.69, "emotion_top1": 0.69}
    shown = table(parse(history(experiment("few", few, {}), experiment("all", all_of_them, {}))), width=100)
    assert names(shown) == ["workspace", "all", "main", "few"]


@pytest.mark.parametrize("state", ["failed", "queued", "running"])
def test_an_experiment_that_is_not_done_has_no_metrics_and_comes_last(state: str) -> None:
    # DVC gives it those of the commit.
    done = experiment("worse", METRICS | {RANK: 0.1}, {}, state="success")
    shown = table(parse(history(experiment("other", METRICS, {}, state=state), done)), width=100)
    assert names(shown) == ["workspace", "main", "worse", "other"]
    (line,) = [line for line in shown.splitlines() if line.startswith("other")]
    assert line.split() == ["other", state, "aaaaaaa", *"-" * len(COLUMNS)]


def test_experiments_of_earlier_commits_are_listed_and_earlier_commits_are_not() -> None:
    shown = table(parse(history(earlier=(experiment("old", METRICS, {}),))), width=100)
    assert sorted(names(shown)) == ["main", "old", "workspace"]
    assert "bbbbbbb" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_every_differing_param_can_be_read_at_any_width(width: int) -> None:
    params = {"train": {"epochs": 60, "lr0": 0.001}, "prepare": {"sheets": {"side": 384}}}
    params["train"] |= {f"setting_{i}": i for i in range(12)}
    shown = table(parse(history(experiment("a-name-of-an-experiment-that-is-long", METRICS, params))), width=width)
    assert max(map(len, shown.splitlines())) <= width
    together = " ".join(shown.split())
    assert "train.epochs=60" in together
    assert "train.lr0" not in together  # as in the commit
    # A param that the commit lacks differs from nothing.
    assert "setting_11" not in together


def test_metrics_that_no_experiment_has_get_no_column() -> None:
    shown = table(parse(history(experiment("one", {RANK: 0.7}, {}))[:2]), width=80)
    assert COLUMNS["map50"] in shown
    bare = [entry | {"data": None} for entry in history()]
    assert COLUMNS["map50"] not in table(parse(bare), width=80).partition("\n\n")[0]


def test_a_folder_that_is_no_project_of_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmotionYoloError, match="run from the root of a project of git and DVC"):
        read_experiments(tmp_path)


def test_a_project_without_experiments_shows_its_commit(tmp_path: Path) -> None:
    for command in (
        "git init -q -b main",
        "git -c user.name=n -c user.email=n@example.org commit -q --allow-empty -m one",
        f"{sys.executable} -m dvc init -q",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    workspace, commit = read_experiments(tmp_path)
    assert (workspace.name, commit.name) == ("workspace", "main")


def test_experiments_of_an_earlier_commit_are_found(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
        subprocess.run(["git", *identity, *command] if command[0] != "dvc" else [sys.executable, "-m", *command],
                       cwd=tmp_path, check=True)  # fmt: skip

    run("init", "-q", "-b", "main")
    run("dvc", "init", "-q")
    (tmp_path / "params.yaml").write_text("train: {epochs: 1}\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  evaluate:\n    cmd: mkdir reports && cp params.yaml reports/metrics.json\n    params: [train]\n"
        "    metrics: [reports/metrics.json: {cache: false}]\n"
    )
    run("add", "-A")
    run("commit", "-qm", "one")
    run("dvc", "exp", "run", "-q", "-n", "longer", "-S", "train.epochs=2")
    run("stash", "-q", "--include-untracked")
    run("commit", "-q", "--allow-empty", "-m", "two")
    found = {experiment.name: experiment for experiment in read_experiments(tmp_path)}
    assert set(found) == {"workspace", "main", "longer"}
    assert (found["longer"].state, found["longer"].params["train.epochs"]) == ("done", 2)
    assert found["longer"].commit != found["main"].commit
