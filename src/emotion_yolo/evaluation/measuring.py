"""Measures an exported model on a split: `measure` returns everything that the report and the card show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np

from emotion_yolo.data.cards import Split
from emotion_yolo.data.prepared import Kind, Sample, read_split
from emotion_yolo.evaluation.corruptions import CORRUPTIONS, SCENE_CORRUPTIONS
from emotion_yolo.evaluation.figures import (
    LEAST_IN_CELL,
    CellAccuracy,
    EmotionMetrics,
    FaceMetrics,
    VoteMetrics,
    at_size,
)
from emotion_yolo.evaluation.metrics import Estimator, Interval, Intervals, Measured, Metrics, Ranking, bootstrap
from emotion_yolo.evaluation.outcomes import Faces, Outcome, match_faces
from emotion_yolo.evaluation.robustness import Robustness, false_faces, measure_robustness
from emotion_yolo.evaluation.runs import Condition, Detectors, run, run_plain
from emotion_yolo.inference.artefact import ModelSpec
from emotion_yolo.params import Evaluate
from emotion_yolo.structures.emotions import FACE_ID, NAMES


@dataclass(frozen=True)
class Cell:
    """The accuracy of one emotion in one source; faces missed count as wrong."""

    source: str
    emotion: str
    faces: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that is known of a model after its evaluation; `imgsz` is the input side for crops in px."""

    spec: ModelSpec
    settings: Evaluate
    imgsz: int
    backend: str
    overall: Measured
    sets: Mapping[str, Measured] = field(default_factory=dict)
    """By name of the set."""
    sources: Mapping[str, Measured] = field(default_factory=dict)
    cells: Sequence[Cell] = ()
    worst: Cell | None = None
    robustness: Robustness = field(default_factory=Robustness)
    crops: Sequence[Outcome] = ()
    photographs: Sequence[Outcome] = ()
    named: Sequence[Outcome] = ()
    """Those of the sets whose faces have emotions."""
    faces: Faces = field(default_factory=lambda: match_faces([]))
    """The faces of `named`."""
    rankings: Sequence[Ranking] = ()
    """By emotion, of `named`."""


def measure(params: Evaluate, *, artefact: Path, prepared: Path, split: Split = "test") -> Evaluation:
    """Measure the artefact on a split of the prepared set.

    Raises:
        ModelError: no artefact, or a damaged one.
        LayoutError: no prepared set, or one without this split.
    """
    detectors = Detectors(artefact)
    pictures = read_split(prepared, split)
    samples, scenes = ([s for s in pictures if s.kind is kind] for kind in (Kind.SINGLE, Kind.SCENE))
    detector = detectors.at()
    crops = run_plain(detector, samples, params=params, title="crops") if samples else []
    by_condition = _run_photographs(detectors, scenes, params=params) if scenes else {}
    photographs = by_condition.get(f"{params.scene_imgsz}", [])

    outcomes = [*crops, *photographs]
    with_emotions = {o.sample.set for o in outcomes if (o.sample.labels.cls != FACE_ID).any()}
    named = [outcome for outcome in outcomes if outcome.sample.set in with_emotions]
    emotions = EmotionMetrics(named, conf=params.conf)
    parts = [_measured(emotions, len(named), params)] if named else []
    if photographs:
        face_metrics = FaceMetrics(photographs)
        parts.append(_measured(face_metrics, len(photographs), params, face_metrics.counts()))
        for side in params.scene_sizes:
            sized = at_size(FaceMetrics(by_condition[f"{side}"]), side)
            parts.append(_measured(sized, len(photographs), params))
    cells = _cells(named, emotions.faces, params)
    worst = min((cell for cell in cells if cell.faces >= LEAST_IN_CELL), key=lambda c: c.accuracy, default=None)
    robustness = measure_robustness(samples, by_condition, params=params, detectors=detectors)
    negatives = false_faces(detector, count=params.negatives, seed=params.seed)
    counts = {"n_crops": len(crops), "n_scenes": len(photographs)}
    parts.append(_present({**robustness.metrics, **negatives, **counts}))
    if worst:
        parts.append(_present({"worst_cell": worst.accuracy}, {"worst_cell": worst.interval}))
    return Evaluation(
        spec=detectors.spec,
        settings=params,
        imgsz=detector.imgsz,
        backend=detector.backend,
        overall=_joined(parts),
        sets={name: _measure_set([o for o in outcomes if o.sample.set == name], params) for name in _sets(outcomes)},
        sources=_measure_sources(named, emotions.faces, params),
        cells=cells,
        worst=worst,
        robustness=robustness,
        crops=crops,
        photographs=photographs,
        named=named,
        faces=emotions.faces,
        rankings=emotions.rankings,
    )


