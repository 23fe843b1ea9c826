"""FER2013's table of pixels, FER+'s votes on its pictures, and the folders that FER+'s own script writes."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from emotion_yolo.data.cards import Split
from emotion_yolo.data.votes import VOTE_COLUMNS, Votes
from emotion_yolo.errors import DataError, LabelError, LayoutError
from emotion_yolo.sources.layouts.found import FoundSet, Item, Remarks, is_readable, whole_picture
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.labels import read_text

SIDE = 48
"""Width and height of FER2013's pictures in pixels."""

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's classes by id."""

USAGES: dict[str, Split] = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
VOTES_FILE = "fer2013new.csv"
"""What FER+ calls its file of votes."""

_COLUMNS = ("emotion", "pixels", "usage")
_PIXELS = SIDE * SIDE
_MAX_LINE = 1 << 16  # bytes; a row is at most some 9,300
_LISTED = 20  # rows in an error message
# FER+'s columns in its order, by the names used here.
_FERPLUS = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt", "unknown", "not_a_face")
_FERPLUS_HEADER = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf",
)  # fmt: skip
_FERPLUS_FOLDERS: dict[str, Split] = {"FER2013Train": "train", "FER2013Valid": "valid", "FER2013Test": "test"}


@dataclass(frozen=True)
class Row:
    """One picture of the table: its class id, its 48 × 48 grey pixels as bytes, and its split."""

    emotion: int
    pixels: bytes
    split: Split


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line in the file, from 1, and what was got and expected."""

    line: int
    reason: str


def find_table(path: Path) -> FoundSet | None:
    """Return the set of a table of pixels, or None where the file is no such table.

    Raises:
        LayoutError: rows without a header.
    """
    header = _header(path)
    if header is None:
        return None
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    read = partial(_read_table, path)
    names = dict(enumerate(EMOTIONS))
    return FoundSet(path.parent, "FER2013 table", names, read, "", whole_pictures=True, total=lines)


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """Yield the rows of a table in order, one at a time: memory stays the same for a file of any size.

    Raises:
        LayoutError: no header.
    """
    columns = _header(path)
    if columns is None:
        raise LayoutError(f"{path}:1: expected the header emotion,pixels,Usage; add it as the first line")
    with path.open("rb") as file:
        file.readline(_MAX_LINE)
        number = 1
        while raw := file.readline(_MAX_LINE):
            number += 1
            too_long = len(raw) == _MAX_LINE and not raw.endswith(b"\n")
            if too_long:
                while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield BadRow(number, f"got over {_MAX_LINE:,} bytes in a row, expected some 9,000")
            elif raw.strip():
                yield _row(raw.decode("utf-8", "replace"), number, columns)


def _header(path: Path) -> tuple[int, int, int] | None:
    """Return where a file's header has the columns emotion, pixels and usage; None where it is another file."""
    with path.open("rb") as file:
        first = file.readline(_MAX_LINE).decode("utf-8-sig", "replace")
    names = [name.strip().lower() for name in _fields(first)]
    if set(_COLUMNS) <= set(names):
        emotion, pixels, usage = (names.index(column) for column in _COLUMNS)
        return emotion, pixels, usage
    numbers = max((field.count(" ") for field in _fields(first)), default=0)
    if numbers > _PIXELS // 2 or {"emotion", "pixels"} <= set(names) or path.stem.lower() == "fer2013":
        got = first.strip()[:40]
        raise LayoutError(f"{path}:1: got {got!r}, expected the header emotion,pixels,Usage; add it as the first line")
    return None


def _fields(line: str) -> list[str]:
    return [field.strip().strip('"') for field in line.strip().split(",")]


def _row(line: str, number: int, columns: tuple[int, int, int]) -> Row | BadRow:
    fields = _fields(line)
    if len(fields) <= max(columns):
        return BadRow(number, f"got {len(fields)} fields, expected {max(columns) + 1} (emotion, pixels, Usage)")
    emotion, pixels, usage = (fields[column] for column in columns)
    if emotion not in {str(known) for known in range(len(EMOTIONS))}:
        return BadRow(number, f"emotion: got {emotion[:20]!r}, expected 0-{len(EMOTIONS) - 1}")
    words = pixels.split()
    if len(words) != _PIXELS:
        return BadRow(number, f"pixels: got {len(words):,} numbers, expected {_PIXELS:,} ({SIDE}×{SIDE})")
    try:
        content = bytes(map(int, words))
    except ValueError:
        bad = next(word for word in words if not (word.isascii() and word.isdigit() and int(word[:5]) <= 255))
        return BadRow(number, f"pixels: got {bad[:20]!r}, expected numbers from 0 to 255")
    if usage not in USAGES:
        return BadRow(number, f"Usage: got {usage[:20]!r}, expected {', '.join(USAGES)}")
    return Row(int(emotion), content, USAGES[usage])


