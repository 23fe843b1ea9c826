"""The clone that a recipe runs in: the commit's own code and params, the project's DVC cache.

The user's checkout stays as it is while a recipe runs for hours: params.yaml, data/ and the outs of the graph change in
the clone alone. Outs of finished stages are in the shared cache, and an interrupted training resumes in the clone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

from pydantic import BaseModel, ConfigDict, ValidationError

from emotion_yolo.errors import DependencyError, RecipeError
from emotion_yolo.paths import DATA_PIN, PARAMS
from emotion_yolo.sources.pin import cache_folder
from emotion_yolo.tracking.lineage import git_revision, uncommitted

if sys.platform != "win32":
    import fcntl

_TICK_S = 300.0  # between two calls of `on_tick`
_ENDS_WITHIN = 120.0  # s from SIGINT until a step has saved what it has


class State(BaseModel):
    """The progress of a recipe."""

    model_config = ConfigDict(extra="forbid")

    revision: str
    """Git commit of the project."""
    recipe: str
    """SHA-256 of the recipe file."""
    seconds: dict[str, float] = {}
    """Time spent on each phase, by all runs."""
    done: list[str] = []
    """Phases that are finished."""


class Workspace:
    """A clone in `folder`/project, `folder`/state.json beside it, and a lock held by whatever works in it."""

    def __init__(self, folder: Path, *, environment: Mapping[str, str] | None = None) -> None:
        """Use `folder`; `environment` is added to that of what runs in the clone."""
        self.folder = folder.absolute()
        self.project = self.folder / "project"
        self._state = self.folder / "state.json"
        self._lock: int | None = None
        identity = {
            f"GIT_{who}_{what}": "emotion-yolo" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        self._environment = os.environ | identity | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.project / "src"),  # the clone's package, not the one that is installed
            "DVC_NO_ANALYTICS": "1",
        } | dict(environment or {})  # fmt: skip

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Take the lock; processes that outlive this one after a kill keep it.

        Raises:
            RecipeError: something works in it already.
            DependencyError: the system is Windows.
        """
        path = self.folder / "lock"
        with hold(path) as lock:
            if lock is None:
                group = path.read_text("utf-8").strip()
                raise RecipeError(
                    f"{self.folder}: a run of this recipe is still at work (process group {group or 'unknown'}); "
                    f"wait for it, or end it with `kill -INT -- -{group or 'GROUP'}`, then repeat the command"
                )
            self._lock = lock
            (self.project / ".git/index.lock").unlink(missing_ok=True)  # of a git that was killed
            try:
                yield
            finally:
                self._lock = None

    def end_left_behind(self) -> bool:
        """End a step that has outlived its command, which was killed; returns whether there was one.

        Only for who knows that no command is at work here. What the step has finished is kept.

        Raises:
            RecipeError: it does not end.
        """
        path, begin, group = self.folder / "lock", time.monotonic(), ""
        while time.monotonic() - begin < _ENDS_WITHIN:
            with hold(path) as lock:
                if lock is not None:
                    return bool(group)
            if not group:
                group = path.read_text("utf-8").strip()
                with suppress(ProcessLookupError, ValueError):
                    os.killpg(int(group), signal.SIGINT)
            time.sleep(0.1)
        raise RecipeError(
            f"{self.folder}: process group {group}, of a command that was killed, does not end within "
            f"{_ENDS_WITHIN:.0f} s of SIGINT; end it with `kill -KILL -- -{group}`, then repeat the command"
        )

    def read_state(self) -> State | None:
        """Return the state that `write_state` wrote last, if any.

        Raises:
            RecipeError: a file of another version.
        """
        if not self._state.is_file():
            return None
        try:
            return State.model_validate_json(self._state.read_bytes())
        except ValidationError as error:
            raise RecipeError(f"{self._state}: cannot be read ({error}); add --restart to discard it") from error

    def write_state(self, state: State) -> None:
        """Write the progress of the recipe atomically."""
        part = self._state.with_suffix(".part")
        part.write_text(state.model_dump_json(indent=2) + "\n", "utf-8")
        part.replace(self._state)

    def create(self, source: Path) -> None:
        """Clone the commit that is checked out in `source`, and check out its data from the DVC cache of both.

        Raises:
            RecipeError: the pinned data are not in the cache.
        """
        if self.project.is_dir():
            return
        part = self.folder / "project.part"
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", source.absolute(), part], check=True)
        subprocess.run(["git", "checkout", "-q", "--detach"], cwd=part, check=True)
        cache = cache_folder(source).parents[1]  # DVC 3 keeps what it hashes in files/md5 of cache.dir
        local = source / ".dvc/config.local"
        if local.is_file():  # remotes' credentials, cache.type
            shutil.copyfile(local, part / ".dvc/config.local")
        dvc = [sys.executable, "-m", "dvc"]
        for setting in (["cache.dir", str(cache)], ["core.autostage", "false"]):
            subprocess.run([*dvc, "config", "--local", *setting], cwd=part, check=True, env=self._environment)
        # An import of a folder of the project, such as the sample, is brought in by the graph itself.
        imported = "deps:" in (part / DATA_PIN).read_text("utf-8")
        done = subprocess.run(
            [*dvc, "checkout", DATA_PIN.name], cwd=part, env=self._environment, capture_output=True, text=True
        )
        if done.returncode and not imported:
            raise RecipeError(
                f"{DATA_PIN}: its data are not in {cache}; run `dvc pull`, or `emotion-yolo pull` the sets again and "
                f"commit {DATA_PIN}"
            )
        part.rename(self.project)

    def remove(self) -> None:
        """Remove the clone and the record of what was done in it."""
        shutil.rmtree(self.project, ignore_errors=True)
        self._state.unlink(missing_ok=True)

    def set_params(self, text: str, *, message: str) -> None:
        """Commit `text` as the clone's params.yaml, so that what is made by it has a revision."""
        (self.project / PARAMS).write_text(text, "utf-8")
        if self._git("status", "--porcelain", "--", str(PARAMS)):
            self._git("commit", "-q", "--no-verify", "-m", message, "--", str(PARAMS))

    def reset(self) -> None:
        """Take back all changes of tracked files."""
        self._git("reset", "-q", "--hard")

    def has_ref(self, ref: str) -> bool:
        """Say whether git knows `ref`."""
        command = ["git", "show-ref", "--verify", "--quiet", ref]
        return subprocess.run(command, cwd=self.project, env=self._environment).returncode == 0

    def show(self, ref: str, path: Path) -> str:
        """Return the text of a file in the commit `ref`."""
        return self._git("show", f"{ref}:{path.as_posix()}")

    def _git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=self.project, env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def run(
        self, *arguments: str, on_tick: Callable[[], None], tick_s: float = _TICK_S, log: Path | None = None
    ) -> None:
        """Run Python with `arguments` in the clone, its output going to `log` or where ours goes.

        `on_tick` is called every `tick_s` seconds. Ctrl-C, SIGTERM and what `on_tick` raises end the step by SIGINT,
        and are raised when it has ended: a training then ends after what it has saved. SIGINT, because DVC waits for
        its stage then, and dies before it by SIGTERM.

        Raises:
            RecipeError: it failed.
            KeyboardInterrupt: it was interrupted.
        """
        assert self._lock is not None, "only while locked"
        with _signals_for_steps(), log.open("wb") if log else nullcontext() as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.project,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a group that can be signalled as a whole: DVC leaves its stage alone
                pass_fds=[self._lock],
            )
            (self.folder / "lock").write_text(str(process.pid), "utf-8")
            try:
                while True:
                    try:
                        code = process.wait(tick_s)
                        break
                    except subprocess.TimeoutExpired:
                        on_tick()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
                process.wait()
                raise
        if code:
            said = f"{log}" if log else "its output above"
            raise RecipeError(
                f"`python {' '.join(arguments)}` failed with exit code {code} in {self.project}; {said} says "
                "why. Correct it and repeat the command: finished work is kept"
            )


