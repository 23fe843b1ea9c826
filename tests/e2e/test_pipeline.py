"""The pipeline as a user runs it: a clone, a small part of the sample, `dvc repro`, an experiment, a comparison."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
STAGES = ("prepare", "train", "export", "evaluate")
KEPT = {"train": 80, "valid": 24, "test": 24}
SCENES = 8
GROUPS = 2  # of each split


class Project:
    """A copy of this repository without data and without history, in a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "DVC"))}
        self._environment |= identity | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",
            "PYTHONWARNINGS": "ignore",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
            "WANDB_MODE": "offline",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "140",
        }
        self._copy()

    def _copy(self) -> None:
        # What is not committed yet is taken too, but for what a run of the pipeline here has left.
        for kind, left_out in (("--cached", ()), ("--others", ("reports/", "dvc.lock"))):
            command = ["git", "ls-files", "-z", kind, "--exclude-standard"]
            listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
            for name in filter(None, listed.split("\0")):
                not_needed = name.startswith(("tests/", "docs/", "benchmarks/", *left_out))
                if not not_needed and (REPOSITORY / name).is_file():
                    (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(REPOSITORY / name, self.root / name)

    def run(self, *command: str) -> str:
        """Run a command in the project and return what it printed."""
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=self._environment)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def emotion_yolo(self, *arguments: str) -> str:
        return self.run(sys.executable, "-c", "from emotion_yolo.cli import main; main()", *arguments)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def json(self, path: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.root / path).read_text("utf-8"))
        return content

    def shrink(self) -> None:
        """Keep the first pictures of each split, which take turns through the emotions, and settings that are quick."""
        sample = self.root / "datasets/sample"
        for split, count in KEPT.items():
            for path in (sample / "sample" / split).rglob("*.*"):
                if int("".join(filter(str.isdecimal, path.stem))) >= count:
                    path.unlink()
        for path in (sample / "sample-scenes").rglob("scene_*"):
            if int(path.stem.removeprefix("scene_")) >= SCENES:
                path.unlink()
        for path in (sample / "sample-groups").rglob("group_*"):
            if int(path.stem.removeprefix("group_")) >= GROUPS:
                path.unlink()
        params = yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))
        # A few steps at this rate leave the release as good as it was: there are faces found to go on with.
        params["train"] |= {"epochs": 1, "imgsz": 64, "batch": 16, "workers": 0, "lr0": 1e-5, "warmup_epochs": 0.0}
        params["prepare"]["scenes"] |= {"valid": 0.25, "test": 0.25}
        params["evaluate"]["bootstrap"] = 10
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.mark.timeout(900)
def test_from_a_clone_to_a_comparison_of_experiments(tmp_path: Path) -> None:
    project = Project(tmp_path)
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
    assert project.dvc("status").strip() == "Data and pipelines are up to date."
    project.commit("first run")
    assert project.run("git", "status", "--porcelain") == ""

    printed = project.dvc("exp", "run", "-n", "longer", "-S", "train.epochs=2")
    assert [name for name in STAGES if f"Running stage '{name}'" in printed] == ["train", "export", "evaluate"]
    assert len((project.root / "reports/train/plots/metrics/map50.tsv").read_text().splitlines()) == 1 + 2
    _can_be_compared(project)

    assert "mAP50, eight expressions" in project.emotion_yolo("report")
    project.emotion_yolo("release", "another-release")
    released = {path.name for path in (project.root / "another-release").iterdir()}
    assert {"weights.pt", "model.onnx", "model.json", "metrics.json", "MODEL_CARD.md"} <= released


def _pin(project: Project) -> str:
    return str(yaml.safe_load((project.root / "data.dvc").read_text("utf-8"))["desc"])


def _is_measured(project: Project) -> bool:
    """See to it that every stage left what it promises."""
    prepared = project.json("reports/prepare/report.json")
    assert prepared["near_duplicates"]["counts"]["test_with_near_duplicate_in_train"] >= 1  # the sample's planted ones
    assert sum(prepared["photographs"].values()) == SCENES + 3 * GROUPS
    metrics = project.json("reports/metrics.json")
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in metrics)
    assert {"map50", "map50_95", "precision", "recall", "emotion_top1", "face_ap50", "ece", "ap50_anger"} <= set(
        metrics
    )
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
    return identifiers == {project.json("reports/train/run.json")["run"]["id"]}


def _can_be_compared(project: Project) -> None:
    (shown,) = json.loads(project.dvc("exp", "show", "--json"))[1:]
    (experiment,) = shown["experiments"]
    (revision,) = experiment["revs"]
    assert experiment["name"] == "longer"
    assert revision["data"]["params"]["params.yaml"]["data"]["train"]["epochs"] == 2
    measured = revision["data"]["metrics"]["reports/metrics.json"]["data"]
    assert measured == project.json("reports/metrics.json")

    makefile = (REPOSITORY / "Makefile").read_text("utf-8").replace("\\\n", " ").replace("$$", "$")
    shipped = re.search(r"@(dvc exp show .*)", makefile)
    assert shipped is not None
    table = project.dvc(*shlex.split(shipped[1])[1:])
    # What is the same in both is left out, as top-1 on a few crops can be.
    before = json.loads(project.run("git", "show", "HEAD:reports/metrics.json"))
    differing = {name for name in ("map50", "emotion_top1") if before[name] != measured[name]}
    assert differing
    for shown_in_it in ("longer", "train.epochs", *differing):
        assert shown_in_it in table
    assert "…" not in table  # nothing is cut off

    assert "train.epochs" in project.dvc("exp", "diff", "main", "longer")
    assert "map50" in project.dvc("metrics", "show")
    project.dvc("plots", "diff", "main", "longer", "-o", "comparison")
    page = (project.root / "comparison/index.html").read_text("utf-8")
    for title in ("Emotion, test crops", "Precision over recall", "How often an answer", "Valid mAP50"):
        assert title in page
