"""The prediction log behind the service: what it holds, and that answers never depend on it."""

import resource
import signal
import sqlite3
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.api.conftest import Serve, encoded, painted
from tests.api.process import Start, wait_until


def rows(path: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def metric(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def written(url: str) -> float:
    return metric(httpx.get(f"{url}/metrics").text, "emotion_prediction_log_rows_total")


def test_nothing_is_logged_unless_it_is_asked_for(serve: Serve, photo: bytes, tmp_path: Path) -> None:
    client = serve()
    assert client.post("/v1/detect", files={"file": photo}).status_code == 200
    assert client.app.state.parts.engine.log is None
    assert list(tmp_path.iterdir()) == []


def test_answers_are_logged_as_numbers_by_request(serve: Serve, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    client = serve(log_db=path)
    given = {"x-request-id": "mine-1"}
    answer = client.post("/v1/detect", files={"file": ("secret-name.jpg", photo)}, headers=given).json()
    files = [("files", photo), ("files", b"no picture"), ("files", encoded(painted()))]
    client.post("/v1/detect/batch", files=files, headers={"x-request-id": "mine-2"})
    client.post("/v1/detect?conf=0.9", files={"file": photo}, headers={"x-request-id": "mine-3"})
    client.post("/v1/annotate", files={"file": photo}, headers={"x-request-id": "mine-4"})
    wait_until(lambda: metric(client.get("/metrics").text, "emotion_prediction_log_rows_total") == 5)
    query = "SELECT request_id, item, format, width, faces, plain FROM pictures ORDER BY request_id, item"
    assert rows(path, query) == [
        ("mine-1", 0, "JPEG", 960, 2, 1),
        ("mine-2", 0, "JPEG", 960, 2, 1),
        ("mine-2", 2, "PNG", 960, 2, 1),
        ("mine-3", 0, "JPEG", 960, 2, 0),
        ("mine-4", 0, "JPEG", 960, 2, 1),
    ]
    ((model, brightness, latency),) = rows(
        path, "SELECT model, brightness, latency_ms FROM pictures WHERE request_id = 'mine-1'"
    )
    assert model == answer["model"]["digest"]
    assert 90 < brightness < 140
    assert latency == answer["timing_ms"]["total"]
    query = (
        "SELECT emotion, confidence FROM faces JOIN pictures ON picture = id WHERE request_id = 'mine-1' ORDER BY face"
    )
    assert rows(path, query) == [(face["emotion"], face["confidence"]) for face in answer["detections"]]
    assert b"secret-name" not in path.read_bytes() + path.with_name("log.db-wal").read_bytes()


@pytest.mark.parametrize("trouble", ["corrupt", "folder missing", "locked"])
def test_answers_do_not_depend_on_the_log(serve: Serve, photo: bytes, tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "log.db"
    holder = None
    if trouble == "corrupt":
        path.write_bytes(b"x" * 100_000)
    elif trouble == "folder missing":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "log.db"
    else:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("PRAGMA journal_mode = WAL")
        holder.execute("BEGIN EXCLUSIVE")
    client = serve(log_db=path)
    for _ in range(5):
        assert client.post("/v1/detect", files={"file": photo}).status_code == 200
    names = ("emotion_prediction_log_lost_total", "emotion_prediction_log_rows_total")
    wait_until(lambda: sum(metric(client.get("/metrics").text, name) for name in names) == 5)
    if trouble != "corrupt":  # it is set aside before a row comes, or with the first ones
        assert metric(client.get("/metrics").text, names[0]) > 0
    if holder is not None:
        holder.close()


def test_a_full_disk_and_kill_9_cost_rows_and_never_answers(start: Start, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    process = start(EMOTION_LOG_DB=str(path)).wait_ready()
    headers = {"content-type": "image/jpeg"}

    def ask() -> int:
        return httpx.post(f"{process.url}/v1/detect", content=photo, headers=headers).status_code

    assert ask() == 200
    wait_until(lambda: written(process.url) == 1)
    room = sum(file.stat().st_size for file in tmp_path.iterdir())
    # The kernel lets no file of the process grow any further, as a full disk does.
    unlimited = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (min(room, 16_384), resource.RLIM_INFINITY))
    asked = 0

    def lost() -> bool:
        nonlocal asked
        asked += 1
        assert ask() == 200
        return metric(httpx.get(f"{process.url}/metrics").text, 'emotion_prediction_log_lost_total{reason="disk"}') > 0

    wait_until(lost)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, unlimited)
    before = written(process.url)
    assert ask() == 200
    wait_until(lambda: written(process.url) > before)
    process.popen.send_signal(signal.SIGKILL)
    process.end()
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "SELECT count(*) FROM pictures")[0][0] >= before + 1
