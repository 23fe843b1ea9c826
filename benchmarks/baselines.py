"""One pass beside two stages, on the test crops of every prepared set: `make baselines-table`.

Each model is asked as it is served: it finds the face, then names it; a face that it does not find is named wrongly.
Model and set are compared on the emotions that both have: a model is neither blamed nor credited for one that it was
never taught, or that no face of the set shows.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import median_ms
from emotion_yolo import paths
from emotion_yolo.data.prepared import Sample, decoded, read_crops
from emotion_yolo.drawing import evenly
from emotion_yolo.evaluation.metrics import Interval, assign, bootstrap, mean_over_classes
from emotion_yolo.inference.artefact import ModelSpec, read_spec
from emotion_yolo.inference.calibration import expected_calibration_error
from emotion_yolo.inference.loading import load_model
from emotion_yolo.inference.model import FaceModel
from emotion_yolo.inference.two_stage import TwoStage
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import Image

MEASURES = ("top1", "macro_recall", "ece", "votes_top1")
FACES = (1, 4, 16)
_MAJORITY = 0.5  # share of the votes
_TILE = 160  # px of a face's crop in the pictures that are timed
_ROUNDS = 15


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers to the crops of a set.

    `cls` [N] are the labels, `soft` [N, 8] the votes (nan where there are none), `probabilities` [N, 8] those of the
    face's prediction: zeros where it was not found, and in the columns of emotions that the model does not name.
    """

    classes: tuple[int, ...]
    cls: NDArray[np.int64]
    soft: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Return [N] whether the face was found."""
        found: NDArray[np.bool_] = self.probabilities.sum(axis=1) > 0
        return found


def answers_of(model: FaceModel, samples: Sequence[Sample]) -> Answers:
    """Ask a model about crops of one named face each."""
    columns = [NAMES.index(name) for name in model.spec.classes]
    rows, cls, soft = [], [], []
    for sample, image in decoded(samples):
        found = model.predict(image)
        (match,) = assign(found, sample.labels)
        row = np.zeros(len(NAMES), np.float32)
        if match >= 0:
            row[columns] = found.probabilities[match]
        rows.append(row)
        cls.append(int(sample.labels.cls[0]))
        soft.append(np.full(len(NAMES), np.nan, np.float32) if sample.soft is None else sample.soft[0])
    shown = sorted({c for c in cls if c in columns})
    return Answers(tuple(shown), np.asarray(cls), np.asarray(soft), np.asarray(rows))


class Figures:
    """The measures of answers as functions of how often each counts, for the bootstrap."""

    def __init__(self, answers: Answers) -> None:
        ids = np.asarray(answers.classes)
        self._kept = np.isin(answers.cls, ids)
        shared = answers.probabilities[:, ids]
        total = shared.sum(axis=1, keepdims=True)
        self._shares = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
        self._truth = np.searchsorted(ids, np.where(self._kept, answers.cls, ids[0]))
        self._found = self._kept & (total[:, 0] > 0)
        self._right = self._found & (self._shares.argmax(axis=1) == self._truth)
        votes = np.where(np.isfinite(answers.soft), answers.soft, 0)
        of_shared = votes[:, ids]
        self._voted = (of_shared.max(axis=1, initial=0) >= _MAJORITY) & np.isfinite(answers.soft).all(axis=1)
        self._as_voted = self._voted & self._found & (self._shares.argmax(axis=1) == of_shared.argmax(axis=1))
        self._classes = len(ids)

    @property
    def faces(self) -> int:
        """How many faces are compared."""
        return int(self._kept.sum())

    def __call__(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Return the `MEASURES`, nan where there is nothing to measure; `weights` is [faces]."""
        of_class = [weights * self._kept * (self._truth == place) for place in range(self._classes)]
        recalls = [_ratio((of * self._right).sum(), of.sum()) for of in of_class]
        return {
            "top1": _ratio(float(weights @ self._right), float(weights @ self._kept)),
            "macro_recall": mean_over_classes(np.asarray(recalls)),
            "ece": expected_calibration_error(self._shares, self._truth, weights=weights * self._found),
            "votes_top1": _ratio(float(weights @ self._as_voted), float(weights @ self._voted)),
        }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


@dataclass(frozen=True)
class Row:
    """A model on a set, or on none for what it costs."""

    model: str
    crops: str
    set: str
    faces: int
    measures: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Cost:
    """What a model takes: ms a picture by number of faces, MB on disk, peak MB of a process that serves it."""

    model: str
    crops: str
    latency_ms: dict[int, float]
    megabytes: float
    memory_mb: float
    minutes: float | None


def variants(folder: Path) -> Iterator[tuple[str, FaceModel]]:
    """Yield a model, and where it aligns faces the same without."""
    model = load_model(folder)
    yield ("aligned" if model.spec.classifier and model.spec.classifier.landmarks else "plain"), model
    if isinstance(model, TwoStage) and model.spec.classifier and model.spec.classifier.landmarks:
        yield "plain", model.without_landmarks()


