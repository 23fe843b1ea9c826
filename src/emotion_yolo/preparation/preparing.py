"""From the sets in `data/` to the prepared set, step by step."""

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image as PillowImage

from emotion_yolo.data.cards import SPLITS, Split
from emotion_yolo.data.prepared import CLASSES, Writer
from emotion_yolo.data.sets import UNDEALT, SetRecord, read_sets
from emotion_yolo.drawing import check_sheet, to_check
from emotion_yolo.errors import DataError
from emotion_yolo.params import Prepare, model_path
from emotion_yolo.preparation.checks import Record, Scan, scan, stop_if_untrainable
from emotion_yolo.preparation.composing import Composed, write_train_crops
from emotion_yolo.preparation.crops import LocalisedCrops, localise_crops, with_given_boxes, with_targets, write_crops
from emotion_yolo.preparation.framing import free_regions
from emotion_yolo.preparation.localise import TYPICAL_FRAME, face_finder
from emotion_yolo.preparation.near_duplicates import resolve_near_duplicates
from emotion_yolo.preparation.photographs import Written, by_split, dealt, write_photographs
from emotion_yolo.preparation.sampling import Table, check_sampling, table_of
from emotion_yolo.preparation.teacher import Teacher
from emotion_yolo.progress import counting
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import read_rgb

Tables = dict[Split, Table]


