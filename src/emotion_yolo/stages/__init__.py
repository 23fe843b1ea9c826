"""The stages of dvc.yaml: parameters in, one call, files out. Nothing imports a stage."""

from collections.abc import Callable

from emotion_yolo.process import run_process


def run_stage(main: Callable[[], None], *, interrupted: str = "the next `dvc repro` runs this stage again") -> None:
    """Run a stage as a process: an error of this package is a message and an exit code, SIGTERM acts like Ctrl-C.

    `interrupted` is the message for an interrupted stage.
    """
    run_process(main, interrupted=interrupted)
