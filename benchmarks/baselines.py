"""One pass beside two stages, on the test crops of every prepared set: `make baselines-table`.

Each model is asked as it is served: it finds the face, then names it; a face that it does not find is named wrongly.
Model and set are compared on the emotions that both have: a model is neither blamed nor credited for one that it was
never taught, or that no face of the set shows. Models with the same detector share its look at a picture, so that what
differs between them is the naming alone.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import median_ms
from emotion_yolo import paths
from emotion_yolo.data.prepared import Sample, read_crops
from emotion_yolo.drawing import evenly
from emotion_yolo.evaluation.corruptions import CORRUPTIONS, PLAIN, Corruption
from emotion_yolo.evaluation.figures import VoteMetrics, served_metrics
from emotion_yolo.evaluation.metrics import Interval, Pair, bootstrap, mean_over_classes, rank_emotion
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.evaluation.runs import AT_ONCE
from emotion_yolo.inference.artefact import ModelSpec, read_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.loading import load_model
from emotion_yolo.inference.model import FaceModel
from emotion_yolo.inference.two_stage import TwoStage
from emotion_yolo.progress import counting
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.structures.labels import Labels

MEASURES = ("top1", "macro_recall", "map50", "ece", "votes_top1", "robust")
FACES = (1, 4, 16)
_CONF = 0.01  # least confidence of a candidate, which average precision ranks
_CANDIDATES = 20  # faces of a picture at most: its own come first
_TILE = 160  # px of a face's crop in composed pictures
_GRID = 2  # crops a side of a composed picture that is measured
_ROUNDS = 15

Votes = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers to pictures of named faces.

    `classes` are the ids that count: those of both the model and the pictures. `pairs` are the candidates, with the
    probabilities of all eight emotions, and the labels of each picture; `votes` [M, 8] of its faces are nan where there
    are none. A candidate is an answer from the confidence `conf` on.
    """

    classes: tuple[int, ...]
    pairs: Sequence[Pair]
    votes: Sequence[Votes]
    conf: float


