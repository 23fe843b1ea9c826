"""`emotion-yolo check`: all checks of a set, without pulling it."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emotion_yolo.data.cards import DatasetCard
from emotion_yolo.drawing import Tile, contact_sheet, draw_box, evenly, fitted
from emotion_yolo.errors import DataError, SourceError
from emotion_yolo.preparation.checks import Record, scan, stop_if_untrainable
from emotion_yolo.preparation.near_duplicates import resolve_near_duplicates
from emotion_yolo.progress import Progress, counting, show_progress
from emotion_yolo.sources.describing import Choices, LandedSet, stage_sets
from emotion_yolo.sources.fetching import Fetched
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_NAME, NAMES
from emotion_yolo.structures.images import Image, read_rgb

_PER_SHEET = 36  # pictures
_SIDE = 240  # px of a picture on the sheet
_CLASSES = (*NAMES, FACE_NAME)
_REMARKS = frozenset({"recurring_names", "count_differs"})  # codes of findings that cost no picture


@dataclass(frozen=True)
class Checked:
    """The results of the checks of one set."""

    landed: LandedSet
    findings: tuple[str, ...]
    """Findings, one per line, beginning with the file."""
    remarks: tuple[str, ...]
    """Remarks on the whole set."""
    near_duplicates: Mapping[str, str]
    """Pictures that `prepare` would drop as near-duplicates of others, with the reason."""
    refusal: str
    """Why `prepare` would stop at this set; empty if it would not."""
    sheet: Image
    """Some of its pictures with their boxes and classes."""

    @property
    def is_clean(self) -> bool:
        """Return whether every picture can be trained on as it is."""
        return not (self.findings or self.landed.left_out or self.near_duplicates or self.refusal)

    def lines(self) -> list[str]:
        """Return the result for a person: every finding, then the summary."""
        lines = [f"{where}: left out: {reason}" for where, reason in self.landed.left_out]
        lines += self.findings
        lines += [f"{name}: {reason}" for name, reason in self.near_duplicates.items()]
        lines += self.landed.lines()
        lines += [f"  note: {remark}" for remark in self.remarks]
        if self.refusal:
            lines.append(f"  prepare would stop: {self.refusal}")
        counts = f"{len(self.landed.left_out):,} left out, {len(self.findings):,} findings"
        return [*lines, f"  {counts}, {len(self.near_duplicates):,} near-duplicates to drop"]


def check_source(
    path: Path, cards: Mapping[str, DatasetCard], choices: Choices, *, progress: Progress = show_progress
) -> list[Checked]:
    """Check every set of a folder, a `data.yaml` or FER2013's table; nothing is changed or kept.

    Raises:
        SourceError: nothing is there.
        LayoutError, DataError: see `pull`.
    """
    if not path.exists():
        raise SourceError(f"{path}: not there; expected a folder, a data.yaml or a CSV")
    fetched = Fetched(path, str(path), {"kind": "folder", "name": path.resolve().name}, beside=path.resolve().parent)
    with tempfile.TemporaryDirectory(prefix="emotion-yolo-check-") as name:
        staged = stage_sets(fetched, Path(name), cards, choices, linked=True, progress=progress)
        return [_checked(written.folder, landed, choices) for written, landed in staged]


def _checked(folder: Path, landed: LandedSet, choices: Choices) -> Checked:
    with counting(f"check {landed.record.name}") as progress:
        found = scan(folder, record=landed.record, workers=0, progress=progress)
    near = resolve_near_duplicates(found.records, distance=choices.near_distance)
    refusal = ""
    try:
        stop_if_untrainable(found, report=folder)
    except DataError as error:
        refusal = str(error).splitlines()[0].replace(f"{folder.resolve()}/", "")
    findings = tuple(str(finding) for finding in found.findings if finding.code not in _REMARKS)
    remarks = tuple(str(finding) for finding in found.findings if finding.code in _REMARKS)
    return Checked(landed, findings, remarks, near.dropped, refusal, _sheet(landed.record.name, found.records))


def _sheet(name: str, records: tuple[Record, ...]) -> Image:
    """Show pictures at even distances, each with its boxes, the names of their classes and its split."""
    tiles = []
    for record in evenly(records, _PER_SHEET):
        image = fitted(read_rgb(record.image), side=_SIDE)
        height, width = image.shape[:2]
        boxes = xywhn_to_xyxy(record.labels.xywhn, image_wh=(width, height))
        for cls, xyxy in zip(record.labels.cls, boxes, strict=True):
            image = draw_box(image, xyxy.tolist(), text=_CLASSES[cls])
        classes = Counter(_CLASSES[cls] for cls in record.labels.cls)
        tiles.append(Tile(image, (record.name, ", ".join(classes) or "no face")))
    return contact_sheet(tiles, title=f"{name}: {len(records):,} pictures", side=_SIDE)
