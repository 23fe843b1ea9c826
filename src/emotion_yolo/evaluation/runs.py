"""Runs an exported model over pictures: each is decoded once, however many ways it is shown to the network."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.corruptions import PLAIN, Corruption, plain
from emotion_yolo.evaluation.outcomes import Outcome
from emotion_yolo.inference.artefact import ModelSpec, read_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import Evaluate
from emotion_yolo.progress import counting
from emotion_yolo.structures.images import Image, read_rgb

_CORES = max((os.cpu_count() or 1) // 8, 1)  # per inference; more than eight at a time only take memory
AT_ONCE = max((os.cpu_count() or 1) // _CORES, 1)
"""Number of inferences that run at a time with a detector of `Detectors`."""


class Detectors:
    """The detectors of one artefact for different inputs, each loaded once."""

    def __init__(self, artefact: Path) -> None:
        self.spec: ModelSpec = read_spec(artefact)
        self._artefact = artefact
        self._loaded: dict[tuple[int, bool], Detector] = {}

    def at(self, imgsz: int | None = None, *, square: bool = False) -> Detector:
        """Return the detector with an input of `imgsz` px, the artefact's own if None."""
        key = (imgsz or self.spec.input.imgsz, square)
        if key not in self._loaded:
            self._loaded[key] = Detector.load(self._artefact, imgsz=key[0], threads=_CORES, square=square)
        return self._loaded[key]


@dataclass(frozen=True)
class Condition:
    """A way to show a picture to the network: with which detector, and after which change."""

    name: str
    detector: Detector
    change: Corruption = plain


def run(
    conditions: Sequence[Condition], samples: Sequence[Sample], *, params: Evaluate, title: str
) -> dict[str, list[Outcome]]:
    """Show every picture under each condition; returns the outcomes by the condition's name, in the order of `samples`.

    Several pictures are processed at a time, so a detector's inferences should not take all cores each.
    """
    outcomes: dict[str, list[Outcome]] = {condition.name: [] for condition in conditions}

    def show(sample: Sample) -> list[Outcome]:
        image = read_rgb(sample.image)
        return [_outcome(condition, sample, image, params) for condition in conditions]

    with counting(f"evaluate {title}") as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        for done, shown in enumerate(pool.map(show, samples), start=1):
            for condition, outcome in zip(conditions, shown, strict=True):
                outcomes[condition.name].append(outcome)
            progress(done, len(samples))
    return outcomes


def run_plain(detector: Detector, samples: Sequence[Sample], *, params: Evaluate, title: str) -> list[Outcome]:
    """Show every picture once, as it is."""
    return run([Condition(PLAIN, detector)], samples, params=params, title=title)[PLAIN]


def _outcome(condition: Condition, sample: Sample, image: Image, params: Evaluate) -> Outcome:
    detector = condition.detector
    image, labels = condition.change(image, sample.labels)
    tensor, box = detector.preprocess(image)
    raw = detector.infer(tensor)
    # Average precision is defined with suppression by IoU alone.
    candidates = detector.name(detector.postprocess(raw, box, conf=params.conf, iou=params.iou, ios=1), image)
    return Outcome(replace(sample, labels=labels), candidates, detector.name(detector.postprocess(raw, box), image))
