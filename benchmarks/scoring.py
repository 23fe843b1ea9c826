"""Pictures a second of `emotion-yolo score`: one worker and two, a plain loop, and what the engine costs beside it.

    python -m benchmarks.scoring PICTURES                    # a few minutes; `make bench-score PICTURES=folder`
    python -m benchmarks.scoring PICTURES --memory 1000 10000 50000

Rates are of the scoring alone: starting processes and loading the model are left out, and so is the first shard of each
run. Rounds of all variants take turns, so that other work on the machine meets them alike; the table has medians.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.score_kills import COMMAND
from emotion_yolo.inference.loading import load_model
from emotion_yolo.predict.run import predict
from emotion_yolo.predict.sources import Input, Inputs
from emotion_yolo.scoring.local import score_here
from emotion_yolo.scoring.plan import Options, write_plan
from emotion_yolo.scoring.shards import Job
from emotion_yolo.scoring.stores import Folder

SHARD = 50
WAYS = ("plain loop", "1 worker", "2 workers")


def plain_loop(pictures: Sequence[Path], model: Path) -> Callable[[], float]:
    """Return what measures the loop that one writes first: `predict` of each picture, one thread, answers kept."""
    cv2.setNumThreads(1)
    detector = load_model(model, threads=1)
    inputs = [Input(str(path), "picture", path) for path in pictures]

    def run() -> float:
        start = time.perf_counter()
        answers = [record for source in inputs for record in predict(detector, source)]
        return len(answers) / (time.perf_counter() - start)

    return run


def engine(job: Job, shards: int, *, workers: int) -> float:
    """Return the pictures a second from the first committed shard on."""
    times = [(time.perf_counter(), done.pictures) for done in score_here(job, range(shards), workers=workers)]
    # Workers finish their first shards at about the same time; what they began together does not count.
    counted = times[workers:]
    return sum(count for _, count in counted) / (times[-1][0] - times[workers - 1][0])


def measure(pictures: Sequence[Path], model: Path, *, rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    loop = plain_loop(pictures, model)
    with tempfile.TemporaryDirectory() as folder:
        names = [str(path) for path in pictures]
        options = Options(shard=SHARD)
        for _ in range(rounds):
            rates["plain loop"].append(loop())
            for workers in (1, 2):
                out = Folder(tempfile.mkdtemp(dir=folder))
                planned = write_plan(out, names, {}, shard=SHARD)
                job = Job(str(model.absolute()), out.address, options)
                rates[f"{workers} worker{'s' * (workers > 1)}"].append(engine(job, planned.shards, workers=workers))
    return rates


def table(rates: dict[str, list[float]]) -> str:
    """Return the rates as a table in Markdown; ratios are of the rates of the same round."""
    one = rates["1 worker"]
    lines = ["| | pictures/s | of 1 worker | pictures a core-hour |", "|---|---|---|---|"]
    for way, found in rates.items():
        rate = statistics.median(found)
        ratio = statistics.median(a / b for a, b in zip(found, one, strict=True))
        cores = 2 if way == "2 workers" else 1
        lines.append(f"| {way} | {rate:.1f} | {ratio:.2f} | {rate / cores * 3600:,.0f} |")
    return "\n".join(lines)


def memory(picture: Path, model: Path, counts: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Yield the largest resident size, in MB, of one worker that scores a picture so many times, shards of 1,000."""
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            manifest = Path(folder, f"{count}.parquet")
            pq.write_table(pa.table({"path": [str(picture.absolute())] * count}), manifest)
            arguments = [str(manifest), "--out", f"{folder}/{count}", "--model", str(model), "--workers", "1"]
            process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"score ended with {process.returncode}")
            yield count, usage.ru_maxrss / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--limit", type=int, default=400, help="pictures of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="+", default=[], help="measure memory for so many pictures instead")
    given = parser.parse_args(arguments)
    found = [source.path for source in Inputs([str(given.pictures)]) if source.kind == "picture"]
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before", flush=True)
    if given.memory:
        print("| pictures | largest resident size, MB |\n|---|---|")
        for count, size in memory(found[0], given.model, given.memory):
            print(f"| {count:,} | {size:.0f} |", flush=True)
        return
    pictures = [found[i % len(found)] for i in range(given.limit)]
    print(table(measure(pictures, given.model, rounds=given.rounds)))
    print(f"\n{len(pictures):,} pictures a round, {given.rounds} rounds, {given.model}")


if __name__ == "__main__":
    main()
