"""Stage `prepare`: data/ → datasets/prepared/, checked, deduplicated, localised, composed."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import Image as PillowImage

from emotion_yolo.data.cards import SPLITS, DatasetCard, load_card
from emotion_yolo.data.prepared import Writer
from emotion_yolo.data.sheets import split_scenes
from emotion_yolo.drawing import check_sheet, to_check
from emotion_yolo.params import Prepare, load_params, model_path
from emotion_yolo.paths import CARDS, CROPS, DATA_PIN, PREPARE_REPORT, PREPARED, SCENES
from emotion_yolo.preparation.checks import Record, Scan, scan, stop_if_untrainable
from emotion_yolo.preparation.compose import (
    Crop,
    write_crops,
    write_scenes,
    write_train,
)
from emotion_yolo.preparation.localise import Localised, face_finder, localise, typical_box
from emotion_yolo.preparation.near_duplicates import resolve_near_duplicates
from emotion_yolo.preparation.teacher import Boxes, Teacher, blended
from emotion_yolo.progress import counting
from emotion_yolo.stages import run_stage
from emotion_yolo.structures.images import read_rgb

Kind = Literal["crops", "scenes"]

_LIKE: dict[Kind, str] = {"crops": "affectnet", "scenes": "wider-face"}


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params().prepare
    PREPARE_REPORT.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(PREPARED, ignore_errors=True)
    teacher = load_teacher(params)
    writer = Writer(PREPARED)
    crops, frame = prepare_crops(params, teacher, writer)
    report = {"crops": crops, "scenes": prepare_scenes(params, teacher, frame, writer)}
    writer.close()
    (PREPARE_REPORT / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", "utf-8")


def load_teacher(params: Prepare) -> Teacher | None:
    """Load the model whose soft labels are trained on, where params name one."""
    teacher = params.teacher
    if (detector := model_path(teacher.detector)) is None:
        return None
    classifier = model_path(teacher.classifier)
    return Teacher(detector, imgsz=teacher.imgsz, classifier=classifier, classifier_share=teacher.classifier_share)


def prepare_crops(params: Prepare, teacher: Teacher | None, writer: Writer) -> tuple[dict[str, object], Boxes]:
    """Write the three splits of crops; returns what the report says of them, and a face's typical box xywhn [4]."""
    found = checked(CROPS, "crops", params.workers)
    near_duplicates = resolve_near_duplicates(found.records, distance=params.near_duplicate_distance)
    records = list(near_duplicates.kept)
    finder = face_finder(params.localise.detector, imgsz=params.localise.imgsz, conf=params.localise.conf)
    with counting("localise") as progress:
        boxes = localise(
            [record.image for record in records],
            finder,
            threads=_threads(params),
            progress=progress,
        )
    write_check_sheet(records, boxes)
    sheets = 0
    kept: Counter[str] = Counter()
    for split in SPLITS:
        crops = [
            Crop(record.image, int(record.labels.cls[0]), box.xywhn)
            for record, box in zip(records, boxes, strict=True)
            if record.split == split and not _dropped(box, split, params)
        ]
        kept[split] = len(crops)
        if split == "train":
            if teacher and params.teacher.crops:
                crops = taught(crops, teacher, params)
            if params.localise.train_boxes == "given":
                given = {record.image: record.labels.xywhn[0] for record in records}
                crops = [replace(crop, xywhn=given[crop.image]) for crop in crops]
            with counting("sheets") as progress:
                sheets = write_train(
                    crops, writer, params.sheets, seed=params.seed, workers=params.workers, progress=progress
                )
        else:
            write_crops(crops, writer, split)
    report: dict[str, object] = {
        "raw": found.counts,
        "quarantined": found.quarantined,
        "findings": Counter(finding.code for finding in found.findings),
        "near_duplicates": near_duplicates.as_dict(),
        "localised": localised_summary(records, boxes),
        "kept": kept,
        "sheets": sheets,
    }
    return report, typical_box(boxes)


def write_check_sheet(records: list[Record], boxes: list[Localised]) -> None:
    """Draw boxes for a person to look at: the least certain, the undecided, and some of all others."""
    chosen = to_check([(box.how, box.confidence) for box in boxes])
    shown = [(read_rgb(records[i].image), boxes[i].xywhn.tolist(), boxes[i].how, boxes[i].confidence) for i in chosen]
    PillowImage.fromarray(check_sheet(shown)).save(PREPARE_REPORT / "boxes.jpg", quality=88)


