"""The pipeline as a user runs it: a clone, a small part of the sample, `dvc repro`, an experiment, a comparison."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.project import GROUPS, SCENES, Project
from tests.recorder import Recorder

STAGES = ("prepare", "train", "export", "evaluate")


@pytest.mark.timeout(900)
def test_from_a_clone_to_a_comparison_of_experiments(tmp_path: Path) -> None:
    project = Project(tmp_path)
    recorder = Recorder(tmp_path, path=project.environment["PYTHONPATH"])
    project.environment |= recorder.environment
    project.run("git", "init", "-q", "-b", "main")
    project.commit("clone")
    project.shrink()
    project.emotion_yolo("pull", "sample")
    assert _pin(project).startswith("sample, sample-groups, sample-scenes: ")
    project.commit("a part of the sample")

    printed = project.dvc("repro")
    assert [name for name in STAGES if f"Running stage '{name}'" in printed] == list(STAGES)
    assert _is_measured(project)
    assert _is_tracked(project)

    again = project.dvc("repro")
    assert "Running stage" not in again
    assert [name for name in STAGES if f"Stage '{name}' didn't change, skipping" in again] == list(STAGES)
    # The baselines, which a plain `dvc repro` leaves alone, have never been run here.
    assert project.dvc("status", "dvc.yaml").strip() == "Data and pipelines are up to date."
    project.commit("first run")
    assert project.run("git", "status", "--porcelain") == ""

    project.emotion_yolo("release", "another-release")
    released = {path.name for path in (project.root / "another-release").iterdir()}
    assert {"weights.pt", "model.onnx", "model.json", "metrics.json", "MODEL_CARD.md"} <= released
    shutil.rmtree(project.root / "another-release")

    printed = project.dvc("exp", "run", "-n", "longer", "-S", "train.epochs=2")
    assert [name for name in STAGES if f"Running stage '{name}'" in printed] == ["train", "export", "evaluate"]
    assert len((project.root / "reports/train/plots/metrics/map50.tsv").read_text().splitlines()) == 1 + 2
    _can_be_compared(project)

    assert "mAP50, eight expressions" in project.emotion_yolo("report")
    assert recorder.looked_up == []


def _pin(project: Project) -> str:
    return str(yaml.safe_load((project.root / "data.dvc").read_text("utf-8"))["desc"])


def _is_measured(project: Project) -> bool:
    """See to it that every stage left what it promises."""
    prepared = project.json("reports/prepare/report.json")
    assert prepared["near_duplicates"]["counts"]["test_with_near_duplicate_in_train"] >= 1  # the sample's planted ones
    assert sum(prepared["photographs"].values()) == SCENES + 3 * GROUPS
    metrics = project.json("reports/metrics.json")
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in metrics)
    assert {"map50", "map50_95", "recall_served", "emotion_top1", "face_ap50_32px", "ece"} <= set(metrics)
    details = project.json("reports/evaluate/details.json")
    assert {"ap50_anger", "face_ap50", *metrics} <= set(details["metrics"])
    assert metrics["n_crops"] == prepared["crops"]["test"]
    spec = project.json("models/export/model.json")
    assert spec["lineage"]["revision"] == project.run("git", "rev-parse", "HEAD").strip()
    assert spec["version"] in (project.root / "reports/evaluate/MODEL_CARD.md").read_text("utf-8")
    assert project.json("reports/export/report.json")["parity"].keys() == {"onnx", "openvino"}
    assert list((project.root / "datasets").rglob("*.cache")) == []
    return True


def _is_tracked(project: Project) -> bool:
    """See to it that training and evaluation went to one W&B run, offline."""
    runs = [path.name for path in (project.root / ".wandb").rglob("offline-run-*") if path.is_dir()]
    identifiers = {name.rpartition("-")[2] for name in runs}
    assert len(runs) == 2
    (record,) = (project.root / ".wandb/trainings").iterdir()
    return identifiers == {json.loads(record.read_text("utf-8"))["run"]["id"]}


def _can_be_compared(project: Project) -> None:
    (shown,) = json.loads(project.dvc("exp", "show", "--json"))[1:]
    (experiment,) = shown["experiments"]
    (revision,) = experiment["revs"]
    assert experiment["name"] == "longer"
    assert revision["data"]["params"]["params.yaml"]["data"]["train"]["epochs"] == 2
    measured = revision["data"]["metrics"]["reports/metrics.json"]["data"]
    assert measured == project.json("reports/metrics.json")

    table = project.emotion_yolo("experiments")
    for shown_in_it in ("longer", "done", "train.epochs=2", f"{measured['recall_served']:.3f}"):
        assert shown_in_it in table

    assert "train.epochs" in project.dvc("exp", "diff", "main", "longer")
    assert "map50" in project.dvc("metrics", "show")
    project.dvc("plots", "diff", "main", "longer", "-o", "comparison")
    page = (project.root / "comparison/index.html").read_text("utf-8")
    for title in ("Emotion, test split", "Precision over recall", "Reliability", "Valid mAP50"):
        assert title in page
