import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress

import httpx2 as httpx
import pytest

from api import logs
from api.logs import LOGGER, LineWriter, json_lines
from api.metrics import Metrics
from tests.api.conftest import wait_until
from tests.api.process import ROOT, Process, Start


def records(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_everything_a_process_says_goes_to_stdout_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    with json_lines("warning"):
        LOGGER.info("too quiet")
        LOGGER.warning("of the service", extra={"fields": {"n": 1}})
        logging.getLogger("uvicorn.error").warning("it is %s", "loud")
        logging.getLogger("a.library").error("of a library\nin two lines")
        warnings.showwarning("a warning", UserWarning, "file", 1)
        os.write(2, b"Corrupt JPEG data\n\xff\n")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    output, error = capfd.readouterr()
    assert error == ""
    found = records(output)
    events = [record["event"] for record in found]
    assert "too quiet" not in events
    assert {"of the service", "it is loud", "of a library\nin two lines", "stderr: Corrupt JPEG data"} <= set(events)
    assert next(record for record in found if record["event"] == "of the service")["n"] == 1
    assert next(record for record in found if "two lines" in record["event"])["logger"] == "a.library"
    assert any("a warning" in event for event in events)
    assert any("ZeroDivisionError" in record.get("exception", "") for record in found)


def test_long_messages_are_cut() -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 0, "a" * 1_000_000, None, None)
    assert len(logs.JsonFormatter().format(record)) < 3_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing, capacity=10)
    for _ in range(5000):  # more than pipe and queue hold
        writer.handle(logging.LogRecord("x", logging.INFO, __file__, 0, "a" * 100, None, None))
    assert writer.dropped > 0
    os.set_blocking(reading, False)
    output = b""

    def all_told() -> bool:
        nonlocal output
        with suppress(BlockingIOError):
            output += os.read(reading, 65536)
        writer.handle(logging.LogRecord("x", logging.INFO, __file__, 0, "the reader is back", None, None))
        told = [json.loads(line).get("dropped", 0) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]
        return sum(told) == writer.dropped

    wait_until(all_told)
    writer.stop(5)
    os.close(writing)


def test_a_reader_that_left_stops_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing)
    writer.handle(logging.LogRecord("x", logging.INFO, __file__, 0, "into nothing", None, None))
    wait_until(lambda: writer.dropped == 1)
    writer.stop(5)
    os.close(writing)


def test_the_number_of_dropped_lines_is_a_metric(capfd: pytest.CaptureFixture[str]) -> None:
    with json_lines() as writer:
        writer.dropped = 3
        assert Metrics().registry.get_sample_value("emotion_log_lines_dropped") == 3
        writer.dropped = 0


def test_serves_and_ends_although_nobody_reads_its_log(model_folder: object) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMOTION_")}
    environment |= {"EMOTION_MODEL": str(model_folder), "EMOTION_PORT": "0", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        while b"running on http" not in (line := process.stdout.readline()):
            assert line
        url = json.loads(line)["event"].split()[3]
        with httpx.Client() as client:
            for _ in range(600):  # a line each; a pipe holds 64 kB
                assert client.get(f"{url}/nothing", headers={"x-request-id": "x" * 64}).status_code == 404
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_complaints_of_decoders_and_parsers_are_lines_of_json(start: Start, photo: bytes) -> None:
    process: Process = start().wait_ready()
    middle = len(photo) // 2
    damaged = photo[:middle] + bytes(range(256)) + photo[middle + 256 :]
    for body in (damaged, photo[:-200], photo[:middle] + b"\xff\xd3" + photo[middle + 2 :]):
        httpx.post(f"{process.url}/v1/detect", content=body, headers={"content-type": "image/jpeg"})
    form = {"content-type": "multipart/form-data; boundary=b"}
    httpx.post(f"{process.url}/v1/detect", content=b"--b\r\n\r\n\r\n--bx", headers=form)
    process.popen.terminate()
    assert process.end() == 0
    assert process.records
