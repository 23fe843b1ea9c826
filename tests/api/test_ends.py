"""How the process ends, and with what; each test has a process of its own."""

import json
import os
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from api.server import main
from api.settings import Settings
from tests.api.process import ROOT, Process, Start, connection, wait_until
from tests.builders import exported_model

# Lets the network's inference hang once a file exists: no input is known that does.
HANG = """
import os, sys, time
sys.modules["openvino_telemetry"] = None
import openvino
infer = openvino.InferRequest.infer
def hang(*arguments, **options):
    while os.path.exists(os.environ["HANG"]):
        time.sleep(0.05)
    return infer(*arguments, **options)
openvino.InferRequest.infer = hang
"""


@pytest.fixture
def hanging(start: Start, tmp_path: Path, photo: bytes) -> Start:
    """Return a builder of services in which a picture is worked on for ever."""
    (tmp_path / "sitecustomize.py").write_text(HANG)

    def begin(**variables: str) -> Process:
        flag = tmp_path / "hang"
        process = start(HANG=str(flag), PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'src'}", **variables).wait_ready()
        flag.touch()
        head = (
            f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n\r\n"
        )
        with connection(process.port) as sock:
            sock.sendall(head.encode() + photo)
            wait_until(lambda: "emotion_queue_running 1.0" in httpx.get(f"{process.url}/metrics").text)
        return process

    return begin


def test_ends_in_time_although_a_thread_hangs(hanging: Start) -> None:
    process = hanging(EMOTION_SHUTDOWN_S="1")
    process.popen.terminate()
    assert process.end() == 1
    assert process.records[-1]["event"] == "ending at once"
    assert process.records[-1]["why"] == "what was in flight did not end in time"


def test_a_second_signal_ends_it_at_once(hanging: Start) -> None:
    process = hanging(EMOTION_SHUTDOWN_S="600")
    process.popen.terminate()
    wait_until(lambda: "Shutting down" in process.text)
    time.sleep(0.2)
    assert process.popen.poll() is None
    process.popen.terminate()
    assert process.end() == 1
    assert process.records[-1]["why"] == "a second signal came"


def test_ends_in_time_although_an_upload_drips(start: Start) -> None:
    process = start(EMOTION_SHUTDOWN_S="1", EMOTION_STALL_S="60", EMOTION_UPLOAD_S="600").wait_ready()
    with connection(process.port) as sock:
        sock.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 999\r\n\r\nx")
        process.popen.terminate()
        assert process.end() in {0, 1}


def broken_models(folder: Path) -> list[Path]:
    """Return folders of models that cannot be loaded, each for a reason of its own."""
    directory = exported_model(folder / "directory")
    (directory / "model.json").unlink()
    (directory / "model.json").mkdir()
    incomplete = exported_model(folder / "incomplete")
    (incomplete / "model.bin").unlink()
    return [folder / "nothing", folder / ("x" * 5_000), directory, incomplete]


def test_a_model_that_cannot_be_loaded_ends_the_service_with_a_line_and_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in broken_models(tmp_path):
        monkeypatch.setenv("EMOTION_MODEL", str(folder))
        assert main(["--port=0"]) == 11
        records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        (line,) = [record for record in records if record["level"] == "error"]
        assert line["event"] == "cannot serve"
        assert line["exit_code"] == 11
        assert line["error"]


def test_a_port_in_use_ends_the_process_with_a_line_and_a_code(start: Start) -> None:
    first = start().wait_ready()
    second = start(EMOTION_PORT=str(first.port))
    assert second.end() == 14
    assert any(record["level"] == "error" and str(first.port) in json.dumps(record) for record in second.records)


def test_the_command_line_has_help_and_refuses_what_it_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as helped:
        main(["--help"])
    assert helped.value.code == 0
    text = capfd.readouterr().out
    for name in Settings.model_fields:
        assert f"EMOTION_{name.upper()}" in text
    for arguments in (["--nonsense"], ["serve"], ["--port"]):
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert refused.value.code == 2
        assert "usage: python -m api" in capfd.readouterr().err
    assert main(["--port", "99999"]) == 14
    assert "EMOTION_PORT" in capfd.readouterr().out


def test_the_command_line_wins_over_variables(start: Start, model_folder: Path, tmp_path: Path) -> None:
    process = start("--port=0", f"--model={model_folder}", EMOTION_PORT="1", EMOTION_MODEL=str(tmp_path)).wait_ready()
    assert httpx.get(f"{process.url}/healthz").status_code == 200
