"""From what the network said about the test pictures to the flat, named figures of `metrics.json`.

Both sets of figures are functions of weights, how often each picture counts: ones give the figures themselves,
resamples their intervals, and the weights of one source's pictures its slice. Matching is done once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emotion_yolo.data.prepared import SOURCES, Sample
from emotion_yolo.evaluation.metrics import (
    Array,
    Indices,
    Mask,
    Ranking,
    assign,
    best_point,
    bootstrap,
    emotion_rankings,
    frame_boxes,
    mean_over_classes,
    rank_faces,
)
from emotion_yolo.inference.calibration import FloatArray, expected_calibration_error
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES

Figures = Callable[[Array], dict[str, float]]
"""[pictures] weights to figures."""

HEIGHTS: dict[str, tuple[float, float]] = {
    "": (0, np.inf),
    "_32px": (32, np.inf),
    "_128px": (128, np.inf),
    "_0_16px": (0, 16),
    "_16_32px": (16, 32),
    "_32_64px": (32, 64),
    "_64_128px": (64, 128),
}
"""Suffix of `face_ap50` to heights (from, below) in px; see `metrics.HEIGHT_SIDE`."""

AT_EVERY_SIZE = ("face_ap50_32px", "face_ap50_128px", "frame_boxes")
"""Figures of scenes that are given for further input sides too, under their name and the side."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the network said about one test picture, from one run of it.

    `candidates` are decoded for average precision (low `conf`, lax `iou`), `answers` at the served thresholds.
    """

    sample: Sample
    candidates: Detections
    answers: Detections


@dataclass(frozen=True, eq=False)
class Faces:
    """The true faces of a set of pictures, and the answers that found them at IoU 0.5.

    `picture` [F] and `cls` [F] are the truth, `finder` [F] is the index among the picture's answers or -1, and
    `probabilities` [F, 8] are the answer's (zeros where there is none). `answers` [P] counts each picture's answers.
    """

    picture: Indices
    cls: Indices
    finder: Indices
    probabilities: FloatArray
    answers: Indices

    @property
    def found(self) -> Mask:
        """Return [F] whether an answer found the face."""
        return self.finder >= 0

    @property
    def predicted(self) -> Indices:
        """Return the [F] most probable emotions; -1 where the face was not found."""
        return np.where(self.found, self.probabilities.argmax(axis=1), -1)


def match_faces(outcomes: Sequence[Outcome]) -> Faces:
    """Find out which answer found which true face, whatever the emotion."""
    finders, probabilities = [np.zeros(0, np.int64)], [np.zeros((0, len(NAMES)), np.float32)]
    for outcome in outcomes:
        finder = assign(outcome.answers, outcome.sample.labels)
        rows = np.zeros((len(finder), len(NAMES)), np.float32)
        rows[finder >= 0] = outcome.answers.probabilities[finder[finder >= 0]]
        finders.append(finder)
        probabilities.append(rows)
    return Faces(
        np.repeat(np.arange(len(outcomes)), [len(outcome.sample.labels) for outcome in outcomes]),
        np.concatenate([np.zeros(0, np.int64), *(outcome.sample.labels.cls for outcome in outcomes)]),
        np.concatenate(finders),
        np.concatenate(probabilities),
        np.asarray([len(outcome.answers) for outcome in outcomes], np.int64),
    )


def answer_figures(faces: Faces, weights: Array) -> dict[str, float]:
    """Return the figures at the served thresholds, nan where there is nothing to measure; `weights` is [pictures]."""
    named = faces.cls != FACE_ID
    weight = weights[faces.picture] * named
    found = weight * faces.found
    right = weight * (faces.predicted == faces.cls)
    of_class = [
        _ratio(float(right[faces.cls == c].sum()), float(found[faces.cls == c].sum())) for c in range(len(NAMES))
    ]
    # An answer about a face of unknown expression is neither right nor wrong.
    unknown = float((weights[faces.picture] * faces.found * ~named).sum())
    return {
        "precision_served": _ratio(float(right.sum()), float(weights @ faces.answers) - unknown),
        "recall_served": _ratio(float(right.sum()), float(weight.sum())),
        "face_found": _ratio(float(found.sum()), float(weight.sum())),
        "emotion_top1": _ratio(float(right.sum()), float(found.sum())),
        "emotion_macro_recall": mean_over_classes(np.asarray(of_class)),
        "ece": expected_calibration_error(faces.probabilities, faces.cls, weights=found),
    }


class CropFigures:
    """The figures of the test crops: average precision of the eight emotions, and the emotions of the faces found."""

    def __init__(self, outcomes: Sequence[Outcome], *, conf: float) -> None:
        self.rankings = emotion_rankings([(o.candidates, o.sample.labels) for o in outcomes], conf=conf)
        self.faces = match_faces(outcomes)
        self._sources = np.asarray([outcome.sample.source for outcome in outcomes])

    def __call__(self, weights: Array) -> dict[str, float]:
        """Return all figures, nan where there is nothing to measure; `weights` is [pictures]."""
        precisions = np.stack([ranking.average_precision(weights) for ranking in self.rankings])  # [8, 10]
        _, precision, recall = best_point(self.rankings, weights)
        figures = {
            "map50": mean_over_classes(precisions[:, 0]),
            "map50_95": mean_over_classes(precisions.mean(axis=1)),
            "precision": precision,
            "recall": recall,
            **{f"ap50_{name}": float(ap) for name, ap in zip(NAMES, precisions[:, 0], strict=True)},
            **answer_figures(self.faces, weights),
        }
        for source in SOURCES:
            part = weights * (self._sources == source)
            answers = answer_figures(self.faces, part)
            figures[f"top1_{source}"] = answers["emotion_top1"]
            figures[f"macro_recall_{source}"] = answers["emotion_macro_recall"]
            figures[f"map50_{source}"] = mean_over_classes(
                np.asarray([ranking.average_precision(part)[0] for ranking in self.rankings])
            )
        figures["top1_gap"] = figures["top1_ffhq"] - figures["top1_other"]
        return figures

    def counts(self) -> dict[str, int]:
        """Return how many pictures the figures rest on."""
        by_source = {f"n_{source}": int((self._sources == source).sum()) for source in SOURCES}
        return {"n_crops": len(self._sources), **by_source}


class SceneFigures:
    """The figures of the test scenes: are faces found, whatever their expression?"""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        candidates = [(outcome.candidates, outcome.sample.labels) for outcome in outcomes]
        self.rankings: dict[str, Ranking] = {
            suffix: rank_faces(candidates, heights=heights) for suffix, heights in HEIGHTS.items()
        }
        self._served = rank_faces([(o.answers, o.sample.labels) for o in outcomes], heights=HEIGHTS["_32px"])
        self._framed = frame_boxes([outcome.candidates for outcome in outcomes])

    def __call__(self, weights: Array) -> dict[str, float]:
        """Return all figures, nan where there is nothing to measure; `weights` is [pictures]."""
        hits = float(weights[self._served.picture] @ self._served.hit[:, 0])
        return {
            **{f"face_ap50{suffix}": float(r.average_precision(weights)[0]) for suffix, r in self.rankings.items()},
            "face_precision_32px": _ratio(hits, float(weights[self._served.picture].sum())),
            "face_recall_32px": _ratio(hits, float(weights @ self._served.truths)),
            "frame_boxes": _ratio(float(weights @ self._framed), float(weights.sum())),
        }

    def counts(self) -> dict[str, int]:
        """Return how many pictures and faces the figures rest on."""
        faces = {f"n_faces{suffix}": int(ranking.truths.sum()) for suffix, ranking in self.rankings.items()}
        return {"n_scenes": len(self._framed), **faces}


def at_size(figures: Figures, side: int) -> Figures:
    """Return figures of scenes as those of another input side in px: the few of `AT_EVERY_SIZE`, named after it."""

    def few(weights: Array) -> dict[str, float]:
        every = figures(weights)
        return {f"{name}_{side}": every[name] for name in AT_EVERY_SIZE}

    return few


@dataclass(frozen=True)
class Slice:
    """How the pictures of a sample fare under one change of them.

    `found` is the share of the `faces` that were found, `top1` that of those found that were named rightly, with its
    95 % `interval` (nan where none was found), `right` that of all that were. `face_ap50_32px` is that of scenes, nan
    where it was not measured.
    """

    change: str
    faces: int
    found: float
    top1: float
    interval: tuple[float, float]
    right: float
    face_ap50_32px: float


def slice_of(change: str, faces: Faces, *, resamples: int, seed: int, scenes: Sequence[Outcome] = ()) -> Slice:
    """Measure one change: the faces of the crops so changed, and the scenes so changed, if there are any."""
    pictures = len(faces.answers)
    figures = answer_figures(faces, np.ones(pictures))
    intervals = bootstrap(
        lambda weights: {"top1": answer_figures(faces, weights)["emotion_top1"]},
        pictures,
        resamples=resamples,
        seed=seed,
    )
    ranking = rank_faces([(o.candidates, o.sample.labels) for o in scenes], heights=HEIGHTS["_32px"])
    return Slice(
        change,
        len(faces.cls),
        figures["face_found"],
        figures["emotion_top1"],
        intervals.get("top1", (float("nan"), float("nan"))),
        figures["recall_served"],
        float(ranking.average_precision()[0]),
    )


def flip_figures(faces: Faces, mirrored: Faces) -> dict[str, float]:
    """Compare the answers to pictures with those to their mirror images, which should be the same.

    `flip_changed` is the share of the faces found in both whose emotion differs, `flip_difference` the mean over them
    of the largest difference of a probability, `flip_max_difference` the largest of all.
    """
    both = faces.found & mirrored.found
    if not both.any():
        return {}
    difference = np.abs(faces.probabilities[both] - mirrored.probabilities[both]).max(axis=1)
    return {
        "flip_changed": float((faces.predicted[both] != mirrored.predicted[both]).mean()),
        "flip_difference": float(difference.mean()),
        "flip_max_difference": float(difference.max()),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
