"""Nothing is sent, or looked up, and nothing is written into the home directory."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from emotion_yolo.structures.emotions import NAMES
from tests.api.conftest import encoded, painted
from tests.api.process import ROOT, Start
from tests.recorder import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Return a recorder of processes whose home directory is empty."""
    home = tmp_path / "home"
    home.mkdir()
    made = Recorder(tmp_path, path=str(ROOT / "src"))
    made.environment["HOME"] = str(home)
    return made


def written(recorder: Recorder) -> list[Path]:
    return list(Path(recorder.environment["HOME"]).rglob("*"))


def test_the_recorder_notes_look_ups(recorder: Recorder) -> None:
    program = "import socket\ntry: socket.getaddrinfo('analytics.invalid', 443)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | recorder.environment)
    assert recorder.looked_up == ["socket.getaddrinfo analytics.invalid"]


def test_the_service_looks_nothing_up(start: Start, photo: bytes, recorder: Recorder) -> None:
    process = start(**recorder.environment).wait_ready()
    for path in ("detect", "annotate"):
        assert httpx.post(f"{process.url}/v1/{path}", files={"file": photo}).status_code == 200
    process.popen.terminate()
    assert process.end() == 0
    assert recorder.looked_up == []
    assert written(recorder) == []


def test_predict_looks_nothing_up(model_folder: Path, tmp_path: Path, recorder: Recorder) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(encoded(painted()))
    program = "from emotion_yolo.cli import main; main()"
    command = [sys.executable, "-c", program, "predict", str(picture), "--model", str(model_folder)]
    done = subprocess.run(command, env=os.environ | recorder.environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "happy" in done.stdout
    assert recorder.looked_up == []
    assert written(recorder) == []


def test_the_pipelines_imports_and_reading_a_training_set_look_nothing_up(tmp_path: Path, recorder: Recorder) -> None:
    (tmp_path / "set").mkdir()
    names = ", ".join(f"{number}: {name}" for number, name in enumerate(NAMES))
    (tmp_path / "data.yaml").write_text(f"{{train: set, val: set, names: {{{names}}}}}")
    program = (
        "import emotion_yolo.stages.export, emotion_yolo.stages.train, emotion_yolo.stages.evaluate\n"
        "from ultralytics.data.utils import check_det_dataset\n"
        "check_det_dataset('data.yaml', autodownload=False)"
    )
    environment = os.environ | recorder.environment | {"YOLO_CONFIG_DIR": str(tmp_path / "yolo")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
    assert recorder.looked_up == []
    assert not [path for path in written(recorder) if "intel" in path.parts]
