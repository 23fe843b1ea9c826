"""Puts the figures of an evaluation into words, tables and pictures that people and DVC's plots read."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from emotion_yolo.data.prepared import CLASSES, Sample, Source
from emotion_yolo.drawing import Tile, draw_box, draw_detections, enlarged, fitted
from emotion_yolo.evaluation.figures import Faces, Outcome, Slice
from emotion_yolo.evaluation.metrics import HEIGHT_SIDE, Array, Ranking, truth_xyxy
from emotion_yolo.inference.calibration import reliability_curve
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import Image, read_rgb

Figures = Mapping[str, float]
Intervals = Mapping[str, tuple[float, float]]
Answer = tuple[str, str, Source]
"""What a face is, what was answered, and whose photograph it is in."""

BACKGROUND = "background"
"""In the confusion matrix: the answer to a face that was not found, the truth of an answer that is no face."""

TITLES: dict[str, str] = {
    "map50": "mAP50, eight expressions",
    "map50_95": "mAP50-95, eight expressions",
    "precision": "precision at the best F1",
    "recall": "recall at the best F1",
    "precision_served": "precision at the served threshold",
    "recall_served": "recall at the served threshold",
    "face_found": "faces found",
    "emotion_top1": "emotion top-1 of the faces found",
    "emotion_macro_recall": "emotion macro recall of the faces found",
    "ece": "expected calibration error",
    "face_ap50": "face AP50, all faces",
    "face_ap50_32px": "face AP50, faces ≥ 32 px high",
    "face_ap50_128px": "face AP50, faces ≥ 128 px high",
    "face_precision_32px": "face precision, ≥ 32 px, served threshold",
    "face_recall_32px": "face recall, ≥ 32 px, served threshold",
    "frame_boxes": "best box is the whole picture",
}
"""The headline figures in the order they are read, and what they are called."""

SLICE_COLUMNS = ("change", "faces", "found", "top1", "top1_low", "top1_high", "right", "face_ap50_32px")

_OF_SCENES = ("face_ap50", "face_precision", "face_recall", "frame_boxes")
_LEAST_MISSED_HEIGHT = 32  # px; a smaller face is no surprise to miss, and nothing to look at
_PICTURE_SIDE = 320  # px, long side of a picture before a box is drawn into it


def rounded(figures: Figures) -> dict[str, float]:
    """Return the figures that there are, to five decimals: steadier in a diff than the last bits of a float."""
    return {
        name: value if isinstance(value, int) else round(float(value), 5)
        for name, value in figures.items()
        if isfinite(value)
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON that diffs line by line."""
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; floats to five decimals."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([round(v, 5) if isinstance(v, float) else v for v in row] for row in rows)


def metrics_table(metrics: Figures, intervals: Intervals | None = None) -> str:
    """Return the headline figures as an aligned table for a terminal, with the 95 % interval where there is one."""
    groups = (
        (f"test crops ({metrics.get('n_crops', 0):,})", [name for name in TITLES if not name.startswith(_OF_SCENES)]),
        (f"test scenes ({metrics.get('n_scenes', 0):,})", [name for name in TITLES if name.startswith(_OF_SCENES)]),
    )
    width = max(len(title) for title in TITLES.values())
    lines = []
    for heading, names in groups:
        rows = [
            f"  {TITLES[name]:<{width}}  {metrics[name]:6.3f}  {interval_text(name, intervals)}".rstrip()
            for name in names
            if name in metrics
        ]
        if rows:
            lines += [heading, *rows]
    return "\n".join(lines)


def interval_text(name: str, intervals: Intervals | None) -> str:
    """Return `low-high` of a figure's interval, or nothing where it has none."""
    if not intervals or name not in intervals:
        return ""
    low, high = intervals[name]
    return f"{low:.3f}-{high:.3f}"


def confusion_rows(outcomes: Sequence[Outcome], faces: Faces) -> list[Answer]:
    """Return (actual, predicted, source) for each named face, and for each answer that is no face."""
    rows = [
        (NAMES[cls], NAMES[predicted] if predicted >= 0 else BACKGROUND, outcomes[picture].sample.source)
        for cls, predicted, picture in zip(
            faces.cls.tolist(), faces.predicted.tolist(), faces.picture.tolist(), strict=True
        )
        if cls != FACE_ID
    ]
    for index, outcome in enumerate(outcomes):
        right = set(faces.finder[faces.picture == index].tolist()) if len(outcome.answers) else set()
        rows += [
            (BACKGROUND, NAMES[emotion], outcome.sample.source)
            for answer, emotion in enumerate(outcome.answers.emotion_ids.tolist())
            if answer not in right
        ]
    return rows


def pr_rows(rankings: Sequence[Ranking]) -> list[tuple[float, ...]]:
    """Return recall and the precision of each emotion, 101 rows."""
    curves = np.stack([ranking.pr_curve() for ranking in rankings], axis=1)  # [101, 8]
    return [(index / 100, *row) for index, row in enumerate(curves.tolist())]


def reliability_rows(faces: Faces) -> list[tuple[float, float, int]]:
    """Return mean top probability, share of right answers and number of faces of each bin in use."""
    known = faces.found & (faces.cls != FACE_ID)
    curve = reliability_curve(faces.probabilities[known], faces.cls[known])
    columns = (curve.probability.tolist(), curve.accuracy.tolist(), curve.weight.astype(int).tolist())
    return list(zip(*columns, strict=True))


