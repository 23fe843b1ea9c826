"""Crops of one face: their face boxes, their soft labels, and how they are written."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.data.cards import SPLITS, Split
from emotion_yolo.data.prepared import Kind, Writer
from emotion_yolo.preparation.checks import Record
from emotion_yolo.preparation.localise import Box, FaceFinder, Localised, localise, typical_box
from emotion_yolo.preparation.teacher import Teacher, blended, smoothed
from emotion_yolo.progress import counting
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.labels import Labels

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Crop:
    """A raw crop with its tight face box [4]; `cls` is the emotion's id, or `FACE_ID`."""

    image: Path
    cls: int
    xywhn: NDArray[np.float64]
    set: str = ""
    source: str = ""
    target: NDArray[np.float32] | None = None
    """[8] probabilities to train on instead of `cls`, if there are any."""

    @property
    def labels(self) -> Labels:
        """Return the one label."""
        return Labels(np.asarray([self.cls], np.int64), self.xywhn.reshape(1, 4))


@dataclass(frozen=True, eq=False)
class LocalisedCrops:
    """Crop records with their boxes, in order, and the box that each set's faces typically have."""

    records: tuple[Record, ...]
    boxes: tuple[Localised, ...]
    typical: Mapping[str, Box]

    def of(self, split: Split) -> list[Crop]:
        """Return the crops of a split."""
        return [
            Crop(
                record.image, int(record.labels.cls[0]), box.xywhn, record.set, record.source,
                None if record.soft is None else record.soft[0],
            )
            for record, box in zip(self.records, self.boxes, strict=True)
            if record.split == split
        ]  # fmt: skip

    @property
    def frame(self) -> Box | None:
        """Return the typical box xywhn [4] of the set that shows most around its faces; None without any crop.

        Faces of photographs are cut out in this frame for the teacher, which learned from crops framed like that.
        """
        boxes = list(self.typical.values())
        return min(boxes, key=lambda box: float(box[2] * box[3])) if boxes else None

    def summary(self) -> dict[str, object]:
        """Count by set and split how boxes were obtained, and describe those that were found."""
        summary: dict[str, object] = {}
        for name in self.typical:
            mine = [pair for pair in zip(self.records, self.boxes, strict=True) if pair[0].set == name]
            found = np.asarray([box.xywhn for _, box in mine if box.how == "found"])
            summary[name] = {
                "how": {s: Counter(box.how for record, box in mine if record.split == s) for s in SPLITS},
                "mean_width": round(float(found[:, 2].mean()), 4),
                "mean_height": round(float(found[:, 3].mean()), 4),
                "not_found": sorted(record.name for record, box in mine if box.how == "typical"),
            }
        return summary


def localise_crops(records: Sequence[Record], find: FaceFinder, *, pad: float, threads: int) -> LocalisedCrops:
    """Find the face in every crop, set by set; errors are those of `localise`."""
    boxes: dict[int, Localised] = {}
    typical: dict[str, Box] = {}
    for name in dict.fromkeys(record.set for record in records):
        places = [place for place, record in enumerate(records) if record.set == name]
        with counting(f"localise {name}") as progress:
            found = localise([records[i].image for i in places], find, pad=pad, threads=threads, progress=progress)
        boxes |= dict(zip(places, found, strict=True))
        typical[name] = typical_box(found)
    return LocalisedCrops(tuple(records), tuple(boxes[place] for place in range(len(records))), typical)


def with_targets(
    crops: Sequence[Crop],
    teacher: Teacher | None,
    *,
    share: float,
    sets: Sequence[str],
    smoothing: Mapping[str, float],
    threads: int,
) -> list[Crop]:
    """Return train crops with what is trained on.

    Votes are taken as they are. Of other crops, `share` of the target is the teacher's soft label, in the named `sets`
    or, if none is named, in all. `smoothing` is the share by source that is then spread over all emotions.
    """
    places = [
        place
        for place, crop in enumerate(crops)
        if teacher and (share or crop.cls == FACE_ID) and crop.target is None and (not sets or crop.set in sets)
    ]
    changed = list(crops)
    if teacher and places:
        seen = [(crops[place].image, crops[place].xywhn) for place in places]
        with counting("teacher on crops") as progress:
            for done, (place, soft) in enumerate(zip(places, teacher.of_crops(seen, threads=threads), strict=True)):
                changed[place] = replace(crops[place], target=blended(crops[place].cls, soft, share=share))
                progress(done + 1, len(places))
    for place, crop in enumerate(changed):
        if smoothing.get(crop.source) and crops[place].target is None and crop.cls != FACE_ID:
            target = blended(crop.cls, None, share=0) if crop.target is None else crop.target
            changed[place] = replace(crop, target=smoothed(target, share=smoothing[crop.source]))
    return changed


def write_crops(crops: Sequence[Crop], writer: Writer, split: Split) -> None:
    """Copy crops as they are, with tight labels."""
    for crop in crops:
        slot = writer.add(
            crop.image.stem, split=split, kind=Kind.SINGLE, dataset=crop.set, source=crop.source,
            suffix=crop.image.suffix,
        )  # fmt: skip
        slot.copy(crop.image, crop.labels, None if crop.target is None else crop.target[None])


def with_given_boxes(crops: Sequence[Crop], records: Sequence[Record]) -> list[Crop]:
    """Return crops with the boxes that their label files give."""
    given = {record.image: record.labels.xywhn[0] for record in records}
    return [replace(crop, xywhn=given[crop.image]) for crop in crops]
