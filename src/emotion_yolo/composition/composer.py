"""Composes batches: close-ups, as `inference.close_up` shows a face, and pictures of one face, several, or none.

Numbers without a param are those of the ninth release's training.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from emotion_yolo.composition.appearance import changed, covered
from emotion_yolo.composition.draws import Draws, on_device
from emotion_yolo.composition.empty import GREY, backgrounds, without_faces
from emotion_yolo.composition.material import Material, Photographs
from emotion_yolo.composition.views import Floats, Views, views_of_faces
from emotion_yolo.structures.boxes import area, clip_xyxy

CLOSE_UP = 160
"""px, side of a close-up, which `export.close_up` is served with; some are of another side, see `_OTHER_SIDES`."""

_OTHER_SIDES, _USUAL_SIDE = (128, 192), 0.75  # the chance of the usual one
SIDES = (CLOSE_UP, *_OTHER_SIDES)
FACE = 0.75
"""Part of a close-up's side that the longer side of its face has."""

_USUAL_FACES, _ANY_FACES = (0.84, 1.18), (0.6, 1.4)  # factors to that; every fifth close-up is of the wider range
_MOST_TURNED, _MOST_TILTED = 0.26, 0.15  # radians; of a face, and of a photograph
_COVERED = 0.12
_PICTURE_STRENGTH = (0.7, 0.6)  # of appearance on tiles of sheets, and on photographs and pictures without a face

_EMPTY, _PHOTOGRAPHS = 0.10, 0.45  # shares of a batch of pictures; the rest are sheets
_GRIDS = ((1, 0.42), (2, 0.30), (3, 0.16), (4, 0.12))  # tiles a side of a sheet, chance
_LARGE_SHEET = 256  # px from which on a sheet may have more than two tiles a side
_LEAST_TILE, _LEAST_FACE = 32, 26  # px

_WHOLE, _PART = 0.38, 0.24  # chances of windows: a whole photograph, any part of it; the rest is around a face
_LEAST_SEEN = 0.5  # part of a face in a window from which on it is labelled
_LEAST_HIDDEN = 0.05  # part from which on a face that is not labelled is made unrecognisable
_LEAST_LABELLED = 6  # px of height
_FACE_OF_PHOTOGRAPH = 60.0  # px; photographs are changed as if their faces had it


def close_ups_of(count: int, side: int) -> int:
    """Return how many close-ups of `side` px have the pixels of `count` usual ones."""
    return max(round(count * (CLOSE_UP / side) ** 2), 1)


@dataclass(frozen=True)
class Batch:
    """Pictures and the faces on them."""

    images: torch.Tensor
    """[B, 3, S, S], RGB in 0-1."""
    boxes: Floats
    """[N, 4] xyxy in px."""
    index: NDArray[np.int64]
    """[N] the picture of each face."""
    ids: NDArray[np.int64]
    """[N] class ids, see `Material.targets`."""
    faces: NDArray[np.int64]
    """[N] which of all faces of `Material.faces` it is, in order; -1 of a photograph."""


