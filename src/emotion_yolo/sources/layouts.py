"""Data sets in YOLO format on disk: found by their layout, compared with what is expected, counted."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from emotion_yolo.data.cards import SPLITS, DatasetCard
from emotion_yolo.errors import LayoutError
from emotion_yolo.structures import emotions
from emotion_yolo.structures.emotions import Emotion
from emotion_yolo.structures.images import SUFFIXES
from emotion_yolo.structures.labels import parse

DATA_YAML = "data.yaml"
IMAGES, LABELS = "images", "labels"
UNLABELLED = "unlabelled"
"""Counts pictures whose label file is missing, empty or unreadable; the checks of `prepare` name them."""

Counts = Mapping[str, Mapping[str, int]]

_CROPS_LAYOUT = "data.yaml and {train,valid,test}/{images,labels}"
_SCENES_LAYOUT = "images/ with pictures, and labels/"


@dataclass(frozen=True)
class FoundSets:
    """Where the sets below a folder are."""

    crops: tuple[Path, ...]
    scenes: tuple[Path, ...]


def find_sets(folder: Path) -> FoundSets:
    """Look for sets of crops (they have splits) and of scenes (images and labels side by side), however deep."""
    crops: list[Path] = []
    scenes: list[Path] = []
    for place, names, _ in os.walk(folder):
        path = Path(place)
        if any((path / split / IMAGES).is_dir() for split in SPLITS):
            crops.append(path)
            names.clear()
        elif IMAGES in names and LABELS in names:
            if any(_pictures(path / IMAGES)):
                scenes.append(path)
            names.clear()
        else:
            names[:] = sorted(name for name in names if not name.startswith((".", "__MACOSX")))
    return FoundSets(tuple(crops), tuple(scenes))


def the_crops(found: FoundSets, *, where: str, folder: Path) -> Path:
    """Return the one set of crops and make sure that it is complete and has the eight emotions in order.

    Raises:
        LayoutError: none, several, an incomplete one, or another class table; all that is missing is listed.
    """
    root = _the_one(found.crops, _CROPS_LAYOUT, where=where, folder=folder)
    missing = [f"{s}/{part}/" for s in SPLITS for part in (IMAGES, LABELS) if not (root / s / part).is_dir()]
    missing += [f"{s}/{IMAGES}/*.jpg" for s in SPLITS if not any(_pictures(root / s / IMAGES))]
    if not (root / DATA_YAML).is_file():
        missing.insert(0, DATA_YAML)
    if missing:
        raise LayoutError(
            f"{_place(root, where, folder)}: not a complete set; missing: {', '.join(missing)}; "
            f"expected {_CROPS_LAYOUT}"
        )
    names = read_class_names(root / DATA_YAML)
    if [emotions.from_name(name) for name in names] != list(Emotion):
        raise LayoutError(
            f"{_place(root, where, folder)}/{DATA_YAML}: another class table; got {', '.join(names)}; expected "
            f"{', '.join(emotions.NAMES)}, in this order; renumber the labels or take another set"
        )
    return root


def the_scenes(found: FoundSets, *, where: str, folder: Path) -> Path:
    """Return the one set of scenes and make sure that faces are all it labels.

    Raises:
        LayoutError: none, several, or another class table.
    """
    root = _the_one(found.scenes, _SCENES_LAYOUT, where=where, folder=folder)
    if (root / DATA_YAML).is_file():
        names = read_class_names(root / DATA_YAML)
        if [name.strip().lower() for name in names] != [emotions.FACE_NAME]:
            raise LayoutError(
                f"{_place(root, where, folder)}/{DATA_YAML}: another class table; got {', '.join(names)}; expected the "
                f"one class {emotions.FACE_NAME}"
            )
    return root


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the class names of a data.yaml, by id.

    Raises:
        LayoutError: the file is no YAML, or has no list or table of names.
    """
    try:
        names = yaml.safe_load(path.read_text("utf-8"))["names"]
        if isinstance(names, dict):
            names = [names[number] for number in range(len(names))]
        if not isinstance(names, list):
            raise TypeError(f"names is {names!r}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = f"no class {error} in it" if isinstance(error, KeyError) else str(error)
        raise LayoutError(f"{path}: no class names could be read ({reason}); expected names: [Anger, …]") from error
    return tuple(map(str, names))


def set_files(root: Path) -> Iterator[Path]:
    """Yield the files that make a set, relative to its root: data.yaml, and what lies in images and labels."""
    if (root / DATA_YAML).is_file():
        yield Path(DATA_YAML)
    for top in [root / split for split in SPLITS if (root / split).is_dir()] or [root]:
        for part in (IMAGES, LABELS):
            for place, names, files in os.walk(top / part):
                names.sort()
                # Ultralytics leaves *.cache beside labels; in the data they would change its hash.
                kept = (name for name in sorted(files) if not name.startswith(".") and not name.endswith(".cache"))
                yield from (Path(place, name).relative_to(root) for name in kept)


def count_pictures(root: Path, *, class_names: Sequence[str]) -> dict[str, int]:
    """Count the pictures in `root/images` by class; one that shows several classes counts for each."""
    counts: Counter[str] = Counter()
    for picture in _pictures(root / IMAGES):
        try:
            text = (root / LABELS / f"{picture.stem}.txt").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            text = ""
        labels, _ = parse(text, where=picture.stem, class_names=class_names)
        counts.update({class_names[cls] for cls in labels.cls} or {UNLABELLED})
    return {name: counts[name] for name in (*class_names, UNLABELLED) if counts[name]}


def picture_total(root: Path) -> int:
    """Count the pictures of a set, those of all its splits if it has any."""
    folders = [root / split / IMAGES for split in SPLITS] + [root / IMAGES]
    return sum(1 for folder in folders for _ in _pictures(folder))


def differences(counts: Counts, card: DatasetCard) -> tuple[str, ...]:
    """Say where the counts of a set of crops are not those of its card; nothing if the card has none."""
    if card.counts is None:
        return ()
    found: list[str] = []
    for split in SPLITS:
        expected = {_emotion_name(name): count for name, count in card.counts.get(split, {}).items()}
        got = counts.get(split, {})
        found += [
            f"{split}/{name}: {got.get(name, 0)} pictures, the card says {expected.get(name, 0)}"
            for name in (*emotions.NAMES, UNLABELLED)
            if got.get(name, 0) != expected.get(name, 0)
        ]
    return tuple(found)


def _emotion_name(name: str) -> str:
    emotion = emotions.from_name(name)
    return emotion.label if emotion is not None else name


def _pictures(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file():
                yield folder / entry.name


def _the_one(places: Sequence[Path], layout: str, *, where: str, folder: Path) -> Path:
    if len(places) == 1:
        return places[0]
    if places:
        got = f"{len(places)} sets: " + ", ".join(_place(place, where, folder) for place in places)
    else:
        names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
        got = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "an empty folder"
    raise LayoutError(f"{where}: not one data set in YOLO format; got {got}; expected {layout}")


def _place(path: Path, where: str, folder: Path) -> str:
    inside = path.relative_to(folder).as_posix()
    return where if inside == "." else f"{where}/{inside}"
