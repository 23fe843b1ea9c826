"""Composes the prepared set: tight labels, sheets of crops, scenes, and negatives."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.data.cards import Split
from emotion_yolo.data.negatives import draw_learnt
from emotion_yolo.data.prepared import Kind, Slot, SoftLabels, Writer
from emotion_yolo.data.sheets import SheetPlan, compose_sheet, degraded, plan_sheets, shrink_scene
from emotion_yolo.params import Scenes, Sheets
from emotion_yolo.pools import map_in_processes
from emotion_yolo.preparation.checks import Record
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels

Progress = Callable[[int, int], None]

NameFaces = Callable[[Image, NDArray[np.float64]], SoftLabels]
"""RGB photograph [H, W, 3] and its face boxes xywhn [N, 4] to soft labels [N, 8]."""


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

    @property
    def source(self) -> str:
        """Return whose photograph it is, which AffectNet's file names tell: Flickr-Faces-HQ's, or others'."""
        return "ffhq" if self.image.name.startswith("ffhq_") else "other"


def write_crops(crops: Sequence[Crop], writer: Writer, split: Split) -> None:
    """Copy crops as they are, with tight labels."""
    for crop in crops:
        slot = writer.add(
            crop.image.stem,
            split=split,
            kind=Kind.SINGLE,
            dataset="crops",
            source=crop.source,
            suffix=crop.image.suffix,
        )
        slot.copy(crop.image, crop.labels, None if crop.target is None else crop.target[None])


def write_train(
    crops: Sequence[Crop], writer: Writer, sheets: Sheets, *, seed: int, workers: int, progress: Progress
) -> int:
    """Write the train crops: all on sheets and some single, or all single where sheets are off; returns the sheets.

    Beside the sheets it writes pictures without a face, for which a network that only sees faces finds one anywhere.
    """
    if sheets.side == 0:
        write_crops(crops, writer, "train")
        return 0
    rng = np.random.default_rng(seed + 1)
    singles = rng.random(len(crops)) < sheets.singles
    write_crops([crop for crop, single in zip(crops, singles, strict=True) if single], writer, "train")
    plans = plan_sheets(len(crops), grids=sheets.grids, seed=seed, rounds=sheets.rounds)
    jobs = [
        (i, writer.add(f"sheet_{i:06d}", split="train", kind=Kind.SHEET), plan, [crops[m] for m in plan.members])
        for i, plan in enumerate(plans)
    ]
    write_one = partial(_write_sheet, sheets=sheets, seed=seed)
    for done, _ in enumerate(map_in_processes(write_one, jobs, workers=workers), start=1):
        progress(done, len(jobs))
    write_negatives(round(sheets.negatives * len(plans)), writer, side=sheets.side, seed=seed)
    return len(plans)


def _write_sheet(job: tuple[int, Slot, SheetPlan, list[Crop]], *, sheets: Sheets, seed: int) -> None:
    index, slot, plan, members = job
    rng = np.random.default_rng([seed, index])  # of its own, so that processes in any order draw the same
    tiles = []
    for crop in members:
        image = read_rgb(crop.image)
        tiles.append((degraded(image, rng) if rng.random() < sheets.degraded else image, crop.labels))
    sheet, truth = compose_sheet(tiles, grid=plan.grid, size=sheets.side)
    targets = [crop.target for crop in members if crop.target is not None]
    slot.write(sheet, truth, np.stack(targets) if targets else None)


def write_negatives(count: int, writer: Writer, *, side: int, seed: int) -> None:
    """Write `count` drawn pictures of `side` px without a face to the train split."""
    nothing = Labels(np.zeros(0, np.int64), np.zeros((0, 4)))
    for index in range(count):
        image = draw_learnt(np.random.default_rng([seed, index]), side=side)
        writer.add(f"negative_{index:06d}", split="train", kind=Kind.NEGATIVE).write(image, nothing)


def write_scenes(
    records: Sequence[Record],
    writer: Writer,
    split: Split,
    scenes: Scenes,
    *,
    name_faces: NameFaces | None = None,
    threads: int,
    progress: Progress,
) -> tuple[int, int]:
    """Write the scenes of one split, those of train scaled down and the others as they came.

    Returns the number of their faces, and of those whose expression `name_faces` named, which only train scenes get.
    """
    jobs = [
        (
            record,
            writer.add(f"scene_{record.image.stem}", split=split, kind=Kind.SCENE, dataset="scenes", source="scenes")
            if split == "train"
            else writer.add(
                record.image.stem, split=split, kind=Kind.SCENE, dataset="scenes", source="scenes",
                suffix=record.image.suffix,
            ),
        )
        for record in records
    ]  # fmt: skip
    faces = named = 0
    with ThreadPoolExecutor(threads) as pool:
        work = partial(_write_scene, split=split, scenes=scenes, name_faces=name_faces)
        for done, (labels, soft) in enumerate(pool.map(work, *zip(*jobs, strict=True)) if jobs else (), start=1):
            faces += len(labels)
            named += 0 if soft is None else int((~np.isnan(soft[:, 0])).sum())
            progress(done, len(jobs))
    return faces, named


def _write_scene(
    record: Record, slot: Slot, *, split: Split, scenes: Scenes, name_faces: NameFaces | None
) -> tuple[Labels, SoftLabels | None]:
    # Scene sets name no emotions, only that it is a face.
    # A box given twice is one face; Ultralytics would drop the repetition, and targets would lose their place.
    xywhn = np.unique(record.labels.xywhn.round(6), axis=0)
    labels = Labels(np.full(len(xywhn), FACE_ID), xywhn)
    if split != "train":
        slot.copy(record.image, labels)
        return labels, None
    image = read_rgb(record.image)
    small, labels = shrink_scene(image, labels, size=scenes.side, min_face=scenes.min_face)
    soft = name_faces(image, labels.xywhn) if name_faces else None
    slot.write(small, labels, soft)
    return labels, soft
