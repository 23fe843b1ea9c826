"""Photographs with boxes around faces: dealt out to splits, scaled, cut, and named by the teacher where nobody did."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.data.cards import Split
from emotion_yolo.data.prepared import Kind, Slot, SoftLabels, Writer
from emotion_yolo.data.sheets import shrink_scene, split_scenes
from emotion_yolo.params import Prepare
from emotion_yolo.preparation.appearance import changed, finished
from emotion_yolo.preparation.checks import Record
from emotion_yolo.preparation.framing import cut_out, random_part, window_around_face
from emotion_yolo.preparation.teacher import blended
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels

Progress = Callable[[int, int], None]

NameFaces = Callable[[Image, NDArray[np.float64]], SoftLabels]
"""RGB photograph [H, W, 3] and its face boxes xywhn [N, 4] to soft labels [N, 8]."""


@dataclass(frozen=True)
class Written:
    """How many faces photographs hold, and how many of unknown expression the teacher named."""

    faces: int = 0
    named: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(self.faces + other.faces, self.named + other.named)


def dealt(records: Sequence[Record], *, valid: float, test: float, seed: int) -> list[Record]:
    """Return photographs of a set without splits, dealt out by share."""
    split_of = split_scenes([record.image.name for record in records], valid=valid, test=test, seed=seed)
    return [replace(record, split=split_of[record.image.name]) for record in records]


def write_photographs(
    records: Sequence[Record],
    writer: Writer,
    split: Split,
    params: Prepare,
    *,
    name_faces: NameFaces | None = None,
    threads: int,
    progress: Progress,
) -> Written:
    """Write the photographs of one split: those of valid and test as they came, those of train scaled down.

    A train photograph is written `scenes.rounds` times, whole or in part. `name_faces` names its faces, which are then
    trained on beside their labels.
    """
    rounds = params.scenes.rounds if split == "train" else 1
    jobs = [
        (place, record, [_slot(record, writer, split, number) for number in range(rounds)])
        for place, record in enumerate(records)
    ]
    work = partial(_write_photograph, split=split, params=params, name_faces=name_faces)
    written = Written()
    with ThreadPoolExecutor(threads) as pool:
        for done, one in enumerate(pool.map(work, jobs), start=1):
            written += one
            progress(done, len(jobs))
    return written


def _slot(record: Record, writer: Writer, split: Split, number: int) -> Slot:
    stem, suffix = record.image.stem, record.image.suffix
    if split == "train":
        stem, suffix = f"scene_{stem}{f'_{number}' if number else ''}", ".jpg"
    return writer.add(stem, split=split, kind=Kind.SCENE, dataset=record.set, source=record.source, suffix=suffix)


def _write_photograph(
    job: tuple[int, Record, Sequence[Slot]], *, split: Split, params: Prepare, name_faces: NameFaces | None
) -> Written:
    place, record, slots = job
    labels, soft = without_repetition(record)
    if split != "train":
        slots[0].copy(record.image, labels, soft)
        return Written(len(labels))
    image = read_rgb(record.image)
    named: SoftLabels | None = None
    if name_faces and soft is None:
        named = name_faces(image, labels.xywhn)
        rows = zip(labels.cls.tolist(), named, strict=True)
        soft = np.stack([blended(cls, row, share=params.teacher.crops) for cls, row in rows]) if len(labels) else named
    first = Written()
    for number, slot in enumerate(slots):
        rng = np.random.default_rng([params.seed, 2, place, number])
        view, seen, kept = _view(image, labels, params, rng)
        slot.write(view, seen, None if soft is None else soft[kept])
        if number == 0:
            unknown = kept & (labels.cls == FACE_ID)
            first = Written(len(seen), 0 if named is None else int((~np.isnan(named[unknown, 0])).sum()))
    return first


def without_repetition(record: Record) -> tuple[Labels, SoftLabels | None]:
    """Return the labels of a photograph, each box once, sorted, six decimals a number, and its soft labels.

    A box given twice is one face. Ultralytics would drop the repetition, and soft labels would lose their place. Of two
    labels of one box the one that names an emotion stays.
    """
    xywhn = record.labels.xywhn.round(6)
    order = np.argsort(record.labels.cls == FACE_ID, kind="stable")  # named ones first
    boxes, first = np.unique(xywhn[order], axis=0, return_index=True)
    return Labels(record.labels.cls[order][first], boxes), record.soft


def _view(
    image: Image, labels: Labels, params: Prepare, rng: np.random.Generator
) -> tuple[Image, Labels, NDArray[np.bool_]]:
    """Return a photograph as it is trained on, its labels, and which [N] of the given ones these are."""
    scenes = params.scenes
    draw, rect, kept = rng.random(), None, np.ones(len(labels), bool)
    image_wh = (image.shape[1], image.shape[0])
    if draw < scenes.cut:
        rect = random_part(image_wh, rng)
    elif draw < scenes.cut + scenes.zoomed:
        rect = window_around_face(xywhn_to_xyxy(labels.xywhn, image_wh=image_wh), image_wh, rng)
    if rect is not None:
        image, labels, kept = cut_out(image, labels, rect, side=scenes.side)
    image, labels, large = shrink_scene(image, labels, size=scenes.side, min_face=scenes.min_face)
    stays = np.zeros_like(kept)
    stays[np.flatnonzero(kept)[large]] = True
    return finished(changed(image, params.appearance, rng), params.appearance, rng), labels, stays


def by_split(records: Sequence[Record], splits: Sequence[Split]) -> Mapping[Split, list[Record]]:
    """Return the records of each split, in order."""
    return {split: [record for record in records if record.split == split] for split in splits}