def slice_rows(slices: Sequence[Slice]) -> list[tuple[object, ...]]:
    """Return a row a change of the pictures, in the order of `SLICE_COLUMNS`; what was not measured is empty."""
    rows = [(s.change, s.faces, s.found, s.top1, *s.interval, s.right, s.face_ap50_32px) for s in slices]
    return [tuple("" if isinstance(v, float) and not isfinite(v) else v for v in row) for row in rows]


@dataclass(frozen=True, eq=False)
class Mistake:
    """A face that was missed, or answered with another emotion: the `face`-th of the outcome's labels."""

    outcome: Outcome
    face: int
    answer: int
    """Index among the outcome's answers; -1 where the face was missed."""

    @property
    def xyxy(self) -> list[float]:
        """Return the true box in px."""
        box = truth_xyxy(self.outcome.sample.labels, self.outcome.answers.image_wh)[self.face]
        return [float(value) for value in box]


def worst_mistakes(
    crops: Sequence[Outcome], crop_faces: Faces, scenes: Sequence[Outcome], scene_faces: Faces, *, count: int
) -> list[Mistake]:
    """Choose what to look at: the most confident wrong emotions, and in a third of the places the largest missed faces.

    Where there are too few of one kind, the other takes its places.
    """
    sure, missed = [], []
    for outcomes, faces in ((crops, crop_faces), (scenes, scene_faces)):
        order = np.arange(len(faces.cls)) - np.searchsorted(faces.picture, faces.picture)  # index within its picture
        for index in range(len(faces.cls)):
            outcome = outcomes[faces.picture[index]]
            mistake = Mistake(outcome, int(order[index]), int(faces.finder[index]))
            if mistake.answer < 0:
                height = float(outcome.sample.labels.xywhn[mistake.face, 3]) * outcome.answers.image_wh[1]
                if height * min(1.0, HEIGHT_SIDE / max(outcome.answers.image_wh)) >= _LEAST_MISSED_HEIGHT:
                    missed.append((-height, mistake))
            elif faces.cls[index] not in (FACE_ID, faces.predicted[index]):
                sure.append((-float(faces.probabilities[index].max()), mistake))
    wrong, lost = (
        [mistake for _, mistake in sorted(kind, key=lambda rated: (rated[0], rated[1].outcome.sample.image.name))]
        for kind in (sure, missed)
    )
    places = max(min(len(lost), count // 3), count - len(wrong))
    return [*wrong[: count - min(places, len(lost))], *lost[:places]]


def mistake_tile(mistake: Mistake) -> Tile:
    """Show a mistake: the true box in white, the answer's in its colour; of a scene, what lies around the face."""
    sample, answers = mistake.outcome.sample, mistake.outcome.answers
    truth = CLASSES[int(sample.labels.cls[mistake.face])]
    if mistake.answer < 0:
        said, shown = "not found", answers.select(np.zeros(len(answers), bool))
    else:
        shown = answers.select(np.arange(len(answers)) == mistake.answer)
        said = f"said {shown.emotions[0].label} {shown.probabilities.max():.0%}"
    image, offset = _around(read_rgb(sample.image), mistake.xyxy)
    large = enlarged(image, side=_PICTURE_SIDE)
    box = (np.asarray(mistake.xyxy) - offset) * _scale(large, image)
    large = draw_detections(draw_box(large, box.tolist()), _moved(shown, offset, image, large))
    return Tile(large, (f"truth: {truth}", said, sample.image.name))


def answer_tile(outcome: Outcome, *, side: int) -> Tile:
    """Show a picture, scaled to a long side of `side` px, with all that is answered about it."""
    image = read_rgb(outcome.sample.image)
    large = fitted(image, side=side)
    moved = _moved(outcome.answers, np.zeros(4), image, large)
    return Tile(draw_detections(large, moved), (outcome.sample.image.name, _truth_text(outcome.sample)))


def _truth_text(sample: Sample) -> str:
    names = [CLASSES[cls] for cls in sample.labels.cls.tolist() if cls != FACE_ID]
    return f"truth: {', '.join(names)}" if names else f"{len(sample.labels)} faces"


def _around(image: Image, xyxy: Sequence[float]) -> tuple[Image, Array]:
    """Cut out a square of three times the box, within the picture; returns it and its offset (x, y, x, y) in px."""
    height, width = image.shape[:2]
    half = 1.5 * max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])
    x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    left, top = max(int(x - half), 0), max(int(y - half), 0)
    right, bottom = min(int(x + half) + 1, width), min(int(y + half) + 1, height)
    return image[top:bottom, left:right], np.asarray([left, top, left, top], np.float64)


def _scale(large: Image, image: Image) -> Array:
    x, y = large.shape[1] / image.shape[1], large.shape[0] / image.shape[0]
    return np.asarray([x, y, x, y])


def _moved(detections: Detections, offset: Array, image: Image, large: Image) -> Detections:
    """Return the detections in the pixels of a part of their picture that begins at `offset` and was enlarged."""
    height, width = large.shape[:2]
    boxes = (detections.xyxy - offset) * _scale(large, image)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return Detections(boxes.astype(np.float32), detections.confidence, detections.probabilities, (width, height))
