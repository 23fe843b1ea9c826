import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest

from api.engine import State
from api.server import Server, main
from api.settings import load_settings
from tests.api.conftest import wait_until
from tests.api.process import ROOT, Process, Start, connection, read_to_the_end

FORBIDDEN = (
    "torch",
    "torchvision",
    "ultralytics",
    "dvc",
    "dvclive",
    "wandb",
    "kagglehub",
    "boto3",
    "matplotlib",
    "onnx",
)


@pytest.fixture(scope="module")
def running(model_folder: Path) -> Iterator[Process]:
    """Return one service for the tests that leave it as it is."""
    process = Process({"EMOTION_MODEL": str(model_folder), "EMOTION_PORT": "0", "EMOTION_QUEUE": "14"}).wait_ready()
    yield process
    process.stop()


def test_serves_logs_json_and_exits_0_on_sigterm(start: Start, photo: bytes) -> None:
    process = start().wait_ready()
    assert len(httpx.post(f"{process.url}/v1/detect", files={"file": photo}).json()["detections"]) == 2
    process.popen.send_signal(signal.SIGTERM)
    assert process.end() == 0
    assert all(line.startswith("{") for line in process.lines)


def test_on_sigterm_turns_unready_first_and_ends_what_is_in_flight(start: Start, photo: bytes) -> None:
    process = start(EMOTION_DRAIN_S="1").wait_ready()
    port = process.port
    head = f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n\r\n"
    with connection(port) as sock:
        sock.sendall(head.encode() + photo[:1000])
        process.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{process.url}/readyz").status_code == 503)
        wait_until(lambda: "Shutting down" in process.text)
        sock.sendall(photo[1000:])
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    assert b"200 OK" in answer
    assert b'"happy"' in answer
    assert process.end() == 0


def test_can_be_killed_and_started_again(start: Start, photo: bytes) -> None:
    first = start().wait_ready()
    port = first.port
    first.popen.kill()
    assert first.end() == -signal.SIGKILL
    second = start(EMOTION_PORT=str(port)).wait_ready()
    assert httpx.post(f"{second.url}/v1/detect", files={"file": photo}).status_code == 200


def test_is_killed_under_load_and_answers_as_before_after_a_new_start(start: Start, photo: bytes) -> None:
    first = start().wait_ready()
    port, url = first.port, first.url
    answers: list[list] = []
    broken: list[str] = []

    def ask() -> None:
        with httpx.Client(timeout=20) as client:
            while True:
                try:
                    answer = client.post(f"{url}/v1/detect", files={"file": photo})
                except httpx.TransportError as error:
                    broken.append(type(error).__name__)
                    return
                assert answer.status_code == 200
                answers.append(answer.json()["detections"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) >= 16)
    first.popen.kill()
    for thread in threads:
        thread.join(20)
    assert first.end() == -signal.SIGKILL
    assert len(broken) == len(threads)  # none hangs, and none got half an answer
    second = start(EMOTION_PORT=str(port)).wait_ready()
    after = httpx.post(f"{second.url}/v1/detect", files={"file": photo}).json()["detections"]
    assert all(answer == after for answer in answers)


def test_exits_with_the_code_of_what_is_wrong(start: Start, tmp_path: Path) -> None:
    absurd = start(EMOTION_WORKERS="0")
    assert absurd.end() == 14
    assert "EMOTION_WORKERS" in absurd.text
    nothing = start(EMOTION_MODEL=str(tmp_path))
    assert nothing.end() == 11
    assert "no exported model there" in nothing.text


def test_warns_of_variables_it_does_not_know(start: Start) -> None:
    process = start(EMOTION_QUEU="3")
    wait_until(lambda: "did you mean EMOTION_QUEUE?" in process.text)


def test_cuts_a_connection_that_sends_no_whole_head(start: Start) -> None:
    port = start(EMOTION_HEAD_S="0.3").wait_ready().port
    for begin in (b"", b"POST /v1/detect HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "):
        with connection(port) as sock:
            sock.sendall(begin)
            assert read_to_the_end(sock) == b""
    with connection(port) as sock:  # a second head on a kept connection is timed as well
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        received = sock.recv(65536)
        sock.sendall(b"GET /heal")
        assert (received + read_to_the_end(sock)).count(b"HTTP/1.1") == 1


