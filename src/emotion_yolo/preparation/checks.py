"""The checks of a raw set: every picture decoded, every label line read, all findings reported at once.

A picture that cannot be trained on is left out (quarantined) with its reason; `stop_if_untrainable` says when so much
is wrong that training on the rest would be. The raw folder is only ever read.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageOps

from emotion_yolo.data.cards import SPLITS, Split
from emotion_yolo.data.prepared import CLASSES, SoftLabels
from emotion_yolo.data.sets import DATA_YAML, UNDEALT, SetRecord, class_ids, read_class_names
from emotion_yolo.data.votes import Votes, read_votes
from emotion_yolo.errors import DataError, ImageError, LabelError, LayoutError
from emotion_yolo.imaging import LOCAL, decode
from emotion_yolo.pools import map_in_processes
from emotion_yolo.structures.emotions import FACE_ID, Emotion
from emotion_yolo.structures.images import SUFFIXES
from emotion_yolo.structures.labels import Finding, Labels, parse, read_text

THUMB_SIDE = 32
"""Side in pixels of the grey thumbnail of a record; the size `imagehash.phash` itself works on."""

_MIN_SIDE = 10  # px; Ultralytics refuses smaller pictures in the middle of a training
_LISTED = 20  # findings in an error message


@dataclass(frozen=True, eq=False)
class Record:
    """One good picture of a raw set; class ids are ours, 0-7 or `FACE_ID`.

    Pictures of a set that `prepare` deals out are all `train` at first. `image_wh` is the size in pixels after EXIF
    orientation, `sha256` that of the file's bytes, `phash` a 64-bit perceptual hash and `phash_mirrored` that of its
    mirror image, `thumb` the picture in 32 × 32 grey bytes, row by row.
    """

    split: Split
    image: Path
    labels: Labels
    image_wh: tuple[int, int]
    sha256: str
    phash: int
    phash_mirrored: int
    thumb: bytes
    set: str = ""
    source: str = ""
    soft: SoftLabels | None = None
    """[1, 8] of a picture that annotators voted on."""

    @property
    def name(self) -> str:
        """Return `set/split/file name`, as reports call the picture."""
        return "/".join(part for part in (self.set, self.split, self.image.name) if part)


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found in a raw folder; the same for any number of processes.

    `records` and `findings` are sorted. `quarantined` holds relative picture paths with the reason why they are left
    out; `ignored` those of pictures whose classes are all ignored, or whose annotators saw no expression in them.
    `counts` are the good pictures by split and class name; one with several classes counts for each.
    """

    root: Path
    records: tuple[Record, ...]
    findings: tuple[Finding, ...]
    quarantined: dict[str, str]
    ignored: tuple[str, ...]
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Item:
    """A picture to examine and its label file; paths relative to the root."""

    split: Split
    image: str
    label: str
    votes: Votes | None


@dataclass(frozen=True)
class _Rules:
    """The settings for reading a set's pictures; `ids` maps class ids of its label files to ours."""

    root: Path
    record: SetRecord
    class_names: tuple[str, ...]
    ids: dict[int, int]


def scan(root: Path, *, record: SetRecord, workers: int, progress: Callable[[int, int], None] | None = None) -> Scan:
    """Check all of a raw set; `workers` 0 takes a process for each core, `progress` gets (done, total) pictures.

    Raises:
        LayoutError: a folder of another layout, or with classes that its record does not know.
    """
    root = root.resolve()
    rules = _Rules(root, record, tuple(read_class_names(root / DATA_YAML).values()), class_ids(record, root))
    items, unpaired, findings = _list_items(root)
    records: list[Record] = []
    ignored: list[str] = []
    quarantined = {finding.where: str(finding) for finding in unpaired}
    findings += unpaired
    examine = partial(_examine, rules=rules)
    outcomes = map_in_processes(examine, items, workers=workers)
    for done, (item, outcome) in enumerate(zip(items, outcomes, strict=True), start=1):
        if isinstance(outcome, Record):
            records.append(outcome)
        elif outcome is None:
            ignored.append(item.image)
        else:
            findings += outcome
            quarantined[item.image] = "; ".join(str(f) for f in outcome)
        if progress:
            progress(done, len(items))
    findings += _find_recurring_names(items)
    findings.sort(key=_finding_order)
    counts = _count(records, sorted({item.split for item in items}, key=SPLITS.index))
    return Scan(root, tuple(records), tuple(findings), quarantined, tuple(ignored), counts)


