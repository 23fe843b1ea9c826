"""Another model takes the place of the present one while requests come, on a real server."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from api.settings import Settings
from emotion_yolo.errors import SettingsError
from tests.api.conftest import Serve, code_of, encoded, painted
from tests.api.process import Process, Start, wait_until
from tests.builders import exported_model

KEY = "an-admin-key-of-tests"
SIDES = {"one": 32, "two": 16}
"""Side of the boxes of the two models in px of the network's input, a tenth of the picture's."""


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Return a link to the first of two models; a model is replaced as a deployment does, whole."""
    for name, side in SIDES.items():
        exported_model(tmp_path / name, box_side=side)
    (tmp_path / "current").symlink_to("one")
    return tmp_path / "current"


def point(link: Path, name: str) -> None:
    new = link.with_name("new")
    new.symlink_to(name)
    new.replace(link)


def box_side(answer: dict[str, Any]) -> int:
    box = answer["detections"][0]["box"]
    return round((box["y2"] - box["y1"]) / 10)


@contextmanager
def asking(process: Process, picture: bytes, threads: int = 3) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Ask without pause from several threads; yields what came back so far."""
    answers: list[tuple[int, dict[str, Any]]] = []
    stop = threading.Event()
    url = process.url

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                answer = client.post(f"{url}/v1/detect", content=picture, headers={"content-type": "image/png"})
                answers.append((answer.status_code, answer.json()))

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield answers
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def reloads(process: Process, outcome: str) -> bool:
    return f'emotion_model_reloads_total{{outcome="{outcome}"}}' in httpx.get(f"{process.url}/metrics").text


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
def test_sighup_under_load_loses_no_request_and_a_bad_model_changes_nothing(start: Start, link: Path) -> None:
    process = start(EMOTION_MODEL=str(link)).wait_ready()
    with asking(process, encoded(painted())) as answers:
        wait_until(lambda: len(answers) > 5)
        first = answers[0][1]["model"]["digest"]
        point(link, "two")
        process.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: answers[-1][1]["model"]["digest"] != first)
        shutil.copytree(link.parent / "one", link.parent / "damaged")
        (link.parent / "damaged" / "model.onnx").write_bytes(b"damaged")
        (link.parent / "damaged" / "model.bin").write_bytes(b"damaged")
        point(link, "damaged")
        process.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(process, "refused"))
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 5)
    assert {status for status, _ in answers} == {200}
    sides = {(answer["model"]["digest"] == first, box_side(answer)) for _, answer in answers}
    assert sides == {(True, 32), (False, 16)}  # each answer names the model that gave it
    assert answers[-1][1]["model"]["digest"] != first
    assert httpx.get(f"{process.url}/readyz").status_code == 200
    events = [record for record in process.records if record["event"].startswith("the new model is refused")]
    assert len(events) == 1
    assert "sha256" in events[0]["error"]
    process.popen.terminate()
    assert process.end() == 0


def test_the_administrator_reloads_with_a_key(serve: Serve, link: Path) -> None:
    client = serve(model=link, admin_key=KEY)
    headers = {"x-api-key": KEY}
    assert code_of(client.post("/admin/reload")) == "unauthorized"
    assert code_of(client.post("/admin/reload", headers={"x-api-key": "k" * 20})) == "unauthorized"
    unchanged = client.post("/admin/reload", headers=headers).json()
    point(link, "two")
    loaded = client.post("/admin/reload", headers=headers).json()
    assert (unchanged["status"], loaded["status"]) == ("unchanged", "loaded")
    assert unchanged["model"]["digest"] != loaded["model"]["digest"] == client.get("/v1/model").json()["digest"]
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("emotion_model_info{")]
    assert len(lines) == 1
    assert loaded["model"]["version"] in lines[0]
    link.unlink()
    refused = client.post("/admin/reload", headers=headers)
    assert (refused.status_code, code_of(refused)) == (422, "model_refused")
    assert client.get("/v1/model").json()["digest"] == loaded["model"]["digest"]


def test_only_one_reload_at_a_time(serve: Serve, link: Path) -> None:
    client = serve(model=link, admin_key=KEY)
    with client.app.state.parts.engine._reloading:
        answer = client.post("/admin/reload", headers={"x-api-key": KEY})
    assert (answer.status_code, code_of(answer)) == (503, "overloaded")


def test_without_an_admin_key_the_path_does_not_exist(serve: Serve) -> None:
    assert code_of(serve().post("/admin/reload")) == "not_found"


def test_refuses_a_short_admin_key(settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="EMOTION_ADMIN_KEY: expected at least 16"):
        settings(admin_key="short").admin_keys()