def rows_of(folder: Path, prepared: Path, *, most: int, resamples: int) -> Iterator[Row]:
    """Yield a row for each set of the prepared test crops; `most` crops of each, evenly picked, 0 = all."""
    by_set: dict[str, list[Sample]] = {}
    for sample in read_crops(prepared, "test"):
        if len(sample.labels) == 1 and sample.labels.cls[0] != FACE_ID:
            by_set.setdefault(sample.set, []).append(sample)
    for how, model in variants(folder):
        for name, samples in sorted(by_set.items()):
            asked = evenly(samples, most) if most else samples
            figures, count = Figures(answers_of(model, asked)), len(asked)
            measures = {key: value for key, value in figures(np.ones(count)).items() if np.isfinite(value)}
            intervals = bootstrap(figures, count, resamples=resamples, seed=0)
            yield Row(str(folder), how, name, figures.faces, measures, intervals)


def cost_of(folder: Path, prepared: Path) -> Iterator[Cost]:
    """Yield what a model costs, and what it does without alignment."""
    crops = read_crops(prepared, "test")[: max(FACES)]
    tiles = [image for _, image in decoded(crops)]
    for how, model in variants(folder):
        latency = {
            count: median_ms(partial(model.predict, sheet(tiles, count)), count=_ROUNDS, warm_up=2) for count in FACES
        }
        spec = model.spec
        run = paths.CLASSIFIERS / folder.name / paths.RUN.name
        minutes = json.loads(run.read_text("utf-8"))["minutes"] if spec.classifier and run.is_file() else None
        yield Cost(str(folder), how, latency, _bytes(spec, aligned=how == "aligned") / 1e6, _memory(folder), minutes)


def sheet(tiles: Sequence[Image], count: int) -> Image:
    """Lay crops out in a square picture of `count` faces, a square number; they recur if there are too few."""
    side = round(count**0.5)
    shown = [cv2.resize(tiles[place % len(tiles)], (_TILE, _TILE)) for place in range(count)]
    rows = [np.concatenate(shown[row * side : (row + 1) * side], axis=1) for row in range(side)]
    return np.asarray(np.concatenate(rows), np.uint8)


def _bytes(spec: ModelSpec, *, aligned: bool) -> int:
    second = spec.classifier
    size = spec.files["onnx"].bytes  # the OpenVINO files are the same network again
    if second:
        size += second.onnx.bytes + (second.landmarks.bytes if second.landmarks and aligned else 0)
    return size


def _memory(folder: Path) -> float:
    """Return the peak resident MB of a process that loads the model and answers one picture; Linux only."""
    # Not ru_maxrss: that begins with what this process, its parent, took.
    code = (
        "import sys, numpy as np; from emotion_yolo.inference.loading import load_model; "
        "load_model(sys.argv[1]).predict(np.full((640, 640, 3), 114, np.uint8)); "
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024 / 1e6


def table(rows: Sequence[Row], costs: Sequence[Cost]) -> str:
    """Return both tables in Markdown."""
    lines = [f"| model | crops | set | faces | {' | '.join(MEASURES)} |", "|---" * (4 + len(MEASURES)) + "|"]
    for row in rows:
        cells = [_cell(row, name) for name in MEASURES]
        lines.append(f"| {row.model} | {row.crops} | {row.set} | {row.faces:,} | {' | '.join(cells)} |")
    heads = [f"ms, {count} face{'s' * (count > 1)}" for count in FACES]
    lines += ["", f"| model | crops | {' | '.join(heads)} | MB | peak MB | training, min |", "|---" * 8 + "|"]
    for cost in costs:
        times = " | ".join(f"{cost.latency_ms[count]:.1f}" for count in FACES)
        minutes = "–" if cost.minutes is None else f"{cost.minutes:g}"
        size = f"{cost.megabytes:.1f} | {cost.memory_mb:.0f}"
        lines.append(f"| {cost.model} | {cost.crops} | {times} | {size} | {minutes} |")
    return "\n".join(lines)


def _cell(row: Row, name: str) -> str:
    if name not in row.measures:
        return "–"
    low, high = row.intervals.get(name, (float("nan"), float("nan")))
    return f"{row.measures[name]:.3f} ({low:.3f}–{high:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write reports/baselines/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="folders; models/release and models/baselines/* if none")
    parser.add_argument("--prepared", type=Path, default=paths.PREPARED)
    parser.add_argument("--most", type=int, default=0, help="test crops of each set, evenly picked; 0 = all")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--out", type=Path, default=paths.REPORTS / "baselines")
    chosen = parser.parse_args(arguments)
    folders = chosen.models or [paths.RELEASE, *sorted(path.parent for path in paths.BASELINES.glob("*/model.json"))]
    rows, costs = [], []
    for folder in folders:
        read_spec(folder)  # a wrong folder is said before anything is measured
    for folder in folders:
        rows += rows_of(folder, chosen.prepared, most=chosen.most, resamples=chosen.resamples)
        costs += cost_of(folder, chosen.prepared)
    text = table(rows, costs)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "table.md").write_text(text + "\n", "utf-8")
    with (chosen.out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("model", "crops", "set", "faces", *(f"{m}{s}" for m in MEASURES for s in ("", "_low", "_high")))
        )
        for row in rows:
            limits = [(row.measures.get(m, ""), *row.intervals.get(m, ("", ""))) for m in MEASURES]
            writer.writerow((row.model, row.crops, row.set, row.faces, *(value for three in limits for value in three)))
    print(text)


if __name__ == "__main__":
    main()
