import errno
import os
import signal

import pytest

from emotion_yolo.errors import ParityError
from emotion_yolo.stages import run_stage


@pytest.fixture(autouse=True)
def restore_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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
        ({}, "the next `dvc repro` runs this stage anew"),
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