def _run_photographs(detectors: Detectors, scenes: Sequence[Sample], *, params: Evaluate) -> dict[str, list[Outcome]]:
    """Return the outcomes of the photographs by input side in px, and by corruption at the side that is served."""
    sides = dict.fromkeys((params.scene_imgsz, *params.scene_sizes))
    corruptions = SCENE_CORRUPTIONS if params.robustness else ()
    conditions = [
        *(Condition(f"{side}", detectors.at(side)) for side in sides),
        *(Condition(name, detectors.at(params.scene_imgsz), CORRUPTIONS[name]) for name in corruptions),
    ]
    return run(conditions, scenes, params=params, title="photographs")


def _measure_set(outcomes: Sequence[Outcome], params: Evaluate) -> Measured:
    faces = match_faces(outcomes)
    counts = {
        "n_pictures": len(outcomes),
        "n_faces": len(faces.cls),
        "n_classes": len(np.unique(faces.cls[faces.named])),
    }
    parts = [_present(counts)]
    if faces.named.any():
        parts.append(_measured(EmotionMetrics(outcomes, conf=params.conf), len(outcomes), params))
    votes = VoteMetrics(faces)
    if votes.counts()["n_votes"]:
        parts.append(_measured(votes, len(outcomes), params, votes.counts()))
    if photographs := [outcome for outcome in outcomes if outcome.sample.kind is Kind.SCENE]:
        metrics = FaceMetrics(photographs)
        parts.append(_measured(metrics, len(photographs), params, metrics.counts()))
    return _joined(parts)


def _measure_sources(outcomes: Sequence[Outcome], faces: Faces, params: Evaluate) -> dict[str, Measured]:
    measured = {}
    of_outcome = np.asarray([outcome.sample.source for outcome in outcomes])
    for source in sorted(set(of_outcome.tolist())):
        of_source = [outcome for outcome in outcomes if outcome.sample.source == source]
        counts = {"n_faces": int((faces.named & (of_outcome[faces.picture] == source)).sum())}
        measured[source] = _measured(EmotionMetrics(of_source, conf=params.conf), len(of_source), params, counts)
    return measured


def _cells(outcomes: Sequence[Outcome], faces: Faces, params: Evaluate) -> list[Cell]:
    cells = CellAccuracy([outcome.sample.source for outcome in outcomes], faces)
    accuracy, counts = cells(np.ones(len(outcomes))), cells.counts()
    intervals = bootstrap(cells, len(outcomes), resamples=params.bootstrap, seed=params.seed)
    nothing = (float("nan"), float("nan"))
    return [
        Cell(source, emotion, counts[key], accuracy[key], intervals.get(key, nothing))
        for source in cells.sources
        for emotion in NAMES
        if counts[key := f"{source}/{emotion}"]
    ]


def _measured(
    estimator: Estimator, pictures: int, params: Evaluate, counts: Mapping[str, int] | None = None
) -> Measured:
    metrics = {**estimator(np.ones(pictures)), **(counts or {})}
    return _present(metrics, bootstrap(estimator, pictures, resamples=params.bootstrap, seed=params.seed))


def _present(metrics: Metrics, intervals: Intervals | None = None) -> Measured:
    """Leave out what is nan, and round to five decimals: steadier in a diff than the last bits of a float."""
    present = {
        name: value if isinstance(value, int) else round(float(value), 5)
        for name, value in metrics.items()
        if isfinite(value)
    }
    return Measured(present, {name: limits for name, limits in (intervals or {}).items() if name in present})


def _joined(parts: Sequence[Measured]) -> Measured:
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for part in parts:
        metrics |= part.metrics
        intervals |= part.intervals
    return Measured(metrics, intervals)


def _sets(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({outcome.sample.set for outcome in outcomes})
