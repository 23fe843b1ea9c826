"""Sets for classification: a folder of pictures for each class, of a split or of all."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from emotion_yolo.data.cards import Split
from emotion_yolo.data.taxonomy import target_of
from emotion_yolo.sources.layouts.found import (
    SPLIT_NAMES,
    FoundSet,
    Item,
    Remarks,
    is_readable,
    walk,
    whole_picture,
)


def find(root: Path, *, known: frozenset[str]) -> FoundSet | None:
    """Return the set of class folders whose root is this folder, if there is one.

    Folders are taken for classes where at least one of them is named after an emotion or is in `known`, the names
    that a card or the user maps.
    """
    folders = {path.name.lower(): path for path in _folders(root)}
    splits: dict[Path, Split | None] = {folders[name]: split for name, split in SPLIT_NAMES.items() if name in folders}
    places = splits or {root: None}
    classes = {path.name for place in places for path in _folders(place) if _has_pictures(path)}
    if len(classes) < 2 or not any(target_of(name) or name in known for name in classes):
        return None
    names = dict(enumerate(sorted(classes)))
    read = partial(_read, places, {name: number for number, name in names.items()})
    return FoundSet(root, "folders of classes", names, read, "in no folder of a class", whole_pictures=True)


def _folders(root: Path) -> list[Path]:
    return next(([place / name for name in folders] for place, folders, _ in walk(root)), [])


def _has_pictures(folder: Path) -> bool:
    return any(is_readable(name) for _, _, files in walk(folder) for name in files)


def _read(places: dict[Path, Split | None], numbers: dict[str, int], _remarks: Remarks) -> Iterator[Item]:
    for place, split in places.items():
        for folder in _folders(place):
            if folder.name not in numbers:
                continue
            for path, _, files in walk(folder):
                for name in files:
                    if is_readable(name):
                        below = PurePosixPath(path.relative_to(place)) / name
                        yield Item(split, below, path / name, whole_picture(numbers[folder.name]))
