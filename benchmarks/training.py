"""How long an epoch takes: ours against the same call of bare Ultralytics, on the prepared set that is there.

Each side trains in a process of its own, in turn, `--rounds` times; the first epoch, which warms up, is left out.
"""

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

SIDES = ("bare Ultralytics, fp32", "ours, fp32", "ours, auto")


def train_bare(data: Path, weights: str, out: Path, arguments: dict[str, object]) -> Path:
    from emotion_yolo.yolo.weights import YOLO  # sets Ultralytics' environment before it is imported

    YOLO(weights).train(
        data=str(data), project=str(out), name="bare", exist_ok=True, amp=False, device="cpu",
        plots=False, verbose=False, **arguments,
    )  # fmt: skip
    return out / "bare" / "results.csv"


def train_ours(data: Path, out: Path, arguments: dict[str, object], *, amp: str) -> Path:
    from emotion_yolo.params import Train, load_params
    from emotion_yolo.yolo.training import train

    params = Train.model_validate({**load_params().train.model_dump(), **arguments, "amp": amp, "device": "cpu"})
    return train(data, params, checkpoints=out / "ours").results


def epoch_seconds(results: Path) -> list[float]:
    with results.open() as file:
        times = [float({k.strip(): v for k, v in row.items()}["time"]) for row in csv.DictReader(file)]
    return [after - before for before, after in itertools.pairwise(times)]


def measure(side: str, epochs: int) -> list[float]:
    """Train one side and return the seconds of each epoch but the first."""
    from emotion_yolo.params import load_params
    from emotion_yolo.paths import PREPARED
    from emotion_yolo.yolo.training import OURS
    from emotion_yolo.yolo.view import write_view

    params = load_params().train
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        data = write_view(PREPARED, out / "view", params)
        # Both validate on the same pictures, and both begin with the same weights.
        arguments = {k: v for k, v in params.model_dump().items() if k not in OURS} | {"epochs": epochs}
        if side == SIDES[0]:
            return epoch_seconds(train_bare(data, params.weights, out, arguments))
        return epoch_seconds(train_ours(data, out, arguments, amp=side.split(", ")[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        sys.stdout.write("\n" + json.dumps(measure(given.side, given.epochs)) + "\n")
        return
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(given.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.training", "--side", side, "--epochs", str(given.epochs)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[side] += json.loads(done.stdout.strip().splitlines()[-1])
    params = yaml.safe_load(Path("params.yaml").read_text())["train"]
    print(f"imgsz {params['imgsz']}, batch {params['batch']}; seconds an epoch over {given.rounds} rounds\n")
    print("| side | median | min | max | × bare |\n|---|---|---|---|---|")
    base = statistics.median(seconds[SIDES[0]])
    for side, values in seconds.items():
        median = statistics.median(values)
        print(f"| {side} | {median:.2f} | {min(values):.2f} | {max(values):.2f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