class Composer:
    """Draws batches from `material`; a face comes by its chance in `chances` [N]."""

    def __init__(self, material: Material, chances: Floats, draws: Draws) -> None:
        self._material, self._draws = material, draws
        self._up_to = np.cumsum(chances)
        self._starts = np.cumsum([0, *(len(faces) for faces in material.faces)])
        self._ids = np.concatenate([faces.ids for faces in material.faces])

    def close_ups(self, count: int) -> Batch:
        """Return about `count` close-ups, more where they are smaller than usual and fewer where they are larger."""
        draws = self._draws
        usual = draws.numbers.random() < _USUAL_SIDE
        side = CLOSE_UP if usual else int(draws.numbers.choice(_OTHER_SIDES))
        count = close_ups_of(count, side)
        factor = np.where(
            draws.some(count, 0.8),
            draws.numbers.uniform(*_USUAL_FACES, count),
            draws.numbers.uniform(*_ANY_FACES, count),
        )
        longer = side * FACE * factor
        at = side / 2 + draws.numbers.normal(0, 0.035, (count, 2)).clip(-0.1, 0.1) * side
        angle = draws.angles(count, chance=0.5, most=_MOST_TURNED)
        images, boxes, faces = self._tiles(side, longer, at, angle)
        images = covered(changed(images, longer, draws, strength=1.0), draws, chance=_COVERED)
        return Batch(images, boxes, np.arange(count), self._ids[faces], faces)

    def pictures(self, count: int, side: int) -> Batch:
        """Return `count` sheets, photographs and pictures without a face, of `side` px, a multiple of 32.

        They are mixed: with mirror consistency, the first half stands for all of them.
        """
        empty = max(round(count * _EMPTY), 1) if count > 1 else 0
        seen = round(count * _PHOTOGRAPHS) if self._material.photographs else 0
        parts = [self._sheets(count - empty - seen, side)] if count - empty - seen else []
        if self._material.photographs and seen:
            parts.append(self._windows(self._material.photographs, seen, side))
        if empty:
            images = without_faces(empty, side, self._draws, patches=self._material.patches)
            faces = np.full(empty, _FACE_OF_PHOTOGRAPH)
            images = changed(images, faces, self._draws, strength=_PICTURE_STRENGTH[1])
            parts.append(Batch(images, np.zeros((0, 4)), *(np.zeros(0, np.int64) for _ in range(3))))
        return joined(parts, self._draws.numbers.permutation(count))

    def _tiles(
        self, side: int, longer: Floats, at: Floats, angle: Floats, *, photographs: float = 0.4
    ) -> tuple[torch.Tensor, Floats, NDArray[np.int64]]:
        """Lay a face on each of n tiles: its longer side `longer` [n] px, its middle `at` [n, 2], its `angle` [n].

        `photographs` is the chance of a background from one. Returns [n, 3, side, side], boxes [n, 4] that end where
        the tile does, and which face it is.
        """
        draws, count = self._draws, len(longer)
        drawn = np.searchsorted(self._up_to, draws.numbers.random(count), side="right").clip(max=self._starts[-1] - 1)
        mirrored = draws.signs(count)
        images = backgrounds(count, side, draws, patches=self._material.patches, photographs=photographs)
        boxes = np.zeros((count, 4))
        for faces, start in zip(self._material.faces, self._starts, strict=False):
            rows = np.flatnonzero((drawn >= start) & (drawn < start + len(faces)))
            if not len(rows):
                continue
            which = drawn[rows] - start
            views = views_of_faces(
                faces.boxes[which], longer=longer[rows], at=at[rows], angle=angle[rows], mirrored=mirrored[rows]
            )
            pixels, cover = faces.textures.draw(which, views, canvas=side)
            places = on_device(rows, images.device)
            images[places] = torch.lerp(images[places], pixels, cover)
            boxes[rows] = clip_xyxy(views.boxes(faces.boxes[which]), image_wh=(side, side))
        return images, boxes, drawn

    def _sheets(self, count: int, side: int) -> Batch:
        """Return sheets of one grid, drawn for all of them."""
        draws = self._draws
        most = 4 if side >= _LARGE_SHEET else 2
        grids = [
            (grid, chance) for grid, chance in _GRIDS if grid <= most and (grid == 1 or side // grid >= _LEAST_TILE)
        ]
        weights = np.asarray([chance for _, chance in grids])
        grid = grids[int(draws.numbers.choice(len(grids), p=weights / weights.sum()))][0]
        tile = side // grid // 8 * 8
        tiles = count * grid * grid
        high = 1.1 if grid == 1 else 0.92
        low = min(max(0.25, _LEAST_FACE / tile), high)
        anywhere = np.exp(draws.numbers.uniform(math.log(low), math.log(high), tiles))
        large = draws.numbers.uniform(min(max(0.7, low), high), high, tiles)
        longer = np.where(draws.some(tiles, 0.35), large, anywhere) * tile
        room = np.maximum((tile - longer) / 2, 0.04 * tile if grid == 1 else 0)
        at = tile / 2 + draws.numbers.uniform(-0.85, 0.85, (tiles, 2)) * room[:, None]
        angle = draws.angles(tiles, chance=0.4, most=_MOST_TURNED)
        images, boxes, faces = self._tiles(tile, longer, at, angle, photographs=0.5)
        images = changed(images, longer, draws, strength=_PICTURE_STRENGTH[0])
        images = images.view(count, grid, grid, 3, tile, tile).permute(0, 3, 1, 4, 2, 5)
        images = images.reshape(count, 3, grid * tile, grid * tile)
        rest = side - grid * tile
        images = functional.pad(images, (0, rest, 0, rest), value=GREY)
        row, column = np.divmod(np.arange(tiles) % (grid * grid), grid)
        boxes = boxes + np.stack([column, row, column, row], axis=1) * tile
        return Batch(images, boxes, np.arange(tiles) // (grid * grid), self._ids[faces], faces)

    def _windows(self, photographs: Photographs, count: int, side: int) -> Batch:
        """Return windows of photographs; what lies outside a photograph is grey."""
        draws = self._draws
        which = draws.numbers.integers(0, len(photographs), count)
        windows = [_window(photographs.textures.wh[i], photographs.boxes[i], draws.numbers) for i in which]
        middles, sides = np.stack([middle for middle, _ in windows]), np.asarray([length for _, length in windows])
        angle, at = draws.angles(count, chance=0.3, most=_MOST_TILTED), np.full((count, 2), side / 2)
        views = Views(middles, at, side / sides, angle, draws.signs(count))
        pixels, cover = photographs.textures.draw(which, views, canvas=side)
        grey = draws.some(count, 0.75)
        fill = on_device(np.where(grey, GREY, draws.numbers.random(count)), pixels.device).view(-1, 1, 1, 1)
        images = torch.lerp(fill.expand_as(pixels), pixels, cover)
        index = np.repeat(np.arange(count), [len(photographs.ids[i]) for i in which])
        ids = np.concatenate([photographs.ids[i] for i in which])
        whole = views.boxes(np.concatenate([photographs.boxes[i] for i in which]), index)
        boxes = clip_xyxy(whole, image_wh=(side, side))
        share = area(boxes) / np.maximum(area(whole), 1e-6)
        kept = (share >= _LEAST_SEEN) & (boxes[:, 3] - boxes[:, 1] >= _LEAST_LABELLED)
        images = changed(images, np.full(count, _FACE_OF_PHOTOGRAPH), draws, strength=_PICTURE_STRENGTH[1])
        # A face of which less is seen can be neither taught nor left as background.
        hidden = np.flatnonzero((share > _LEAST_HIDDEN) & (share < _LEAST_SEEN))
        for picture, (x1, y1, x2, y2) in zip(index[hidden], boxes[hidden].round().astype(int), strict=True):
            if x2 > x1 and y2 > y1:
                part = images[picture, :, y1:y2, x1:x2]
                part[:] = part.mean((1, 2), keepdim=True)
        return Batch(images, boxes[kept], index[kept], ids[kept], np.full(int(kept.sum()), -1))


def _window(wh: Floats, faces: Floats, rng: np.random.Generator) -> tuple[Floats, float]:
    """Draw the middle [2] and the side of a square window of a photograph of `wh` px with `faces` [n, 4].

    It shows the whole, any part, or the surroundings of one face, which fills 0.12 to 1 of its height.
    """
    longer, kind = float(wh.max()), rng.random()
    if kind < _WHOLE or not len(faces):
        side = longer * rng.uniform(1.0, 1.5 if rng.random() < 0.5 else 1.05)
        return wh / 2 + rng.uniform(-0.5, 0.5, 2) * np.maximum(side - wh, 0), side
    if kind < _WHOLE + _PART:
        return rng.uniform(0.2, 0.8, 2) * wh, longer * rng.uniform(0.4, 0.9)
    heights = faces[:, 3] - faces[:, 1]
    large = np.flatnonzero(heights >= 24)
    face = faces[rng.choice(large)] if len(large) else faces[heights.argmax()]
    height = face[3] - face[1]
    side = max(height / math.exp(rng.uniform(math.log(0.12), 0)), 40.0)
    return (face[:2] + face[2:]) / 2 + rng.uniform(-0.35, 0.35, 2) * max(side - height, 0), side


def joined(parts: list[Batch], order: NDArray[np.int64]) -> Batch:
    """Return batches of one side as one, the pictures in another order [B]; faces follow it, as Ultralytics expects."""
    images = torch.cat([part.images for part in parts])
    starts = np.cumsum([0, *(len(part.images) for part in parts)])
    index = np.concatenate([part.index + start for part, start in zip(parts, starts, strict=False)])
    index = np.argsort(order)[index]
    faces = np.argsort(index, kind="stable")
    return Batch(
        images[on_device(order, images.device)],
        np.concatenate([part.boxes for part in parts])[faces],
        index[faces],
        np.concatenate([part.ids for part in parts])[faces],
        np.concatenate([part.faces for part in parts])[faces],
    )
