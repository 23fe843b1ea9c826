"""Composes the train pictures of crops: sheets of several faces, and pictures without any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from emotion_yolo.data.negatives import draw_learnt
from emotion_yolo.data.prepared import Kind, Slot, SoftLabels, Writer
from emotion_yolo.data.sheets import SheetPlan, compose_sheet, degraded, plan_sheets
from emotion_yolo.params import Appearance, Prepare
from emotion_yolo.pools import map_in_processes
from emotion_yolo.preparation.appearance import changed, finished
from emotion_yolo.preparation.crops import Crop, write_crops
from emotion_yolo.preparation.framing import Region, background, reframed
from emotion_yolo.preparation.sampling import Table, draw_views, plan_views, table_of
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels

Progress = Callable[[int, int], None]

_NO_FACES = Labels(np.zeros(0, np.int64), np.zeros((0, 4)))
_BACKGROUNDS = 12  # regions at hand for the tiles of one sheet


@dataclass(frozen=True)
class Composed:
    """What was composed: the number of sheets, and the faces on them by source and class."""

    sheets: int
    faces: Table


@dataclass(frozen=True, eq=False)
class _Sheet:
    index: int
    slot: Slot
    grid: int
    crops: tuple[Crop | None, ...]
    regions: tuple[Region, ...]


def write_train_crops(
    crops: Sequence[Crop], writer: Writer, params: Prepare, *, regions: Sequence[Region], progress: Progress
) -> Composed:
    """Write the train crops: on sheets, and some single as well; all single where sheets are off.

    Beside the sheets come pictures without a face: a network that only sees faces finds one anywhere. `regions` are
    places of photographs without a face, for backgrounds and for such pictures.
    """
    sheets = params.sheets
    if sheets.side == 0 or not crops:
        write_crops(crops, writer, "train")
        return Composed(0, {})
    rng = np.random.default_rng(params.seed + 1)
    singles = rng.random(len(crops)) < sheets.singles
    write_crops([crop for crop, single in zip(crops, singles, strict=True) if single], writer, "train")
    plans = _plans(crops, params)
    rng = np.random.default_rng([params.seed, 6])
    jobs = [
        _Sheet(
            index,
            writer.add(f"sheet_{index:06d}", split="train", kind=Kind.SHEET),
            plan.grid,
            tuple(None if member is None else crops[member] for member in plan.members),
            _some(regions, rng),
        )
        for index, plan in enumerate(plans)
    ]
    for done, _ in enumerate(map_in_processes(partial(_write_sheet, params=params), jobs, workers=params.workers)):
        progress(done + 1, len(jobs))
    write_negatives(round(sheets.negatives * len(plans)), writer, params, regions=regions)
    faces = [(crop.source, crop.cls) for job in jobs for crop in job.crops if crop is not None]
    return Composed(len(plans), table_of(faces))


def _plans(crops: Sequence[Crop], params: Prepare) -> list[SheetPlan]:
    sheets = params.sheets
    if params.sampling.faces == 0:
        return plan_sheets(len(crops), grids=sheets.grids, seed=params.seed, rounds=sheets.rounds)
    views = draw_views(crops, params.sampling, seed=params.seed)
    return plan_views(views, grids=sheets.grids, empty=params.framing.empty, seed=params.seed)


def _some(regions: Sequence[Region], rng: np.random.Generator) -> tuple[Region, ...]:
    return tuple(regions[i] for i in rng.integers(0, len(regions), _BACKGROUNDS)) if regions else ()


def _write_sheet(sheet: _Sheet, *, params: Prepare) -> None:
    # Of its own for each sheet, so that processes in any order draw the same.
    rng, framing_rng = (
        np.random.default_rng([params.seed, sheet.index]),
        np.random.default_rng([params.seed, 7, sheet.index]),
    )
    tile = params.sheets.side // sheet.grid
    tiles: list[tuple[Image, Labels]] = []
    for crop in sheet.crops:
        if crop is None:
            blank = np.full((8, 8, 3), framing_rng.integers(0, 256, 3), np.uint8)
            tiles.append((background(tile, blank, regions=sheet.regions, rng=framing_rng), _NO_FACES))
            continue
        image = read_rgb(crop.image)
        image = degraded(image, rng) if rng.random() < params.sheets.degraded else image
        face = float(crop.xywhn[3] * image.shape[0])
        image, labels = changed(image, params.appearance, framing_rng, face_height=face), crop.labels
        if framing_rng.random() < params.framing.share:
            image, labels = reframed(
                image, labels, tile=tile, grid=sheet.grid, framing=params.framing, regions=sheet.regions,
                rng=framing_rng,
            )  # fmt: skip
        tiles.append((finished(image, params.appearance, framing_rng), labels))
    picture, labels = compose_sheet(tiles, grid=sheet.grid, size=params.sheets.side)
    sheet.slot.write(picture, labels, _targets([crop for crop in sheet.crops if crop is not None]))


def _targets(crops: Sequence[Crop]) -> SoftLabels | None:
    if all(crop.target is None for crop in crops):
        return None
    nothing = np.full(len(NAMES), np.nan, np.float32)
    return np.stack([nothing if crop.target is None else crop.target for crop in crops])


def write_negatives(count: int, writer: Writer, params: Prepare, *, regions: Sequence[Region]) -> None:
    """Write `count` pictures without a face to the train split: drawn ones, and parts of photographs."""
    side = params.sheets.side
    choice = np.random.default_rng([params.seed, 8])
    for index in range(count):
        rng = np.random.default_rng([params.seed, index])
        if regions and choice.random() < params.sheets.negatives_cut:
            region = regions[int(choice.integers(len(regions)))]
            image = _cut_negative(region, params.appearance, choice, side=side)
        else:
            image = draw_learnt(rng, side=side)
        writer.add(f"negative_{index:06d}", split="train", kind=Kind.NEGATIVE).write(image, _NO_FACES)


def _cut_negative(region: Region, appearance: Appearance, rng: np.random.Generator, *, side: int) -> Image:
    x1, y1, x2, y2 = region.rect
    scale = side / max(x2 - x1, y2 - y1)
    size = (max(round((x2 - x1) * scale), 1), max(round((y2 - y1) * scale), 1))
    return finished(changed(region.read(size), appearance, rng), appearance, rng)
