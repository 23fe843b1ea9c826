"""Writes an evaluation as tables and pictures."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from emotion_yolo.drawing import contact_sheet
from emotion_yolo.evaluation.measuring import Evaluation
from emotion_yolo.evaluation.metrics import Measured, Ranking
from emotion_yolo.evaluation.mistakes import mistake_tile, predictions_sheet, worst_mistakes
from emotion_yolo.evaluation.outcomes import Faces, Outcome
from emotion_yolo.evaluation.robustness import Robustness
from emotion_yolo.evaluation.summary import DETAILS, SET_COLUMNS
from emotion_yolo.inference.calibration import reliability_curve
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import Image

Prediction = tuple[str, str, str]
"""Label of a face, its prediction, and the source of its picture."""

BACKGROUND = "background"
"""In the confusion matrix: the prediction for a face that was not found, the label of a prediction without a face."""

CORRUPTION_COLUMNS = ("change", "faces", "found", "top1", "top1_low", "top1_high", "accuracy", "face_ap50_32px")
HEIGHT_COLUMNS = ("set", "height", "faces", "found", "accuracy", "low", "high", "neutral", "happy")
CELL_COLUMNS = ("source", "emotion", "faces", "accuracy", "low", "high")


def details(evaluation: Evaluation) -> dict[str, object]:
    """Return all metrics and intervals: overall, by set, and by source."""
    return {
        "version": evaluation.spec.version,
        **_as_json(evaluation.overall),
        "sets": {name: _as_json(measured) for name, measured in evaluation.sets.items()},
        "sources": {name: _as_json(measured) for name, measured in evaluation.sources.items()},
    }


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Write the tables, pictures and details of an evaluation into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / DETAILS, details(evaluation))
    write_csv(
        out / "confusion.csv", ("actual", "predicted", "source"), confusion_rows(evaluation.named, evaluation.faces)
    )
    write_csv(out / "pr.csv", ("recall", *NAMES), pr_rows(evaluation.rankings))
    write_csv(out / "reliability.csv", ("probability", "accuracy", "faces"), reliability_rows(evaluation.faces))
    write_csv(out / "robustness.csv", CORRUPTION_COLUMNS, corruption_rows(evaluation.robustness))
    write_csv(out / "heights.csv", HEIGHT_COLUMNS, height_rows(evaluation.robustness))
    write_csv(out / "sets.csv", ("set", *SET_COLUMNS), set_rows(evaluation.sets))
    write_csv(
        out / "sources.csv",
        CELL_COLUMNS,
        [(c.source, c.emotion, c.faces, c.accuracy, *c.interval) for c in evaluation.cells],
    )
    mistakes = worst_mistakes([*evaluation.crops, *evaluation.photographs], count=evaluation.settings.gallery)
    title = "Worst mistakes: label in white, prediction in colour"
    _write_picture(out / "gallery.jpg", contact_sheet([mistake_tile(m) for m in mistakes], title=title))
    _write_picture(out / "detections.jpg", predictions_sheet(evaluation.photographs, evaluation.crops))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON that diffs line by line."""
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; floats to five decimals, nan as an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_csv_cell(value) for value in row] for row in rows)


def confusion_rows(outcomes: Sequence[Outcome], faces: Faces) -> list[Prediction]:
    """Return (actual, predicted, source) for each face with an emotion, and for each prediction without a face."""
    rows = [
        (NAMES[cls], NAMES[predicted] if predicted >= 0 else BACKGROUND, outcomes[picture].sample.source)
        for cls, predicted, picture in zip(
            faces.cls.tolist(), faces.predicted.tolist(), faces.picture.tolist(), strict=True
        )
        if cls != FACE_ID
    ]
    matched: list[set[int]] = [set() for _ in outcomes]
    for picture, match in zip(faces.picture.tolist(), faces.match.tolist(), strict=True):
        matched[picture].add(match)
    for outcome, of_faces in zip(outcomes, matched, strict=True):
        rows += [
            (BACKGROUND, NAMES[emotion], outcome.sample.source)
            for index, emotion in enumerate(outcome.predictions.emotion_ids.tolist())
            if index not in of_faces
        ]
    return rows


def pr_rows(rankings: Sequence[Ranking]) -> list[tuple[float, ...]]:
    """Return recall and the precision of each emotion, 101 rows; none without rankings."""
    if not rankings:
        return []
    curves = np.stack([ranking.pr_curve() for ranking in rankings], axis=1)  # [101, 8]
    return [(index / 100, *row) for index, row in enumerate(curves.tolist())]


def reliability_rows(faces: Faces) -> list[tuple[float, float, int]]:
    """Return mean top probability, share of right emotions and number of faces of each bin in use."""
    known = faces.found & faces.named
    curve = reliability_curve(faces.probabilities[known], faces.cls[known])
    columns = (curve.probability.tolist(), curve.accuracy.tolist(), curve.weight.astype(int).tolist())
    return list(zip(*columns, strict=True))


def corruption_rows(robustness: Robustness) -> list[tuple[object, ...]]:
    """Return a row for each corruption, in the order of `CORRUPTION_COLUMNS`; nan where nothing was measured."""
    return [
        (name, r.faces, r.found, r.top1, *r.top1_interval, r.accuracy, robustness.scenes.get(name, float("nan")))
        for name, r in robustness.corruptions.items()
    ]


def height_rows(robustness: Robustness) -> list[tuple[object, ...]]:
    """Return a row for each set and height, in the order of `HEIGHT_COLUMNS`; nan where nothing was measured."""
    return [
        (name, height, r.faces, r.found, r.accuracy, *r.interval, r.neutral, r.happy)
        for (name, height), r in robustness.heights.items()
    ]


def set_rows(sets: Mapping[str, Measured]) -> list[tuple[object, ...]]:
    """Return the metrics of each set in the order of `SET_COLUMNS`; nan where nothing was measured."""
    return [
        (name, *(measured.metrics.get(column, float("nan")) for column in SET_COLUMNS))
        for name, measured in sets.items()
    ]


def _as_json(measured: Measured) -> dict[str, object]:
    intervals = {name: [round(low, 5), round(high, 5)] for name, (low, high) in measured.intervals.items()}
    return {"metrics": dict(measured.metrics), "intervals": intervals}


def _csv_cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return round(value, 5) if isfinite(value) else ""


def _write_picture(path: Path, picture: Image) -> None:
    PillowImage.fromarray(picture).save(path, quality=88)
