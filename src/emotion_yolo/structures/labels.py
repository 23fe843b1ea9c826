"""YOLO label files, text to arrays and back.

A line is `<class id> <x> <y> <w> <h>`: centre and size of the box in parts of the picture's width and height. A line
of a polygon or an oriented box, `<class id> <x1> <y1> <x2> <y2> <x3> <y3> …`, stands for the box around its points. As
in Ultralytics, a line given twice counts once, and a box that leaves the picture by at most 1 % is clipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import LabelError

# AffectNet's own boxes reach 0.999 + 0.499; a rounding of the last digit over the edge is kept as it is.
_ROUNDING = 2e-3
_CLIPPED = 1e-2  # what Ultralytics (8.4) takes over the edge, in verify_image_label
_POLYGON_FIELDS = 7  # class and three points


@dataclass(frozen=True, eq=False)
class Labels:
    """The faces of one picture as its label file gives them: `cls` [N] class ids, `xywhn` [N, 4] normalised boxes."""

    cls: NDArray[np.int64]
    xywhn: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.cls)


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one file: `where` is `file` or `file:line`, `code` is stable, `message` is for a person."""

    where: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def parse(text: str, *, where: str, class_names: Sequence[str]) -> tuple[Labels, list[Finding]]:
    """Read a label file's text; good lines become labels, each bad one a finding that names its line."""
    rows: dict[tuple[float, ...], None] = {}  # a dict for its order: a line given twice counts once
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row, problem = _parse_line(line, class_names)
        if problem:
            findings.append(Finding(f"{where}:{number}", *problem))
        else:
            rows[tuple(row)] = None
    array = np.asarray(list(rows), dtype=np.float64).reshape(-1, 5)
    return Labels(array[:, 0].astype(np.int64), array[:, 1:]), findings


def _parse_line(line: str, class_names: Sequence[str]) -> tuple[list[float], tuple[str, str] | None]:
    """Return the five numbers of a line, or the code and message of what is wrong with it."""
    fields = line.split()
    if len(fields) != 5 and not is_polygon(fields):
        expected = "expected 5 (class x y w h), or a class and at least three points"
        return [], ("malformed", f"got {len(fields)} fields, {expected}; correct or drop the line")
    try:
        row = [float(field) for field in fields]
    except ValueError:
        word = next(field for field in fields if not _is_number(field))
        return [], ("malformed", f"{word!r} is not a number; expected class x y w h; correct or drop the line")
    cls = row[0]
    if not cls.is_integer() or not 0 <= cls < len(class_names):
        last = len(class_names) - 1
        return [], ("class_out_of_range", f"class id {fields[0]} is not in 0-{last}; correct or drop the line")
    if not np.isfinite(row).all():
        return [], ("malformed", "a number is not finite; correct or drop the line")
    x, y, w, h = row[1:] if len(row) == 5 else _box_around(row[1:])
    if w <= 0 or h <= 0:
        return [], ("degenerate_box", f"box of width {w:g} and height {h:g}; expected both above 0; drop the line")
    x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    over = max(-x1, -y1, x2 - 1, y2 - 1)
    if over > _CLIPPED + 1e-9:
        message = f"box spans {min(x1, y1):.3f} to {max(x2, y2):.3f} of the picture; expected 0 to 1; clip or drop it"
        return [], ("box_out_of_bounds", message)
    if over > _ROUNDING:
        x, y, w, h = _box_around([max(x1, 0), max(y1, 0), min(x2, 1), min(y2, 1)])
    return [cls, x, y, w, h], None


def is_polygon(fields: Sequence[str]) -> bool:
    """Return whether the words of a line are a class and the points of a polygon or of an oriented box."""
    return len(fields) >= _POLYGON_FIELDS and len(fields) % 2 == 1


def _box_around(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the xywhn box around points x1, y1, x2, y2, …."""
    xs, ys = points[::2], points[1::2]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def read_text(path: Path) -> str:
    """Return the text of a label file, without a byte-order mark.

    Raises:
        LabelError: it cannot be read, or is no UTF-8 text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path}: cannot be read as text ({error}); restore or drop the file") from error


def read(path: Path, *, class_names: Sequence[str]) -> Labels:
    """Read a label file that has to be right.

    Raises:
        LabelError: a line that cannot be used; the message begins with file:line.
    """
    text = read_text(path)
    labels, findings = parse(text, where=str(path), class_names=class_names)
    if findings:
        raise LabelError("\n".join(map(str, findings)))
    return labels


def write(path: Path, labels: Labels) -> None:
    """Write a label file, six decimals a number (a hundredth of a pixel in a picture 10,000 px wide)."""
    lines = (f"{cls} " + " ".join(f"{v:.6f}" for v in box) for cls, box in zip(labels.cls, labels.xywhn, strict=True))
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
