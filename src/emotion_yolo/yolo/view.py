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

from emotion_yolo.data.sheets import compose_sheet
from emotion_yolo.errors import ModelError
from emotion_yolo.params import Train
from emotion_yolo.paths import SCENE_PREFIX, TARGETS
from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES
from emotion_yolo.structures.images import read_rgb
from emotion_yolo.structures.labels import Labels, read, write

_VALID_TILE = 128  # px, least side of a valid crop in the input


def data_yaml(train: Path, valid: Path) -> dict[str, object]:
    """Return the contents of Ultralytics' data YAML for two lists of pictures."""
    return {"train": str(train), "val": str(valid), "names": dict(enumerate([*NAMES, FACE_NAME]))}


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


def attach_targets(labels: list[dict[str, Any]]) -> Any:
    """Let Ultralytics' `labels` of train pictures stand for their targets, where there are any; returns these [T, 8].

    A class id is what survives Ultralytics' mosaics and crops, so that it carries the target's row.

    Raises:
        ModelError: a picture whose targets are not one a label.
    """
    rows: list[NDArray[np.float32]] = []
    for label in labels:
        image = Path(label["im_file"])
        path = image.parents[2] / TARGETS / image.parent.name / f"{image.stem}.txt"
        if not path.is_file():
            continue
        text = path.read_text("utf-8")
        targets = np.asarray([line.split() for line in text.splitlines()], np.float32).reshape(-1, len(NAMES))
        if len(targets) != len(label["cls"]):
            message = f"{path}: holds {len(targets)} targets for {len(label['cls'])} labels"
            raise ModelError(f"{message}, expected one each; run `dvc repro --force prepare`")
        named = np.flatnonzero(~np.isnan(targets).any(axis=1))
        label["cls"][named, 0] = FACE_ID + 1 + len(rows) + np.arange(len(named))
        rows.extend(targets[named])
    return torch.from_numpy(np.asarray(rows, np.float32).reshape(-1, len(NAMES)))
