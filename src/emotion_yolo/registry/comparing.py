"""Compares a candidate with the present model on the same pictures: differences with paired bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from pathlib import Path
from time import perf_counter

import numpy as np

from emotion_yolo.data.prepared import Kind, Sample, read_split
from emotion_yolo.errors import PromotionError
from emotion_yolo.evaluation.figures import LEAST_IN_CELL, CellAccuracy, served_metrics
from emotion_yolo.evaluation.metrics import Array, Estimator, Interval, bootstrap, rank_faces
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.evaluation.runs import Condition, Detectors, run
from emotion_yolo.inference.artefact import ModelSpec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import Evaluate
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import read_rgb

LATENCY_TOLERANCE = 0.05
"""Share by which a candidate may be slower: equal networks differ steadily by a few per cent, by memory layout."""
LEAST_SLOWER = 1.0
"""ms a picture by which a candidate may be slower in any case: less is the machine's, not the network's."""
SIZE_TOLERANCE = 0.01
"""Share by which the files may be larger: the same network trained again differs by some bytes."""

_LEAST_RESAMPLES = 100
_TIMED = 100  # pictures
_REPEATS = 3  # inferences of each by each model, of which the fastest counts

Outcomes = tuple[Sequence[Outcome], Sequence[Outcome]]
"""Of the present model and of the candidate, of the same pictures in the same order."""


@dataclass(frozen=True)
class Difference:
    """One figure of both models; `gain` and its 95 % interval are positive where the candidate is better.

    They are in the figure's own unit, for latency and size a share of the present model's.
    """

    name: str
    title: str
    present: float
    candidate: float
    gain: float
    interval: Interval
    tolerance: float = 0.0

    @property
    def worse(self) -> bool:
        """Whether the whole interval is worse than the tolerance."""
        return self.interval[1] < -self.tolerance


@dataclass(frozen=True)
class Comparison:
    """Two models, their differences, and the figures that nothing in the split could measure."""

    present: ModelSpec
    candidate: ModelSpec
    pictures: int
    differences: Sequence[Difference]
    missing: Sequence[str] = ()

    @property
    def worse(self) -> list[Difference]:
        """The figures in which the candidate is worse beyond noise."""
        return [difference for difference in self.differences if difference.worse]


_TITLES = {
    "face_ap50": "face AP50, photographs",
    "emotion_top1": "emotion top-1, missed faces count as wrong",
    "worst_cell": "worst cell of class × source",
    "ece": "expected calibration error",
    "latency": "latency, ms a picture",
    "size": "size, bytes",
}
_LOWER_IS_BETTER = frozenset({"ece"})


def compare(present: Path, candidate: Path, *, prepared: Path, params: Evaluate) -> Comparison:
    """Compare two exported models on the test split.

    Raises:
        ModelError: no model there, a damaged one, or a two-stage model, which the evaluation does not run.
        LayoutError: no prepared set, or one without a test split.
        PromotionError: no test picture with a labelled emotion, or `params.bootstrap` is too small for intervals.
    """
    if params.bootstrap < _LEAST_RESAMPLES:
        message = f"evaluate.bootstrap is {params.bootstrap}, expected at least {_LEAST_RESAMPLES}"
        raise PromotionError(f"{message}: a promotion is decided by intervals; set it in params.yaml")
    samples = read_split(prepared, "test")
    singles, scenes = ([s for s in samples if s.kind is kind] for kind in (Kind.SINGLE, Kind.SCENE))
    if not any((sample.labels.cls != FACE_ID).any() for sample in [*singles, *scenes]):
        raise PromotionError(
            f"{prepared}: no test picture has a face with an emotion; pull a set that has and prepare it"
        )
    models = Detectors(present), Detectors(candidate)
    before: list[Outcome] = []
    after: list[Outcome] = []
    for pictures, side, title in ((singles, None, "crops"), (scenes, params.scene_imgsz, "photographs")):
        conditions = [
            Condition(name, model.at(side)) for name, model in zip(("present", "candidate"), models, strict=True)
        ]
        outcomes = run(conditions, pictures, params=params, title=title) if pictures else {}
        before += outcomes.get("present", [])
        after += outcomes.get("candidate", [])
    specs = models[0].spec, models[1].spec
    differences = [
        *compare_outcomes((before, after), params),
        _latency(models[0].at(), models[1].at(), [*singles, *scenes], params),
        _size(*specs),
    ]
    found = {difference.name for difference in differences}
    missing = [title for name, title in _TITLES.items() if name not in found]
    return Comparison(*specs, len(before), differences, missing)


def compare_outcomes(outcomes: Outcomes, params: Evaluate) -> list[Difference]:
    """Return the differences in what was predicted; a figure that cannot be measured is left out.

    Both models get the same resamples of pictures. The worst cell is that of the present model in all of them.
    """
    before, _ = outcomes
    cell = _worst_cell(before)
    of_present, of_candidate = (_figures(of_model, cell) for of_model in outcomes)

    def gains(weights: Array) -> Mapping[str, float]:
        old, new = of_present(weights), of_candidate(weights)
        return {name: (old[name] - new[name]) * (1 if name in _LOWER_IS_BETTER else -1) for name in old}

    ones = np.ones(len(before))
    old, new, gain = of_present(ones), of_candidate(ones), gains(ones)
    intervals = bootstrap(gains, len(before), resamples=params.bootstrap, seed=params.seed)
    titles = {**_TITLES, "worst_cell": f"{_TITLES['worst_cell']}, {cell}"}
    return [
        Difference(name, titles[name], old[name], new[name], gain[name], intervals[name])
        for name in gain
        if isfinite(gain[name]) and name in intervals
    ]


def _worst_cell(outcomes: Sequence[Outcome]) -> str | None:
    cells = CellAccuracy([outcome.sample.source for outcome in outcomes], match_faces(outcomes))
    accuracy, counts = cells(np.ones(len(outcomes))), cells.counts()
    large = [name for name, count in counts.items() if count >= LEAST_IN_CELL]
    return min(large, key=accuracy.__getitem__, default=None)


def _figures(outcomes: Sequence[Outcome], cell: str | None) -> Estimator:
    faces = match_faces(outcomes)
    cells = CellAccuracy([outcome.sample.source for outcome in outcomes], faces)
    scenes = [at for at, outcome in enumerate(outcomes) if outcome.sample.kind is Kind.SCENE]
    ranking = rank_faces([(outcomes[at].candidates, outcomes[at].sample.labels) for at in scenes])

    def figures(weights: Array) -> Mapping[str, float]:
        served = served_metrics(faces, weights)
        return {
            "face_ap50": float(ranking.average_precision(weights[scenes])[0]),
            "emotion_top1": served["recall_served"],
            "worst_cell": cells(weights)[cell] if cell else float("nan"),
            "ece": served["ece"],
        }

    return figures


def _latency(present: Detector, candidate: Detector, samples: Sequence[Sample], params: Evaluate) -> Difference:
    """Time both models on each picture in turn, so that other load on the machine affects both."""
    chosen = [samples[at] for at in np.linspace(0, len(samples) - 1, min(_TIMED, len(samples))).astype(int)]
    seconds = np.full((len(chosen), 2), np.inf)
    for row, sample in zip(seconds, chosen, strict=True):
        image = read_rgb(sample.image)
        for turn in range(2 * _REPEATS):
            # 0 1 1 0 0 1: neither always comes first.
            model = (turn + 1) // 2 % 2
            begin = perf_counter()
            (present, candidate)[model].predict(image)
            row[model] = min(row[model], perf_counter() - begin)
    logs = np.log(seconds[:, 1] / seconds[:, 0])

    def gain(weights: Array) -> Mapping[str, float]:
        return {"latency": 1 - exp(np.average(logs, weights=weights))}

    interval = bootstrap(gain, len(chosen), resamples=params.bootstrap, seed=params.seed)["latency"]
    old, new = (float(value) for value in np.median(seconds, axis=0) * 1000)
    of_all = gain(np.ones(len(chosen)))["latency"]
    tolerance = max(LATENCY_TOLERANCE, LEAST_SLOWER / old)
    return Difference("latency", _TITLES["latency"], old, new, of_all, interval, tolerance)


def _size(present: ModelSpec, candidate: ModelSpec) -> Difference:
    # The ONNX file alone: a release leaves the OpenVINO files, the same network again, out.
    old, new = present.files["onnx"].bytes, candidate.files["onnx"].bytes
    gain = 1 - new / old
    return Difference("size", _TITLES["size"], old, new, gain, (gain, gain), SIZE_TOLERANCE)
