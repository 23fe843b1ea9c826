"""Pictures of more than one face: sheets composed of crops, and photographs with face boxes.

In a sheet each tile is a whole crop and its label the tight box inside it, so that no edge of a tile is an edge of a
box: a detector cannot learn tile edges instead. A sheet of nine 85 px tiles also costs the network as much as a
single 256 px picture, which makes an epoch over AffectNet six times cheaper than one picture a face.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.data.cards import Split
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.images import PAD_GREY, Image
from emotion_yolo.structures.labels import Labels


@dataclass(frozen=True)
class SheetPlan:
    """Which crops (by index) make up one sheet of `grid` × `grid` tiles, row by row; None is a tile without a face."""

    grid: int
    members: tuple[int | None, ...]


def plan_sheets(count: int, *, grids: Sequence[int], seed: int, rounds: int = 1) -> list[SheetPlan]:
    """Deal `count` crops out to sheets, `rounds` times: in each round a crop is on exactly one sheet.

    A second round shows a crop once more at another size, beside others. A round's last sheet may have empty tiles.
    """
    rng = np.random.default_rng(seed)
    plans: list[SheetPlan] = []
    for _ in range(rounds):
        order = rng.permutation(count)
        start = 0
        while start < count:
            grid = int(rng.choice(grids))
            plans.append(SheetPlan(grid, tuple(int(i) for i in order[start : start + grid * grid])))
            start += grid * grid
    return plans


def compose_sheet(crops: Sequence[tuple[Image, Labels]], *, grid: int, size: int) -> tuple[Image, Labels]:
    """Lay square-ish RGB crops on a `size` px sheet; returns it with the labels in its own coordinates."""
    tile = size // grid
    sheet = np.full((size, size, 3), PAD_GREY, np.uint8)  # empty tiles and the last pixels keep it
    cls, boxes = [], []
    for index, (image, labels) in enumerate(crops):
        row, column = divmod(index, grid)
        shrink = tile < max(image.shape[:2])
        resized = cv2.resize(image, (tile, tile), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        sheet[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = resized
        offset = np.asarray([column * tile, row * tile, 0, 0])
        cls.append(labels.cls)
        boxes.append((labels.xywhn * tile + offset) / size)
    return sheet, Labels(np.concatenate(cls), np.concatenate(boxes))


def degraded(image: Image, rng: np.random.Generator) -> Image:
    """Return an artificially degraded RGB picture.

    One of five ways, drawn by `rng`: out of focus, few pixels, strongly compressed, dark, or noisy. Photographs of a
    studio's quality are not spread evenly over the expressions of a set; so quality must not reveal the expression.
    """
    height, width = image.shape[:2]
    match rng.integers(5):
        case 0:
            changed = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.0))
        case 1:
            part = rng.uniform(0.3, 0.6)
            small = cv2.resize(
                image, (max(int(width * part), 1), max(int(height * part), 1)), interpolation=cv2.INTER_AREA
            )
            changed = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        case 2:
            changed = compressed(image, quality=int(rng.integers(8, 40)))
        case 3:
            changed = cv2.convertScaleAbs(image, alpha=rng.uniform(0.25, 0.7))
        case _:
            noise = rng.normal(0, rng.uniform(5, 20), image.shape)
            changed = np.clip(image + noise, 0, 255)
    return np.asarray(changed, np.uint8)


def compressed(image: Image, *, quality: int) -> Image:
    """Return an RGB picture after JPEG compression."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # JPEG coarsens chroma: the order of the channels matters
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB), np.uint8)


def split_scenes(names: Sequence[str], *, valid: float, test: float, seed: int) -> dict[str, Split]:
    """Deal scenes out to splits by share; returns the split of each name, the same for any order of the names."""
    ordered = sorted(names)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    n_test, n_valid = round(test * len(ordered)), round(valid * len(ordered))
    return {
        name: "test" if place < n_test else "valid" if place < n_test + n_valid else "train"
        for place, name in enumerate(shuffled)
    }


def shrink_scene(image: Image, labels: Labels, *, size: int, min_face: int) -> tuple[Image, Labels, NDArray[np.bool_]]:
    """Scale a scene so that its long side is at most `size` px, and blur out faces that end up below `min_face` px.

    A face of a few pixels can be neither taught nor left as background: it is blurred beyond recognition instead, and
    loses its label. Also returns which of the labels [N] stay.
    """
    height, width = image.shape[:2]
    scale = min(size / max(height, width), 1.0)
    if scale < 1:
        new_size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, new_size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    new_h, new_w = image.shape[:2]
    xyxy = xywhn_to_xyxy(labels.xywhn, image_wh=(new_w, new_h))
    small = xyxy[:, 3] - xyxy[:, 1] < min_face
    image = image.copy()
    for x1, y1, x2, y2 in _whole_pixels(xyxy[small], (new_w, new_h)):
        image[y1:y2, x1:x2] = image[y1:y2, x1:x2].mean(axis=(0, 1)).astype(np.uint8)
    return image, Labels(labels.cls[~small], labels.xywhn[~small]), ~small


def _whole_pixels(xyxy: NDArray[np.float64], image_wh: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    width, height = image_wh
    for x1, y1, x2, y2 in xyxy:
        left, top = max(int(x1), 0), max(int(y1), 0)
        right, bottom = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
        if right > left and bottom > top:
            yield left, top, right, bottom
