"""Sets in YOLO format: whatever Ultralytics trains from a data.yaml, and the usual folders without one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from emotion_yolo.data.cards import Split
from emotion_yolo.data.sets import UNDEALT, class_names_in
from emotion_yolo.errors import LabelError, LayoutError
from emotion_yolo.sources.layouts.found import (
    SPLIT_NAMES,
    FoundSet,
    Item,
    Remarks,
    is_picture,
    is_readable,
    split_of,
    walk,
)
from emotion_yolo.structures.emotions import FACE_NAME
from emotion_yolo.structures.labels import read_text

IMAGES, LABELS = "images", "labels"
_CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_NOT_LABELS = frozenset({"classes.txt", "readme.txt", "readme.dataset.txt", "readme.roboflow.txt", "license.txt"})
_KEYS: tuple[tuple[str, Split], ...] = (
    ("train", "train"),
    ("val", "valid"),
    ("valid", "valid"),
    ("validation", "valid"),
    ("test", "test"),
)


@dataclass(frozen=True)
class _Source:
    """A folder of pictures or a list of them, and the split they belong to."""

    split: Split | None
    path: Path


def find(root: Path, *, trusted: bool, table: Path | None = None) -> FoundSet | None:
    """Return the set in YOLO format whose root is this folder, if there is one.

    `trusted` folders may name pictures outside of themselves, as those of an archive may not. `table` is the set's
    data.yaml, where it is known which one it is.

    Raises:
        LayoutError: a class table that cannot be read, or none although there are several classes.
    """
    table_path, content = _data_yaml([table] if table else sorted(root.iterdir()))
    if content and table and (root / str(content.get("path") or ".")).is_dir():
        root = root / str(content.get("path") or ".")  # one of several sets with their tables side by side
    sources = _sources_of_table(root, content, trusted=trusted) if content else []
    # A data.yaml often names no test split although its folder is there.
    named, taken = {source.split for source in sources}, {source.path.resolve() for source in sources}
    by_folder = _sources_of_folders(root)
    sources += [
        source
        for source in by_folder
        if not named or (source.split and source.split not in named and source.path.resolve() not in taken)
    ]
    if not sources:
        return None
    if table_path is not None:
        names = class_names_in(content, where=table_path)
    else:
        names = _class_list(root) or _one_class(root, sources)
    keypoints = bool(content and content.get("kpt_shape"))

    def read(remarks: Remarks) -> Iterator[Item]:
        return _read(root, sources, keypoints=keypoints, remarks=remarks)

    return FoundSet(root, "YOLO", names, read, "outside the folders and lists of its splits")


def _data_yaml(paths: Sequence[Path]) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the file with the class table and its content, or two None."""
    candidates = sorted(
        (path for path in paths if path.suffix.lower() in {".yaml", ".yml"} and path.is_file()),
        key=lambda path: (path.stem.lower() not in {"data", "dataset"}, path.name),
    )
    for path in candidates:
        try:
            content = yaml.safe_load(path.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            if path.stem.lower() in {"data", "dataset"}:
                raise LayoutError(f"{path}: cannot be read as YAML ({error}); correct or replace it") from error
            continue
        if isinstance(content, dict) and ("names" in content or path.stem.lower() == "data"):
            return path, content
    return None, None


def _sources_of_table(root: Path, table: Mapping[str, Any], *, trusted: bool) -> list[_Source]:
    """Resolve what a data.yaml names, as Ultralytics does; nothing where it names nothing that is there."""
    base = root / str(table.get("path") or ".")
    bases = [base, root] if base.is_dir() else [root]
    sources: list[_Source] = []
    taken: set[Path] = set()
    for key, split in _KEYS:
        value = table.get(key)
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, str):
                continue
            # Roboflow writes ../train/images for folders beside data.yaml.
            tries = [folder / part for folder in bases for part in (entry, entry.removeprefix("../"))]
            path = next((path for path in tries if path.exists()), None)
            if path is None or not (trusted or path.resolve().is_relative_to(root.resolve())):
                continue
            if path.resolve() in taken:  # `val` is often `train` again where there is nothing to validate with
                continue
            taken.add(path.resolve())
            plain = Path(os.path.normpath(path))  # as the pictures below the root are called
            sources.append(_Source(split, plain if plain.exists() and plain.samefile(path) else path))
    return sources


