"""Load, soak, kill and attack: what the service does when there is more than it can do.

python -m benchmarks.load overload --seconds 180    four times as many clients as saturate it
python -m benchmarks.load soak --count 20000        does its memory grow?
python -m benchmarks.load kill --rounds 5           kill -9 under load and start again
python -m benchmarks.load attack --seconds 600      one honest client among clients of every bad kind

Each takes --photo, and ends with 1 where something is not as it should be.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from api.settings import Settings
from benchmarks.client import Connection, Service, faces_of, free_port, our_service, percentile, serve

SATURATING = Settings.model_fields["workers"].default + Settings.model_fields["queue"].default
PHOTO = Path("datasets/sample/sample-scenes/all/images/scene_003.jpg")
MAX_GROWTH = 0.05


async def overload(port: int, data: bytes, clients: int, seconds: float) -> bool:
    """Ask from many connections at once and look at each answer; tell whether all was as it should be."""
    latencies: list[float] = []
    refusals: list[float] = []
    decisions: list[float] = []
    outcomes: Counter[str] = Counter()
    _, _, body = await Connection(port).post("/v1/detect", data)
    right = faces_of(body)
    end = time.perf_counter() + seconds

    async def ask() -> None:
        connection = Connection(port)
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                status, headers, body = await connection.post("/v1/detect", data)
            except ConnectionError:
                outcomes["connection broken"] += 1
                continue
            took = (time.perf_counter() - started) * 1000
            if status == 200:
                outcomes["right" if faces_of(body) == right else "WRONG"] += 1
                latencies.append(took)
            else:
                outcomes[f"{status}, retry-after {'set' if 'retry-after' in headers else 'MISSING'}"] += 1
                refusals.append(took)
                decisions.append(float(headers["server-timing"].rpartition("=")[2]))
                # A polite client would wait for seconds; these come back soon, and keep the pressure on.
                await asyncio.sleep(0.1)
        connection.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    print(f"{clients} clients, {seconds:.0f} s: {dict(outcomes)}")
    print(f"accepted: p50 {percentile(latencies, 0.5):.0f} ms, p99 {percentile(latencies, 0.99):.0f} ms")
    print(f"refused:  p50 {percentile(refusals, 0.5):.1f} ms, p99 {percentile(refusals, 0.99):.1f} ms at the client,")
    print(f"          p50 {percentile(decisions, 0.5):.1f} ms, p99 {percentile(decisions, 0.99):.1f} ms in the server")
    return set(outcomes) <= {"right", "503, retry-after set"}


async def soak(service: Service, data: bytes, count: int) -> bool:
    """Ask `count` times from four connections; print the memory at each tenth, and tell whether it stayed."""
    done = 0

    async def ask() -> None:
        nonlocal done
        connection = Connection(service.port)
        while done < count:
            done += 1
            status, _, _ = await connection.post("/v1/detect", data)
            assert status == 200, status
            if done % max(count // 10, 1) == 0:
                print(f"{done:>7} requests, RSS {service.rss_mb():.1f} MB", flush=True)
        connection.close()

    for _ in range(200):
        await Connection(service.port).post("/v1/detect", data)
    before = service.rss_mb()
    await asyncio.gather(*(ask() for _ in range(4)))
    after = service.rss_mb()
    print(
        f"RSS after warm-up {before:.1f} MB, after {count} requests {after:.1f} MB: {100 * (after / before - 1):+.1f} %"
    )
    return after < before * (1 + MAX_GROWTH)


async def attack(service: Service, data: bytes, hostile: list[bytes], seconds: float) -> bool:
    """Ask twice a second from one address while another sends, reads and uploads as no honest client does."""
    end = time.perf_counter() + seconds
    port, honest = service.port, "127.0.0.2"
    _, _, body = await Connection(port).post("/v1/detect", data)
    right, outcomes, latencies, peak = faces_of(body), Counter[str](), list[float](), 0.0
    head = "POST /v1/{} HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\nContent-Type: image/jpeg\r\n{}\r\n\r\n"
    whole = head.format("annotate", f"Content-Length: {len(data)}").encode() + data
    drip = head.format("detect", "Content-Length: 10000000").encode() + bytes(9_999_000)
    chunked = head.format("detect", "Transfer-Encoding: chunked").encode() + b"1\r\nx\r\n" * 100_000

    async def forever(act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        while time.perf_counter() < end:
            with suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    async with asyncio.timeout(max(end - time.perf_counter(), 0)):
                        await act(reader, writer)
                finally:
                    writer.transport.abort()

    async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked)
        await reader.read()

    async def dripped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(drip)
        while not writer.is_closing() and not reader.at_eof():
            await asyncio.sleep(1)
            writer.write(b"x")

    async def unread(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(whole)
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
        await asyncio.sleep(20)

    async def idle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def flooded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        picture = random.choice(hostile) if hostile else data
        writer.write(head.format("detect", f"Content-Length: {len(picture)}\r\nConnection: close").encode() + picture)
        await reader.read()

    async def ask() -> None:
        started = time.perf_counter()
        connection = Connection(port, honest)
        try:
            status, _, body = await connection.post("/v1/detect", data)
            outcomes[("right" if faces_of(body) == right else "WRONG") if status == 200 else str(status)] += 1
        except ConnectionError:
            outcomes["connection broken"] += 1
        latencies.append((time.perf_counter() - started) * 1000)
        connection.close()

    kinds = {chunks: 4, dripped: 16, unread: 20, idle: 200, flooded: 40}
    attackers = [asyncio.create_task(forever(kind)) for kind, count in kinds.items() for _ in range(count)]
    asking = []
    while time.perf_counter() < end:
        asking.append(asyncio.create_task(ask()))
        await asyncio.sleep(0.5)
        peak = max(peak, service.rss_mb())
    await asyncio.gather(*asking, *attackers)
    print(f"honest client, {seconds:.0f} s: {dict(outcomes)}")
    print(
        f"p50 {percentile(latencies, 0.5):.0f} ms, p99 {percentile(latencies, 0.99):.0f} ms; RSS at most {peak:.0f} MB"
    )
    return outcomes["right"] >= 0.99 * len(latencies) and percentile(latencies, 0.99) < 1000 and peak < 700


def kill(model: Path, data: bytes, rounds: int) -> None:
    """Kill the service while it works, start it on the same port, and ask again."""
    port = free_port()
    environment = {"EMOTION_MODEL": str(model), "EMOTION_PORT": str(port), "EMOTION_LOG_LEVEL": "warning"}
    for number in range(rounds):
        with serve(["-m", "api"], environment, port) as service:
            outcomes = asyncio.run(_until_killed(service, data))
            print(f"round {number + 1}: ready after {service.ready_s:.2f} s; {outcomes} answers, then killed")


async def _until_killed(service: Service, data: bytes) -> int:
    answers = 0

    async def ask() -> None:
        nonlocal answers
        connection = Connection(service.port)
        while True:
            try:
                status, _, _ = await connection.post("/v1/detect", data)
            except ConnectionError:
                return
            assert status == 200, status
            answers += 1

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(1)
    service.process.kill()
    await asyncio.wait_for(asyncio.gather(*asking), 10)
    return answers


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("overload", "soak", "kill", "attack"))
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--hostile", type=Path, help="a folder of pictures for `attack` to send as well")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    data = options.photo.read_bytes()
    if options.what == "kill":
        kill(options.model, data, options.rounds)
        return
    with our_service(options.model) as service:
        if options.what == "overload":
            well = asyncio.run(overload(service.port, data, 4 * SATURATING, options.seconds))
        elif options.what == "attack":
            hostile = [path.read_bytes() for path in sorted(options.hostile.iterdir())] if options.hostile else []
            well = asyncio.run(attack(service, data, hostile, options.seconds))
        else:
            well = asyncio.run(soak(service, data, options.count))
        print(
            f"RSS {service.rss_mb():.0f} MB, peak {service.rss_mb('VmHWM'):.0f} MB; alive: {service.get('/healthz')[0]}"
        )
    raise SystemExit(not well)


if __name__ == "__main__":
    main()
