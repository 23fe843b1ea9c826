import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from emotion_yolo.errors import ParityError
from emotion_yolo.process import raise_if_interrupted
from emotion_yolo.stages import run_stage


@pytest.fixture(autouse=True)
def restore_signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_error_of_ours_is_a_message_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def stage() -> None:
        raise ParityError("onnx: differs")

    with pytest.raises(SystemExit) as exit_:
        run_stage(stage)
    assert exit_.value.code == ParityError.exit_code
    assert capsys.readouterr().err == "error: onnx: differs\n"


def test_a_full_disk_is_a_message_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    def stage() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "datasets/prepared/x.jpg")

    with pytest.raises(SystemExit) as exit_:
        run_stage(stage)
    assert exit_.value.code == 7
    assert "datasets/prepared/x.jpg: No space left on device; free space" in capsys.readouterr().err


def test_another_failure_of_the_system_keeps_its_traceback() -> None:
    def stage() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        run_stage(stage)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "the next `dvc repro` runs this stage again"),
        ({"interrupted": "the next one goes on after the last epoch"}, "the next one goes on after the last epoch"),
    ],
)
def test_sigterm_lets_a_stage_clean_up_and_says_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], told: dict[str, str], said: str
) -> None:
    cleaned = []

    def stage() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as exit_:
        run_stage(stage, **told)
    assert (exit_.value.code, cleaned) == (130, [True])
    assert capsys.readouterr().err == f"interrupted; {said}\n"


def test_an_interruption_that_a_library_has_swallowed_is_raised_by_the_next_look() -> None:
    looked = []

    def stage() -> None:
        raise_if_interrupted()  # nothing has come
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        looked.append(True)
        raise_if_interrupted()
        looked.append(False)

    for _ in range(2):  # a second stage of the same process begins anew
        with pytest.raises(SystemExit) as exit_:
            run_stage(stage)
        assert exit_.value.code == 130
    assert looked == [True, True]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_an_interruption_within_code_from_a_string_ends_with_the_exit_code_too(number: str, tmp_path: Path) -> None:
    interrupted = f"import os, signal; os.kill(os.getpid(), signal.{number}); import time; time.sleep(5)"
    # Where the tests run in the background of a shell, SIGINT is ignored from the start, by all children too.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    text = f"{heard}from emotion_yolo.stages import run_stage\nrun_stage(lambda: exec({interrupted!r}))\n"
    (tmp_path / "stage.py").write_text(text)
    # As a module, as DVC starts stages: a script ends otherwise.
    done = subprocess.run([sys.executable, "-m", "stage"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "interrupted; the next `dvc repro` runs this stage again\n"