def stop_if_untrainable(found: Scan, *, report: Path) -> None:
    """Refuse a set that would be trained wrongly; `report` is where all findings have been written.

    Raises:
        DataError: a split without pictures, no label at all, or more than half of a split quarantined.
    """
    reasons = []
    for folder in _split_folders(found.root):
        good = sum(record.image.is_relative_to(found.root / folder) for record in found.records)
        good += sum(path.startswith(f"{folder}/") for path in found.ignored)
        bad = sum(path.startswith(f"{folder}/") for path in found.quarantined)
        where = found.root / folder
        if good + bad == 0:
            reasons.append(f"{where}: no picture there; expected at least one; complete the set")
        elif bad > good:
            message = f"{where}: {bad:,} of {good + bad:,} pictures cannot be used; expected at most half"
            reasons.append(f"{message}; correct the set's files or fetch it anew")
    if not reasons and not any(len(record.labels) for record in found.records):
        reasons.append(f"{found.root}: no label in any of {len(found.records):,} pictures; expected faces; add labels")
    if not reasons:
        return
    lines = [*reasons, *(f"  {finding}" for finding in found.findings[:_LISTED])]
    if (more := len(found.findings) - _LISTED) > 0:
        lines.append(f"  and {more:,} more; all in {report}")
    raise DataError("\n".join(lines))


def _split_folders(root: Path) -> list[str]:
    return [name for name in (*SPLITS, UNDEALT) if (root / name).is_dir()]


def _list_items(root: Path) -> tuple[list[_Item], list[Finding], list[Finding]]:
    """Pair pictures with label files.

    Returns the pairs, a finding for each picture that cannot be paired, and those on other files.
    """
    folders = _split_folders(root)
    missing = [
        f"{name}/{kind}" for name in folders for kind in ("images", "labels") if not (root / name / kind).is_dir()
    ]
    if not {"train", UNDEALT} & set(folders) or missing:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:10]) if root.is_dir() else "no such folder"
        wanted = ", ".join(missing) or f"train/images and train/labels, or {UNDEALT}/images and {UNDEALT}/labels"
        raise LayoutError(
            f"{root}: got {there or 'an empty folder'}, expected the folders {wanted}; "
            "pull the set again: emotion-yolo pull SOURCE"
        )
    votes = read_votes(root)
    items: list[_Item] = []
    unpaired: list[Finding] = []
    findings: list[Finding] = []
    for folder in folders:
        split: Split = next((split for split in SPLITS if split == folder), "train")
        images, stray = _list_files(root / folder / "images", SUFFIXES)
        labels, stray_labels = _list_files(root / folder / "labels", frozenset({".txt"}))
        others = [*(f"{folder}/images/{name}" for name in stray), *(f"{folder}/labels/{name}" for name in stray_labels)]
        message = "not a picture in images, or a .txt file in labels; passed over"
        findings += [Finding(other, "stray_file", message) for other in others]
        by_stem = {_stem(name): f"{folder}/labels/{name}" for name in labels}
        pictures = Counter(_stem(name) for name in images)
        for name in images:
            image, stem = f"{folder}/images/{name}", _stem(name)
            if pictures[stem] > 1:
                message = (
                    f"shares {by_stem.get(stem, 'its label')} with another picture {stem}.*; rename one with its label"
                )
                unpaired.append(Finding(image, "shared_label", message))
            elif stem not in by_stem:
                message = f"no {folder}/labels/{stem}.txt; restore the label file, or drop the picture"
                unpaired.append(Finding(image, "missing_label", message))
            else:
                items.append(_Item(split, image, by_stem[stem], votes.get(Path(stem).name)))
        for stem in sorted(by_stem.keys() - pictures.keys()):
            message = f"no picture {folder}/images/{stem}.*; restore it, or drop the label file"
            findings.append(Finding(by_stem[stem], "orphan_label", message))
    return items, unpaired, findings


def _stem(name: str) -> str:
    """Return a path below images/ or labels/ without its suffix."""
    return Path(name).with_suffix("").as_posix()