def taught(crops: list[Crop], teacher: Teacher, params: Prepare) -> list[Crop]:
    """Return train crops whose targets are partly the teacher's."""
    seen = [(crop.image, crop.xywhn) for crop in crops]
    changed = []
    with counting("teacher on crops") as progress:
        for crop, soft_label in zip(crops, teacher.of_crops(seen, threads=_threads(params)), strict=True):
            changed.append(replace(crop, target=blended(crop.cls, soft_label, share=params.teacher.crops)))
            progress(len(changed), len(crops))
    return changed


def prepare_scenes(params: Prepare, teacher: Teacher | None, frame: Boxes, writer: Writer) -> dict[str, object]:
    """Write the scenes, if there are any and they are wanted; returns what the report says of them."""
    if not params.scenes.use or not SCENES.is_dir():
        return {"used": False}
    found = checked(SCENES, "scenes", params.workers)
    split_of = split_scenes(
        [record.image.name for record in found.records],
        valid=params.scenes.valid, test=params.scenes.test, seed=params.seed,
    )  # fmt: skip
    # First dealt out, then freed of near-duplicates: two shots of one moment must not end up in train and test.
    dealt = [replace(record, split=split_of[record.image.name]) for record in found.records]
    near_duplicates = resolve_near_duplicates(dealt, distance=params.near_duplicate_distance)
    records = {split: [record for record in near_duplicates.kept if record.split == split] for split in SPLITS}
    name_faces = partial(teacher.of_faces, frame=frame, min_face=params.teacher.min_face) if teacher else None
    faces, named = {}, {}
    for split in SPLITS:
        with counting(f"scenes of {split}") as progress:
            faces[split], named[split] = write_scenes(
                records[split], writer, split, params.scenes,
                name_faces=name_faces, threads=_threads(params), progress=progress,
            )  # fmt: skip
    return {
        "used": True,
        "quarantined": found.quarantined,
        "findings": Counter(finding.code for finding in found.findings),
        "near_duplicates": near_duplicates.as_dict(),
        "photographs": {split: len(part) for split, part in records.items()},
        "faces": faces,
        "named_by_teacher": named["train"],
    }


def checked(root: Path, kind: Kind, workers: int) -> Scan:
    """Scan a raw folder and write all findings beside the report, before stopping at what makes training wrong."""
    with counting(f"check {root}") as progress:
        found = scan(root, card=card_of(DATA_PIN, kind), workers=workers, progress=progress)
    path = PREPARE_REPORT / f"findings-{root.name}.txt"
    path.write_text("".join(f"{finding}\n" for finding in found.findings), "utf-8")
    stop_if_untrainable(found, report=path)
    return found


def card_of(pin: Path, kind: Kind) -> DatasetCard:
    """Return the dataset card that `emotion-yolo pull` noted in `data.dvc`, or one that expects no counts."""
    meta = yaml.safe_load(pin.read_text("utf-8")).get("meta") or {}
    name = (meta.get(kind) or {}).get("card")
    if name:
        return load_card(CARDS / f"{name}.yaml")
    return load_card(CARDS / f"{_LIKE[kind]}.yaml").model_copy(update={"counts": None})


def _threads(params: Prepare) -> int:
    return params.workers or os.cpu_count() or 1


def _dropped(box: Localised, split: str, params: Prepare) -> bool:
    return split == "train" and box.how == "typical" and params.localise.not_found == "drop"


def localised_summary(records: list[Record], boxes: list[Localised]) -> dict[str, object]:
    """Count how boxes were come by, split by split, and say what they look like."""
    how = {
        split: Counter(box.how for record, box in zip(records, boxes, strict=True) if record.split == split)
        for split in SPLITS
    }
    found = np.asarray([box.xywhn for box in boxes if box.how == "found"])
    return {
        "how": how,
        "mean_width": round(float(found[:, 2].mean()), 4),
        "mean_height": round(float(found[:, 3].mean()), 4),
        "not_found": sorted(r.name for r, box in zip(records, boxes, strict=True) if box.how == "typical"),
    }


if __name__ == "__main__":
    run_stage(main)
