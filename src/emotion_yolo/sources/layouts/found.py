"""The common form of all layouts: a set with its class names and, in turn, its pictures and labels."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from emotion_yolo.data.cards import Split
from emotion_yolo.structures.images import SUFFIXES

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
"""Names of the folders and files of splits, in lower case."""

UNREAD_SUFFIXES = frozenset(
    {".arw", ".avif", ".cr2", ".cr3", ".dib", ".dng", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe"}
    | {".jxl", ".mpo", ".nef", ".pbm", ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".tga"}
)
"""Endings, in lower case, of pictures that are not read; each is reported."""

_LITTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin"})


@dataclass(frozen=True)
class Item:
    """One picture of a set.

    `image` is a file to bring or the content of one, `label` a YOLO label file to bring as it is, the text of one, or
    None where the picture has no label. `split` is None where the set does not say.
    """

    split: Split | None
    name: PurePosixPath
    """Path below the split's images/."""
    image: Path | bytes
    label: Path | str | None
    votes: tuple[int, ...] | None = None
    """Annotators' votes in the order of `VOTE_COLUMNS`."""


@dataclass
class Remarks:
    """Notes taken while a set is read."""

    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Pictures left out, and why."""
    notes: list[str] = field(default_factory=list)


Read = Callable[[Remarks], Iterator[Item]]


@dataclass(frozen=True)
class FoundSet:
    """A set below a folder, recognised and not yet read."""

    root: Path
    layout: str
    """Name of the layout, for people."""
    names: dict[int, str]
    """Class names by id."""
    read: Read
    passed_over: str
    """Why a picture below `root` that `read` does not yield is left out."""
    whole_pictures: bool = False
    """Its labels are of whole pictures: boxes are the frame, whatever they look like."""
    total: int | None = None
    """How many pictures it has at most, where they are no files below `root`."""


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder with its subfolders and files, sorted, without files that desktops leave behind.

    Links to folders are followed, each folder is visited once. As in `os.walk`, removing subfolders prunes them.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_litter(name))
        yield Path(place), folders, sorted(name for name in files if not is_litter(name))


def is_litter(name: str) -> bool:
    """Return whether a file or folder was left by a desktop, a file server or a tool, and is no part of a set."""
    return name.startswith(".") or name.lower() in _LITTER or name.endswith(".cache")


def is_picture(name: str) -> bool:
    """Return whether a file is a picture by its name, read or not."""
    suffix = Path(name).suffix.lower()
    return suffix in SUFFIXES or suffix in UNREAD_SUFFIXES


def is_readable(name: str) -> bool:
    """Return whether a file is a picture of a format that is read, by its name."""
    return Path(name).suffix.lower() in SUFFIXES


def pictures_below(root: Path) -> Iterator[Path]:
    """Yield every picture file below a folder, read or not."""
    for place, _, files in walk(root):
        yield from (place / name for name in files if is_picture(name))


def split_of(name: str) -> Split | None:
    """Return the split that a folder or file is named after, such as `val` and `instances_val2017`, or None."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else None


def whole_picture(number: int) -> str:
    """Return the label line of a class for the whole picture."""
    return f"{number} 0.5 0.5 1 1\n"
