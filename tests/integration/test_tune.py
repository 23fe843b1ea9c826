"""Sweeps over a real DVC project whose training is a stand-in with the same journal, curves and signals."""

import csv
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import yaml

from emotion_yolo.errors import RecipeError
from emotion_yolo.recipes.workspace import Workspace
from emotion_yolo.tracking.curves import Curves
from emotion_yolo.tuning.report import write_report
from emotion_yolo.tuning.running import _curve, _Epochs, tune
from tests.builders import uncovered
from tests.pull_builders import commit, git, make_project

CLI = "from emotion_yolo.cli import main; main()"

# It waits after its first epoch while there is a file `hold`, and its figure is what the file `value` says.
TRAIN = """
    import json, os, shutil, time
    from pathlib import Path
    import yaml

    told, params = Path(os.environ["TOLD"]), yaml.safe_load(Path("params.yaml").read_text())["train"]

    def note(name, text):
        with (told / name).open("a") as file:
            file.write(text + "\\n")

    note("begun", f"{params['lr0']} {params['epochs']} {os.environ['WANDB_DIR']}")
    if (told / "fail").exists():
        raise SystemExit("no memory left")
    folder, report = Path(".checkpoints") / str(params["lr0"]), Path("reports/train")
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "epochs.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    journal.write_text("".join(line + "\\n" for line in lines))
    for epoch in range(len(lines) + 1, params["epochs"] + 1):
        metrics = {"map50": float((told / "value").read_text()) + epoch / 100}
        lines.append(json.dumps({"epoch": epoch, "metrics": metrics, "best": True}))
        with journal.open("a") as file:
            file.write(lines[-1] + "\\n")
        note("epochs", f"{params['lr0']} {epoch}")
        while epoch == 1 and (told / "hold").exists():
            time.sleep(0.02)
    curve = report / "plots/metrics/map50.tsv"
    curve.parent.mkdir(parents=True)
    rows = [f"{row['epoch']}\\t{row['metrics']['map50']}" for row in map(json.loads, lines)]
    curve.write_text("\\n".join(["step\\tmap50", *rows]) + "\\n")
    (report / "metrics.json").write_text(json.dumps(metrics))
    shutil.rmtree(folder)
"""

STAGE = {
    "cmd": "python train.py",
    "deps": ["train.py", "data"],
    "params": ["train"],
    "outs": ["reports/train/plots"],
    "metrics": [{"reports/train/metrics.json": {"cache": False}}],
}

SWEEP = {
    "about": "For tests.",
    "metric": "map50",
    "trials": 3,
    "pruning": {"startup_trials": 1, "warmup_epochs": 0},
    "params": {"train": {"epochs": 3}},
    "space": {"train.lr0": {"low": 0.0001, "high": 0.01, "log": True}},
}


def make_template(folder: Path) -> None:
    """Make a project and the clone that a sweep would make: DVC's commands take seconds."""
    root = make_project(folder / "project")
    (root / "train.py").write_text(textwrap.dedent(TRAIN))
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": STAGE}}))
    (root / "data").mkdir()
    (root / "data/raw").write_text("raw")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=root, check=True)
    (root / ".gitignore").write_text("/data\n/.tune/\n/.checkpoints/\n/reports/tune/\n")
    write_sweep(root, SWEEP)
    commit(root, "sweep")
    workspace = Workspace(root / ".tune/rate")
    workspace.folder.mkdir(parents=True)
    workspace.create(root)


def write_sweep(root: Path, sweep: object) -> None:
    path = root / "configs/sweeps/rate.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(sweep))


