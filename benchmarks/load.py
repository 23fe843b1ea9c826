"""Load, soak and kill: what the service does when there is more than it can do.

python -m benchmarks.load overload --seconds 180    four times as many clients as saturate it
python -m benchmarks.load soak --count 20000        does its memory grow?
python -m benchmarks.load kill --rounds 5           kill -9 under load and start again

Each takes --photo, and ends with 1 where something is not as it should be.
"""

import argparse
import asyncio
import time
from collections import Counter
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
    parser.add_argument("what", choices=("overload", "soak", "kill"))
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--seconds", type=float, default=180)
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
        else:
            well = asyncio.run(soak(service, data, options.count))
        print(
            f"RSS {service.rss_mb():.0f} MB, peak {service.rss_mb('VmHWM'):.0f} MB; alive: {service.get('/healthz')[0]}"
        )
    raise SystemExit(not well)


if __name__ == "__main__":
    main()
