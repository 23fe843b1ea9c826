"""Writes a set of any layout in the one of `data/`: images/, labels/, data.yaml and votes.csv."""

import csv
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml

from emotion_yolo.data.cards import Split
from emotion_yolo.data.sets import DATA_YAML, UNDEALT, Boxes
from emotion_yolo.data.votes import VOTE_COLUMNS, VOTES
from emotion_yolo.errors import LabelError
from emotion_yolo.progress import Progress
from emotion_yolo.sources.layouts import FoundSet, Item, Remarks
from emotion_yolo.sources.layouts.found import is_readable, pictures_below
from emotion_yolo.structures.labels import is_polygon, parse, read_text

IMAGES, LABELS = "images", "labels"

_FRAME = 0.98  # of the picture's width and of its height, from which on a box is the picture
_MIXED = 0.05  # share of boxes of the other kind that is worth a remark


@dataclass(frozen=True)
class Picture:
    """A picture that was written: its split, its path below images/, and the class ids of its label file."""

    split: Split | None
    name: PurePosixPath
    class_ids: tuple[int, ...]


@dataclass
class Written:
    """A set in its folder, with what was left out and found."""

    folder: Path
    names: dict[int, str]
    pictures: list[Picture]
    remarks: Remarks
    boxes: Boxes
    has_votes: bool
    label_codes: Counter[str] = field(default_factory=Counter)
    """Findings in label files by code; `prepare` reports each of them."""

    @property
    def found(self) -> int:
        """Return how many pictures the source has: those written and those left out."""
        return len(self.pictures) + len(self.remarks.left_out)

    def move(self, picture: Picture, split: Split) -> Picture:
        """Move a picture and its label file to another split, under another name where its own is taken there."""
        source, target = self.folder / (picture.split or UNDEALT), self.folder / split
        name = next(name for name in _alternatives(picture.name) if not (target / IMAGES / name).exists())
        for part, old, new in ((IMAGES, picture.name, name), (LABELS, _label_name(picture.name), _label_name(name))):
            if os.path.lexists(source / part / old):
                (target / part / new).parent.mkdir(parents=True, exist_ok=True)
                (source / part / old).rename(target / part / new)
        return Picture(split, name, picture.class_ids)


def write_set(found: FoundSet, folder: Path, *, owned: bool, linked: bool = False, progress: Progress) -> Written:
    """Write the pictures and labels of a set into `folder`: by renames where they are `owned`, else by copies.

    Label files in YOLO format stay as they are, under the name of their picture with `.txt`. `linked` makes links to
    pictures instead of copies, for a look at a set.

    Raises:
        DataError, LayoutError: see the layouts.
        StorageError: the disk is full or may not be written.
    """
    writer = _Writer(folder, owned=owned, linked=linked)
    remarks = Remarks()
    class_names = list(found.names.values())
    pictures: list[Picture] = []
    votes: list[tuple[str, tuple[int, ...]]] = []
    codes: Counter[str] = Counter()
    frames = boxes = polygons = 0
    total = found.total if found.total is not None else sum(1 for _ in pictures_below(found.root))
    with progress(f"Landing {folder.name}", total=total, unit=" pictures") as bar:
        for item in found.read(remarks):
            bar.update(1)
            reason = _unusable(item)
            if reason:
                writer.used.add(str(item.image))
                remarks.left_out.append((_printable(item.name), reason))
                continue
            name, text = writer.write(item)
            labels, findings = parse(text or "", where=str(name), class_names=class_names)
            codes.update(finding.code for finding in findings)
            polygons += sum(is_polygon(line.split()) for line in (text or "").splitlines())
            frames += int(((labels.xywhn[:, 2] >= _FRAME) & (labels.xywhn[:, 3] >= _FRAME)).sum())
            boxes += len(labels)
            pictures.append(Picture(item.split, name, tuple(sorted(set(labels.cls.tolist())))))
            if item.votes is not None:
                votes.append((name.stem, item.votes))
    if found.total is None:
        remarks.left_out += [
            (_printable(path.relative_to(found.root)), found.passed_over if is_readable(path.name) else _unread(path))
            for path in pictures_below(found.root)
            if str(path) not in writer.used
        ]
    if polygons:
        remarks.notes.append(f"{polygons:,} polygons or oriented boxes stand for the upright boxes around them")
    share = frames / boxes if boxes else 0.0
    trust: Boxes = "frame" if found.whole_pictures or share > 0.5 else "tight"
    if _MIXED < share < 1 - _MIXED:
        other = "frame" if trust == "tight" else "tight"
        what = f"{share:.0%} of {boxes:,} boxes are the whole picture; taken for {trust}"
        remarks.notes.append(f"{what} (boxes: {other} in a card changes that)")
    folder.mkdir(parents=True, exist_ok=True)
    table = yaml.safe_dump({"names": found.names}, sort_keys=True, allow_unicode=True)
    (folder / DATA_YAML).write_text(table, "utf-8")
    if votes:
        _write_votes(folder / VOTES, votes)
    return Written(folder, found.names, pictures, remarks, trust, bool(votes), codes)


