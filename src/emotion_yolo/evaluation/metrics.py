"""Detection metrics: matching with the truth, average precision, best thresholds, bootstrap intervals. NumPy only.

    (Detections, Labels) pairs ── match ──▶ Ranking ── average_precision, curves ──▶ metrics ── bootstrap ──▶ intervals

Comparable with Ultralytics' `ap_per_class` (8.4): greedy matching by falling confidence, one detection a truth and
IoU threshold; precision envelope sampled at 101 recalls. Its trapezoid rule puts the best possible AP at 0.995.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.structures.boxes import iou_matrix, xywhn_to_xyxy
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.labels import Labels

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Pair = tuple[Detections, Labels]
Estimator = Callable[[Array], Mapping[str, float]]
"""Computes metrics from [pictures] weights: the number of times each picture counts."""
Interval = tuple[float, float]
Metrics = Mapping[str, float]
Intervals = Mapping[str, Interval]

IOU_THRESHOLDS: Array = np.linspace(0.5, 0.95, 10)
HEIGHT_SIDE = 640
"""Face heights are in pixels of the picture shrunk to at most this long side, whatever side the network sees."""

_RECALLS = np.linspace(0, 1, 101)
_CONFIDENCES = np.linspace(0, 1, 1000)
_SMOOTHING = 101  # points of the confidence grid, a tenth of it


@dataclass(frozen=True, eq=False)
class Measured:
    """Metrics of some pictures with their 95 % intervals; a metric without anything to measure is not there."""

    metrics: Metrics
    intervals: Intervals


def match(iou: Array, *, ignored: Mask, thresholds: Array = IOU_THRESHOLDS) -> tuple[Indices, Mask]:
    """Match each prediction with the best truth that no prediction of a higher score has taken.

    `iou` is [D, M], predictions by falling score; `ignored` [M] marks truths that count neither way. Returns `matches`
    [D, T], the truth's index at each of the rising IoU thresholds or -1, and `skipped` [D]: predictions that match
    only an ignored truth at the first threshold. A truth that counts is preferred to an ignored one, as in COCO.
    """
    matches = np.full((len(iou), len(thresholds)), -1, np.int64)
    skipped = np.zeros(len(iou), bool)
    taken = np.repeat(ignored[:, None], len(thresholds), axis=1)  # [M, T]
    free = ignored.copy()
    levels = np.arange(len(thresholds))
    for d in np.flatnonzero((iou >= thresholds[0]).any(axis=1)):
        overlap = np.where(taken, 0.0, iou[d, :, None])  # [M, T]
        best = overlap.argmax(axis=0)
        matched = overlap[best, levels] >= thresholds
        matches[d, matched] = best[matched]
        taken[best, levels] |= matched
        if not matched.any():
            overlap = np.where(free, iou[d], 0.0)
            best_ignored = overlap.argmax()
            if overlap[best_ignored] >= thresholds[0]:
                skipped[d] = True
                free[best_ignored] = False
    return matches, skipped


@dataclass(frozen=True, eq=False)
class Ranking:
    """All predictions of one class in a set of pictures, by falling score.

    `score` [D] in 0-1; `matched` [D, T]: whether it matches a truth at this IoU threshold; `picture` [D]: its picture;
    `truths` [P]: number of truths in each picture.
    Metrics take `weights` [P], how often each picture counts: a resample or a subset without matching again.
    """

    score: Array
    matched: Mask
    picture: Indices
    truths: Indices

    @cached_property
    def _matched_at(self) -> list[Indices]:
        return [np.flatnonzero(column) for column in self.matched.T]

    def average_precision(self, weights: Array | None = None) -> Array:
        """Return the [T] average precision at each IoU threshold; nan where there is nothing to find."""
        weights = np.ones(len(self.truths)) if weights is None else weights
        total = float(weights @ self.truths)
        if total == 0:
            return np.full(self.matched.shape[1], np.nan)
        weight = weights[self.picture]
        total_weight = np.cumsum(weight)
        return np.asarray(
            [np.trapezoid(_envelope(weight, total_weight, at, total), _RECALLS) for at in self._matched_at]
        )

    def pr_curve(self) -> Array:
        """Return the [101] best precisions at or beyond recalls 0, 0.01, … 1, at the first IoU threshold."""
        ones = np.ones(len(self.score))
        return _envelope(ones, np.cumsum(ones), self._matched_at[0], float(self.truths.sum()))

    def curves(self, weights: Array | None = None) -> tuple[Array, Array]:
        """Return [1000] precisions and [1000] recalls at confidences 0 to 1, at the first IoU threshold."""
        weights = np.ones(len(self.truths)) if weights is None else weights
        total = float(weights @ self.truths)
        weight = weights[self.picture]
        counted = weight > 0
        if total == 0 or not counted.any():
            return np.zeros(len(_CONFIDENCES)), np.zeros(len(_CONFIDENCES))
        weight, score, matched = weight[counted], self.score[counted], self.matched[counted, 0]
        found = np.cumsum(weight * matched)
        precision = np.interp(-_CONFIDENCES, -score, found / np.cumsum(weight), left=1)
        recall = np.interp(-_CONFIDENCES, -score, found / total, left=0)
        return precision, recall


def _envelope(weight: Array, total_weight: Array, at: Indices, total: float) -> Array:
    """Return the [101] best precisions at or beyond each recall.

    `at` are the matched predictions, `total_weight` the cumulative sum of `weight`. Precision rises at matches only, so
    the envelope needs no other points. At a recall that is reached exactly the next match decides, as NumPy's
    interpolation in Ultralytics does.
    """
    found = np.cumsum(weight[at])
    precision = np.divide(found, total_weight[at], out=np.zeros_like(found), where=total_weight[at] > 0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(envelope, 0.0)[np.searchsorted(found / total, _RECALLS, side="right")]


def truth_xyxy(labels: Labels, image_wh: tuple[int, int]) -> Array:
    """Return the [M, 4] true boxes in pixels."""
    return np.asarray(xywhn_to_xyxy(labels.xywhn, image_wh=image_wh), np.float64)


def rank_emotion(pairs: Sequence[Pair], emotion: int, *, conf: float) -> Ranking:
    """Rank the predictions of one emotion.

    Each detection is a prediction of all eight emotions, with the score confidence × probability where that is at least
    `conf`, as in Ultralytics' multi-label validation. Faces of unknown expression are ignored: a prediction that
    matches one is neither right nor wrong.
    """
    parts = []
    for detections, labels in pairs:
        score = detections.confidence.astype(np.float64) * detections.probabilities[:, emotion]
        order = np.argsort(-score, kind="stable")
        order = order[score[order] >= conf]
        relevant = (labels.cls == emotion) | (labels.cls == FACE_ID)
        truth = truth_xyxy(labels, detections.image_wh)[relevant]
        ignored = labels.cls[relevant] == FACE_ID
        matches, skipped = match(iou_matrix(detections.xyxy[order].astype(np.float64), truth), ignored=ignored)
        parts.append((score[order][~skipped], matches[~skipped] >= 0, int((~ignored).sum())))
    return _ranking(parts)


def rank_faces(pairs: Sequence[Pair], *, heights: tuple[float, float] = (0, np.inf)) -> Ranking:
    """Rank the predictions of a face, whatever its expression, at IoU 0.5.

    With `heights` (from, below; px, see `HEIGHT_SIDE`) faces of other heights are ignored, and so are predictions that
    match one of those, or that match none and are of another height themselves, as in COCO's area ranges.
    """
    parts = []
    for detections, labels in pairs:
        scale = min(1.0, HEIGHT_SIDE / max(detections.image_wh))
        truth, boxes = truth_xyxy(labels, detections.image_wh), detections.xyxy.astype(np.float64)
        ignored = _outside(truth, scale, heights)
        matches, skipped = match(iou_matrix(boxes, truth), ignored=ignored, thresholds=IOU_THRESHOLDS[:1])
        matched = matches >= 0
        skipped |= ~matched[:, 0] & _outside(boxes, scale, heights)
        score = detections.confidence.astype(np.float64)
        parts.append((score[~skipped], matched[~skipped], int((~ignored).sum())))
    return _ranking(parts)


def _outside(boxes: Array, scale: float, heights: tuple[float, float]) -> Mask:
    # Hundredths of a pixel: six decimals in a label make 31.9998 of 32.
    height = ((boxes[:, 3] - boxes[:, 1]) * scale).round(2)
    outside: Mask = (height < heights[0]) | (height >= heights[1])
    return outside


def _ranking(parts: Sequence[tuple[Array, Mask, int]]) -> Ranking:
    if not parts:
        return Ranking(np.zeros(0), np.zeros((0, 1), bool), np.zeros(0, np.int64), np.zeros(0, np.int64))
    scores, matched, truths = zip(*parts, strict=True)
    score = np.concatenate(scores)
    picture = np.repeat(np.arange(len(parts)), [len(part) for part in scores])
    order = np.argsort(-score, kind="stable")  # stable: equal scores keep the order of the pictures
    return Ranking(score[order], np.concatenate(matched)[order], picture[order], np.asarray(truths, np.int64))


def best_point(rankings: Sequence[Ranking], weights: Array | None = None) -> tuple[float, float, float]:
    """Return confidence, mean precision and mean recall where the mean F1 of the rankings, smoothed, is best.

    Rankings with nothing to find are left out. Nan for all three if none is left.
    """
    curves = [
        ranking.curves(weights)
        for ranking in rankings
        if (ranking.truths if weights is None else ranking.truths * weights).any()
    ]
    if not curves:
        return float("nan"), float("nan"), float("nan")
    precision, recall = (np.stack(part) for part in zip(*curves, strict=True))  # [classes, 1000]
    f1 = _smooth((2 * precision * recall / (precision + recall + 1e-16)).mean(axis=0))
    at = int(f1.argmax())
    return float(_CONFIDENCES[at]), float(precision[:, at].mean()), float(recall[:, at].mean())


def best_confidence(pairs: Sequence[Pair]) -> float:
    """Return the confidence at which faces of whatever expression are found with the best F1 at IoU 0.5.

    Where a range of confidences is equally good, its middle: the farthest from too low and from too high.

    Raises:
        ValueError: no face in the truth, or none found.
    """
    ranking = rank_faces(pairs)
    precision, recall = ranking.curves()
    f1 = _smooth(2 * precision * recall / (precision + recall + 1e-16))
    if f1.max() <= 0:
        message = f"{int(ranking.matched.sum())} of {int(ranking.truths.sum())} faces found in {len(pairs)} pictures"
        raise ValueError(f"{message}; a threshold can be chosen only where some are")
    best = np.flatnonzero(f1 >= f1.max() - 1e-9)
    return float(_CONFIDENCES[best[len(best) // 2]])


def _smooth(values: Array) -> Array:
    padded = np.pad(values, _SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.full(_SMOOTHING, 1 / _SMOOTHING), mode="valid")


def assign(detections: Detections, labels: Labels, *, iou: float = 0.5) -> Indices:
    """Return for each of the [M] true faces the index of its matching detection, whatever the emotion, or -1."""
    boxes = detections.xyxy.astype(np.float64)
    overlap = iou_matrix(boxes, truth_xyxy(labels, detections.image_wh))
    matches, _ = match(overlap, ignored=np.zeros(len(labels), bool), thresholds=np.asarray([iou]))
    assigned = np.full(len(labels), -1, np.int64)
    matched = np.flatnonzero(matches[:, 0] >= 0)
    assigned[matches[matched, 0]] = matched
    return assigned


def frame_boxes(detections: Sequence[Detections], *, iou: float = 0.9) -> Mask:
    """Return for each picture whether its most confident box is the picture itself, by this IoU."""
    framed = np.zeros(len(detections), bool)
    for index, found in enumerate(detections):
        frame = np.asarray([[0, 0, *found.image_wh]], np.float64)
        framed[index] = (iou_matrix(found.xyxy[:1].astype(np.float64), frame) >= iou).any()
    return framed


def bootstrap(estimator: Estimator, pictures: int, *, resamples: int, seed: int) -> dict[str, Interval]:
    """Return the 95 % percentile interval of each metric over resamples of the pictures, drawn with replacement.

    A metric that is nan in a resample is left out there; one that is nan in all has no interval.
    """
    rng = np.random.default_rng(seed)
    rows = [
        estimator(np.bincount(rng.integers(pictures, size=pictures), minlength=pictures).astype(np.float64))
        for _ in range(resamples if pictures else 0)
    ]
    intervals = {}
    for name in rows[0] if rows else ():
        values = np.asarray([row[name] for row in rows])
        if np.isfinite(values).any():
            low, high = np.nanpercentile(values, [2.5, 97.5])
            intervals[name] = (float(low), float(high))
    return intervals


def mean_over_classes(values: Array) -> float:
    """Return the mean of the values that are not nan: classes without a truth do not count. Nan if none does."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def emotion_rankings(pairs: Sequence[Pair], *, conf: float) -> list[Ranking]:
    """Return the ranking of each of the eight emotions, in the order of `emotions.NAMES`."""
    return [rank_emotion(pairs, emotion, conf=conf) for emotion in range(len(NAMES))]
