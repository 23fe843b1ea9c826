"""Sets in the format of Pascal VOC: an XML file a picture."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import defusedxml.ElementTree as ElementTree
from defusedxml import DefusedXmlException

from emotion_yolo.data.cards import Split
from emotion_yolo.sources.layouts.found import SPLIT_NAMES, FoundSet, Item, Remarks, is_readable, split_of, walk

_LISTS = PurePosixPath("ImageSets/Main")
_FOLDERS = frozenset({"JPEGImages", "images"})
_TRIED = 10  # XML files that are read to see whether they are annotations
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def find(root: Path) -> FoundSet | None:
    """Return the set in Pascal VOC's format whose root is this folder, if there is one."""
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    splits = [folders[name] for name in SPLIT_NAMES if name in folders]
    places = [folders["annotations"]] if "annotations" in folders else splits
    files = sorted({*root.glob("*.xml"), *(path for place in places for path in place.rglob("*.xml"))})
    if not any(_parse(path) is not None for path in files[:_TRIED]):
        return None
    # The names of all classes stand in the annotations only.
    names = sorted({name for path in files for name in _class_names(path)})
    read = partial(_read, root, files, {name: number for number, name in enumerate(names)})
    return FoundSet(root, "Pascal VOC", dict(enumerate(names)), read, "no XML file describes it")


def _parse(path: Path) -> Any | None:
    """Return the root element of an annotation, or None where the file is none."""
    try:
        element = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, DefusedXmlException, ValueError):
        return None
    return element if element.tag == "annotation" else None


def _class_names(path: Path) -> Iterator[str]:
    element = _parse(path)
    for found in element.iter("object") if element is not None else ():
        yield (found.findtext("name") or "").strip()


def _read(root: Path, files: list[Path], numbers: dict[str, int], remarks: Remarks) -> Iterator[Item]:
    pictures: dict[str, list[Path]] = {}
    for place, _, names in walk(root):
        for name in names:
            if is_readable(name):
                pictures.setdefault(Path(name).stem, []).append(place / name)
    split_of_stem = _lists(root)
    outside = 0
    for path in files:
        where = path.relative_to(root).as_posix()
        element = _parse(path)
        if element is None:
            remarks.left_out.append((where, "not an XML file of one annotation; correct or drop it with its picture"))
            continue
        picture = _picture(path, element, pictures)
        if picture is None:
            remarks.left_out.append((where, "its picture is not there; restore it or drop the file"))
            continue
        split = split_of_stem.get(path.stem) or _folder_split(path.parent, root)
        try:
            lines = [_line(found, element, numbers) for found in element.iter("object")]
        except ValueError as error:
            remarks.left_out.append((picture.relative_to(root).as_posix(), f"its XML: {error}; correct or drop it"))
            continue
        folders = (part for part in picture.relative_to(root).parts[:-1] if part not in _FOLDERS and not split_of(part))
        yield Item(split, PurePosixPath(*folders, picture.name), picture, "".join(line for line in lines if line))
        outside += sum(line is None for line in lines)
    if outside:
        remarks.notes.append(f"{outside:,} objects without a box inside their picture were left out")


def _lists(root: Path) -> dict[str, Split]:
    """Read ImageSets/Main/{train,val,test}.txt: a picture's stem a line."""
    splits: dict[str, Split] = {}
    for path in sorted((root / _LISTS).glob("*.txt")):
        split = SPLIT_NAMES.get(path.stem.lower())
        if split is not None:
            for line in path.read_text("utf-8-sig").splitlines():
                if line.strip():
                    splits[line.split()[0]] = split
    return splits


def _folder_split(folder: Path, root: Path) -> Split | None:
    return next((split for part in folder.relative_to(root).parts if (split := split_of(part))), None)


def _picture(path: Path, element: Any, pictures: dict[str, list[Path]]) -> Path | None:
    """Find the picture of an annotation by the stem of its file, else by the name that stands in it."""
    named = Path((element.findtext("filename") or "").replace("\\", "/")).stem
    candidates = pictures.get(path.stem) or pictures.get(named) or []
    beside = [candidate for candidate in candidates if candidate.parent == path.parent]
    return next(iter(beside or candidates), None)


def _line(found: Any, element: Any, numbers: dict[str, int]) -> str | None:
    """Return an object as a label line, clipped to the picture; None where nothing of it is inside.

    Coordinates are taken as edges in pixels, from 0; a file that counts from 1 is half a pixel off.

    Raises:
        ValueError: no size, or no box.
    """
    width, height = (_number(element, f"size/{side}") for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise ValueError(f"got a picture of {width:g}×{height:g} px, expected its size")
    x1, y1, x2, y2 = (_number(found, f"bndbox/{edge}") for edge in _EDGES)
    x1, x2 = max(x1, 0) / width, min(x2, width) / width
    y1, y2 = max(y1, 0) / height, min(y2, height) / height
    if x2 <= x1 or y2 <= y1:
        return None
    number = numbers[(found.findtext("name") or "").strip()]
    return f"{number} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"


def _number(element: Any, path: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is {text!r}, expected a number") from error
    if not abs(value) < float("inf"):
        raise ValueError(f"{path} is {text!r}, expected a finite number")
    return value
