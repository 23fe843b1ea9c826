"""What is said of figures that differ from those committed: a real repository, real files."""

import json
import subprocess
from pathlib import Path

import pytest

from emotion_yolo.evaluation.committed import other_machine
from emotion_yolo.evaluation.summary import DETAILS
from emotion_yolo.paths import EVALUATE_REPORT, METRICS, RUN

ENVIRONMENT = {"cpu": "AMD EPYC", "device": "cpu", "precision": "fp32", "threads": 2, "cpu_features": ["avx2"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a repository whose committed mAP50 is 0.877 and whose last evaluation gave 0.870."""
    for folder in (METRICS.parent, EVALUATE_REPORT, RUN.parent):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / METRICS).write_text(json.dumps({"map50": 0.877, "ece": 0.05}))
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "made"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    evaluated(tmp_path, {"map50": 0.870, "ece": 0.05}, {"map50": [0.85, 0.89]})
    return tmp_path


def evaluated(root: Path, metrics: dict[str, float], intervals: dict[str, list[float]]) -> None:
    content = {"metrics": metrics, "intervals": intervals, "sets": {}}
    (root / EVALUATE_REPORT / DETAILS).write_text(json.dumps(content))


def test_figures_within_their_intervals_are_what_another_machine_gives(project: Path) -> None:
    (project / RUN).write_text(json.dumps({"environment": ENVIRONMENT}))
    said = other_machine(project)
    assert "1 figure differs from those committed" in said
    assert "mAP50, eight expressions: 0.877 committed, 0.870 here; all within their 95 % intervals" in said
    assert "Reproducibility, names the machine of those committed" in said
    assert said.endswith("Trained here on AMD EPYC, cpu, fp32, 2 threads, avx2.")


def test_figures_outside_of_their_intervals_are_named(project: Path) -> None:
    evaluated(project, {"map50": 0.6, "ece": 0.04}, {"map50": [0.55, 0.65], "ece": [0.03, 0.06]})
    said = other_machine(project)
    assert "2 figures differ" in said
    assert "outside of their 95 % intervals here: mAP50, eight expressions; that is more than a machine" in said


def test_the_same_figures_need_no_word(project: Path) -> None:
    evaluated(project, {"map50": 0.877, "ece": 0.05}, {})
    assert other_machine(project) == ""


def test_other_params_are_a_reason_of_their_own(project: Path) -> None:
    (project / "params.yaml").write_text("seed: 1\n")
    assert other_machine(project) == ""


def test_nothing_is_said_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert other_machine(tmp_path) == ""