def test_a_slow_sender_gets_408_and_others_are_served_meanwhile(start: Start, photo: bytes) -> None:
    process = start(EMOTION_STALL_S="0.5", EMOTION_UPLOAD_S="1").wait_ready()
    with connection(process.port) as sock:
        sock.sendall(
            b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\nx"
        )
        assert httpx.post(f"{process.url}/v1/detect", files={"file": photo}).status_code == 200
        assert b"408" in sock.recv(65536)


def test_a_refusal_arrives_even_while_megabytes_are_still_coming(start: Start) -> None:
    process = start(EMOTION_MAX_BYTES="100000").wait_ready()
    answer = httpx.post(f"{process.url}/v1/detect", content=bytes(9_000_000), headers={"content-type": "image/jpeg"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_survives_requests_that_are_none(running: Process, raw: bytes) -> None:
    with connection(running.port) as sock:
        with suppress(OSError):  # it may have closed before it got everything
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
        assert b" 5" not in read_to_the_end(sock)[:14]
    assert httpx.get(f"{running.url}/healthz").status_code == 200
    assert "Traceback" not in running.text


def test_the_service_imports_nothing_of_the_training_side() -> None:
    program = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN!r}:
            raise ImportError(name + " is not for the service")
sys.meta_path.insert(0, Block())
import api.server
from pathlib import Path
loaded = sorted({{name.split(".")[0] for name in sys.modules}} & set({FORBIDDEN!r}))
assert not loaded, loaded
assert "emotion_yolo.yolo" not in sys.modules and not any(n.startswith("emotion_yolo.stages") for n in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=environment)


def test_a_working_service_has_loaded_nothing_of_the_training_side(start: Start, photo: bytes, tmp_path: Path) -> None:
    # The same, after a picture has gone all the way: what is imported late counts as well.
    site = tmp_path / "sitecustomize.py"
    site.write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded', sorted(set(sys.modules) & set({FORBIDDEN!r})), flush=True))\n"
    )
    process = start(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'src'}").wait_ready()
    for path in ("detect", "annotate"):
        assert httpx.post(f"{process.url}/v1/{path}", files={"file": photo}).status_code == 200
    process.popen.send_signal(signal.SIGTERM)
    assert process.end() == 0
    assert "loaded []" in process.text


def test_many_clients_at_once_all_get_an_answer(running: Process, photo: bytes) -> None:
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(timeout=20) as client:
            for _ in range(5):
                answer = client.post(f"{running.url}/v1/detect", files={"file": photo})
                statuses.append(answer.status_code)
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) >= 1
                    time.sleep(0.01)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 160
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 0
    assert httpx.post(f"{running.url}/v1/detect", files={"file": photo}).status_code == 200


def test_drains_within_its_own_process_as_well(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_MODEL", str(model_folder))
    monkeypatch.setenv("EMOTION_PORT", "0")
    monkeypatch.setenv("EMOTION_TRUSTED_PROXIES", "127.0.0.1")
    monkeypatch.setenv("EMOTION_DRAIN_S", "3")
    server = Server(load_settings())
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started and server.engine.state is State.READY)
    port = server.servers[0].sockets[0].getsockname()[1]
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    server.handle_exit(signal.SIGTERM, None)
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503)
    thread.join(20)
    assert not thread.is_alive()
    assert not server.force_exit


def test_main_returns_the_code_of_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMOTION_PORT", "0")
    monkeypatch.setenv("EMOTION_UNHEARD_OF", "1")
    monkeypatch.setenv("EMOTION_MODEL", str(tmp_path))
    assert main([]) == 11
    assert "no exported model there" in capfd.readouterr().out
    monkeypatch.setenv("EMOTION_PORT", "x")
    assert main([]) == 14
    assert "EMOTION_PORT" in capfd.readouterr().out
