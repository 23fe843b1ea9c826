"""Corruptions of a picture and changes of its scale, under which `evaluate` measures the model again.

Pure functions: an RGB picture [H, W, 3] uint8 and its labels in, both changed out.
"""

from collections.abc import Callable
from functools import partial
from math import ceil, cos, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.inference.artefact import Input
from emotion_yolo.inference.letterbox import scale_of
from emotion_yolo.structures.boxes import clip_xyxy, xywhn_to_xyxy, xyxy_to_xywhn
from emotion_yolo.structures.images import PAD_GREY, Image
from emotion_yolo.structures.labels import Labels

Corruption = Callable[[Image, Labels], tuple[Image, Labels]]

PLAIN, MIRRORED = "plain", "mirrored"

FACE_HEIGHTS = (24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 500)
"""Heights of a face in the network's input, px, at which crops are measured."""

_BLUR = 2.0  # px, standard deviation
_JPEG_QUALITY = 10
_GAIN = 0.3  # of sRGB values: some four stops too little light
_GREY = (PAD_GREY,) * 3
_COVER = (128, 128, 128)
_MOUTH = (2 / 3, 1.0)  # parts of a tight box's height, from its top
_EYES = (0.25, 0.5)
_ROLL = 30.0  # degrees
_ROOM = 1.75  # side of the input in face heights: a crop of AffectNet is about 1.2 face heights high
_STRIDE = 32  # px


def plain(image: Image, labels: Labels) -> tuple[Image, Labels]:
    """Return the picture unchanged: the reference of the other corruptions."""
    return image, labels


def blurred(image: Image, labels: Labels) -> tuple[Image, Labels]:
    """Blur with a Gaussian of a standard deviation of 2 px."""
    return _as_image(cv2.GaussianBlur(image, (0, 0), _BLUR)), labels


def compressed(image: Image, labels: Labels) -> tuple[Image, Labels]:
    """Compress as JPEG of quality 10 of 100."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return _as_image(cv2.cvtColor(np.asarray(bgr), cv2.COLOR_BGR2RGB)), labels


def darkened(image: Image, labels: Labels) -> tuple[Image, Labels]:
    """Darken to 0.3 of the values."""
    return _as_image(cv2.convertScaleAbs(image, alpha=_GAIN)), labels


def greyed(image: Image, labels: Labels) -> tuple[Image, Labels]:
    """Remove the colour."""
    return _as_image(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)), labels


def mirrored(image: Image, labels: Labels) -> tuple[Image, Labels]:
    """Swap left and right."""
    xywhn = labels.xywhn.copy()
    xywhn[:, 0] = 1 - xywhn[:, 0]
    return np.ascontiguousarray(image[:, ::-1]), Labels(labels.cls, xywhn)


def rolled(image: Image, labels: Labels, *, degrees: float) -> tuple[Image, Labels]:
    """Rotate counter-clockwise on a grey canvas that holds the whole picture.

    A box becomes the bounding box of the rotated ellipse within it, which fits a rotated face more closely than that of
    the rotated corners.
    """
    height, width = image.shape[:2]
    c, s = abs(cos(radians(degrees))), abs(sin(radians(degrees)))
    new_w, new_h = ceil(width * c + height * s), ceil(width * s + height * c)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (new_w - width) / 2, (new_h - height) / 2
    turned = cv2.warpAffine(image, matrix, (new_w, new_h), borderMode=cv2.BORDER_CONSTANT, borderValue=_GREY)
    boxes = labels.xywhn * [width, height, width, height]
    # The matrix is about centres of pixels, which lie half a pixel from their corners.
    centres = (boxes[:, :2] - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
    sides = np.stack([np.hypot(boxes[:, 2] * c, boxes[:, 3] * s), np.hypot(boxes[:, 2] * s, boxes[:, 3] * c)], axis=1)
    return _as_image(turned), Labels(labels.cls, np.concatenate([centres, sides], axis=1) / ([new_w, new_h] * 2))


def covered(image: Image, labels: Labels, *, band: tuple[float, float]) -> tuple[Image, Labels]:
    """Cover a band of each face in flat grey; `band` is its top and bottom as fractions of the box's height."""
    image = image.copy()
    for x1, y1, x2, y2 in _xyxy(image, labels).tolist():
        top, bottom = (round(y1 + part * (y2 - y1)) for part in band)
        image[max(top, 0) : max(bottom, 0), max(round(x1), 0) : max(round(x2), 0)] = _COVER
    return image, labels


