"""The checks of a raw set: every picture decoded, every label line read, everything that is wrong reported at once.

A picture that cannot be trained on is left out (quarantined) with its reason; `stop_if_untrainable` says when so much
is wrong that training on the rest would be. The raw folder is only ever read.
"""

import hashlib
import io
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import yaml
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from emotion_yolo.data.cards import SPLITS, DatasetCard, Split
from emotion_yolo.errors import DataError, ImageError, LayoutError
from emotion_yolo.pools import map_in_processes
from emotion_yolo.structures.emotions import from_name
from emotion_yolo.structures.images import SUFFIXES
from emotion_yolo.structures.labels import Finding, Labels, parse

THUMB_SIDE = 32
"""Side in pixels of the grey thumbnail of a record; the size `imagehash.phash` itself works on."""

_MIN_SIDE = 10  # px; Ultralytics refuses smaller pictures in the middle of a training
_LISTED = 20  # findings in an error message


@dataclass(frozen=True, eq=False)
class Record:
    """One good picture of the raw set; scenes come without splits and are all `train`.

    `image_wh` is the size in pixels after EXIF orientation, `sha256` that of the file's bytes, `phash` a 64-bit
    perceptual hash and `phash_mirrored` that of its mirror image, `thumb` the picture in 32 × 32 grey
    bytes, row by row.
    """

    split: Split
    image: Path
    labels: Labels
    image_wh: tuple[int, int]
    sha256: str
    phash: int
    phash_mirrored: int
    thumb: bytes

    @property
    def name(self) -> str:
        """Return `split/file name`, as reports call the picture."""
        return f"{self.split}/{self.image.name}"


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found in a raw folder; the same for any number of processes.

    `records` and `findings` are sorted, `quarantined` holds relative picture paths with the reason why they are left
    out, `counts` the good pictures by split and class name (of scenes: pictures that hold the class).
    """

    root: Path
    records: tuple[Record, ...]
    findings: tuple[Finding, ...]
    quarantined: dict[str, str]
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Item:
    """A picture to examine and its label file; paths relative to the root."""

    split: Split
    image: str
    label: str


def scan(root: Path, *, card: DatasetCard, workers: int, progress: Callable[[int, int], None] | None = None) -> Scan:
    """Check all of a raw set; `workers` 0 takes a process for each core, `progress` gets (done, total) pictures.

    Raises:
        LayoutError: a folder of another layout, or another class table than the card's.
    """
    root = root.resolve()
    _check_class_table(root, card)
    items, unpaired, findings = _list_items(root, card)
    records: list[Record] = []
    quarantined = {finding.where: str(finding) for finding in unpaired}
    findings += unpaired
    examine = partial(_examine, root=root, class_names=card.classes, kind=card.kind)
    outcomes = map_in_processes(examine, items, workers=workers)
    for done, (item, outcome) in enumerate(zip(items, outcomes, strict=True), start=1):
        if isinstance(outcome, Record):
            records.append(outcome)
        else:
            findings += outcome
            quarantined[item.image] = "; ".join(str(f) for f in outcome)
        if progress:
            progress(done, len(items))
    counts = _count(records, card)
    findings += [*_compare_counts(counts, card), *_find_recurring_names(items)]
    findings.sort(key=_finding_order)
    return Scan(root, tuple(records), tuple(findings), quarantined, counts)


def stop_if_untrainable(found: Scan, *, report: Path) -> None:
    """Refuse a set that would be trained wrongly; `report` is where all findings have been written.

    Raises:
        DataError: a split without pictures, no label at all, or more than half of a split quarantined.
    """
    reasons = []
    for split in found.counts:
        prefix = f"{split}/" if len(found.counts) > 1 else ""  # scenes have no folder per split
        good = sum(record.split == split for record in found.records)
        bad = sum(path.startswith(prefix) for path in found.quarantined)
        where = found.root / prefix
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


def decode(data: bytes) -> Image.Image:
    """Decode a picture's bytes to the end and turn it as its EXIF orientation says.

    Raises:
        ImageError: no picture, a damaged or cut-off one, or one of more pixels than Pillow's decompression-bomb limit.
    """
    with _strict_pillow():
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return ImageOps.exif_transpose(image)
        except Image.DecompressionBombWarning as error:
            raise ImageError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; expected a photograph; scale it") from error
        # The message of the one holds a memory address; the other comes where Ultralytics has been imported, which
        # has Pillow's `open` try HEIC decoders that are not installed.
        except (UnidentifiedImageError, ModuleNotFoundError) as error:
            raise ImageError("not a picture of a known format; replace or drop it") from error
        # Pillow's decoders let out whatever a damaged file makes them trip over: OSError, SyntaxError, struct.error …
        except Exception as error:
            raise ImageError(f"not a readable picture ({error}); replace or drop it") from error


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Have Pillow refuse cut-off pictures and decompression bombs, whatever another library has set."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF and the like: the pixels decide
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _check_class_table(root: Path, card: DatasetCard) -> None:
    path = root / "data.yaml"
    if not path.is_file():
        if card.kind == "scenes":  # one class, and no split to name: scenes need no data.yaml
            return
        raise LayoutError(f"{path}: not there; expected the class table of a YOLO-format set; pull the whole set")
    try:
        table = yaml.safe_load(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LayoutError(f"{path}: cannot be read as YAML ({error}); correct or replace it") from error
    names = table.get("names") if isinstance(table, Mapping) else None
    if isinstance(names, Mapping):  # Ultralytics takes both a list and {id: name}
        names = [names.get(cls) for cls in range(len(names))]
    if not isinstance(names, list) or [_plain(n) for n in names] != [_plain(n) for n in card.classes]:
        raise LayoutError(
            f"{path}: names: got {names}, expected {list(card.classes)} (configs/datasets/{card.name}.yaml); "
            "another class table means other labels: correct data.yaml, or write a card for this set"
        )


def _plain(name: object) -> object:
    """Return what a class name means: case and the aliases of other sets do not make another class table."""
    emotion = from_name(str(name))
    return str(name).strip().lower() if emotion is None else emotion


def _list_items(root: Path, card: DatasetCard) -> tuple[list[_Item], list[Finding], list[Finding]]:
    """Pair pictures with label files.

    Returns the pairs, a finding for each picture that cannot be paired, and those on other files.
    """
    folders: list[tuple[Split, str]] = [("train", "")] if card.kind == "scenes" else [(s, f"{s}/") for s in SPLITS]
    if missing := [f"{p}{kind}" for _, p in folders for kind in ("images", "labels") if not (root / p / kind).is_dir()]:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:10]) if root.is_dir() else "no such folder"
        raise LayoutError(
            f"{root}: got {there or 'an empty folder'}, expected the folders {', '.join(missing)}; "
            "point to the folder that holds them, or rename yours"
        )
    items: list[_Item] = []
    unpaired: list[Finding] = []
    findings: list[Finding] = []
    for split, prefix in folders:
        images, stray = _list_files(root / prefix / "images", SUFFIXES)
        labels, stray_labels = _list_files(root / prefix / "labels", frozenset({".txt"}))
        others = [*(f"{prefix}images/{name}" for name in stray), *(f"{prefix}labels/{name}" for name in stray_labels)]
        message = "not a picture in images, or a .txt file in labels; passed over"
        findings += [Finding(other, "stray_file", message) for other in others]
        by_stem = {Path(name).stem: f"{prefix}labels/{name}" for name in labels}
        pictures = Counter(Path(name).stem for name in images)
        for name in images:
            image, stem = f"{prefix}images/{name}", Path(name).stem
            if pictures[stem] > 1:
                message = (
                    f"shares {by_stem.get(stem, 'its label')} with another picture {stem}.*; rename one with its label"
                )
                unpaired.append(Finding(image, "shared_label", message))
            elif stem not in by_stem:
                message = f"no {prefix}labels/{stem}.txt; restore the label file, or drop the picture"
                unpaired.append(Finding(image, "missing_label", message))
            else:
                items.append(_Item(split, image, by_stem[stem]))
        for stem in sorted(by_stem.keys() - pictures.keys()):
            message = f"no picture {prefix}images/{stem}.*; restore it, or drop the label file"
            findings.append(Finding(by_stem[stem], "orphan_label", message))
    return items, unpaired, findings


def _list_files(folder: Path, suffixes: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the sorted names of a folder's files with one of the suffixes, and of everything else in it."""
    good: list[str] = []
    other: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".cache"):  # a desktop's or Ultralytics' own
                continue
            wanted = entry.is_file() and Path(entry.name).suffix.lower() in suffixes
            (good if wanted else other).append(entry.name)
    return sorted(good), sorted(other)


