"""Stage `train`: datasets/prepared/ and a checkpoint → models/trained/, resumed where it was interrupted."""

import csv
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from emotion_yolo.inference.artefact import sha256_of
from emotion_yolo.params import Train, load_params
from emotion_yolo.paths import (
    CHECKPOINTS,
    DATA_PIN,
    PREPARED,
    RUN,
    TRAIN_REPORT,
    TRAINED,
    WANDB,
    WEIGHTS_NAME,
)
from emotion_yolo.stages import run_stage
from emotion_yolo.tracking.lineage import data_digest, git_revision
from emotion_yolo.tracking.tracker import Tracker
from emotion_yolo.yolo.trainer import RESUME_NAME, train
from emotion_yolo.yolo.view import write_view
from emotion_yolo.yolo.weights import save_weights


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params()
    folder = CHECKPOINTS / fingerprint(params.train, PREPARED)
    data = write_view(PREPARED, folder / "view", params.train)
    TRAINED.mkdir(parents=True, exist_ok=True)
    lineage = {"data": data_digest(DATA_PIN), "revision": git_revision()}
    with Tracker.start(
        params,
        live_dir=TRAIN_REPORT,
        run_file=RUN,
        journal=folder / "epochs.jsonl",
        wandb_dir=WANDB,
        resume=(folder / RESUME_NAME).exists(),
        lineage=lineage,
    ) as tracker:
        if tracker.info.url:  # W&B itself is kept silent
            print(f"W&B run: {tracker.info.url}", flush=True)
        trained = train(data, params.train, checkpoints=folder, on_epoch=tracker.log_epoch)
        if several_gpus(params.train.device):  # their processes cannot call back: the curves come afterwards
            for epoch, metrics in read_results(trained.results):
                tracker.log_epoch(epoch, metrics)
    alpha = params.train.wise_ft_alpha
    save_weights(trained.weights, TRAINED / WEIGHTS_NAME, start=params.train.weights, alpha=alpha)
    # All that was worth keeping is now an out; an interrupted stage would have left the folder to resume from.
    shutil.rmtree(folder)


def fingerprint(params: Train, prepared: Path) -> str:
    """Return 16 hexadecimal digits that change with the params, the starting weights and the prepared set."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    if Path(params.weights).is_file():
        digest.update(sha256_of(Path(params.weights)).encode())
    for path in sorted(prepared.rglob("*")):
        if path.is_file():
            # Of pictures the name and size will do: a set composed otherwise differs in its labels too.
            digest.update(f"{path.relative_to(prepared)} {path.stat().st_size}\n".encode())
            if path.suffix == ".txt":
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def several_gpus(device: str) -> bool:
    """Say whether Ultralytics trains on `device` in processes of its own."""
    return "," in device


def read_results(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the epochs of Ultralytics' results.csv, from 1, with their numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {name.strip(): float(value) for name, value in row.items()}
            yield int(numbers.pop("epoch")), numbers


if __name__ == "__main__":
    run_stage(main, interrupted="the next `dvc repro` goes on after the last finished epoch")
