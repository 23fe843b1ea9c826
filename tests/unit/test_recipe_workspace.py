"""The clone that a recipe runs in: its lock, its record, and the processes that work in it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emotion_yolo.errors import RecipeError
from emotion_yolo.recipes.workspace import State, Workspace
from tests.pull_builders import make_project

SLEEP = "import pathlib, time; pathlib.Path('started').touch(); time.sleep(600)"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose project is an empty folder."""
    workspace = Workspace(tmp_path / "run")
    workspace.project.mkdir(parents=True)
    return workspace


def test_two_runs_of_one_recipe_are_kept_apart(workspace: Workspace) -> None:
    with workspace.locked(), pytest.raises(RecipeError, match="still at work"), Workspace(workspace.folder).locked():
        pass
    with Workspace(workspace.folder).locked():
        pass


def test_what_outlives_a_killed_command_keeps_the_lock_and_is_named(workspace: Workspace) -> None:
    workspace.folder.joinpath("lock").write_text("")
    code = f"import fcntl, sys, time; f = open({str(workspace.folder / 'lock')!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX)"
    command = [sys.executable, "-c", f"{code}; print('locked', flush=True); time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        workspace.folder.joinpath("lock").write_text(str(process.pid))
        with pytest.raises(RecipeError, match=f"process group {process.pid}.*kill -INT"), workspace.locked():
            pass
        process.kill()
    with workspace.locked():
        pass


def test_the_record_survives_and_one_of_another_version_is_refused(workspace: Workspace) -> None:
    assert workspace.read_state() is None
    state = State(revision="r", recipe="d", seconds={"first": 2.5}, done=["first"])
    workspace.write_state(state)
    assert Workspace(workspace.folder).read_state() == state
    (workspace.folder / "state.json").write_text('{"phase": 1}')
    with pytest.raises(RecipeError, match="add --restart"):
        workspace.read_state()
    workspace.remove()
    assert workspace.read_state() is None
    assert not workspace.project.exists()


def test_a_step_that_fails_is_told_with_its_exit_code(workspace: Workspace) -> None:
    with (
        workspace.locked(),
        pytest.raises(RecipeError, match=r"`python -c raise SystemExit\(7\)` failed with exit code 7"),
    ):
        workspace.run("-c", "raise SystemExit(7)", on_tick=lambda: None)


@pytest.fixture(params=["in the foreground", "in the background"])
def sigint(request: pytest.FixtureRequest) -> Iterator[None]:
    """SIGINT as a shell leaves it to a command; in the background it is ignored, also by the command's children."""
    before = signal.getsignal(signal.SIGINT)
    if request.param == "in the background":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_sigterm_ends_the_step_and_what_it_has_started(workspace: Workspace) -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while not (workspace.project / "started").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    with workspace.locked():
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            workspace.run("-c", parent, on_tick=lambda: None)
        thread.join()
        group = int((workspace.folder / "lock").read_text())
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# pygtrie, which DVC stands on, warns of itself.
@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")
def test_data_that_are_not_in_the_cache_are_told_before_anything_runs(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    shutil.copytree(project / "datasets/sample", project / "data")
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=project, check=True, env=environment)
    for command in (("init", "-q"), ("add", "data.dvc", ".dvc"), ("commit", "-qm", "data")):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *command], cwd=project, check=True, capture_output=True)
    first = Workspace(tmp_path / "first")
    first.folder.mkdir()
    first.create(project)
    assert (first.project / "data/sample").is_dir()
    kept = {path for path in (project / ".dvc/cache").rglob("*") if path.is_file()}
    assert not list((first.project / ".dvc").glob("cache/files"))
    assert all(path.relative_to(project / ".dvc/cache").parts[:2] == ("files", "md5") for path in kept)

    shutil.rmtree(project / ".dvc/cache")
    second = Workspace(tmp_path / "second")
    second.folder.mkdir()
    with pytest.raises(RecipeError, match=r"data\.dvc: its data are not in .*`dvc pull`"):
        second.create(project)
    assert not second.project.exists()
