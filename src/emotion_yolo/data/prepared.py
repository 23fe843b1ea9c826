"""The prepared set, `datasets/prepared`: the only module that knows its layout. Preparation writes it, the rest reads.

    data.yaml                                       class table, as Ultralytics reads it
    index.csv                                       one line per picture: file, split, kind, set, source
    images/<split>/, labels/<split>/, targets/<split>/
    scenes/<split>/{images,labels,targets}/         photographs of valid and test

`images/train` holds pictures of every kind. `targets` holds the soft labels of a picture, one line per line of its
label file; a picture without any has no such file.
"""

import csv
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter

from emotion_yolo.data.cards import Split
from emotion_yolo.errors import LabelError, LayoutError, StorageError
from emotion_yolo.structures.emotions import FACE_NAME, NAMES
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels, read, write

CLASSES: tuple[str, ...] = (*NAMES, FACE_NAME)
"""Class names of prepared labels by id."""

SoftLabels = NDArray[np.float32]
"""[N, 8] probabilities, one row per face; a row of nan where a face has no soft label."""

# A sheet is the second time a crop is compressed; at 95 the loss is below that of the first.
_JPEG_QUALITY = 95
_INDEX = "index.csv"
_TABLE = "data.yaml"


class Kind(StrEnum):
    """The kind of a prepared picture."""

    SHEET = "sheet"
    """A composition of several crops."""
    SINGLE = "single"
    """A crop of one face, as it came."""
    SCENE = "scene"
    """A photograph with any number of faces."""
    NEGATIVE = "negative"
    """A picture without a face."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and its faces; class ids as in `CLASSES`.

    `set` names the data set and `source` the origin within it; both are empty for pictures made from several.
    """

    image: Path
    labels: Labels
    set: str = ""
    source: str = ""
    kind: Kind = Kind.SINGLE
    soft: SoftLabels | None = None


@dataclass(frozen=True)
class _Entry:
    """A line of the index; `file` is relative to the root."""

    file: str
    split: Split
    kind: Kind
    set: str
    source: str


@dataclass(frozen=True)
class Slot:
    """The place of one picture in the prepared set, its index entry already made; can be sent to another process."""

    image: Path

    def write(self, image: Image, labels: Labels, soft: SoftLabels | None = None) -> None:
        """Write an RGB picture as JPEG, with its labels and soft labels.

        Raises:
            StorageError: the picture cannot be written.
        """
        self.image.parent.mkdir(parents=True, exist_ok=True)
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(self.image), bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
            raise StorageError(f"{self.image}: could not be written; check the free space and the permissions")
        self._write_labels(labels, soft)

    def copy(self, picture: Path, labels: Labels, soft: SoftLabels | None = None) -> None:
        """Copy a picture as it is (no link: Ultralytics may rewrite one in place), with its labels and soft labels."""
        self.image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, self.image)
        self._write_labels(labels, soft)

    def _write_labels(self, labels: Labels, soft: SoftLabels | None) -> None:
        path = _beside(self.image, "labels")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, labels)
        if soft is not None:
            path = _beside(self.image, "targets")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, soft, fmt="%.4f")


class Writer:
    """Adds pictures to a prepared set; `close` writes its index and class table."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries = _read_index(root) if (root / _INDEX).is_file() else []
        self._taken = {PurePosixPath(entry.file).with_suffix("") for entry in self._entries}

    def add(
        self, stem: str, *, split: Split, kind: Kind, dataset: str = "", source: str = "", suffix: str = ".jpg"
    ) -> Slot:
        """Enter a picture into the index; it is called `stem` unless another picture of its folder already is.

        In that case the name of its set precedes it, and a number follows if need be.
        """
        folder = _folder(split, kind)
        name, number = folder / stem, 1
        while name in self._taken:
            name = folder / (f"{dataset}-{stem}" if number == 1 else f"{dataset}-{stem}-{number}")
            number += 1
        self._taken.add(name)
        file = f"{name}{suffix}"
        self._entries.append(_Entry(file, split, kind, dataset, source))
        return Slot(self._root / file)

    def close(self) -> None:
        """Write `index.csv` and `data.yaml`.

        The table names no `path`: Ultralytics then takes the YAML's own folder.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        table = {
            "train": "images/train",
            "val": "images/valid",
            "test": "images/test",
            "names": dict(enumerate(CLASSES)),
        }
        (self._root / _TABLE).write_text(yaml.safe_dump(table, sort_keys=False), "utf-8")
        with (self._root / _INDEX).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(field.name for field in fields(_Entry))
            rows.writerows(astuple(entry) for entry in sorted(self._entries, key=lambda entry: entry.file))


def read_split(root: Path, split: Split) -> list[Sample]:
    """Return every picture of a split, by file name.

    Raises:
        LayoutError: no prepared set, none of this split, or one with other classes.
        LabelError: a label file or soft labels that are missing or cannot be used.
    """
    samples = _samples(root, split)
    if not samples:
        raise LayoutError(f"{root}: no pictures of {split}; run `dvc repro prepare`")
    return samples


