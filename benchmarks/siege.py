"""`make attack-service`: an honest client asks twice a second while another address does everything that costs.

python -m benchmarks.siege [--seconds 600] [--photo photo.jpg] [--bytes 2000000]

Tiny chunks, uploads that drip their ends, answers that nobody reads, idle connections, floods of pictures made to be
costly (`benchmarks.attacks`) and of ordinary ones, all at once. Ends with 1 unless the honest client gets at least
99 % right answers with a p99 below 1 s, and the process and its decoders stay below 700 MB.
"""

import argparse
import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.attacks import attacks
from benchmarks.client import Connection, Service, faces_of, our_service, percentile
from benchmarks.load import PHOTO

HONEST = "127.0.0.2"
MIN_RIGHT, MAX_P99_MS, MAX_MB = 0.99, 1000, 700

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Outcome:
    """What the honest client got, and what the service took meanwhile."""

    answers: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    attackers: Counter[str] = field(default_factory=Counter)
    peak_mb: float = 0

    @property
    def held(self) -> bool:
        """Tell whether the service did what it should."""
        right = self.answers["right"] >= MIN_RIGHT * len(self.latencies_ms)
        return right and percentile(self.latencies_ms, 0.99) < MAX_P99_MS and self.peak_mb < MAX_MB


class Attackers:
    """The connections of one address, each with one bad habit, over and over."""

    def __init__(self, port: int, picture: bytes, hostile: list[bytes], outcome: Outcome, *, end: float) -> None:
        self._port, self._end, self._outcome = port, end, outcome
        self._picture, self._hostile = picture, hostile
        self._chunked = _head("detect", "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 100_000
        self._dripped = _head("detect", "Content-Length: 10000000") + bytes(9_999_000)

    def start(self) -> list[asyncio.Task[None]]:
        """Open all connections."""
        kinds = {self._chunks: 4, self._drips: 16, self._unread: 20, self._idle: 200, self._costly: 20, self._flood: 20}
        return [asyncio.create_task(self._forever(kind)) for kind, count in kinds.items() for _ in range(count)]

    async def _forever(self, act: Act) -> None:
        while time.perf_counter() < self._end:
            with suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    async with asyncio.timeout(max(self._end - time.perf_counter(), 0)):
                        await act(reader, writer)
                finally:
                    writer.transport.abort()

    async def _chunks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._chunked)
        await reader.read()

    async def _drips(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._dripped)
        while not writer.is_closing() and not reader.at_eof():
            await asyncio.sleep(1)
            writer.write(b"x")

    async def _unread(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head("annotate", f"Content-Length: {len(self._picture)}") + self._picture)
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
        await asyncio.sleep(20)

    async def _idle(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def _costly(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._send(random.choice(self._hostile), reader, writer)

    async def _flood(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._send(self._picture, reader, writer)

    async def _send(self, picture: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        route = random.choice(("detect", "annotate"))
        writer.write(_head(route, f"Content-Length: {len(picture)}\r\nConnection: close") + picture)
        status = (await reader.readline()).split()[1:2]
        self._outcome.attackers[status[0].decode() if status else "no answer"] += 1
        await reader.read()


def _head(route: str, length: str) -> bytes:
    lines = f"POST /v1/{route} HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\nContent-Type: image/jpeg\r\n{length}\r\n\r\n"
    return lines.encode()


async def siege(service: Service, picture: bytes, hostile: list[bytes], seconds: float) -> Outcome:
    """Ask twice a second from one address while the attackers of another are at work."""
    end = time.perf_counter() + seconds
    outcome = Outcome()
    first = Connection(service.port)
    right = faces_of((await first.post("/v1/detect", picture))[2])
    first.close()

    async def ask() -> None:
        started = time.perf_counter()
        connection = Connection(service.port, HONEST)
        try:
            status, _, body = await connection.post("/v1/detect", picture)
            answer = ("right" if faces_of(body) == right else "WRONG") if status == 200 else str(status)
        except ConnectionError:
            answer = "connection broken"
        outcome.answers[answer] += 1
        outcome.latencies_ms.append((time.perf_counter() - started) * 1000)
        connection.close()

    attackers = Attackers(service.port, picture, hostile, outcome, end=end).start()
    asking = []
    while time.perf_counter() < end:
        asking.append(asyncio.create_task(ask()))
        await asyncio.sleep(0.5)
        outcome.peak_mb = max(outcome.peak_mb, await asyncio.to_thread(service.tree_mb))
    await asyncio.gather(*asking, *attackers)
    return outcome


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--bytes", type=int, default=2_000_000, help="size of the costly pictures, about")
    options = parser.parse_args()
    hostile = [data for _, data in attacks(options.bytes)]
    with our_service(options.model) as service:
        outcome = asyncio.run(siege(service, options.photo.read_bytes(), hostile, options.seconds))
        alive = service.get("/healthz")[0]
        cpu = service.cpu_s()
    p50, p99 = (percentile(outcome.latencies_ms, share) for share in (0.5, 0.99))
    print(f"honest client, {options.seconds:.0f} s: {dict(outcome.answers)}; p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"attackers: {dict(outcome.attackers.most_common())}")
    print(f"memory of all processes at most {outcome.peak_mb:.0f} MB; CPU {cpu:.0f} s; /healthz {alive}")
    print("load of the machine, 1, 5, 15 minutes: {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg()))
    raise SystemExit(not outcome.held)


if __name__ == "__main__":
    main()
