"""The few metrics that `metrics.json` holds, what they are called, and their table for a terminal."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from emotion_yolo.errors import ModelError
from emotion_yolo.evaluation.metrics import Intervals, Metrics
from emotion_yolo.paths import EVALUATE_REPORT, METRICS, PREPARE_REPORT

DETAILS = "details.json"
"""All metrics and intervals, overall and by set and source; `metrics.json` holds the `HEADLINE`."""

EMOTION_TITLES: dict[str, str] = {
    "map50": "mAP50, eight expressions",
    "map50_95": "mAP50-95, eight expressions",
    "recall_served": "expression right, of all faces",
    "emotion_top1": "expression right, of the faces found",
    "emotion_macro_recall": "macro recall of the faces found",
    "worst_cell": "worst expression × source, of all faces",
    "face_found": "faces found",
    "precision_served": "precision at the served threshold",
    "ece": "expected calibration error",
    "flip_changed": "expressions that change in the mirror",
}
FACE_TITLES: dict[str, str] = {
    "face_ap50_32px": "face AP50, faces ≥ 32 px high",
    "face_ap50_128px": "face AP50, faces ≥ 128 px high",
    "face_precision_32px": "face precision, ≥ 32 px, served threshold",
    "face_recall_32px": "face recall, ≥ 32 px, served threshold",
    "frame_boxes": "best box is the whole picture",
    "false_faces": "drawn pictures without a face: face found",
}
TITLES: dict[str, str] = EMOTION_TITLES | FACE_TITLES
"""The headline metrics in the order they are read, and what they are called."""

HEADLINE = (*TITLES, "n_crops", "n_scenes")

_LOCATIONS = {
    "model card": EVALUATE_REPORT / "MODEL_CARD.md",
    "predictions": EVALUATE_REPORT / "detections.jpg",
    "worst mistakes": EVALUATE_REPORT / "gallery.jpg",
    "all metrics": EVALUATE_REPORT / DETAILS,
    "data checks": PREPARE_REPORT / "report.json",
}

SET_COLUMNS: dict[str, str] = {
    "n_faces": "faces",
    "n_classes": "classes",
    "map50": "mAP50",
    "face_found": "found",
    "recall_served": "right, of all",
    "emotion_top1": "right, of found",
    "emotion_macro_recall": "macro recall",
    "recall_neutral": "neutral",
    "recall_happy": "happy",
    "ece": "ECE",
    "votes_accuracy": "majority right",
    "votes_cross_entropy": "votes' CE",
    "face_ap50_32px": "face AP50 ≥ 32 px",
    "face_ap50_128px": "face AP50 ≥ 128 px",
    "face_precision_32px": "face precision",
}
"""Metrics in the tables by set, with short titles."""

_SHORT = ("n_faces", "map50", "recall_served", "recall_neutral", "recall_happy", "votes_accuracy", "face_ap50_32px")


def headline(metrics: Metrics) -> dict[str, float]:
    """Return the few metrics that `metrics.json` holds and `dvc exp show` prints."""
    return {name: metrics[name] for name in HEADLINE if name in metrics}


def summary(metrics: Metrics, intervals: Intervals, sets: Mapping[str, Metrics]) -> str:
    """Return the headline metrics with their 95 % intervals, and a line for each set, for a terminal."""
    width = max(len(title) for title in TITLES.values())
    groups = (
        (f"expressions, test split ({metrics.get('n_crops', 0):,} crops)", EMOTION_TITLES),
        (f"faces, test split ({metrics.get('n_scenes', 0):,} photographs)", FACE_TITLES),
    )
    lines = []
    for heading, titles in groups:
        rows = [
            f"  {title:<{width}}  {metrics[name]:6.3f}  {interval_text(name, intervals)}".rstrip()
            for name, title in titles.items()
            if name in metrics
        ]
        lines += [heading, *rows] if rows else []
    columns = [name for name in _SHORT if any(name in measured for measured in sets.values())]
    if columns:
        lines += ["by set", *_aligned([["", *(SET_COLUMNS[name] for name in columns)], *_set_cells(sets, columns)])]
    return "\n".join(lines)


def last_evaluation(root: Path = Path()) -> str:
    """Return the summary of the last evaluation of the project in `root`, and the paths of its report and pictures.

    It reads the stage's own outs: `metrics.json` is committed, so in a new clone it comes from another machine's run.

    Raises:
        ModelError: none has run, or its outs cannot be read.
    """
    path = root / EVALUATE_REPORT / DETAILS
    try:
        metrics, intervals, sets = _read_details(path)
    except FileNotFoundError as error:
        committed = f"; {METRICS} is part of the commit, not of a run here" if (root / METRICS).is_file() else ""
        raise ModelError(f"{path}: no evaluation has run here{committed}; run `dvc repro`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); run `dvc repro --force evaluate`") from error
    lines = [summary(metrics, intervals, sets), ""]
    if _read_json(root / METRICS) != headline(metrics):
        lines += [f"{METRICS} holds other metrics than this evaluation; `dvc status` says what changed", ""]
    width = max(map(len, _LOCATIONS))
    lines += [f"{what:<{width}}  {root / file}" for what, file in _LOCATIONS.items() if (root / file).is_file()]
    return "\n".join(lines)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _read_details(path: Path) -> tuple[Metrics, Intervals, dict[str, Metrics]]:
    """Read back what `summary` shows from `details.json`."""
    content = json.loads(path.read_text("utf-8"))
    intervals = {name: (low, high) for name, (low, high) in content["intervals"].items()}
    return content["metrics"], intervals, {name: measured["metrics"] for name, measured in content["sets"].items()}


def interval_text(name: str, intervals: Intervals | None) -> str:
    """Return `low-high` of a metric's interval, or nothing where it has none."""
    if not intervals or name not in intervals:
        return ""
    low, high = intervals[name]
    return f"{low:.3f}-{high:.3f}"


def _set_cells(sets: Mapping[str, Metrics], columns: Sequence[str]) -> list[list[str]]:
    return [[f"  {name}", *(_number(metrics.get(column)) for column in columns)] for name, metrics in sets.items()]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(chain([row[0].ljust(widths[0])], (c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))))
        for row in rows
    ]
