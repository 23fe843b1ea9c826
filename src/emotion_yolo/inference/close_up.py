"""A second look at a face: cut out, brought to one size, and shown to the same network with its mirror image.

A network names faces of the size that it has seen most of best, and its names change with the size of a face and in
the mirror. A face's close-up has the same size whether the face fills a portrait or is one of twenty, and the mean
over the mirror image cannot depend on which of the two was given (test-time augmentation). See ADR 0012.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.inference.artefact import CloseUp
from emotion_yolo.inference.calibration import probabilities
from emotion_yolo.inference.decoding import Tensor
from emotion_yolo.structures.boxes import iou_matrix
from emotion_yolo.structures.images import PAD_GREY, Image

MAX_UPSCALE = 2.5
"""How many times a small face is enlarged at most for its close-up: a face of 48 px reaches 96 px."""

_SAME_FACE = 0.5  # least overlap of a box in the close-up with the face that it was made for

Box = NDArray[np.float32]


def cut_out(image: Image, xyxy: Box, given: CloseUp, *, pad: int = PAD_GREY) -> tuple[Image, Box]:
    """Return the close-up [1, S, S, 3] of the face `xyxy` [4] (px) in an RGB picture, and its box [4] in that.

    The face's longer side has `given.face` px there. What lies outside the picture is grey, as around a letterbox.
    """
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    width, height = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    scale = min(given.face / max(width, height), MAX_UPSCALE)
    centre = np.asarray([(x1 + x2) / 2, (y1 + y2) / 2])
    reach = given.side / scale / 2 + 2  # px of the picture around the centre that the close-up shows
    left, top = np.floor(np.maximum(centre - reach, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(centre + reach, (image.shape[1], image.shape[0]))).astype(int)
    part, centre, zoom = image[top:bottom, left:right], centre - (left, top), scale
    if scale < 0.5:  # an affine warp would skip pixels
        size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
        centre = centre * (size[0] / part.shape[1], size[1] / part.shape[0])
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        zoom = 1.0
    middle = given.side / 2
    x, y = middle - zoom * centre
    shift = np.asarray([[zoom, 0, x], [0, zoom, y]])
    seen = cv2.warpAffine(part, shift, (given.side, given.side), flags=cv2.INTER_LINEAR, borderValue=(pad,) * 3)
    half = np.asarray([width, height], np.float32) * scale / 2
    box = np.clip(np.concatenate([middle - half, middle + half]), 0, given.side).astype(np.float32)
    return seen[None].astype(np.uint8, copy=False), box


def scores_of(raw: Tensor, box: Box) -> Tensor | None:
    """Return the eight scores, sharing out 1, of the face at `box` [4] in the network's answer [12, A]; or None.

    They are those of the surest of the boxes that overlap it; None where no box does, or none has any score.
    """
    cxcywh, scores = raw[:4].T, raw[4:].T  # [A, 4], [A, 8]
    half = cxcywh[:, 2:] / 2
    corners = np.concatenate([cxcywh[:, :2] - half, cxcywh[:, :2] + half], axis=1)
    confidence = np.where(iou_matrix(corners, box[None])[:, 0] >= _SAME_FACE, scores.sum(axis=1), 0)
    best = int(confidence.argmax())
    return probabilities(scores[[best]], temperature=1.0)[0] if confidence[best] > 0 else None


def mirrored(close_up: Image) -> Image:
    """Return the mirror image of a close-up [1, S, S, 3]; the face in its middle keeps its box."""
    return np.asarray(cv2.flip(close_up[0], 1), np.uint8)[None]  # faster than a reversed copy
