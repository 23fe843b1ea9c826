"""The service as a process of its own, on a free port of loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2 as httpx

ROOT = Path(__file__).parents[2]


def limited(open_files: int | None) -> list[str]:
    """Return the beginning of a command that may open only so many files."""
    return ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh"] if open_files else []


def wait_until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for `condition`; fail if it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Process:
    """A service in a process of its own, with what it printed."""

    def __init__(self, environment: dict[str, str], *arguments: str, open_files: int | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EMOTION_")}
        self.popen = subprocess.Popen(
            [*limited(open_files), sys.executable, "-m", "api", *arguments],
            cwd=ROOT,
            env=inherited | {"PYTHONPATH": f"{ROOT / 'src'}"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        self.lines += iter(self.popen.stdout.readline, "")

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def records(self) -> list[dict]:
        """What it logged; every line has to be JSON."""
        return [json.loads(line) for line in self.lines]

    @property
    def port(self) -> int:
        wait_until(lambda: "running on http" in self.text or self.popen.poll() is not None)
        return int(re.search(r"127\.0\.0\.1:(\d+)", self.text)[1])  # type: ignore[index]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> "Process":
        wait_until(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)
        return self

    def end(self) -> int:
        code = self.popen.wait(60)
        self._reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return code

    def stop(self) -> None:
        """End it if it still runs: in order, so that what it covered is counted; a second signal ends it at once."""
        for signals in range(3):
            if self.popen.poll() is not None:
                break
            self.popen.terminate() if signals < 2 else self.popen.kill()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(2 + 8 * signals)
        self.end()


Start = Callable[..., Process]


@contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        yield sock


def read_to_the_end(sock: socket.socket) -> bytes:
    """Return what comes until the server closes or resets the connection."""
    received = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while chunk := sock.recv(65536):
            received += chunk
    return received
