"""The service as a process of its own, on a free port of loopback."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import httpx2 as httpx

from tests.api.conftest import wait_until

ROOT = Path(__file__).parents[2]


class Process:
    """A service in a process of its own, with what it printed."""

    def __init__(self, environment: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EMOTION_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "api"],
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
        code = self.popen.wait(20)
        self._reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return code
