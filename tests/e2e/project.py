"""A copy of this repository to run the pipeline in, with a small part of the sample."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
KEPT = {"train": 80, "valid": 24, "test": 24}
SCENES = 8
GROUPS = 2  # of each split
CLI = "from emotion_yolo.cli import main; main()"


class Project:
    """A copy of this repository without data and without history, in a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "DVC"))}
        self.environment |= identity | {
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
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def emotion_yolo(self, *arguments: str) -> str:
        return self.run(sys.executable, "-c", CLI, *arguments)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def json(self, path: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.root / path).read_text("utf-8"))
        return content

    def shrink(self, kept: Mapping[str, int] = KEPT) -> None:
        """Keep the first pictures of each split, which take turns through the emotions, and settings that are quick."""
        sample = self.root / "datasets/sample"
        for split, count in kept.items():
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
        params["export"]["imgsz"] = 256
        # Corruptions and face heights take a dozen compiled networks; the stage's own test has them.
        params["evaluate"] |= {"bootstrap": 10, "robustness": 0, "negatives": 4}
        params["evaluate"] |= {"scene_imgsz": 256, "scene_sizes": [320]}
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
