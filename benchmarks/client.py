"""What the long runs share: a service in a process of its own, its memory, and a client that costs little."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 600


@dataclass
class Service:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float

    def rss_mb(self, field: str = "VmRSS") -> float:
        """Return the resident memory; `VmHWM` for its peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]

    def tree_mb(self) -> float:
        """Return the memory of the process and its children together, pages that several share counted once (PSS).

        That is what a container's limit counts. Resident memory added up counts the libraries once for each process.
        """
        kilobytes = 0
        for process in _family(self.process.pid):
            with suppress(OSError, TypeError):  # it has just ended, and then has no file or an empty one
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
                kilobytes += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1])  # type: ignore[index]
        return kilobytes / 1024

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> tuple[int, bytes]:
        """Fetch a path."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def _family(ancestor: int) -> set[int]:
    """Return the ids of a process and of all that descend from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = {ancestor}
    while found := {child for child, parent in parents.items() if parent in family} - family:
        family |= found
    return family


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serve(
    arguments: Sequence[str], environment: dict[str, str], port: int, *, ready: str = "/readyz", log: Path | None = None
) -> Iterator[Service]:
    """Start a server and wait until `ready` answers 200; end it by SIGTERM."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    started = time.perf_counter()
    output = log.open("wb") if log else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    service = Service(process, port, 0)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}: {' '.join(arguments)}")
            try:
                if service.get(ready)[0] == 200:
                    break
            except OSError:
                pass
            if time.perf_counter() - started > START_S:
                raise SystemExit(f"the server was not ready within {START_S} s")
            time.sleep(0.01)
        service.ready_s = time.perf_counter() - started
        yield service
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if log:
            output.close()  # type: ignore[union-attr]


@contextmanager
def our_service(model: Path, *, log: Path | None = None, **settings: str) -> Iterator[Service]:
    """Start this project's service on a model."""
    port = free_port()
    variables = {"EMOTION_MODEL": str(model), "EMOTION_PORT": str(port), "EMOTION_LOG_LEVEL": "warning"} | settings
    with serve(["-m", "api"], variables, port, log=log) as service:
        yield service


class Connection:
    """A kept connection that posts pictures, far cheaper than a general client, which would eat the server's cores."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._port, self._address = port, address
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes, content_type: str = "image/jpeg") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer; raises OSError or EOFError if the connection breaks."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(self._address, 0)
            )
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            self._writer.write(head.encode() + body)
            await self._writer.drain()
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            answer = await self._reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError(str(error)) from error
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), headers, answer

    def close(self) -> None:
        """Close the connection; the next post opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def faces_of(body: bytes) -> list[tuple[str, float]]:
    """Return what an answer says, without its timing."""
    return [(face["emotion"], face["confidence"]) for face in json.loads(body)["detections"]]