class _Writer:
    """Writes pictures and labels under unique names."""

    def __init__(self, folder: Path, *, owned: bool, linked: bool) -> None:
        self._folder, self._owned, self._linked = folder, owned, linked
        self._stems: dict[tuple[str, str], object] = {}  # split and stem → the label that has it
        self._moved: dict[Path, Path] = {}
        self.used: set[str] = set()

    def write(self, item: Item) -> tuple[PurePosixPath, str | None]:
        """Write a picture with its label; returns its path below images/, and the label's text."""
        split = item.split or UNDEALT
        # Pictures that share a label file keep their stem, for the checks to say so.
        label: object = item.label if isinstance(item.label, Path) else object()
        name = next(name for name in _alternatives(item.name) if self._is_free(split, name, label))
        self._stems[split, str(name.with_suffix(""))] = label
        image = self._folder / split / IMAGES / name
        image.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(item.image, bytes):
            image.write_bytes(item.image)
        else:
            self.used.add(str(item.image))
            self._bring(item.image, image)
        text = self._write_label(item.label, self._folder / split / LABELS / _label_name(name))
        return name, text

    def _is_free(self, split: str, name: PurePosixPath, label: object) -> bool:
        holder = self._stems.get((split, str(name.with_suffix(""))))
        image = self._folder / split / IMAGES / name
        return holder is None or (holder == label and not os.path.lexists(image))

    def _write_label(self, label: Path | str | None, target: Path) -> str | None:
        if label is None:
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(label, str):
            target.write_text(label, "utf-8")
            return label
        if self._moved.get(label) != target:
            self._bring(label, target)
        try:
            return read_text(target)
        except LabelError:
            return None  # the checks of `prepare` say why

    def _bring(self, source: Path, target: Path) -> None:
        if source in self._moved:
            shutil.copyfile(self._moved[source], target)
            return
        if self._linked and is_readable(source.name):
            target.symlink_to(source.resolve())
        elif self._owned and not source.is_symlink():
            source.rename(target)
            self._moved[source] = target
        else:
            shutil.copyfile(source, target)


def _alternatives(name: PurePosixPath) -> Iterator[PurePosixPath]:
    yield name
    number = 2
    while True:
        yield name.with_name(f"{name.stem}-{number}{name.suffix}")
        number += 1


def _label_name(name: PurePosixPath) -> PurePosixPath:
    return name.with_name(f"{name.stem}.txt")


def _unusable(item: Item) -> str | None:
    """Return why a picture cannot be written, or None."""
    try:
        str(item.name).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it with its label"
    if isinstance(item.image, Path) and not item.image.is_file():
        return "not a file; restore or drop it"
    return None


def _unread(path: Path) -> str:
    return f"{path.suffix} is not read; convert it to JPEG or PNG"


def _printable(path: Path | PurePosixPath) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _write_votes(path: Path, votes: list[tuple[str, tuple[int, ...]]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *VOTE_COLUMNS])
        writer.writerows((stem, *counts) for stem, counts in sorted(votes))


def counts_by_class(pictures: list[Picture], classes: dict[int, str]) -> dict[str, dict[str, int]]:
    """Count pictures by split and class; one that shows several classes counts for each.

    `classes` names the class of each id; a picture without an id that is named counts as `unlabelled`.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        shown = {classes[number] for number in picture.class_ids if number in classes}
        counts[picture.split or UNDEALT].update(shown or {UNLABELLED})
    order = [*dict.fromkeys(classes.values()), UNLABELLED]
    splits = [split for split in ("train", "valid", "test", UNDEALT) if split in counts]
    return {split: {name: counts[split][name] for name in order if counts[split][name]} for split in splits}


UNLABELLED = "unlabelled"
"""Counts pictures whose label file is missing, empty or unreadable; the checks of `prepare` name them."""