def _read_table(path: Path, remarks: Remarks) -> Iterator[Item]:
    good = 0
    bad: list[str] = []
    # FER+ names pictures after their place among the rows.
    for place, row in enumerate(read_rows(path)):
        name = PurePosixPath(f"fer{place:07d}.png")
        if isinstance(row, BadRow):
            bad.append(f"{path.name}:{row.line}")
            remarks.left_out.append((bad[-1], f"{row.reason}; correct or drop the row"))
            continue
        good += 1
        grey = np.frombuffer(row.pixels, np.uint8).reshape(SIDE, SIDE)
        encoded = cv2.imencode(".png", grey)[1].tobytes()
        yield Item(row.split, name, encoded, whole_picture(row.emotion))
    if len(bad) > good:
        listed = [f"  {where}: {reason}" for where, reason in remarks.left_out if where in set(bad[:_LISTED])]
        more = [f"  and {len(bad) - _LISTED:,} more"] if len(bad) > _LISTED else []
        head = f"{path}: {len(bad):,} of {len(bad) + good:,} rows cannot be used, expected at most half; fetch it again"
        raise DataError("\n".join([head, *listed, *more]))


# Votes -----------------------------------------------------------------------------------------------------------


def with_votes(found: FoundSet, path: Path) -> FoundSet:
    """Return the set with the votes of FER+'s file on its pictures, joined by their names.

    Raises:
        LayoutError: a file of another kind.
    """
    votes, mistakes = read_ferplus(path)

    def read(remarks: Remarks) -> Iterator[Item]:
        joined = total = 0
        for item in found.read(remarks):
            total += 1
            known = votes.get(item.name.stem)
            joined += known is not None
            yield replace(item, votes=known)
        note = f"votes of {path.name} on {joined:,} of {total:,} pictures"
        if not joined:
            note += ": none of its names is a picture's; expected names such as fer0000000.png"
        remarks.notes += [note, *mistakes]

    return replace(found, read=read)


def read_ferplus(path: Path) -> tuple[Mapping[str, tuple[int, ...]], list[str]]:
    """Read FER+'s votes by picture name without suffix, in the order of `VOTE_COLUMNS`, and what is wrong in the file.

    Rows without a name, pictures that FER+ dropped, get the name of their place where all others have theirs so.

    Raises:
        LayoutError: no text, or another header.
    """
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(read_text(path).splitlines())]
    except (LabelError, csv.Error) as error:
        raise LayoutError(f"{path}: cannot be read as CSV ({error}); fetch {VOTES_FILE} of FER+ again") from error
    header = tuple(field.lower() for field in rows[0]) if rows else ()
    if header[:2] != ("usage", "image name") or header[2:] != _FERPLUS_HEADER:
        raise LayoutError(f"{path}:1: got {','.join(header)[:80]!r}, expected Usage,Image name,neutral,happiness,…")
    placed = all(row[1] in ("", f"fer{place:07d}.png") for place, row in enumerate(rows[1:]) if len(row) > 1)
    votes: dict[str, tuple[int, ...]] = {}
    mistakes: list[str] = []
    for place, row in enumerate(rows[1:]):
        name = row[1] if len(row) > 1 and row[1] else f"fer{place:07d}.png" if placed else ""
        counts = _counts(row[2:])
        if counts is None:
            mistakes.append(
                f"{path.name}:{place + 2}: got {','.join(row)[:60]!r}, expected ten counts of votes; passed over"
            )
        elif name:
            votes[Path(name).stem] = counts
    return votes, mistakes


def _counts(fields: list[str]) -> tuple[int, ...] | None:
    """Return FER+'s ten counts in the order of `VOTE_COLUMNS`, or None where they are none."""
    if len(fields) != len(_FERPLUS) or not all(field.isascii() and field.isdigit() for field in fields):
        return None
    by_name = dict(zip(_FERPLUS, map(int, fields), strict=True))
    return tuple(by_name[column] for column in VOTE_COLUMNS)


def find_ferplus(root: Path) -> FoundSet | None:
    """Return the set that FER+'s own script wrote: FER2013Train, FER2013Valid and FER2013Test with a label.csv each."""
    tables = {root / name / "label.csv": split for name, split in _FERPLUS_FOLDERS.items()}
    there = {path: split for path, split in tables.items() if path.is_file()}
    if not there:
        return None
    names = dict(enumerate(NAMES))
    return FoundSet(root, "FER+ folders", names, partial(_read_ferplus, there), "in no label.csv", whole_pictures=True)


def _read_ferplus(tables: Mapping[Path, Split], remarks: Remarks) -> Iterator[Item]:
    for path, split in tables.items():
        for number, row in enumerate(csv.reader(read_text(path).splitlines()), start=1):
            where = f"{path.parent.name}/{path.name}:{number}"
            # A row is the name, the face's box in the picture, which is all of it, and the votes.
            counts = _counts([field.strip() for field in row[2:]]) if len(row) > 2 else None
            if counts is None:
                got = ",".join(row)[:60]
                remarks.left_out.append((where, f"got {got!r}, expected a name, a box and ten counts of votes"))
                continue
            picture = path.parent / row[0].strip()
            if not is_readable(picture.name) or picture.parent != path.parent or not picture.is_file():
                remarks.left_out.append((where, f"{row[0].strip()[:60]} is not there; run FER+'s script to write it"))
                continue
            votes = Votes(np.array(counts, np.float64))
            label = whole_picture(votes.majority()) if votes.usable else ""
            yield Item(split, PurePosixPath(picture.name), picture, label, counts)
