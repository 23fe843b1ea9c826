"""A Weights & Biases run that can neither fail nor delay the work it records.

Written against wandb 0.31, whose `wandb-core` process does the work: it has been seen to hang and to crash on an answer
it did not expect.
"""

import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "off"]

# Seconds. Users change these two as users of W&B do, by WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT.
INIT_TIMEOUT = 15.0
FINISH_TIMEOUT = 60.0
# Seconds that wandb-core gets on top before it is killed.
GRACE = 10.0
# What is left to do when wandb-core has ended takes less.
AFTERMATH = 3.0

_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """What identifies a W&B run; all but `mode` are None if there is none."""

    mode: Mode
    id: str | None = None
    name: str | None = None
    url: str | None = None


def wandb_mode(setting: Literal["auto", "online", "offline", "off"], environ: Mapping[str, str]) -> Mode:
    """Return how to run W&B: `off` in params.yaml is final, else `WANDB_MODE` wins, else params.yaml decides."""
    if setting == "off":
        return "off"
    asked = environ.get("WANDB_MODE", "").strip().lower()
    if asked in _MODES:
        return _MODES[asked]
    if asked:
        _log.warning("WANDB_MODE is %r, expected one of %s; ignored", asked, ", ".join(_MODES))
    if setting == "auto":
        return "online" if environ.get("WANDB_API_KEY") else "offline"
    return setting


def home_of(folder: Path) -> Path:
    """Return W&B's folder absolute: relative to `WANDB_DIR`, else to DVC's root, else to the working directory.

    DVC's root is not the temporary workspace of a queued experiment, which is deleted.
    """
    return (Path(os.environ.get("WANDB_DIR") or os.environ.get("DVC_ROOT") or ".") / folder).absolute()


class GuardedRun:
    """A W&B run, or none; one warning for whatever goes wrong with it."""

    def __init__(self, info: RunInfo, run: "wandb.Run | None") -> None:
        """Use `open`."""
        self.info = info
        self._run = run
        self._warned = False

    @classmethod
    def open(
        cls,
        mode: Mode,
        *,
        known: RunInfo | None,
        folder: Path,
        project: str,
        config: Mapping[str, Any],
        system: bool = False,
    ) -> "GuardedRun":
        """Open the run `known`, or a new one; offline if `mode` is online and W&B does not answer in time.

        Args:
            mode: From `wandb_mode`.
            known: The run to continue.
            folder: W&B's folder, named `.wandb`; see `home_of`.
            project: W&B project.
            config: The run's config.
            system: Whether to log CPU, memory, GPU and disk figures of the machine.
        """
        closed = replace(known, mode="off") if known else RunInfo("off")
        if mode == "off":
            return cls(closed, None)
        home = home_of(folder)
        failure = ""
        attempts: tuple[Literal["online", "offline"], ...] = ("online", "offline") if mode == "online" else ("offline",)
        for attempt in attempts:
            try:
                run = _init(attempt, home, known.id if known else None, project, config, system=system)
            except Exception as error:  # W&B fails in many ways
                failure = failure or f"{type(error).__name__}: {error}"
                continue
            if failure:
                _log.warning("W&B cannot be reached (%s); recording offline, upload with `wandb sync`", failure)
            return cls(RunInfo(attempt, run.id, run.name, run.url), run)
        _log.warning("W&B cannot be used (%s); continuing without it", failure)
        return cls(closed, None)

    @property
    def first_step(self) -> int:
        """The step after the last one the server has; 0 offline."""
        return self._run.starting_step if self._run else 0

    def call(self, doing: str, do: "Callable[[wandb.Run], object]") -> None:
        """Do something with the run, if there is one; warn of the first failure, note the others."""
        if self._run is None:
            return
        try:
            do(self._run)
        except Exception as error:
            level = logging.DEBUG if self._warned else logging.WARNING
            self._warned = True
            _log.log(level, "W&B failed while %s (%s: %s); continuing", doing, type(error).__name__, error)

    def close(self, exit_code: int) -> None:
        """Finish the run, and W&B itself, whose own exit handler would wait without limit; once."""
        if self._run is None:
            return
        import wandb

        core = _core_process()
        limit = self._run.settings.finish_timeout + GRACE
        self.call("finishing", lambda run: _bounded(lambda: run.finish(exit_code=exit_code), limit, core))
        self.call("closing", lambda _: _bounded(wandb.teardown, GRACE, core))
        self._run = None


def _init(
    mode: Literal["online", "offline"],
    home: Path,
    run_id: str | None,
    project: str,
    config: Mapping[str, Any],
    *,
    system: bool,
) -> "wandb.Run":
    environ = os.environ
    # Read from the environment only, and once. Data and cache would otherwise be in the user's home.
    environ |= {"WANDB_MODE": mode, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    environ.setdefault("WANDB_DATA_DIR", str(home / "data"))
    environ.setdefault("WANDB_CACHE_DIR", str(home / "cache"))
    home.mkdir(parents=True, exist_ok=True)
    import wandb

    settings = wandb.Settings(
        root_dir=str(home.parent),
        use_dot_wandb=True,
        silent=True,  # also: never prompts
        console="off",
        program="emotion-yolo",  # else the script's absolute path is sent
        disable_code=True,
        save_code=False,
        disable_git=True,  # the revision is in the config; no diff leaves the machine
        label_disable=True,
        x_disable_stats=not system,
        x_disable_machine_info=not system,  # W&B takes no figures without it
        x_disable_meta=True,
        x_disable_viewer=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=0.1,  # s; what is not yet written is lost with the process
        init_timeout=float(environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT)),
        finish_timeout=float(environ.get("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT)),
        finish_timeout_raises=True,
        summary_timeout=int(GRACE),
    )
    return wandb.init(
        mode=mode,
        project=project,
        id=run_id,
        name=environ.get("WANDB_NAME") or environ.get("DVC_EXP_NAME"),
        resume="allow",
        config=dict(config),
        allow_val_change=True,
        settings=settings,
    )


def _core_process() -> "subprocess.Popen[bytes] | None":
    # Has no public handle, and one that hangs would outlive every other limit.
    from wandb.sdk import wandb_setup

    found: Any = wandb_setup.singleton()
    for attribute in ("_connection", "_proc", "_process"):
        found = getattr(found, attribute, None)
    return found if isinstance(found, subprocess.Popen) else None


def _bounded(call: Callable[[], object], seconds: float, core: "subprocess.Popen[bytes] | None") -> None:
    """Call with a timeout in seconds; on expiry kill wandb-core, so that nothing else waits for it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # a cancelled future is no Exception
            failures.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end:
        thread.join(0.1)
        if core and core.poll() is not None:  # W&B sometimes waits for a dead process
            end = min(end, time.monotonic() + AFTERMATH)
            core = None
    if thread.is_alive():
        if core:
            core.kill()
        raise TimeoutError("no answer in time")
    if failures:
        raise RuntimeError(repr(failures[0])) from failures[0]
