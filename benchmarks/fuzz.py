"""Send thousands of bad files to a service of its own: no 5xx, no crash, memory flat.

python -m benchmarks.fuzz --model models/release --count 6000
"""

import argparse
import asyncio
import json
from collections import Counter
from itertools import islice
from pathlib import Path

from benchmarks.client import Connection, Service, our_service
from benchmarks.corpus import corpus

CLIENTS = 4


async def send(port: int, files: list[tuple[str, bytes]]) -> tuple[Counter[str], list[str]]:
    """Send every file; returns counts by status and code, and what should not have happened."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    rest = iter(files)

    async def work() -> None:
        connection = Connection(port)
        for name, data in rest:
            try:
                status, _, body = await connection.post("/v1/detect", data, "application/octet-stream")
            except ConnectionError as error:
                failures.append(f"{name}: {error}")
                continue
            code = json.loads(body).get("code", "") if status != 200 else ""
            counts[f"{status} {code}".strip()] += 1
            if status >= 500 or status == 408:
                failures.append(f"{name}: {status} {code}")
        connection.close()

    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    return counts, failures


def run(service: Service, seed: int, count: int, rounds: int) -> int:
    """Send the corpus in rounds and print what became of it; returns the number of failures."""
    total: Counter[str] = Counter()
    failures: list[str] = []
    files = corpus(seed, count)
    size = -(-count // rounds)
    while part := list(islice(files, size)):
        counts, failed = asyncio.run(send(service.port, part))
        total += counts
        failures += failed
        print(
            f"{total.total():>6} files, RSS {service.rss_mb():.0f} MB, peak {service.rss_mb('VmHWM'):.0f} MB",
            flush=True,
        )
    for outcome, number in total.most_common():
        print(f"{number:>6}  {outcome}")
    print(f"failures: {len(failures)}; alive: {service.get('/healthz')[0] == 200}")
    print("\n".join(failures[:20]))
    return len(failures)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with our_service(options.model) as service:
        failures = run(service, options.seed, options.count, options.rounds)
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