def _sources_of_folders(root: Path) -> list[_Source]:
    """Recognise splits by the names of folders, or images/ beside labels/, or pictures beside their labels."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    sources = []
    for name, split in SPLIT_NAMES.items():
        if name in folders and (folders[name] / IMAGES).is_dir():
            sources.append(_Source(split, folders[name] / IMAGES))
        elif name in folders and _side_by_side(folders[name]):
            sources.append(_Source(split, folders[name]))
    if UNDEALT in folders and (folders[UNDEALT] / IMAGES).is_dir():  # as pulled sets have it
        sources.append(_Source(None, folders[UNDEALT] / IMAGES))
    images = folders.get(IMAGES)
    if sources or images is None:
        return sources or ([_Source(None, root)] if _side_by_side(root) else [])
    below = {path.name.lower(): path for path in sorted(images.iterdir()) if path.is_dir()}
    has_labels = LABELS in folders
    splits = [_Source(split, below[name]) for name, split in SPLIT_NAMES.items() if name in below]
    if splits and (has_labels or any(_side_by_side(source.path) for source in splits)):
        return splits
    return [_Source(None, images)] if has_labels or _side_by_side(images) else []


def _side_by_side(folder: Path) -> bool:
    """Return whether a picture of the folder has its label file beside it."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    stems = {Path(name).stem for name in names if is_readable(name)}
    return any(name.lower().endswith(".txt") and Path(name).stem in stems for name in names)


def _class_list(root: Path) -> dict[int, str] | None:
    """Read the class names of darknet and labelImg, a line each."""
    for folder in (root, root / LABELS, root / "train", root / "train" / LABELS):
        for name in _CLASS_LISTS:
            if (folder / name).is_file():
                lines = read_text(folder / name).splitlines()
                return dict(enumerate(line.strip() for line in lines if line.strip()))
    return None


def _one_class(root: Path, sources: list[_Source]) -> dict[int, str]:
    """Take a set without class names for faces, where all its labels are of one class."""
    for image, _, _ in _pictures(root, sources, Remarks()):
        label = _label_of(image)
        if label is None:
            continue
        try:
            words = [line.split()[0] for line in read_text(label).splitlines() if line.strip()]
        except LabelError:
            continue
        if other := next((word for word in words if word != "0"), None):
            raise LayoutError(
                f"{root}: no class names; got class id {other} in {label.relative_to(root)} and no data.yaml; add a "
                "data.yaml with names: [Anger, …] by id"
            )
    return {0: FACE_NAME}


def _read(root: Path, sources: list[_Source], *, keypoints: bool, remarks: Remarks) -> Iterator[Item]:
    _label_files.cache_clear()
    for image, split, name in _pictures(root, sources, remarks):
        label: Path | str | None = _label_of(image)
        if keypoints and isinstance(label, Path):
            try:
                lines = read_text(label).splitlines()
            except LabelError:
                lines = []  # the checks say what is wrong with the file as it is
            if lines:
                label = "".join(" ".join(line.split()[:5]) + "\n" for line in lines)
        yield Item(split, name, image, label)
    if keypoints:
        remarks.notes.append("keypoints were dropped; boxes were kept")


def _pictures(
    root: Path, sources: list[_Source], remarks: Remarks
) -> Iterator[tuple[Path, Split | None, PurePosixPath]]:
    """Yield the pictures of all splits, with their paths below images/."""
    for source in sources:
        if source.path.is_dir():
            for place, _, files in walk(source.path):
                for name in files:
                    if is_readable(name):
                        path = place / name
                        yield path, source.split, PurePosixPath(path.relative_to(source.path))
        elif is_picture(source.path.name):
            yield source.path, source.split, PurePosixPath(source.path.name)
        else:
            yield from _listed(root, source, remarks)


def _listed(root: Path, source: _Source, remarks: Remarks) -> Iterator[tuple[Path, Split | None, PurePosixPath]]:
    """Yield the pictures that a text file lists, a path a line."""
    for number, line in enumerate(read_text(source.path).splitlines(), start=1):
        entry = line.strip().replace("\\", "/")
        if not entry:
            continue
        tries = (source.path.parent / entry, root / entry, root / Path(entry).name)
        path = next((path for path in tries if path.is_file()), None)
        if path is None:
            where = f"{source.path.name}:{number}"
            remarks.left_out.append((where, f"{entry} is not there; restore it or drop the line"))
            continue
        yield path, source.split, _below_images(path)


def _below_images(path: Path) -> PurePosixPath:
    parts = path.parts
    if IMAGES not in parts[:-1]:
        return PurePosixPath(path.name)
    last = len(parts) - 1 - parts[::-1].index(IMAGES, 1)
    below = parts[last + 1 :]
    return PurePosixPath(*(below[1:] if len(below) > 1 and split_of(below[0]) else below))


def _label_of(image: Path) -> Path | None:
    """Return the label file of a picture: below labels/ instead of the last images/ of its path, or beside it."""
    parts = image.parent.parts
    folders = [image.parent]
    if IMAGES in parts:
        last = len(parts) - 1 - parts[::-1].index(IMAGES)
        folders.insert(0, Path(*parts[:last], LABELS, *parts[last + 1 :]))
    return next((files[image.stem] for files in map(_label_files, folders) if image.stem in files), None)


@cache
def _label_files(folder: Path) -> dict[str, Path]:
    """Return the label files of a folder by stem; `.TXT` is one as well."""
    if not folder.is_dir():
        return {}
    files = (
        path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.name.lower() not in _NOT_LABELS
    )
    return {path.stem: path for path in files}