def _examine(item: _Item, *, root: Path, class_names: Sequence[str], kind: str) -> Record | list[Finding]:
    """Read one picture and its labels, or say all that is wrong with them."""
    findings: list[Finding] = []
    labels = _read_labels(item, root, class_names, kind, findings)
    try:
        data = (root / item.image).read_bytes()
        image = decode(data)
        if min(image.size) < _MIN_SIDE:
            raise ImageError(f"{image.width}×{image.height} px; expected at least {_MIN_SIDE} a side; drop it")
        grey = image.convert("L").resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    except OSError as error:
        findings.append(Finding(item.image, "unreadable_image", f"cannot be read ({error.strerror}); restore it"))
    except ImageError as error:
        findings.append(Finding(item.image, "unreadable_image", str(error)))
    if findings or labels is None:
        return findings
    return Record(
        split=item.split,
        image=root / item.image,
        labels=labels,
        image_wh=image.size,
        sha256=hashlib.sha256(data).hexdigest(),
        phash=_phash(grey),
        phash_mirrored=_phash(ImageOps.mirror(grey)),
        thumb=grey.tobytes(),
    )


@dataclass(frozen=True)
class Fingerprint:
    """What near-duplicates of a picture are told by; the fields are those of `Record`."""

    phash: int
    phash_mirrored: int
    thumb: bytes


