"""Kill `emotion-yolo score` at random moments and start it again until it is done; the result has to be the same.

    python -m benchmarks.score_kills PICTURES --kills 50

Half of the kills come at a random moment of the whole run, half within seconds after its folder has appeared. With
`--workers` above 1 every third kill hits a worker and not the command. Prints what the kills hit.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

COMMAND = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "score"]


def digests(out: Path) -> dict[str, str]:
    """Return the digest of each file of a run, half-written ones included."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def stage_of(out: Path) -> str:
    """Say how far a run has come, by what lies in its folder."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if "run.json" in names:
        whole = sum(name.startswith("part-") for name in names)
        return (
            f"{'no' if not whole else 'some'} shard committed{', one half-written' * any('.part-' in n for n in names)}"
        )
    return "in the plan" if names else "before the first file"


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the worker processes of a command."""
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except OSError:
        return []
    return [pid for pid in map(int, text.split()) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_once(command: Sequence[str], out: Path, *, delay_s: float, from_folder: bool, worker: bool) -> str | None:
    """Start a run and kill it after a while; says what was hit, None if the run was done before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while from_folder and not (out / "run.json").exists() and process.poll() is None:
            time.sleep(0.002)
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            stage = stage_of(out)
            workers = children_of(process) if worker else []
            if workers:
                os.kill(workers[0], signal.SIGKILL)
                process.wait(120)
                return f"a worker, {stage}"
            return stage
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return None
    finally:
        process.kill()
        process.wait()


def kill_and_resume(arguments: Sequence[str], *, kills: int, seed: int = 0) -> tuple[Counter[str], int]:
    """Kill runs of `score` with these arguments; returns what was hit, and how many runs were brought to their end.

    Raises:
        SystemExit: a run that failed by itself, or a result that differs from an undisturbed one.
    """
    chance = random.Random(seed)
    hit: Counter[str] = Counter()
    whole = 0
    with tempfile.TemporaryDirectory() as folder:
        expected, out = Path(folder) / "expected", Path(folder) / "out"
        start = time.monotonic()
        subprocess.run([*COMMAND, *arguments, "--out", expected], check=True, capture_output=True)
        length_s = time.monotonic() - start
        command = [*COMMAND, *arguments, "--out", str(out)]
        while sum(hit.values()) < kills:
            number = sum(hit.values())
            from_folder = number % 2 == 1
            delay_s = chance.uniform(0, length_s / 3 if from_folder else length_s)
            what = kill_once(command, out, delay_s=delay_s, from_folder=from_folder, worker=number % 3 == 2)
            if what is None:
                compare(expected, out)
                whole += 1
                shutil.rmtree(out)
            else:
                hit[what] += 1
        subprocess.run(command, check=True, capture_output=True)
        compare(expected, out)
    return hit, whole + 1


def compare(expected: Path, out: Path) -> None:
    if digests(out) != digests(expected):
        raise SystemExit(f"{out} differs from an undisturbed run: {digests(out).items() ^ digests(expected).items()}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    options = ["--model", given.model, "--workers", given.workers, "--shard", given.shard]
    hit, whole = kill_and_resume([str(given.pictures), *map(str, options)], kills=given.kills, seed=given.seed)
    for what, count in sorted(hit.items()):
        print(f"{count:4}  {what}")
    print(f"{sum(hit.values())} kills, {whole} runs brought to their end, each the same as undisturbed, byte for byte")


if __name__ == "__main__":
    main()
