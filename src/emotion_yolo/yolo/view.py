"""The view of the prepared set that Ultralytics reads: links and lists, so that its caches never land in a DVC out."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image as PillowImage

from emotion_yolo.data.prepared import CLASSES, Kind, Sample, decoded, link, read_soft_labels, read_split
from emotion_yolo.data.sheets import compose_sheet
from emotion_yolo.errors import DataError, ModelError
from emotion_yolo.params import Train
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.labels import write

_VALID_TILE = 128  # px, least side of a valid crop in the input


def data_yaml(train: Path, valid: Path) -> dict[str, object]:
    """Return the contents of Ultralytics' data YAML for two lists of pictures."""
    return {"train": str(train), "val": str(valid), "names": dict(enumerate(CLASSES))}


def write_view(prepared: Path, view: Path, params: Train) -> Path:
    """Make a folder that Ultralytics may write its caches into, of links to the prepared set; returns its data YAML.

    Validation takes the pictures whose faces all have an emotion. Crops are laid on sheets where the input is large
    enough for several: enlarged to fill it, a crop would say how a face is seen of a size that training hardly shows.

    Raises:
        LayoutError: no prepared set, or one without train or valid pictures.
        DataError: a valid split without a named face.
    """
    shutil.rmtree(view, ignore_errors=True)
    view = view.absolute()
    link(prepared, view)
    train = [
        sample.image
        for sample in read_split(view, "train")
        for _ in range(params.scene_repeat if sample.kind is Kind.SCENE else 1)
    ]
    named = [sample for sample in read_split(view, "valid") if len(sample.labels) and FACE_ID not in sample.labels.cls]
    if not named:
        raise DataError(f"{prepared}: no valid picture whose faces all have an emotion; add a set that has some")
    crops, scenes = ([sample for sample in named if sample.kind is kind] for kind in (Kind.SINGLE, Kind.SCENE))
    crops, scenes = (each[:: max(len(each) // params.valid_pictures, 1)] for each in (crops, scenes))
    grid = params.imgsz // _VALID_TILE
    if grid > 1:
        valid = write_valid_sheets(crops, view / "sheets", grid=grid, size=params.imgsz)
    else:
        valid = [sample.image for sample in crops]
    valid += [sample.image for sample in scenes]
    lists = {}
    for split, paths in (("train", train), ("valid", valid)):
        lists[split] = view / f"{split}.list.txt"
        lists[split].write_text("".join(f"{path}\n" for path in paths), "utf-8")
    path = view / "ultralytics.yaml"
    path.write_text(yaml.safe_dump(data_yaml(lists["train"], lists["valid"]), sort_keys=False), "utf-8")
    return path


def write_valid_sheets(crops: Sequence[Sample], out: Path, *, grid: int, size: int) -> list[Path]:
    """Write sheets of `grid` × `grid` crops, each `size` px, with their labels; returns the pictures."""
    images, labels = out / "images", out / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    sheets = []
    for start in range(0, len(crops), grid * grid):
        tiles = [(image, sample.labels) for sample, image in decoded(crops[start : start + grid * grid])]
        sheet, truth = compose_sheet(tiles, grid=grid, size=size)
        sheets.append(images / f"{start:06d}.png")
        PillowImage.fromarray(sheet).save(sheets[-1])
        write(labels / f"{start:06d}.txt", truth)
    return sheets


def attach_targets(labels: list[dict[str, Any]]) -> Any:
    """Let Ultralytics' `labels` of train pictures stand for their targets, where there are any; returns these [T, 8].

    A class id is what survives Ultralytics' mosaics and crops, so that it carries the target's row.

    Raises:
        ModelError: a picture whose targets are not one a label.
    """
    rows: list[NDArray[np.float32]] = []
    for label in labels:
        targets = read_soft_labels(Path(label["im_file"]))
        if targets is None:
            continue
        if len(targets) != len(label["cls"]):
            message = f"{label['im_file']}: has {len(targets)} soft labels for {len(label['cls'])} labels"
            raise ModelError(f"{message}, expected one each; run `dvc repro --force prepare`")
        named = np.flatnonzero(~np.isnan(targets).any(axis=1))
        label["cls"][named, 0] = FACE_ID + 1 + len(rows) + np.arange(len(named))
        rows.extend(targets[named])
    return torch.from_numpy(np.asarray(rows, np.float32).reshape(-1, len(NAMES)))