class Figures:
    """The measures of answers as functions of how often each picture counts, for the bootstrap."""

    def __init__(self, answers: Answers) -> None:
        ids = np.asarray(answers.classes)
        given = zip(answers.pairs, answers.votes, strict=True)
        outcomes = [_shared(found, labels, votes, ids, conf=answers.conf) for (found, labels), votes in given]
        pairs = [(outcome.candidates, outcome.sample.labels) for outcome in outcomes]
        self._rankings = [rank_emotion(pairs, emotion, conf=_CONF) for emotion in answers.classes]
        self._faces = match_faces(outcomes)
        self._votes = VoteMetrics(self._faces)
        self._classes = answers.classes

    @property
    def faces(self) -> int:
        """How many faces are compared."""
        return int(self._faces.named.sum())

    def __call__(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Return the `MEASURES` but `robust`, nan where there is nothing to measure; `weights` is [pictures]."""
        faces, of_face = self._faces, weights[self._faces.picture]
        right, labelled = (np.bincount(faces.cls, of_face * part, FACE_ID + 1) for part in (faces.correct, faces.named))
        recalls = [right[cls] / labelled[cls] for cls in self._classes if labelled[cls]]
        served = served_metrics(faces, weights)
        return {
            "top1": served["recall_served"],
            "macro_recall": mean_over_classes(np.asarray(recalls)),
            "map50": mean_over_classes(np.asarray([r.average_precision(weights)[0] for r in self._rankings])),
            "ece": served["ece"],
            "votes_top1": self._votes(weights)["votes_accuracy"],
        }


def _shared(found: Detections, labels: Labels, votes: Votes, ids: NDArray[np.int64], *, conf: float) -> Outcome:
    """Restrict an answer to the emotions `ids`: probabilities share out 1, other faces are unknown."""
    others = np.setdiff1d(np.arange(len(NAMES)), ids)
    eight = np.zeros((len(found), len(NAMES)), np.float32)
    eight[:, [NAMES.index(name) for name in found.names]] = found.probabilities
    eight[:, others] = 0
    eight[np.ix_(eight.sum(axis=1) == 0, ids)] = 1
    candidates = found.renamed(eight / eight.sum(axis=1, keepdims=True), NAMES)
    asked = np.isin(labels.cls, ids)
    soft = np.where(asked[:, None], votes, np.nan).astype(np.float32)
    soft[:, others] *= 0
    sample = Sample(Path(), Labels(np.where(asked, labels.cls, FACE_ID), labels.xywhn), soft=soft)
    return Outcome(sample, candidates, candidates.select(candidates.confidence >= conf))


@dataclass(frozen=True)
class Row:
    """A model on a set."""

    model: str
    crops: str
    set: str
    faces: int
    measures: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Cost:
    """What a model takes: ms a picture by number of faces, MB on disk, peak MB of a process that serves it.

    `minutes` its classifier's training took, on `faces` with `hardware`.
    """

    model: str
    crops: str
    latency_ms: dict[int, float]
    megabytes: float
    memory_mb: float
    minutes: float | None = None
    faces: int | None = None
    hardware: str = ""


@dataclass(frozen=True, eq=False)
class Contender:
    """A model in one of the ways in which it cuts out a face."""

    folder: Path
    crops: str
    model: FaceModel

    @property
    def detector(self) -> Detector:
        """What finds the faces."""
        assert isinstance(self.model, TwoStage | Detector)
        return self.model.detector if isinstance(self.model, TwoStage) else self.model


def contenders(folder: Path, *, threads: int = 0) -> Iterator[Contender]:
    """Yield a model, and where it aligns faces the same without."""
    model = load_model(folder, threads=threads)
    if not (model.spec.classifier and model.spec.classifier.landmarks):
        yield Contender(folder, "plain", model)
        return
    assert isinstance(model, TwoStage)
    yield Contender(folder, "aligned", model)
    yield Contender(folder, "plain", model.without_landmarks())


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture that models are asked about, its faces, and their votes [M, 8]."""

    image: Image
    labels: Labels
    votes: Votes


def single(sample: Sample, change: Corruption) -> Shown:
    """Read the crop of one face, and change it."""
    image, labels = change(read_rgb(sample.image), sample.labels)
    return Shown(image, labels, _votes(sample))


def composed(samples: Sequence[Sample]) -> Shown:
    """Lay the crops of `_GRID`² faces out in a square picture."""
    xywhn, cls = [], []
    for place, sample in enumerate(samples):
        row, column = divmod(place, _GRID)
        shift = np.asarray([column, row, 0, 0])
        xywhn.append((sample.labels.xywhn + shift) / _GRID)
        cls.append(sample.labels.cls)
    tiles = [read_rgb(sample.image) for sample in samples]
    labels = Labels(np.concatenate(cls), np.concatenate(xywhn))
    return Shown(sheet(tiles, _GRID**2), labels, np.concatenate([_votes(sample) for sample in samples]))


def _votes(sample: Sample) -> Votes:
    if sample.soft is None:
        return np.full((len(sample.labels), len(NAMES)), np.nan, np.float32)
    return np.asarray(sample.soft, np.float32)


def ask(asked: Sequence[Contender], pictures: Sequence[partial[Shown]], *, title: str) -> list[Answers]:
    """Ask every contender about every picture; returns the answers in the order of `asked`."""

    def show(read: partial[Shown]) -> tuple[Shown, list[Detections]]:
        shown = read()
        looks: dict[str, Detections] = {}
        named = []
        for contender in asked:
            digest = contender.model.spec.files["onnx"].sha256
            if digest not in looks:
                looks[digest] = _look(contender.detector, shown.image)
            named.append(contender.model.name(looks[digest], shown.image))
        return shown, named

    shown_all, named_all = [], []
    with counting(title) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        for done, (shown, named) in enumerate(pool.map(show, pictures), start=1):
            shown_all.append((shown.labels, shown.votes))
            named_all.append(named)
            progress(done, len(pictures))
    there = {int(cls) for labels, _ in shown_all for cls in labels.cls if cls != FACE_ID}
    answers = []
    for place, contender in enumerate(asked):
        ids = tuple(sorted(there & {NAMES.index(name) for name in contender.model.spec.classes}))
        pairs = [(named[place], labels) for named, (labels, _) in zip(named_all, shown_all, strict=True)]
        conf = contender.model.spec.thresholds.conf
        answers.append(Answers(ids, pairs, [votes for _, votes in shown_all], conf))
    return answers


def _look(detector: Detector, image: Image) -> Detections:
    tensor, box = detector.preprocess(image)
    return detector.postprocess(detector.infer(tensor), box, conf=_CONF, max_faces=_CANDIDATES)


def rows_of(
    asked: Sequence[Contender], prepared: Path, *, most: int, scenes: int, robustness: int, resamples: int
) -> Iterator[Row]:
    """Yield the rows of each set of the prepared test crops, and of pictures composed of them.

    `most` crops of each set are asked about, `scenes` composed pictures, and `robustness` crops under every corruption;
    all evenly picked, 0 crops = all.
    """
    by_set: dict[str, list[Sample]] = {}
    for sample in read_crops(prepared, "test"):
        if len(sample.labels) == 1 and sample.labels.cls[0] != FACE_ID:
            by_set.setdefault(sample.set, []).append(sample)
    for name, samples in sorted(by_set.items()):
        some = evenly(samples, robustness)
        robust = [
            [Figures(answers)(np.ones(len(some)))["top1"] for answers in ask(asked, reads, title=f"{name} {change}")]
            for change, reads in (
                (change, [partial(single, sample, corruption) for sample in some])
                for change, corruption in CORRUPTIONS.items()
                if change != PLAIN and some
            )
        ]
        crops = [partial(single, sample, CORRUPTIONS[PLAIN]) for sample in (evenly(samples, most) if most else samples)]
        mixed = evenly(samples, scenes * _GRID**2)
        order = np.random.default_rng(0).permutation(len(mixed) // _GRID**2 * _GRID**2).reshape(-1, _GRID**2)
        sheets = [partial(composed, [mixed[place] for place in row]) for row in order]
        for title, reads in ((name, crops), (f"{name}, {_GRID}×{_GRID}", sheets)):
            for place, (contender, answers) in enumerate(zip(asked, ask(asked, reads, title=title), strict=True)):
                figures = Figures(answers)
                measures = figures(np.ones(len(reads)))
                if robust and title == name:
                    measures["robust"] = float(np.mean([of_change[place] for of_change in robust]))
                yield Row(
                    str(contender.folder),
                    contender.crops,
                    title,
                    figures.faces,
                    {key: value for key, value in measures.items() if np.isfinite(value)},
                    bootstrap(figures, len(reads), resamples=resamples, seed=0),
                )


def cost_of(folder: Path, prepared: Path) -> Iterator[Cost]:
    """Yield what a model costs, and what it does without alignment."""
    tiles = [read_rgb(sample.image) for sample in read_crops(prepared, "test")[: max(FACES)]]
    run = (
        folder.resolve().parents[1] / paths.CLASSIFIERS.name / folder.name / paths.RUN.name
    )  # as the stages lay them out
    for contender in contenders(folder):
        model = contender.model
        latency = {
            count: median_ms(partial(model.predict, sheet(tiles, count)), count=_ROUNDS, warm_up=2) for count in FACES
        }
        size = _bytes(model.spec, aligned=contender.crops == "aligned") / 1e6
        cost = Cost(str(folder), contender.crops, latency, size, _memory(folder))
        if model.spec.classifier and run.is_file():
            record = json.loads(run.read_text("utf-8"))
            where = record["environment"]
            hardware = f"{where['threads']} threads of {where['cpu']}" if where["device"] == "cpu" else where["device"]
            cost = replace(cost, minutes=record["minutes"], faces=record["train_faces"], hardware=hardware)
        yield cost


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
    lines += ["", f"| model | crops | {' | '.join(heads)} | MB | peak MB | trained on | min | hardware |"]
    lines += ["|---" * 10 + "|"]
    for cost in costs:
        times = " | ".join(f"{cost.latency_ms[count]:.1f}" for count in FACES)
        trained = f"{cost.faces:,} | {cost.minutes:g} | {cost.hardware}" if cost.faces else "– | – | –"
        lines.append(
            f"| {cost.model} | {cost.crops} | {times} | {cost.megabytes:.1f} | {cost.memory_mb:.0f} | {trained} |"
        )
    return "\n".join(lines)


def _cell(row: Row, name: str) -> str:
    if name not in row.measures:
        return "–"
    value = f"{row.measures[name]:.3f}"
    if name not in row.intervals:
        return value
    low, high = row.intervals[name]
    return f"{value} ({low:.3f}–{high:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write reports/baselines/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="folders; models/release and models/baselines/* if none")
    parser.add_argument("--prepared", type=Path, default=paths.PREPARED)
    parser.add_argument("--most", type=int, default=0, help="test crops of each set, evenly picked; 0 = all")
    parser.add_argument("--scenes", type=int, default=100, help="composed pictures of each set")
    parser.add_argument("--robustness", type=int, default=60, help="crops of each set under every corruption; 0 = none")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--out", type=Path, default=paths.REPORTS / "baselines")
    chosen = parser.parse_args(arguments)
    folders = chosen.models or [paths.RELEASE, *sorted(path.parent for path in paths.BASELINES.glob("*/model.json"))]
    for folder in folders:
        read_spec(folder)  # a wrong folder is reported before anything is measured
    asked = [contender for folder in folders for contender in contenders(folder, threads=1)]
    sizes = {name: getattr(chosen, name) for name in ("most", "scenes", "robustness", "resamples")}
    rows = list(rows_of(asked, chosen.prepared, **sizes))
    chosen.out.mkdir(parents=True, exist_ok=True)  # before the costs, so that nothing is lost if they fail
    with (chosen.out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("model", "crops", "set", "faces", *(f"{m}{s}" for m in MEASURES for s in ("", "_low", "_high")))
        )
        for row in rows:
            limits = [(row.measures.get(m, ""), *row.intervals.get(m, ("", ""))) for m in MEASURES]
            writer.writerow((row.model, row.crops, row.set, row.faces, *(value for three in limits for value in three)))
    costs = [cost for folder in folders for cost in cost_of(folder, chosen.prepared)]
    text = table(rows, costs)
    (chosen.out / "table.md").write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