def read_crops(root: Path, split: Split) -> list[Sample]:
    """Return the single crops of a split, by file name; errors as of `read_split`, but none for a split without."""
    return _samples(root, split, Kind.SINGLE)


def read_scenes(root: Path, split: Split) -> list[Sample]:
    """Return the photographs of a split, by file name; errors as of `read_split`, but none for a split without."""
    return _samples(root, split, Kind.SCENE)


def read_soft_labels(image: Path) -> SoftLabels | None:
    """Return the soft labels of a picture of the prepared set or of a view of it; None if it has none."""
    path = _beside(image, "targets")
    if not path.is_file():
        return None
    lines = path.read_text("utf-8").splitlines()
    return np.asarray([line.split() for line in lines], np.float32).reshape(-1, len(NAMES))


def link(root: Path, view: Path) -> None:
    """Make `view` a prepared set of links to that in `root`; caches written beside its labels stay out of `root`."""
    root = root.absolute()
    view.mkdir(parents=True)
    for file in (_INDEX, _TABLE):
        (view / file).symlink_to(root / file)
    for folder in sorted({_folder(entry.split, entry.kind) for entry in _read_index(root)}):
        for kind in ("images", "labels", "targets"):
            linked = _sibling(folder, kind)
            if (root / linked).is_dir():
                (view / linked).parent.mkdir(parents=True, exist_ok=True)
                (view / linked).symlink_to(root / linked)


def copy_split(root: Path, split: Split, out: Path) -> None:
    """Write a prepared set that holds one split of that in `root`."""
    writer = Writer(out)
    for sample in read_split(root, split):
        slot = writer.add(
            sample.image.stem, split=split, kind=sample.kind, dataset=sample.set, source=sample.source,
            suffix=sample.image.suffix,
        )  # fmt: skip
        slot.copy(sample.image, sample.labels, sample.soft)
    writer.close()


def decoded(samples: Sequence[Sample], *, threads: int = 2, ahead: int = 8) -> Iterator[tuple[Sample, Image]]:
    """Yield each sample with its RGB picture [H, W, 3], in order; reads at most `ahead` pictures in advance.

    Raises:
        ImageError: a picture that cannot be decoded.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Sample, Future[Image]]] = deque()
        for sample in samples:
            waiting.append((sample, pool.submit(read_rgb, sample.image)))
            if len(waiting) > ahead:
                done, image = waiting.popleft()
                yield done, image.result()
        while waiting:
            done, image = waiting.popleft()
            yield done, image.result()


def _folder(split: Split, kind: Kind) -> PurePosixPath:
    if kind is Kind.SCENE and split != "train":
        return PurePosixPath("scenes", split, "images")
    return PurePosixPath("images", split)


def _sibling(folder: PurePosixPath, name: str) -> PurePosixPath:
    """Return the folder of labels or targets that belongs to a folder of pictures."""
    return PurePosixPath(*(name if part == "images" else part for part in folder.parts))


def _beside(image: Path, name: str) -> Path:
    """Return the text file of labels or targets that belongs to a picture, as Ultralytics looks for labels."""
    parts = list(image.parts)
    parts[len(parts) - 1 - parts[::-1].index("images")] = name
    return Path(*parts).with_suffix(".txt")


def _read_index(root: Path) -> list[_Entry]:
    path = root / _INDEX
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return TypeAdapter(list[_Entry]).validate_python(list(csv.DictReader(file)))
    except OSError as error:
        raise LayoutError(f"{path}: no prepared set there ({error.strerror}); run `dvc repro prepare`") from error
    except (csv.Error, ValueError) as error:
        message = f"{path}: not the index of a prepared set ({error}); run `dvc repro --force prepare`"
        raise LayoutError(message) from error


def _samples(root: Path, split: Split, kind: Kind | None = None) -> list[Sample]:
    _check_classes(root)
    return [
        _sample(root, entry)
        for entry in _read_index(root)
        if entry.split == split and (kind is None or entry.kind is kind)
    ]


def _sample(root: Path, entry: _Entry) -> Sample:
    image = root / entry.file
    labels, soft = read(_beside(image, "labels"), class_names=CLASSES), read_soft_labels(image)
    if soft is not None and len(soft) != len(labels):
        raise LabelError(
            f"{_beside(image, 'targets')}: holds {len(soft)} soft labels for {len(labels)} labels, expected one each; "
            "run `dvc repro --force prepare`"
        )
    return Sample(image, labels, entry.set, entry.source, entry.kind, soft)


def _check_classes(root: Path) -> None:
    path = root / _TABLE
    try:
        names = yaml.safe_load(path.read_text("utf-8"))["names"]
    except OSError as error:
        raise LayoutError(f"{path}: no prepared set there ({error.strerror}); run `dvc repro prepare`") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise LayoutError(f"{path}: has no table of class names; run `dvc repro --force prepare`") from error
    if names != dict(enumerate(CLASSES)):
        raise LayoutError(f"{path}: classes are {names}, expected {dict(enumerate(CLASSES))}; run `dvc repro prepare`")
