"""YOLO label files, text to arrays and back.

A line is `<class id> <x> <y> <w> <h>`: centre and size of the box in parts of the picture's width and height.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import LabelError

# AffectNet's own boxes reach 0.999 + 0.499; a rounding of the last digit over the edge is no error.
_EDGE_TOLERANCE = 2e-3


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
    rows: list[list[float]] = []
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row, problem = _parse_line(line, class_names)
        if problem:
            findings.append(Finding(f"{where}:{number}", *problem))
        else:
            rows.append(row)
    array = np.asarray(rows, dtype=np.float64).reshape(-1, 5)
    return Labels(array[:, 0].astype(np.int64), array[:, 1:]), findings


def _parse_line(line: str, class_names: Sequence[str]) -> tuple[list[float], tuple[str, str] | None]:
    """Return the five numbers of a line, or the code and message of what is wrong with it."""
    fields = line.split()
    if len(fields) != 5:
        return [], ("malformed", f"got {len(fields)} fields, expected 5 (class x y w h); correct or drop the line")
    try:
        row = [float(field) for field in fields]
    except ValueError:
        word = next(field for field in fields if not _is_number(field))
        return [], ("malformed", f"{word!r} is not a number; expected class x y w h; correct or drop the line")
    cls, x, y, w, h = row
    if not cls.is_integer() or not 0 <= cls < len(class_names):
        last = len(class_names) - 1
        return [], ("class_out_of_range", f"class id {fields[0]} is not in 0-{last}; correct or drop the line")
    if not np.isfinite(row).all():
        return [], ("malformed", "a number is not finite; correct or drop the line")
    if w <= 0 or h <= 0:
        return [], ("degenerate_box", f"box of width {w:g} and height {h:g}; expected both above 0; drop the line")
    low, high = min(x - w / 2, y - h / 2), max(x + w / 2, y + h / 2)
    if low < -_EDGE_TOLERANCE or high > 1 + _EDGE_TOLERANCE:
        message = f"box spans {low:.3f} to {high:.3f} of the picture; expected 0 to 1; clip or drop it"
        return [], ("box_out_of_bounds", message)
    return row, None


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def read(path: Path, *, class_names: Sequence[str]) -> Labels:
    """Read a label file that has to be right.

    Raises:
        LabelError: a line that cannot be used; the message begins with file:line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path}: cannot be read as text ({error}); restore or drop the file") from error
    labels, findings = parse(text, where=str(path), class_names=class_names)
    if findings:
        raise LabelError("\n".join(map(str, findings)))
    return labels


def write(path: Path, labels: Labels) -> None:
    """Write a label file, six decimals a number (a hundredth of a pixel in a picture 10,000 px wide)."""
    lines = (f"{cls} " + " ".join(f"{v:.6f}" for v in box) for cls, box in zip(labels.cls, labels.xywhn, strict=True))
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