def prepare(params: Prepare, *, data: Path, pin: Path, out: Path, report: Path) -> str:
    """Check, deduplicate, localise and compose the sets of `data`; returns a table of the training faces.

    `report` becomes a folder of findings, counts and pictures to check; `out` is written anew.

    Raises:
        DataError, LayoutError, ModelError, ParamsError, SourceError: see the steps.
    """
    sets = read_sets(pin)
    report.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    teacher = load_teacher(params)
    if not params.scenes.use:
        sets = {name: record for name, record in sets.items() if record.boxes == "frame"}
        if not sets:
            message = f"{data}: holds photographs only, and prepare.scenes.use is false in params.yaml"
            raise DataError(f"{message}; set it to true, or pull a set of crops")
    scans = {name: checked(data / name, record, report=report, workers=params.workers) for name, record in sets.items()}
    records = [record for name, found in scans.items() for record in with_splits(found, data / name, params)]
    check_sampling(params.sampling, sorted({record.source for record in records}))
    # First dealt out, then freed of near-duplicates: two shots of one moment must not end up in train and test.
    near_duplicates = resolve_near_duplicates(records, distance=params.near_duplicate_distance)
    kept = near_duplicates.kept
    writer = Writer(out)
    photographs = by_split([record for record in kept if sets[record.set].boxes == "tight"], SPLITS)
    crops = localised([record for record in kept if sets[record.set].boxes == "frame"], params, report=report)
    composed = write_all_crops(crops, photographs["train"], params, teacher, writer)
    written = write_all_photographs(photographs, params, teacher, writer, crops=crops)
    writer.close()
    tables = tables_of(kept)
    content = {
        "sets": {name: set_summary(found) for name, found in scans.items()},
        "near_duplicates": near_duplicates.as_dict(),
        "localised": crops.summary(),
        "crops": Counter(record.split for record in crops.records),
        "photographs": {split: len(part) for split, part in photographs.items()},
        "faces_of_photographs": {split: one.faces for split, one in written.items()},
        "named_by_teacher": written["train"].named,
        "faces": tables,
        "sheets": composed.sheets,
        "faces_on_sheets": composed.faces,
    }
    (report / "report.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
    write_tables(tables, report / "faces.csv")
    missing = [name for name in NAMES if not any(name in row for row in tables["train"].values())]
    lines = [text_of(composed.faces or tables["train"])]
    if missing:
        lines.append(f"no train face of {', '.join(missing)} in any set; the model will not learn to name these")
    return "\n".join(lines)


def load_teacher(params: Prepare) -> Teacher | None:
    """Load the model whose soft labels are trained on, where params name one."""
    teacher = params.teacher
    if (detector := model_path(teacher.detector)) is None:
        return None
    classifier = model_path(teacher.classifier)
    return Teacher(detector, imgsz=teacher.imgsz, classifier=classifier, classifier_share=teacher.classifier_share)


def checked(root: Path, record: SetRecord, *, report: Path, workers: int) -> Scan:
    """Scan a raw set and write all findings beside the report, before stopping at what makes training wrong."""
    with counting(f"check {root}") as progress:
        found = scan(root, record=record, workers=workers, progress=progress)
    path = report / f"findings-{root.name}.txt"
    path.write_text("".join(f"{finding}\n" for finding in found.findings), "utf-8")
    stop_if_untrainable(found, report=path)
    return found


def with_splits(found: Scan, folder: Path, params: Prepare) -> Sequence[Record]:
    """Return the pictures of a set, dealt out to splits if it has none of its own."""
    if not (folder / UNDEALT).is_dir():
        return found.records
    scenes = params.scenes
    return dealt(found.records, valid=scenes.valid, test=scenes.test, seed=scenes.seed)


def localised(records: Sequence[Record], params: Prepare, *, report: Path) -> LocalisedCrops:
    """Find the faces of all crops, and draw boxes to check: the least certain, the undecided, some of all others."""
    localise = params.localise
    find = face_finder(localise.detector, imgsz=localise.imgsz, conf=localise.conf)
    crops = localise_crops(records, find, pad=localise.pad, threads=threads_of(params))
    if records:
        chosen = to_check([(box.how, box.confidence) for box in crops.boxes])
        shown = [(crops.records[i], crops.boxes[i]) for i in chosen]
        sheet = check_sheet([(read_rgb(r.image), b.xywhn.tolist(), b.how, b.confidence) for r, b in shown])
        PillowImage.fromarray(sheet).save(report / "boxes.jpg", quality=88)
    return crops


def write_all_crops(
    crops: LocalisedCrops, photographs: Sequence[Record], params: Prepare, teacher: Teacher | None, writer: Writer
) -> Composed:
    """Write the three splits of crops; `photographs` lend backgrounds and places without a face."""
    for split in ("valid", "test"):
        write_crops(crops.of(split), writer, split)
    train = with_targets(
        crops.of("train"), teacher, share=params.teacher.crops, sets=params.teacher.sets,
        smoothing=params.sampling.smoothing, threads=threads_of(params),
    )  # fmt: skip
    if params.localise.train_boxes == "given":
        train = with_given_boxes(train, crops.records)
    regions = free_regions([(r.image, r.labels, r.image_wh) for r in photographs], seed=params.seed)
    with counting("sheets") as progress:
        return write_train_crops(train, writer, params, regions=regions, progress=progress)


def write_all_photographs(
    photographs: Mapping[Split, Sequence[Record]],
    params: Prepare,
    teacher: Teacher | None,
    writer: Writer,
    *,
    crops: LocalisedCrops,
) -> dict[Split, Written]:
    """Write the three splits of photographs; the teacher sees faces as they are framed in crops."""
    frame = TYPICAL_FRAME if crops.frame is None else crops.frame
    name_faces = partial(teacher.of_faces, frame=frame, min_face=params.teacher.min_face) if teacher else None
    written: dict[Split, Written] = {}
    for split in SPLITS:
        with counting(f"photographs of {split}") as progress:
            written[split] = write_photographs(
                photographs[split], writer, split, params,
                name_faces=name_faces, threads=threads_of(params), progress=progress,
            )  # fmt: skip
    return written


def set_summary(found: Scan) -> dict[str, object]:
    """Return what the checks of a set counted."""
    return {
        "raw": found.counts,
        "quarantined": found.quarantined,
        "ignored": len(found.ignored),
        "findings": Counter(finding.code for finding in found.findings),
    }


def tables_of(records: Sequence[Record]) -> Tables:
    """Count the faces of each split by source and class."""
    return {
        split: table_of([(r.source, cls) for r in records if r.split == split for cls in r.labels.cls.tolist()])
        for split in SPLITS
    }


def write_tables(tables: Tables, path: Path) -> None:
    """Write the tables as CSV: split, source, class, faces."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("split", "source", "class", "faces"))
        for split, table in tables.items():
            rows.writerows((split, source, name, n) for source, row in table.items() for name, n in row.items())


def text_of(table: Table) -> str:
    """Return a table of source × class for a person."""
    names = [name for name in CLASSES if any(name in row for row in table.values())]
    width = max((len(source) for source in table), default=0)
    lines = [" " * width + "".join(f"{name:>10}" for name in names)]
    for source, row in table.items():
        lines.append(f"{source:<{width}}" + "".join(f"{row.get(name, 0):>10,}" for name in names))
    return "\n".join(lines)


def threads_of(params: Prepare) -> int:
    """Return how many threads work at once."""
    return params.workers or os.cpu_count() or 1
