"""Measures the model on corrupted pictures, at given face heights, in the mirror, and on pictures without a face."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from PIL import Image as PillowImage

from emotion_yolo.data.negatives import HELD_OUT, LEARNT
from emotion_yolo.data.prepared import Sample
from emotion_yolo.drawing import evenly
from emotion_yolo.evaluation.corruptions import (
    CORRUPTIONS,
    MIRRORED,
    PLAIN,
    SCENE_CORRUPTIONS,
    face_heights,
    side_for_corruptions,
)
from emotion_yolo.evaluation.figures import HEIGHTS, mirror_metrics, served_metrics
from emotion_yolo.evaluation.metrics import Array, Interval, bootstrap, rank_faces
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.evaluation.runs import AT_ONCE, Condition, Detectors, run
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import Evaluate

_NEGATIVE_WH = (640, 480)  # px
_NAN = float("nan")


@dataclass(frozen=True)
class ConditionMetrics:
    """The metrics of a sample of pictures under one condition that a table shows; nan where nothing was measured.

    `found` is the share of the `faces` that were found, `top1` the share of those found that were named as labelled,
    `accuracy` the share of all that were (with its 95 % `interval`), `neutral` and `happy` the same of one emotion.
    """

    faces: int
    found: float
    top1: float
    accuracy: float
    interval: Interval
    top1_interval: Interval
    neutral: float
    happy: float


@dataclass(frozen=True)
class Robustness:
    """What `measure_robustness` returns: the conditions by name, and by set and height of the face in px."""

    corruptions: Mapping[str, ConditionMetrics] = field(default_factory=dict)
    scenes: Mapping[str, float] = field(default_factory=dict)
    """AP50 of the faces of at least 32 px in photographs, by corruption."""
    heights: Mapping[tuple[str, int], ConditionMetrics] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def measure_robustness(
    crops: Sequence[Sample], photographs: Mapping[str, Sequence[Outcome]], *, params: Evaluate, detectors: Detectors
) -> Robustness:
    """Measure the emotions of a sample of the crops of each set under every corruption and at every face height.

    `photographs` are the outcomes of the photographs by corruption, for those in which faces are sought too.
    """
    faces = [sample for sample in crops if len(sample.labels)]
    if not faces or not params.robustness:
        return Robustness()
    corrupted: dict[str, list[Outcome]] = {name: [] for name in CORRUPTIONS}
    heights: dict[tuple[str, int], ConditionMetrics] = {}
    given = detectors.spec.input
    changes = face_heights(given.imgsz)
    for name in sorted({sample.set for sample in faces}):
        samples = evenly([sample for sample in faces if sample.set == name], params.robustness)
        long_side = max(map(_long_side, samples))
        detector = detectors.at(side_for_corruptions(long_side, given), square=True)
        outcomes = run(
            [
                *(Condition(corruption, detector, change) for corruption, change in CORRUPTIONS.items()),
                *(
                    Condition(f"{px}", detectors.at(side, square=True), change)
                    for px, (side, change) in changes.items()
                ),
            ],
            samples,
            params=params,
            title=f"{name} corrupted".strip(),
        )
        for corruption in CORRUPTIONS:
            corrupted[corruption] += outcomes[corruption]
        heights |= {(name, px): condition_metrics(outcomes[f"{px}"], params) for px in changes}
    conditions = {name: condition_metrics(outcomes, params) for name, outcomes in corrupted.items()}
    scenes = {name: _face_ap50(photographs[name]) for name in SCENE_CORRUPTIONS if photographs.get(name)}
    metrics: dict[str, float] = {
        **{f"top1_{name}": row.top1 for name, row in conditions.items()},
        **{f"face_ap50_32px_{name}": value for name, value in scenes.items()},
        **mirror_metrics(match_faces(corrupted[PLAIN]), match_faces(corrupted[MIRRORED])),
        "n_robustness": len(corrupted[PLAIN]),
    }
    return Robustness(conditions, scenes, heights, metrics)


def condition_metrics(outcomes: Sequence[Outcome], params: Evaluate) -> ConditionMetrics:
    """Measure the emotions of pictures under one condition."""
    faces = match_faces(outcomes)

    def estimate(weights: Array) -> dict[str, float]:
        return served_metrics(faces, weights)

    metrics = estimate(np.ones(len(outcomes)))
    intervals = bootstrap(estimate, len(outcomes), resamples=params.bootstrap, seed=params.seed)
    return ConditionMetrics(
        faces=int(faces.named.sum()),
        found=metrics["face_found"],
        top1=metrics["emotion_top1"],
        accuracy=metrics["recall_served"],
        interval=intervals.get("recall_served", (_NAN, _NAN)),
        top1_interval=intervals.get("emotion_top1", (_NAN, _NAN)),
        neutral=metrics["recall_neutral"],
        happy=metrics["recall_happy"],
    )


def false_faces(detector: Detector, *, count: int, seed: int) -> dict[str, float]:
    """Return the share of `count` drawn pictures of each kind, none with a face, in which a face is found."""
    metrics: dict[str, float] = {}
    for number, (kind, draw) in enumerate(chain(LEARNT.items(), HELD_OUT.items()) if count else (), start=1):
        rng = np.random.default_rng([seed, 0, number])  # never the numbers of the train pictures, [seed, index]
        pictures = [draw(rng, _NEGATIVE_WH) for _ in range(count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            seen = sum(len(found) > 0 for found in pool.map(detector.predict, pictures))
        metrics[f"false_faces_{kind}"] = seen / count
    if not metrics:
        return {}
    return {"false_faces": sum(metrics.values()) / len(metrics), **metrics, "n_negatives": count}


def _face_ap50(outcomes: Sequence[Outcome]) -> float:
    ranking = rank_faces([(o.candidates, o.sample.labels) for o in outcomes], heights=HEIGHTS["_32px"])
    return float(ranking.average_precision()[0])


def _long_side(sample: Sample) -> int:
    with PillowImage.open(sample.image) as picture:  # reads the header only
        return max(picture.size)