@contextmanager
def hold(path: Path) -> Iterator[int | None]:
    """Lock the file `path`, made if need be, and yield its descriptor, or None where another process holds the lock.

    Raises:
        DependencyError: the system is Windows.
    """
    if sys.platform == "win32":
        raise DependencyError("this runs under a file lock that Windows does not have; run it in WSL")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield file.fileno()


def clean_revision(root: Path, *, why: str, but: Path | None = None) -> str:
    """Return the commit that is checked out in `root`, unless tracked files other than `but` differ from it.

    `why` completes "uncommitted changes in …; ".

    Raises:
        RecipeError: they differ, or there is no commit.
    """
    try:
        changed = [path for path in uncommitted(root) if Path(path) != but]
        revision = git_revision(root).removesuffix("-dirty")
    except (OSError, subprocess.CalledProcessError):
        changed, revision = [], "unknown"
    if revision == "unknown":
        raise RecipeError(f"{root.absolute()}: not a git repository with a commit; {why}")
    if changed:
        raise RecipeError(
            f"uncommitted changes in {', '.join(changed)}; {why}: commit them, or put them aside with `git stash`"
        )
    return revision


@contextmanager
def _signals_for_steps() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, and make sure that a step can be ended by SIGINT.

    A shell has what it starts in the background ignore SIGINT, and children inherit that. A handler they do not.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def ignore(_number: int, _frame: FrameType | None) -> None:
        return None

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, interrupt)
    if before[signal.SIGINT] == signal.SIG_IGN:
        signal.signal(signal.SIGINT, ignore)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
