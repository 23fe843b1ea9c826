"""Geometry of composed pictures: the face on its tile, parts of photographs, regions without a face."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.params import Framing
from emotion_yolo.structures.boxes import area, clip_xyxy, xywhn_to_xyxy, xyxy_to_xywhn
from emotion_yolo.structures.images import PAD_GREY, Image, read_rgb
from emotion_yolo.structures.labels import Labels

Rect = tuple[int, int, int, int]
"""x1, y1, x2, y2 in px."""

_MANY = 4  # tiles a side from which on a face must not be smaller than half its tile, or it is a few pixels high
_LEAST_WINDOW = 24  # px
_LEAST_REGION = 120  # px, side of a region without faces
_TRIES = 40  # rectangles drawn per photograph in search of such regions


@dataclass(frozen=True)
class Region:
    """A part of a photograph in which no face is labelled."""

    image: Path
    rect: Rect

    def read(self, size: tuple[int, int] | None = None) -> Image:
        """Return its pixels, RGB [H, W, 3], scaled to `size` (width, height) if given."""
        x1, y1, x2, y2 = self.rect
        part = read_rgb(self.image)[y1:y2, x1:x2]
        if size is None:
            return part
        shrink = size[0] < x2 - x1
        interpolation = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(part, size, interpolation=interpolation), np.uint8)


def reframed(
    image: Image,
    labels: Labels,
    *,
    tile: int,
    grid: int,
    framing: Framing,
    regions: Sequence[Region],
    rng: np.random.Generator,
) -> tuple[Image, Labels]:
    """Lay the one face of a crop on a tile of `tile` px, at another height and place, on another background.

    A sheet's only tile may be filled by the face beyond its edges. The box of such a face ends where the tile does.
    """
    height, width = image.shape[:2]
    box = xywhn_to_xyxy(labels.xywhn, image_wh=(width, height))[0]
    box_wh = np.asarray([box[2] - box[0], box[3] - box[1]])
    scale = _drawn_height(box_wh[1] / height, grid, framing, rng) * tile / box_wh[1]
    if grid > 1:
        scale = min(scale, 0.92 * tile / box_wh[0])
    centre = np.asarray([box[0] + box[2], box[1] + box[3]]) / 2
    room = np.maximum((tile - box_wh * scale) / 2, 0.04 * tile if grid == 1 else 0)
    middle = tile / 2 + rng.uniform(-0.8, 0.8, 2) * room
    shrunk, ratio = image, np.ones(2)
    if scale < 0.6:  # an affine warp would skip pixels
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        shrunk = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        ratio = np.asarray([size[0] / width, size[1] / height])
    rest = scale / ratio
    shift = middle - scale * centre
    affine = np.asarray([[rest[0], 0, shift[0]], [0, rest[1], shift[1]]])
    if rng.random() < 0.1:
        placed = cv2.warpAffine(shrunk, affine, (tile, tile), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    else:
        placed = background(tile, image, regions=regions, rng=rng)
        cv2.warpAffine(
            shrunk, affine, (tile, tile), dst=placed, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_TRANSPARENT
        )
    half = box_wh * scale / 2
    xyxy = clip_xyxy(np.concatenate([middle - half, middle + half])[None], image_wh=(tile, tile))
    return np.asarray(placed, np.uint8), Labels(labels.cls, xyxy_to_xywhn(xyxy, image_wh=(tile, tile)))


def _drawn_height(natural: float, grid: int, framing: Framing, rng: np.random.Generator) -> float:
    """Draw the height of a face as a part of its tile's; `natural` is what it has in its crop."""
    highest = framing.high if grid == 1 else min(framing.high, 0.9)
    if rng.random() < framing.natural:
        part = natural * rng.uniform(0.9, 1.05)
    else:
        part = rng.uniform(min(framing.low, highest), highest)
    return float(np.clip(part, 0.5 if grid >= _MANY else 0.05, highest))


