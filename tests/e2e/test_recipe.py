"""A recipe as a user runs it: in a clone of its own, killed within a phase and between two, and resumed."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from emotion_yolo.inference.artefact import read_spec
from tests.e2e.project import CLI, Project

PICTURES = {"train": 32, "valid": 16, "test": 16}
RUN = (sys.executable, "-c", CLI, "release", "--recipe", "sample", "made")

EXPECTED = {
    "command": "dvc repro evaluate",
    "split": "test",
    "file": "reports/metrics.json",
    "tolerance": 0.2,
    "figures": {"map50": 0.9},
}


def start(project: Project, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(RUN, cwd=project.root, env=project.environment, stdout=file, stderr=file)


def kill(project: Project, process: subprocess.Popen[bytes]) -> None:
    """Kill the command and all that works for it, as a machine that goes down does."""
    lock = project.root / ".recipes/sample/lock"
    process.kill()
    process.wait()
    # The last step may have been started a moment ago, its group not yet noted; whatever lives keeps the lock.
    with lock.open("a+") as file:
        while True:
            with suppress(ProcessLookupError, ValueError):  # between two steps nothing else is at work
                os.killpg(int(lock.read_text()), signal.SIGKILL)
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    while not condition():
        assert process.poll() is None, log.read_text("utf-8")
        time.sleep(0.05)


@pytest.mark.timeout(3000)
def test_a_recipe_that_is_killed_resumes_at_its_phase_and_epoch_and_ends_with_a_release(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("clone")
    project.shrink(PICTURES)
    recipe = project.root / "configs/recipes/sample.yaml"
    recipe.write_text(recipe.read_text("utf-8") + yaml.safe_dump({"expected": [EXPECTED]}))
    project.emotion_yolo("pull", "sample")
    project.commit("a part of the sample")
    before = project.run("git", "status", "--porcelain"), (project.root / "params.yaml").read_text("utf-8")
    work = project.root / ".recipes/sample"

    def journal() -> str:
        """What the training at work has noted of itself: a line for each finished epoch, after one of the run."""
        files = (work / "project/.checkpoints").glob("*/epochs.jsonl")
        return "".join(path.read_text("utf-8") for path in files)

    # Within a phase: after the first of two epochs.
    log = tmp_path / "first.log"
    process = start(project, log)
    wait_for(lambda: '"epoch"' in journal(), process, log)
    kill(project, process)
    assert "phase 1 of 2, expression" in log.read_text("utf-8")
    first = next(line for line in journal().splitlines() if '"epoch"' in line)

    # Between two phases: as soon as the first is done.
    log = tmp_path / "second.log"
    process = start(project, log)
    seen = set[str]()
    wait_for(lambda: seen.add(journal()) or "expression" in done(work), process, log)
    kill(project, process)
    assert "phase 1 of 2, expression, resumed after" in log.read_text("utf-8")
    assert "Stage 'prepare' didn't change, skipping" in log.read_text("utf-8")
    assert all(first in text for text in seen if text)  # a training that begins anew empties it

    log = tmp_path / "third.log"
    process = start(project, log)
    assert process.wait() == 0, log.read_text("utf-8")
    printed = log.read_text("utf-8")
    assert "phase expression: done already" in printed
    assert "phase 2 of 2, scenes" in printed

    spec = read_spec(project.root / "made")
    assert spec.lineage.recipe == "configs/recipes/sample.yaml"
    assert spec.lineage.revision == project.run("git", "rev-parse", "HEAD").strip()
    handed_on = work / "project/models/phases/expression"
    assert spec.lineage.inputs == {
        "prepare.localise.detector": read_spec(project.root / "models/release").files["onnx"].sha256,
        "prepare.teacher.detector": read_spec(handed_on).files["onnx"].sha256,
        "train.weights": hashlib.sha256((handed_on / "weights.pt").read_bytes()).hexdigest(),
    }
    card = (project.root / "made/MODEL_CARD.md").read_text("utf-8")
    assert "recipe `configs/recipes/sample.yaml`" in card
    assert "test split, reports/metrics.json; expected by dvc repro evaluate:" in printed
    assert "map50 " in printed

    # The checkout itself is as it was.
    made = "?? made/\n"
    assert project.run("git", "status", "--porcelain") == before[0] + made
    assert (project.root / "params.yaml").read_text("utf-8") == before[1]
    _refuses_another_commit(project)


def done(work: Path) -> list[str]:
    state = work / "state.json"
    return yaml.safe_load(state.read_text("utf-8"))["done"] if state.is_file() else []


def _refuses_another_commit(project: Project) -> None:
    (project.root / "params.yaml").write_text((project.root / "params.yaml").read_text("utf-8") + "# changed\n")
    refused = subprocess.run(RUN, cwd=project.root, env=project.environment, capture_output=True, text=True)
    assert refused.returncode == 15
    assert "uncommitted changes in params.yaml" in refused.stderr
    project.run("git", "commit", "-qam", "another")
    refused = subprocess.run(RUN, cwd=project.root, env=project.environment, capture_output=True, text=True)
    assert refused.returncode == 15
    assert "--restart" in refused.stderr
