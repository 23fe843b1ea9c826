"""Builders of settings, clients and pictures. The model is the painted-cells network of `tests/builders.py`."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from emotion_yolo.structures.emotions import Emotion
from tests.api.process import Process, Start, wait_until
from tests.builders import COLOURS, GREY, exported_model

Client = TestClient
Serve = Callable[..., TestClient]

SIDE = 960
"""Side of the painted picture in px; the network sees it at 96."""

HAPPY_BOX = (320, 0, 640, 320)
SURPRISE_BOX = (640, 640, 960, 960)


def painted() -> Image.Image:
    """Return a picture of 960×960 px with a happy face at its top middle and a surprised one at its bottom right."""
    cells = np.full((3, 3, 3), GREY, np.uint8)
    cells[0, 1] = COLOURS[Emotion.HAPPY]
    cells[2, 2] = COLOURS[Emotion.SURPRISE]
    return Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of `image` as a file of Pillow's format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def photo() -> bytes:
    return encoded(painted(), "JPEG", quality=95)


@pytest.fixture
def settings(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Return a builder of settings that no variable of this machine touches."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EMOTION_{name.upper()}", raising=False)
    return lambda **changes: Settings(**({"model": model_folder, "threads": 1} | changes))


@pytest.fixture
def serve(settings: Callable[..., Settings]) -> Iterator[Serve]:
    """Return a builder of clients of running, ready applications."""
    with ExitStack() as stack:

        def build(**changes: Any) -> TestClient:
            app = create_app(settings(**changes))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            wait_until(lambda: client.get("/readyz").status_code == 200 or app.state.parts.engine.failure is not None)
            return client

        yield build


@pytest.fixture(scope="session")
def client(model_folder: Path) -> Iterator[TestClient]:
    """Return the client of one application with default limits, shared by tests that leave it as it is."""
    with TestClient(create_app(Settings(model=model_folder, threads=1)), raise_server_exceptions=False) as running:
        wait_until(lambda: running.get("/readyz").status_code == 200)
        yield running


def code_of(response: Any) -> str:
    """Return the code of a refusal after checking that it is one, whole."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:emotion-yolo:problem:{body['code']}"
    assert body["detail"]
    # Twice behind Ray Serve, whose proxy repeats it.
    assert set(response.headers.get_list("x-request-id")) == {body["request_id"]}
    return str(body["code"])


@pytest.fixture
def start(model_folder: Path) -> Iterator[Start]:
    running: list[Process] = []

    def begin(*arguments: str, open_files: int | None = None, **variables: str) -> Process:
        defaults = {"EMOTION_MODEL": str(model_folder), "EMOTION_PORT": "0", "EMOTION_THREADS": "1"}
        process = Process(defaults | variables, *arguments, open_files=open_files)
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.popen.poll() is None:
            process.stop()