def background(tile: int, image: Image, *, regions: Sequence[Region], rng: np.random.Generator) -> Image:
    """Return a background of `tile` px: grey, one colour, a part of a photograph, or the blurred picture itself."""
    draw = rng.random()
    if draw < 0.3:
        return np.full((tile, tile, 3), PAD_GREY, np.uint8)
    if draw < 0.42:
        return np.full((tile, tile, 3), rng.integers(0, 256, 3), np.uint8)
    if draw < 0.8 and regions:
        part = regions[int(rng.integers(len(regions)))].read((tile, tile))
        if rng.random() < 0.4:
            part = np.asarray(cv2.cvtColor(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
        return part.copy()
    return np.asarray(cv2.GaussianBlur(cv2.resize(image, (tile, tile)), (0, 0), tile / 12), np.uint8)


def random_part(image_wh: tuple[int, int], rng: np.random.Generator) -> Rect:
    """Draw a part of a picture, 0.45 to 0.9 of its width and height."""
    part = rng.uniform(0.45, 0.9)
    width, height = (max(int(side * part), 1) for side in image_wh)
    x, y = (int(rng.integers(0, side - cut + 1)) for side, cut in zip(image_wh, (width, height), strict=True))
    return x, y, x + width, y + height


def window_around_face(
    xyxy: NDArray[np.float64], image_wh: tuple[int, int], rng: np.random.Generator, *, least: int = 40
) -> Rect | None:
    """Draw a window around one face of a photograph, of which the face fills 0.15 to 1 of the height.

    One of the faces [N, 4] of at least `least` px of height is drawn, or the largest; None where there is none or the
    window would be too small.
    """
    if not len(xyxy):
        return None
    heights = xyxy[:, 3] - xyxy[:, 1]
    large = np.flatnonzero(heights >= least)
    chosen = int(large[rng.integers(len(large))]) if len(large) else int(heights.argmax())
    box = xyxy[chosen]
    side = (box[3] - box[1]) / np.exp(rng.uniform(np.log(0.15), 0))
    offset = rng.uniform(-0.3, 0.3, 2)
    middle = (box[:2] + box[2:]) / 2 + offset * (side - (box[2:] - box[:2]))
    half = np.asarray([side * rng.uniform(0.8, 1.3), side]) / 2
    x1, y1, x2, y2 = (
        int(value) for value in clip_xyxy(np.concatenate([middle - half, middle + half])[None], image_wh=image_wh)[0]
    )
    return (x1, y1, x2, y2) if min(x2 - x1, y2 - y1) >= _LEAST_WINDOW else None


def cut_out(image: Image, labels: Labels, rect: Rect, *, side: int) -> tuple[Image, Labels, NDArray[np.bool_]]:
    """Cut a part out of a photograph and enlarge it to a long side of up to `side` px.

    Faces of which less than half lies inside are made unrecognisable and lose their label. Also returns which of the
    labels [N] stay.
    """
    x1, y1, x2, y2 = rect
    xyxy = xywhn_to_xyxy(labels.xywhn, image_wh=(image.shape[1], image.shape[0]))
    part = image[y1:y2, x1:x2].copy()
    height, width = part.shape[:2]
    inside = clip_xyxy(xyxy - np.asarray([x1, y1, x1, y1]), image_wh=(width, height))
    share = area(inside) / np.maximum(area(xyxy), 1e-6)
    kept = share >= 0.5
    for left, top, right, bottom in inside[(share > 0) & ~kept].round().astype(int):
        if right > left and bottom > top:
            part[top:bottom, left:right] = part[top:bottom, left:right].mean(axis=(0, 1)).astype(np.uint8)
    scale = side / max(height, width)
    if scale > 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return part, Labels(labels.cls[kept], xyxy_to_xywhn(inside[kept], image_wh=(width, height))), kept


def free_regions(pictures: Sequence[tuple[Path, Labels, tuple[int, int]]], *, seed: int) -> list[Region]:
    """Return parts without a labelled face, at most two per photograph, given with its labels, width and height.

    Boxes are taken 1.6 times as large as they are: hair and ears are parts of a face too.
    """
    found: list[Region] = []
    rng = np.random.default_rng([seed, 5])
    for path, labels, (width, height) in pictures:
        if min(width, height) < _LEAST_REGION:
            continue
        grown = Labels(labels.cls, labels.xywhn * [1, 1, 1.6, 1.6])
        faces = xywhn_to_xyxy(grown.xywhn, image_wh=(width, height))
        rects: list[tuple[int, Rect]] = []
        for _ in range(_TRIES):
            wide, high = int(rng.integers(_LEAST_REGION, width + 1)), int(rng.integers(_LEAST_REGION, height + 1))
            x, y = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - high + 1))
            apart = (faces[:, 0] >= x + wide) | (faces[:, 2] <= x) | (faces[:, 1] >= y + high) | (faces[:, 3] <= y)
            if apart.all():
                rects.append((wide * high, (x, y, x + wide, y + high)))
        found += [Region(path, rect) for _, rect in sorted(rects, reverse=True)[:2]]
    return found
