"""How good are detections? Matching with the truth, average precision, best thresholds, intervals. NumPy only.

    (Detections, Labels) pairs ── match ──▶ Ranking ── average_precision, curves ──▶ figures ── bootstrap ──▶ intervals

Figures compare with Ultralytics' `ap_per_class` (8.4): greedy matching by falling confidence, one detection a truth and
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

IOU_THRESHOLDS: Array = np.linspace(0.5, 0.95, 10)
HEIGHT_SIDE = 640
"""Face heights are in pixels of the picture shrunk to at most this long side, whatever side the network sees."""

_RECALLS = np.linspace(0, 1, 101)
_CONFIDENCES = np.linspace(0, 1, 1000)
_SMOOTHING = 101  # points of the confidence grid, a tenth of it


def match(iou: Array, *, ignored: Mask, thresholds: Array = IOU_THRESHOLDS) -> tuple[Indices, Mask]:
    """Give each detection the best truth that no better one has claimed.

    `iou` is [D, M], detections by falling score; `ignored` [M] marks truths that count neither way. Returns `claimed`
    [D, T], the truth's index at each of the rising IoU thresholds or -1, and `skipped` [D]: detections that found
    nothing but an ignored truth at the first threshold. A truth that counts is preferred to an ignored one, as in COCO.
    """
    claimed = np.full((len(iou), len(thresholds)), -1, np.int64)
    skipped = np.zeros(len(iou), bool)
    taken = np.repeat(ignored[:, None], len(thresholds), axis=1)  # [M, T]
    free = ignored.copy()
    levels = np.arange(len(thresholds))
    for d in np.flatnonzero((iou >= thresholds[0]).any(axis=1)):
        overlap = np.where(taken, 0.0, iou[d, :, None])  # [M, T]
        best = overlap.argmax(axis=0)
        hit = overlap[best, levels] >= thresholds
        claimed[d, hit] = best[hit]
        taken[best, levels] |= hit
        if not hit.any():
            overlap = np.where(free, iou[d], 0.0)
            best_ignored = overlap.argmax()
            if overlap[best_ignored] >= thresholds[0]:
                skipped[d] = True
                free[best_ignored] = False
    return claimed, skipped


@dataclass(frozen=True, eq=False)
class Ranking:
    """Every claim "here is one" in a set of pictures, by falling score.

    `score` [D] in 0-1; `hit` [D, T]: did it find a truth at this IoU threshold; `picture` [D]: where it was made;
    `truths` [P]: how many there are to find in each picture.
    Figures take `weights` [P], how often each picture counts: a resample or a slice without matching anew.
    """

    score: Array
    hit: Mask
    picture: Indices
    truths: Indices

    @cached_property
    def _hits(self) -> list[Indices]:
        return [np.flatnonzero(column) for column in self.hit.T]

    def average_precision(self, weights: Array | None = None) -> Array:
        """Return the [T] average precision at each IoU threshold; nan where there is nothing to find."""
        weights = np.ones(len(self.truths)) if weights is None else weights
        total = float(weights @ self.truths)
        if total == 0:
            return np.full(self.hit.shape[1], np.nan)
        of_claim = weights[self.picture]
        claims = np.cumsum(of_claim)
        return np.asarray([np.trapezoid(_envelope(of_claim, claims, at, total), _RECALLS) for at in self._hits])

    def pr_curve(self) -> Array:
        """Return the [101] best precisions at or beyond recalls 0, 0.01, … 1, at the first IoU threshold."""
        ones = np.ones(len(self.score))
        return _envelope(ones, np.cumsum(ones), self._hits[0], float(self.truths.sum()))

    def curves(self, weights: Array | None = None) -> tuple[Array, Array]:
        """Return [1000] precisions and [1000] recalls at confidences 0 to 1, at the first IoU threshold."""
        weights = np.ones(len(self.truths)) if weights is None else weights
        total = float(weights @ self.truths)
        of_claim = weights[self.picture]
        counted = of_claim > 0
        if total == 0 or not counted.any():
            return np.zeros(len(_CONFIDENCES)), np.zeros(len(_CONFIDENCES))
        of_claim, score, hit = of_claim[counted], self.score[counted], self.hit[counted, 0]
        found = np.cumsum(of_claim * hit)
        precision = np.interp(-_CONFIDENCES, -score, found / np.cumsum(of_claim), left=1)
        recall = np.interp(-_CONFIDENCES, -score, found / total, left=0)
        return precision, recall


def _envelope(of_claim: Array, claims: Array, at: Indices, total: float) -> Array:
    """Return the [101] best precisions at or beyond each recall; `at` are the claims that hit, `claims` a running sum.

    Precision rises at hits only, so that the envelope needs no other points. At a recall that is reached exactly the
    next hit decides, as NumPy's interpolation in Ultralytics does.
    """
    found = np.cumsum(of_claim[at])
    precision = np.divide(found, claims[at], out=np.zeros_like(found), where=claims[at] > 0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(envelope, 0.0)[np.searchsorted(found / total, _RECALLS, side="right")]


def truth_xyxy(labels: Labels, image_wh: tuple[int, int]) -> Array:
    """Return the [M, 4] true boxes in pixels."""
    return np.asarray(xywhn_to_xyxy(labels.xywhn, image_wh=image_wh), np.float64)


def rank_emotion(pairs: Sequence[Pair], emotion: int, *, conf: float) -> Ranking:
    """Rank the claims of one emotion.

    Each detection claims all eight emotions, with confidence × probability where that is at least `conf`, as
    Ultralytics' multi-label validation lets each box count with each class score. Faces of unknown expression are
    ignored: finding one is neither right nor wrong.
    """
    parts = []
    for detections, labels in pairs:
        score = detections.confidence.astype(np.float64) * detections.probabilities[:, emotion]
        order = np.argsort(-score, kind="stable")
        order = order[score[order] >= conf]
        relevant = (labels.cls == emotion) | (labels.cls == FACE_ID)
        truth = truth_xyxy(labels, detections.image_wh)[relevant]
        ignored = labels.cls[relevant] == FACE_ID
        claimed, skipped = match(iou_matrix(detections.xyxy[order].astype(np.float64), truth), ignored=ignored)
        parts.append((score[order][~skipped], claimed[~skipped] >= 0, int((~ignored).sum())))
    return _ranking(parts)


def rank_faces(pairs: Sequence[Pair], *, heights: tuple[float, float] = (0, np.inf)) -> Ranking:
    """Rank the claims of a face of whatever expression, at IoU 0.5.

    With `heights` (from, below; px, see `HEIGHT_SIDE`) other faces are ignored, and so are detections that found such
    a face or that found none and are of another height themselves, as COCO's area ranges do.
    """
    parts = []
    for detections, labels in pairs:
        scale = min(1.0, HEIGHT_SIDE / max(detections.image_wh))
        truth, boxes = truth_xyxy(labels, detections.image_wh), detections.xyxy.astype(np.float64)
        ignored = _outside(truth, scale, heights)
        claimed, skipped = match(iou_matrix(boxes, truth), ignored=ignored, thresholds=IOU_THRESHOLDS[:1])
        hit = claimed >= 0
        skipped |= ~hit[:, 0] & _outside(boxes, scale, heights)
        score = detections.confidence.astype(np.float64)
        parts.append((score[~skipped], hit[~skipped], int((~ignored).sum())))
    return _ranking(parts)


def _outside(boxes: Array, scale: float, heights: tuple[float, float]) -> Mask:
    # Hundredths of a pixel: six decimals in a label make 31.9998 of 32.
    height = ((boxes[:, 3] - boxes[:, 1]) * scale).round(2)
    outside: Mask = (height < heights[0]) | (height >= heights[1])
    return outside


def _ranking(parts: Sequence[tuple[Array, Mask, int]]) -> Ranking:
    if not parts:
        return Ranking(np.zeros(0), np.zeros((0, 1), bool), np.zeros(0, np.int64), np.zeros(0, np.int64))
    scores, hits, truths = zip(*parts, strict=True)
    score = np.concatenate(scores)
    picture = np.repeat(np.arange(len(parts)), [len(part) for part in scores])
    order = np.argsort(-score, kind="stable")  # stable: equal scores keep the order of the pictures
    return Ranking(score[order], np.concatenate(hits)[order], picture[order], np.asarray(truths, np.int64))


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
        message = f"{int(ranking.hit.sum())} of {int(ranking.truths.sum())} faces found in {len(pairs)} pictures"
        raise ValueError(f"{message}; a threshold can be chosen only where some are")
    best = np.flatnonzero(f1 >= f1.max() - 1e-9)
    return float(_CONFIDENCES[best[len(best) // 2]])


def _smooth(values: Array) -> Array:
    padded = np.pad(values, _SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.full(_SMOOTHING, 1 / _SMOOTHING), mode="valid")


def assign(detections: Detections, labels: Labels, *, iou: float = 0.5) -> Indices:
    """Return for each of the [M] true faces the index of the detection that found it, whatever its emotion, or -1."""
    boxes = detections.xyxy.astype(np.float64)
    overlap = iou_matrix(boxes, truth_xyxy(labels, detections.image_wh))
    claimed, _ = match(overlap, ignored=np.zeros(len(labels), bool), thresholds=np.asarray([iou]))
    finder = np.full(len(labels), -1, np.int64)
    found = np.flatnonzero(claimed[:, 0] >= 0)
    finder[claimed[found, 0]] = found
    return finder


def frame_boxes(detections: Sequence[Detections], *, iou: float = 0.9) -> Mask:
    """Return for each picture whether its most confident box is the picture itself, by this IoU."""
    framed = np.zeros(len(detections), bool)
    for index, found in enumerate(detections):
        frame = np.asarray([[0, 0, *found.image_wh]], np.float64)
        framed[index] = (iou_matrix(found.xyxy[:1].astype(np.float64), frame) >= iou).any()
    return framed


def bootstrap(
    figures: Callable[[Array], Mapping[str, float]], pictures: int, *, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile interval of each figure over resamples of the pictures, drawn with replacement.

    `figures` takes the [pictures] number of times each is drawn. A figure that is nan in a resample is left out there,
    one that always is has no interval.
    """
    rng = np.random.default_rng(seed)
    rows = [
        figures(np.bincount(rng.integers(pictures, size=pictures), minlength=pictures).astype(np.float64))
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
