"""Stage `train`: datasets/prepared/ and a checkpoint → models/trained/, resumed where it was interrupted."""

import csv
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from PIL import Image as PillowImage

from emotion_yolo.artefact import sha256_of
from emotion_yolo.emotions import FACE_NAME, NAMES
from emotion_yolo.images import read_rgb
from emotion_yolo.labels import Labels, read, write
from emotion_yolo.lineage import data_digest, git_revision
from emotion_yolo.params import Train, load_params
from emotion_yolo.paths import (
    CHECKPOINTS,
    DATA_PIN,
    PREPARED,
    RUN,
    SCENE_PREFIX,
    TARGETS,
    TRAIN_REPORT,
    TRAINED,
    WANDB,
    WEIGHTS_NAME,
)
from emotion_yolo.scenes import compose_sheet
from emotion_yolo.stages import run_stage
from emotion_yolo.tracking import Tracker
from emotion_yolo.yolo import RESUME_NAME, data_yaml, save_weights, train

_VALID_TILE = 128  # px, least side of a valid crop in the input


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
    save_weights(trained.weights, TRAINED / WEIGHTS_NAME, start=params.train.weights, keep=params.train.keep)
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


def write_view(prepared: Path, view: Path, params: Train) -> Path:
    """Make a folder that Ultralytics may write its caches into, of links to the prepared set; returns its data YAML.

    Valid crops are laid on sheets where the input is large enough for several: enlarged to fill it, a crop would say
    how a face is seen of a size that training hardly shows.
    """
    shutil.rmtree(view, ignore_errors=True)
    prepared, view = prepared.absolute(), view.absolute()
    for kind in ("images", "labels"):
        (view / kind).mkdir(parents=True)
        for split in ("train", "valid"):
            (view / kind / split).symlink_to(prepared / kind / split)
    (view / TARGETS).symlink_to(prepared / TARGETS)  # which may be missing: then labels are all there is
    train = sorted((view / "images" / "train").iterdir())
    valid = sorted((view / "images" / "valid").iterdir())
    valid = valid[:: max(len(valid) // params.valid_pictures, 1)]
    grid = params.imgsz // _VALID_TILE
    if grid > 1:
        valid = write_valid_sheets(valid, view / "sheets", grid=grid, size=params.imgsz)
    repeated = [path for path in train for _ in range(params.scene_repeat if path.name.startswith(SCENE_PREFIX) else 1)]
    lists = {}
    for split, paths in (("train", repeated), ("valid", valid)):
        lists[split] = view / f"{split}.list.txt"
        lists[split].write_text("".join(f"{path}\n" for path in paths), "utf-8")
    path = view / "data.yaml"
    path.write_text(yaml.safe_dump(data_yaml(lists["train"], lists["valid"]), sort_keys=False), "utf-8")
    return path


def write_valid_sheets(crops: Sequence[Path], out: Path, *, grid: int, size: int) -> list[Path]:
    """Write sheets of `grid` × `grid` crops, each `size` px, with their labels; returns the pictures."""
    images, labels = out / "images", out / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    sheets = []
    for start in range(0, len(crops), grid * grid):
        tiles = [(read_rgb(crop), labels_of(crop)) for crop in crops[start : start + grid * grid]]
        sheet, truth = compose_sheet(tiles, grid=grid, size=size)
        sheets.append(images / f"{start:06d}.png")
        PillowImage.fromarray(sheet).save(sheets[-1])
        write(labels / f"{start:06d}.txt", truth)
    return sheets


def labels_of(picture: Path) -> Labels:
    """Read the labels of a picture in Ultralytics' layout."""
    path = picture.parents[2] / "labels" / picture.parent.name / f"{picture.stem}.txt"
    return read(path, class_names=(*NAMES, FACE_NAME))


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