def at_face_height(image: Image, labels: Labels, *, height: float, side: int) -> tuple[Image, Labels]:
    """Scale a picture so that its first face is `height` px high, centred on a grey square of `side` px.

    A network with an input of `side` px sees the face at exactly this height. Everything outside the square is cut
    off; a face nearly as high as the square fills it.
    """
    old_h, old_w = image.shape[:2]
    scale = height / (labels.xywhn[0, 3] * old_h)
    new_w, new_h = max(round(old_w * scale), 1), max(round(old_h * scale), 1)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, (new_w, new_h), interpolation=interpolation)
    left, top = round(side / 2 - labels.xywhn[0, 0] * new_w), round(side / 2 - labels.xywhn[0, 1] * new_h)
    canvas = np.full((side, side, 3), _GREY, np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + new_w, side), min(top + new_h, side)
    canvas[y1:y2, x1:x2] = scaled[y1 - top : y2 - top, x1 - left : x2 - left]
    xyxy = xywhn_to_xyxy(labels.xywhn, image_wh=(new_w, new_h))
    xyxy = clip_xyxy(xyxy + np.asarray([left, top] * 2, np.float64), image_wh=(side, side))
    return canvas, Labels(labels.cls, xyxy_to_xywhn(xyxy, image_wh=(side, side)))


CORRUPTIONS: dict[str, Corruption] = {
    PLAIN: plain,
    "blur": blurred,
    "jpeg10": compressed,
    "dark": darkened,
    "grey": greyed,
    "roll_left": partial(rolled, degrees=_ROLL),
    "roll_right": partial(rolled, degrees=-_ROLL),
    "mouth_covered": partial(covered, band=_MOUTH),
    "eyes_covered": partial(covered, band=_EYES),
    MIRRORED: mirrored,
}
"""By the name that a metric carries."""

SCENE_CORRUPTIONS = ("blur", "jpeg10", "dark")
"""The corruptions under which photographs are measured too."""


def side_for_corruptions(long_side: int, given: Input) -> int:
    """Return the side in px of the smallest input that shows pictures of `long_side` px as the `given` one would.

    It has room for them under every corruption. What it saves is grey border, which would take most of the time.
    """
    turned = long_side * (cos(radians(_ROLL)) + sin(radians(_ROLL)))
    shown = max(
        side * scale_of(side, imgsz=given.imgsz, max_upscale=given.max_upscale, upscale_to=given.upscale_to)
        for side in (long_side, turned)
    )
    return min(_whole_strides(shown), given.imgsz)


def face_heights(imgsz: int) -> dict[int, tuple[int, Corruption]]:
    """Return the input side and the change for each of `FACE_HEIGHTS` that fits an input of `imgsz` px."""
    sides = {height: min(_whole_strides(height * _ROOM), imgsz) for height in FACE_HEIGHTS}
    return {
        height: (side, partial(at_face_height, height=height, side=side))
        for height, side in sides.items()
        if height <= side
    }


def _whole_strides(length: float) -> int:
    return ceil(length / _STRIDE) * _STRIDE


def _xyxy(image: Image, labels: Labels) -> NDArray[np.float64]:
    return xywhn_to_xyxy(labels.xywhn, image_wh=(image.shape[1], image.shape[0]))


def _as_image(array: object) -> Image:
    return np.asarray(array, np.uint8)