class Project:
    """A copy of the template, what its training is told, and the command."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.root, self.told = folder / "project", folder / "told"
        shutil.copytree(template / "project", self.root, symlinks=True)
        for path in (self.root / ".tune/rate/project/.dvc/config.local", self.root / ".tune/rate/project/.git/config"):
            path.write_text(path.read_text().replace(str(template), str(folder)))
        self.told.mkdir()
        self.said = list[str]()
        self.say(value="0.5")
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "TOLD": str(self.told),
            "DVC_NO_ANALYTICS": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def say(self, **files: str) -> None:
        for name, text in files.items():
            (self.told / name).write_text(text)

    def told_back(self, name: str) -> list[str]:
        path = self.told / name
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CLI, "tune", "rate", *arguments]
        pipe = subprocess.PIPE
        environment = uncovered(self.environment)
        return subprocess.Popen(command, cwd=self.root, env=environment, stdout=pipe, stderr=pipe, text=True)

    def tune(self, trials: int | None = None, *, restart: bool = False) -> list[dict[str, str]]:
        """Tune in this process, which saves the imports; returns the rows of the table, and fills `said`."""
        self.said.clear()
        sweep, study = tune("rate", root=self.root, trials=trials, restart=restart, say=self.said.append)
        write_report(sweep, study, self.root / "reports/tune/rate")
        return self.rows()

    def rows(self) -> list[dict[str, str]]:
        with (self.root / "reports/tune/rate/trials.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def experiments(self) -> list[str]:
        return self.run(sys.executable, "-m", "dvc", "exp", "list", "--name-only").split()

    def wait(self, process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
        while not condition():
            if process.poll() is not None:
                pytest.fail(str(process.communicate()))
            time.sleep(0.02)

    def as_before(self) -> bool:
        """Say whether the checkout is as the commit has it, on its branch."""
        return not git(self.root, "status", "--porcelain") and git(self.root, "symbolic-ref", "HEAD").strip() in {
            "refs/heads/main",
            "refs/heads/master",
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_template(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    project = Project(tmp_path, template)
    for name in ("TOLD", "PYTHONWARNINGS", "DVC_NO_ANALYTICS"):
        monkeypatch.setenv(name, project.environment[name])
    yield project
    (project.told / "hold").unlink(missing_ok=True)  # what a failed test has left at work ends


def test_a_sweep_is_killed_resumed_and_pruned_and_the_checkout_stays_as_it_was(project: Project) -> None:
    # The first trial is held after its first epoch, and ended by SIGTERM; a second command is refused meanwhile.
    project.say(hold="")
    process = project.start()
    project.wait(process, lambda: project.told_back("epochs"))
    with pytest.raises(RecipeError, match="another sweep is at work"):
        project.tune()
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert project.as_before()

    # It goes on after that epoch, then the second one is held, and the command killed, which leaves it at work.
    (project.told / "hold").unlink()
    process = project.start()
    project.wait(process, lambda: len(project.told_back("epochs")) == 3)
    project.say(hold="")
    project.wait(process, lambda: len(project.told_back("epochs")) == 4)
    process.kill()
    _, said = process.communicate()
    assert "was interrupted; goes on" in said
    first, second = (line.split()[0] for line in (project.told_back("begun")[0], project.told_back("begun")[-1]))
    assert project.told_back("epochs") == [f"{first} 1", f"{first} 2", f"{first} 3", f"{second} 1"]
    group = int((project.root / ".tune/rate/lock").read_text())
    os.killpg(group, 0)

    # The next call ends it, goes on with it, and prunes the third, which is held, by its first epoch.
    process = project.start()
    project.wait(process, lambda: len(project.told_back("begun")) == 4)
    (project.told / "hold").unlink()
    project.wait(process, lambda: len(project.told_back("epochs")) == 6)
    project.say(hold="", value="0.1")
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert "ended the trial that an earlier call had left running" in said
    third = project.told_back("begun")[-1].split()[0]
    assert project.told_back("epochs")[4:] == [f"{second} 2", f"{second} 3", f"{third} 1"]
    assert not list((project.root / ".tune/rate/project/.checkpoints").iterdir())  # nor is the pruned one resumed

    rows = project.rows()
    assert [row["state"] for row in rows] == ["complete", "complete", "pruned"]
    assert [row["epochs"] for row in rows] == ["3", "3", "1"]
    assert [float(row["map50"]) for row in rows] == pytest.approx([0.53, 0.53, 0.11])
    assert [row["train.lr0"] for row in rows] == [first, second, third]
    assert len({row["experiment"] for row in rows}) == 3
    assert out.splitlines()[0].split() == ["experiment", "state", "map50", "epochs", "time", "train.lr0"]
    assert (project.root / "reports/tune/rate/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(project.experiments()) == sorted(row["experiment"] for row in rows[:2])
    shown = project.run(sys.executable, "-m", "dvc", "exp", "show", "--csv", "--drop", ".*/raw")
    assert all(row["experiment"] in shown for row in rows[:2])
    assert project.as_before()

    # All are done: another call runs none.
    begun = project.told_back("begun")
    assert project.tune() == rows
    assert project.told_back("begun") == begun


def test_a_trial_that_finished_before_its_figure_was_noted_is_not_run_again(project: Project) -> None:
    (row,) = project.tune(trials=1)
    # As a kill leaves the study between the end of an experiment and its figure, in a call that had retried it.
    storage = f"sqlite:///{project.root / '.tune/rate/study.db'}"
    before = optuna.load_study(study_name="sweep", storage=storage)
    made_of, params = before.user_attrs["made_of"], before.trials[0].params
    optuna.delete_study(study_name="sweep", storage=storage)
    study = optuna.create_study(study_name="sweep", storage=storage, direction="maximize")
    study.set_user_attr("made_of", made_of)
    study.enqueue_trial(params, user_attrs={"experiment": row["experiment"]})
    study.ask()
    (again,) = project.tune(trials=1)
    assert f"{row['experiment']}: was interrupted; goes on" in project.said
    assert len(project.told_back("begun")) == 1
    assert {**again, "time": ""} == {**row, "time": ""}


def test_the_same_values_are_trained_once_and_values_that_exclude_each_other_never(project: Project) -> None:
    # With this seed: a pair, one that is no framing (the least height of a face is above the largest), the first again.
    space = {"prepare.framing.low": {"choices": [0.2, 0.95]}, "prepare.framing.high": {"choices": [0.9, 1.0]}}
    write_sweep(project.root, {**SWEEP, "seed": 2, "space": space})
    rows = project.tune()
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"]
    assert rows[0]["experiment"] == rows[2]["experiment"]
    assert project.experiments() == [rows[0]["experiment"]]
    assert len(project.told_back("begun")) == 1
    assert any("whose result it takes over" in text for text in project.said)
    assert any("low is 0.95, expected at most high, 0.9" in text for text in project.said)


def test_trials_that_fail_one_after_another_end_the_sweep_and_are_told_with_their_log(project: Project) -> None:
    project.say(fail="")
    with pytest.raises(RecipeError, match=r"3 trials failed one after another; (\S+-002\.log) says why"):
        project.tune()
    log = next(iter((project.root / ".tune/rate").glob("*-002.log")))
    assert "no memory left" in log.read_text("utf-8")
    assert project.as_before()


def test_trials_of_another_commit_or_sweep_are_not_mixed(project: Project) -> None:
    (row,) = project.tune(trials=1)
    write_sweep(project.root, {**SWEEP, "trials": 1, "about": "The same search, in other words."})
    assert project.tune() == [row]
    write_sweep(project.root, {**SWEEP, "trials": 1, "params": {"train": {"epochs": 2}}})
    with pytest.raises(RecipeError, match="holds trials of another version of the sweep"):
        project.tune()
    project.tune(restart=True)
    assert project.told_back("begun")[-1].split()[1:] == ["2", str(project.root)]
    params = project.root / "params.yaml"
    params.write_text(params.read_text("utf-8") + "# changed\n")
    with pytest.raises(RecipeError, match=r"uncommitted changes in params\.yaml"):
        project.tune()
    commit(project.root, "another")
    with pytest.raises(RecipeError, match=r"holds trials of commit .* which are not comparable"):
        project.tune()


def test_epochs_are_read_as_a_training_writes_them(tmp_path: Path) -> None:
    journal = tmp_path / ".checkpoints/of-this-one/epochs.jsonl"
    left = tmp_path / ".checkpoints/left-by-another/epochs.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps({"epoch": 1, "metrics": {"map50_95": 0.9}, "best": True}) + "\n")
    epochs = _Epochs(tmp_path, "map50_95")
    assert epochs.new() == []
    with Curves(tmp_path / "reports/train", journal=journal, resume=False) as curves:
        curves.log_epoch(1, {"metrics/mAP50-95(B)": 0.25, "val/box_loss": 1.5}, best=True)
        assert epochs.new() == [(1, 0.25)]
        curves.log_epoch(2, {"metrics/mAP50-95(B)": 0.5, "val/box_loss": 1.25}, best=True)
        with journal.open("a") as file:
            file.write('{"epoch": 3, "metr')  # as it is read while it is written
        assert epochs.new() == [(2, 0.5)]
        assert epochs.new() == []
    assert _curve(tmp_path, "map50_95") == [(1, 0.25), (2, 0.5)]
    epochs.discard()
    assert left.is_file()
    assert not journal.parent.exists()