def fingerprint(data: bytes) -> Fingerprint:
    """Return the fingerprint of a picture file's bytes.

    Raises:
        ImageError: it cannot be decoded.
    """
    grey = decode(data).convert("L").resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    return Fingerprint(_phash(grey), _phash(ImageOps.mirror(grey)), grey.tobytes())


def _phash(grey: Image.Image) -> int:
    return int(str(imagehash.phash(grey)), 16)


def _read_labels(
    item: _Item, root: Path, class_names: Sequence[str], kind: str, findings: list[Finding]
) -> Labels | None:
    try:
        text = (root / item.label).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        findings.append(Finding(item.label, "unreadable_label", f"cannot be read as text ({error}); restore it"))
        return None
    labels, bad_lines = parse(text, where=item.label, class_names=class_names)
    findings += bad_lines
    if kind == "crops" and not bad_lines and len(labels) != 1:
        if len(labels) == 0:
            code, message = "empty_label", "no line; expected one face; add it, or drop the picture"
        else:
            code = "several_faces"
            message = f"{len(labels)} faces; expected one in a set of crops; use a card of kind scenes, or drop it"
        findings.append(Finding(item.label, code, message))
    return labels


def _count(records: Sequence[Record], card: DatasetCard) -> dict[str, dict[str, int]]:
    splits: tuple[Split, ...] = ("train",) if card.kind == "scenes" else SPLITS
    counts: dict[str, dict[str, int]] = {split: dict.fromkeys(card.classes, 0) for split in splits}
    for record in records:
        for cls in set(record.labels.cls.tolist()):
            counts[record.split][card.classes[cls]] += 1
    return counts


def _compare_counts(counts: dict[str, dict[str, int]], card: DatasetCard) -> Iterator[Finding]:
    for split, expected in (card.counts or {}).items():
        got = counts.get(split, {})
        for name in sorted({*expected, *got}):
            if got.get(name, 0) != expected.get(name, 0):
                message = f"{got.get(name, 0):,} good pictures of {name}; the card expects {expected.get(name, 0):,}"
                yield Finding(split, "count_differs", message)


def _find_recurring_names(items: Sequence[_Item]) -> Iterator[Finding]:
    splits: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        splits[Path(item.image).name].append(item.split)
    recurring = [name for name, where in splits.items() if len(where) > 1]
    if recurring:
        message = f"file names in more than one split, {recurring[0]} for one; nothing is lost, splits are kept apart"
        yield Finding(", ".join(SPLITS), "recurring_names", f"{len(recurring):,} {message}")


def _finding_order(finding: Finding) -> tuple[str, int, str]:
    where, _, line = finding.where.rpartition(":")
    return (where, int(line), finding.code) if line.isdecimal() else (finding.where, 0, finding.code)
