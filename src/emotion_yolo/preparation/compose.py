"""Writes the prepared set: tight labels, sheets of crops, and scenes, in the layout Ultralytics reads."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from emotion_yolo.data.negatives import draw_learnt
from emotion_yolo.data.sheets import SheetPlan, compose_sheet, degraded, plan_sheets, shrink_scene
from emotion_yolo.errors import StorageError
from emotion_yolo.params import Scenes, Sheets
from emotion_yolo.paths import SCENE_PREFIX, TARGETS
from emotion_yolo.pools import map_in_processes
from emotion_yolo.preparation.checks import Record
from emotion_yolo.preparation.teacher import Boxes, Targets, Teacher
from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels, read, write

# A sheet is the second time a crop is compressed; at 95 the loss is below that of the first.
_JPEG_QUALITY = 95

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Crop:
    """A raw crop with its tight face box [4]; `cls` is the emotion's id."""

    image: Path
    cls: int
    xywhn: NDArray[np.float64]
    target: NDArray[np.float32] | None = None
    """[8] probabilities to train on instead of `cls`, if there are any."""

    @property
    def labels(self) -> Labels:
        """Return the one label."""
        return Labels(np.asarray([self.cls], np.int64), self.xywhn.reshape(1, 4))


def write_table(out: Path) -> None:
    """Write `data.yaml`. It names no `path`: Ultralytics then takes the YAML's own folder, wherever that lies."""
    table = {
        "train": "images/train",
        "val": "images/valid",
        "test": "images/test",
        "names": dict(enumerate([*NAMES, FACE_NAME])),
    }
    (out / "data.yaml").write_text(yaml.safe_dump(table, sort_keys=False), "utf-8")


def write_crops(crops: Sequence[Crop], out: Path, split: str) -> None:
    """Copy crops as they are, with tight labels; copies, since Ultralytics may rewrite a picture in place."""
    images, labels = _folders(out / "images" / split, out / "labels" / split)
    for crop in crops:
        shutil.copyfile(crop.image, images / crop.image.name)
        write(labels / f"{crop.image.stem}.txt", crop.labels)
        if crop.target is not None:
            write_targets(out, crop.image.stem, crop.target[None])


def write_train(
    crops: Sequence[Crop], out: Path, sheets: Sheets, *, seed: int, workers: int, progress: Progress
) -> int:
    """Write the train crops: all on sheets and some single, or all single where sheets are off; returns the sheets.

    Beside the sheets it writes pictures without a face, for which a network that only sees faces finds one anywhere.
    """
    if sheets.side == 0:
        write_crops(crops, out, "train")
        return 0
    rng = np.random.default_rng(seed + 1)
    singles = rng.random(len(crops)) < sheets.singles
    write_crops([crop for crop, single in zip(crops, singles, strict=True) if single], out, "train")
    plans = plan_sheets(len(crops), grids=sheets.grids, seed=seed, rounds=sheets.rounds)
    jobs = [(i, plan, [crops[member] for member in plan.members]) for i, plan in enumerate(plans)]
    write_one = partial(_write_sheet, out=out, sheets=sheets, seed=seed)
    for done, _ in enumerate(map_in_processes(write_one, jobs, workers=workers), start=1):
        progress(done, len(jobs))
    write_negatives(round(sheets.negatives * len(plans)), out, side=sheets.side, seed=seed)
    return len(plans)


def _write_sheet(job: tuple[int, SheetPlan, list[Crop]], *, out: Path, sheets: Sheets, seed: int) -> None:
    index, plan, members = job
    rng = np.random.default_rng([seed, index])  # of its own, so that processes in any order draw the same
    images, labels = _folders(out / "images" / "train", out / "labels" / "train")
    tiles = []
    for crop in members:
        image = read_rgb(crop.image)
        tiles.append((degraded(image, rng) if rng.random() < sheets.degraded else image, crop.labels))
    sheet, truth = compose_sheet(tiles, grid=plan.grid, size=sheets.side)
    _write_jpeg(images / f"sheet_{index:06d}.jpg", sheet)
    write(labels / f"sheet_{index:06d}.txt", truth)
    targets = [crop.target for crop in members if crop.target is not None]
    if targets:
        write_targets(out, f"sheet_{index:06d}", np.stack(targets))


def write_negatives(count: int, out: Path, *, side: int, seed: int) -> None:
    """Write `count` drawn pictures of `side` px without a face, and so with empty label files, to the train split."""
    images, labels = _folders(out / "images" / "train", out / "labels" / "train")
    nothing = Labels(np.zeros(0, np.int64), np.zeros((0, 4)))
    for index in range(count):
        _write_jpeg(images / f"faceless_{index:06d}.jpg", draw_learnt(np.random.default_rng([seed, index]), side=side))
        write(labels / f"faceless_{index:06d}.txt", nothing)


def write_targets(out: Path, stem: str, targets: NDArray[np.float32]) -> None:
    """Write the targets [N, 8] of a train picture, a line for each line of its label file; nan is none."""
    (folder,) = _folders(out / TARGETS / "train")
    np.savetxt(folder / f"{stem}.txt", targets, fmt="%.4f")


def write_soft_labels(
    records: Sequence[Record],
    out: Path,
    teacher: Teacher,
    *,
    frame: Boxes,
    min_face: int,
    threads: int,
    progress: Progress,
) -> int:
    """Write a teacher's targets for the faces of train scenes already written; returns how many faces it named."""

    def one(record: Record) -> Targets:
        labels = read(out / "labels" / "train" / f"{_stem(record, 'train')}.txt", class_names=[*NAMES, FACE_NAME])
        return teacher.of_faces(read_rgb(record.image), labels.xywhn, frame=frame, min_face=min_face)

    named = 0
    with ThreadPoolExecutor(threads) as pool:
        for done, (record, targets) in enumerate(zip(records, pool.map(one, records), strict=True), start=1):
            named += int((~np.isnan(targets[:, 0])).sum())
            write_targets(out, _stem(record, "train"), targets)
            progress(done, len(records))
    return named


def write_scenes(records: Sequence[Record], out: Path, split: str, scenes: Scenes, *, workers: int) -> int:
    """Write scenes of one split, returns their faces; train scenes scaled down, the others as they came."""
    job = partial(_write_scene, out=out, split=split, scenes=scenes)
    return sum(map_in_processes(job, records, workers=workers))


def _write_scene(record: Record, *, out: Path, split: str, scenes: Scenes) -> int:
    # Scene sets name no emotions, only that it is a face.
    # A box given twice is one face; Ultralytics would drop the repetition, and targets would lose their place.
    xywhn = np.unique(record.labels.xywhn.round(6), axis=0)
    labels = Labels(np.full(len(xywhn), FACE_ID), xywhn)
    if split != "train":
        folder = out / "scenes" / split
        images, texts = _folders(folder / "images", folder / "labels")
        shutil.copyfile(record.image, images / record.image.name)
    else:
        images, texts = _folders(out / "images" / "train", out / "labels" / "train")
        image, labels = shrink_scene(read_rgb(record.image), labels, size=scenes.side, min_face=scenes.min_face)
        _write_jpeg(images / f"{_stem(record, split)}.jpg", image)
    write(texts / f"{_stem(record, split)}.txt", labels)
    return len(labels)


def _stem(record: Record, split: str) -> str:
    return f"{SCENE_PREFIX}{record.image.stem}" if split == "train" else record.image.stem


def _write_jpeg(path: Path, image: Image) -> None:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
        raise StorageError(f"{path}: could not be written; check the free space and the permissions")


def _folders(*paths: Path) -> tuple[Path, ...]:
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return paths