def _list_files(folder: Path, suffixes: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the sorted paths of the files below a folder that have one of the suffixes, and of all others."""
    good: list[str] = []
    other: list[str] = []
    for below, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.startswith(".") or name.endswith(".cache"):  # a desktop's or Ultralytics' own
                continue
            path = Path(below, name)
            wanted = path.is_file() and path.suffix.lower() in suffixes
            (good if wanted else other).append(path.relative_to(folder).as_posix())
    return sorted(good), sorted(other)


def _examine(item: _Item, *, rules: _Rules) -> Record | list[Finding] | None:
    """Read one picture and its labels, or return all findings on them; None if its classes are all ignored."""
    findings: list[Finding] = []
    raw = _read_labels(item, rules, findings)
    try:
        data = (rules.root / item.image).read_bytes()
        image = Image.fromarray(decode(data, LOCAL).pixels)
        if min(image.size) < _MIN_SIDE:
            raise ImageError(f"{image.width}×{image.height} px; expected at least {_MIN_SIDE} a side; drop it")
        grey = image.convert("L").resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    except OSError as error:
        findings.append(Finding(item.image, "unreadable_image", f"cannot be read ({error.strerror}); restore it"))
    except ImageError as error:
        findings.append(Finding(item.image, "unreadable_image", str(error)))
    if findings or raw is None:
        return findings
    labels = _mapped(raw, rules.ids)
    if len(raw) and not len(labels):
        return None
    soft = None
    if item.votes is not None and len(labels) == 1:
        if not item.votes.usable:
            return None
        cls = int(labels.cls[0])
        cls = item.votes.majority(Emotion(cls) if cls != FACE_ID else None)
        labels, soft = Labels(np.asarray([cls], np.int64), labels.xywhn), item.votes.soft[None]
    name = Path(item.image).name
    return Record(
        split=item.split,
        image=rules.root / item.image,
        labels=labels,
        image_wh=image.size,
        sha256=hashlib.sha256(data).hexdigest(),
        phash=_phash(grey),
        phash_mirrored=_phash(ImageOps.mirror(grey)),
        thumb=grey.tobytes(),
        set=rules.record.name,
        source=rules.record.source_tag(name),
        soft=soft,
    )


def _mapped(labels: Labels, ids: dict[int, int]) -> Labels:
    """Return the labels whose class is not ignored, with our class ids."""
    kept = np.asarray([cls in ids for cls in labels.cls.tolist()], bool)
    cls = [ids[cls] for cls in labels.cls[kept].tolist()]
    return Labels(np.asarray(cls, np.int64), labels.xywhn[kept])


@dataclass(frozen=True)
class Fingerprint:
    """The fields by which near-duplicates of a picture are recognised; see `Record`."""

    phash: int
    phash_mirrored: int
    thumb: bytes


def fingerprint(data: bytes) -> Fingerprint:
    """Return the fingerprint of a picture file's bytes.

    Raises:
        ImageError: it cannot be decoded.
    """
    grey = (
        Image.fromarray(decode(data, LOCAL).pixels)
        .convert("L")
        .resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    )
    return Fingerprint(_phash(grey), _phash(ImageOps.mirror(grey)), grey.tobytes())


def _phash(grey: Image.Image) -> int:
    return int(str(imagehash.phash(grey)), 16)


def _read_labels(item: _Item, rules: _Rules, findings: list[Finding]) -> Labels | None:
    try:
        text = read_text(rules.root / item.label)
    except LabelError:
        findings.append(Finding(item.label, "unreadable_label", "cannot be read as text; restore it"))
        return None
    labels, bad_lines = parse(text, where=item.label, class_names=rules.class_names)
    findings += bad_lines
    if rules.record.boxes == "frame" and not bad_lines and len(labels) != 1:
        if len(labels) == 0:
            code, message = "empty_label", "no line; expected one face; add it, or drop the picture"
        else:
            code = "several_faces"
            message = (
                f"{len(labels)} faces; expected one in a set whose boxes are the whole picture; "
                "set boxes: tight in its card, or drop it"
            )
        findings.append(Finding(item.label, code, message))
    return labels


def _count(records: Sequence[Record], splits: Sequence[Split]) -> dict[str, dict[str, int]]:
    present = sorted({cls for record in records for cls in record.labels.cls.tolist()})
    counts: dict[str, dict[str, int]] = {split: {CLASSES[cls]: 0 for cls in present} for split in splits}
    for record in records:
        for cls in set(record.labels.cls.tolist()):
            counts[record.split][CLASSES[cls]] += 1
    return counts


def _find_recurring_names(items: Sequence[_Item]) -> Iterator[Finding]:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        splits[Path(item.image).name].add(item.split)
    recurring = [name for name, where in splits.items() if len(where) > 1]
    if recurring:
        message = f"file names in more than one split, {recurring[0]} for one; nothing is lost, splits are kept apart"
        yield Finding(", ".join(SPLITS), "recurring_names", f"{len(recurring):,} {message}")


def _finding_order(finding: Finding) -> tuple[str, int, str]:
    where, _, line = finding.where.rpartition(":")
    return (where, int(line), finding.code) if line.isdecimal() else (finding.where, 0, finding.code)
