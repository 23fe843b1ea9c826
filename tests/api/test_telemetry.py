"""Nothing is sent, or looked up, and nothing is written into the home directory."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.api.conftest import encoded, painted
from tests.api.process import ROOT, Start

# Notes every look-up of a name, and every address connected to, of the process and its children.
RECORDER = """
import os, sys
def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect"):
        with open(os.environ["LOOKED_UP"], "a") as notes:
            notes.write(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}\\n")
sys.addaudithook(note)
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process whose look-ups are noted and whose home directory is empty."""
    (tmp_path / "site").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(RECORDER)
    (tmp_path / "looked-up").touch()
    return {
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT / 'src'}",
        "HOME": str(tmp_path / "home"),
        "LOOKED_UP": str(tmp_path / "looked-up"),
        "CI": "",
    }


def looked_up(environment: dict[str, str]) -> list[str]:
    lines = Path(environment["LOOKED_UP"]).read_text().splitlines()
    return [line for line in lines if "127.0.0.1" not in line]


def written(environment: dict[str, str]) -> list[Path]:
    return list(Path(environment["HOME"]).rglob("*"))


def test_the_recorder_notes_look_ups(watched: dict[str, str]) -> None:
    program = "import socket\ntry: socket.getaddrinfo('analytics.invalid', 443)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | watched)
    assert looked_up(watched) == ["socket.getaddrinfo analytics.invalid"]


def test_the_service_looks_nothing_up(start: Start, photo: bytes, watched: dict[str, str]) -> None:
    process = start(**watched).wait_ready()
    for path in ("detect", "annotate"):
        assert httpx.post(f"{process.url}/v1/{path}", files={"file": photo}).status_code == 200
    process.popen.terminate()
    assert process.end() == 0
    assert looked_up(watched) == []
    assert written(watched) == []


def test_predict_looks_nothing_up(model_folder: Path, tmp_path: Path, watched: dict[str, str]) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(encoded(painted()))
    program = "from emotion_yolo.cli import main; main()"
    command = [sys.executable, "-c", program, "predict", str(picture), "--model", str(model_folder)]
    done = subprocess.run(command, env=os.environ | watched, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "happy" in done.stdout
    assert looked_up(watched) == []
    assert written(watched) == []


def test_importing_what_the_pipeline_uses_looks_nothing_up(tmp_path: Path, watched: dict[str, str]) -> None:
    program = "import emotion_yolo.stages.export, emotion_yolo.stages.train, emotion_yolo.stages.evaluate"
    environment = os.environ | watched | {"YOLO_CONFIG_DIR": str(tmp_path / "yolo")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
    assert looked_up(watched) == []
    assert not [path for path in written(watched) if "intel" in path.parts]
