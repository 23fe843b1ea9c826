"""Pictures in the memory of the training device, drawn at any size from the resolution that fits it."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from emotion_yolo.composition.draws import Device, on_device
from emotion_yolo.composition.views import Floats, Views
from emotion_yolo.structures.images import Image

_LEVELS = 3
_AT_ONCE = 1024  # pictures halved together: their floats are four times as large as their bytes


@dataclass(frozen=True)
class Textures:
    """Pictures [N, 3, side, side] in bytes, RGB, at full, half and quarter side (mip levels)."""

    levels: tuple[torch.Tensor, ...]
    wh: Floats
    """[N, 2] px at full side that a picture fills from the top left; its edge is repeated beyond."""

    def __len__(self) -> int:
        return len(self.wh)

    @property
    def side(self) -> int:
        """Return the full side in px."""
        return int(self.levels[0].shape[-1])

    def draw(self, which: NDArray[np.int64], views: Views, *, canvas: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the pictures `which` [n], each on a canvas.

        Returns [n, 3, canvas, canvas] in 0-1, and how much of each pixel the picture covers, [n, 1, canvas, canvas].
        """
        device = self.levels[0].device
        drawn = torch.empty(len(which), 3, canvas, canvas, device=device)
        covered = torch.empty(len(which), 1, canvas, canvas, device=device)
        theta, far = views.theta(side=self.side, canvas=canvas), self.wh[which] * 2 / self.side - 1
        # The level whose pixels are nearest to the canvas's: shrunk to a third, a full one would be sampled with gaps.
        chosen = np.clip(np.floor(np.log2(1 / np.maximum(views.scale, 1e-3)) + 0.4), 0, _LEVELS - 1)
        for level in np.unique(chosen).astype(int):
            rows = np.flatnonzero(chosen == level)
            pixels = self.levels[level][on_device(which[rows], device)].float().div_(255)
            shape = [len(rows), 1, canvas, canvas]
            grid = functional.affine_grid(on_device(theta[rows], device), shape, align_corners=False)
            places = on_device(rows, device)
            drawn[places] = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
            inside = torch.minimum(grid + 1, on_device(far[rows], device).view(-1, 1, 1, 2) - grid).amin(-1)
            px = on_device(views.scale[rows] * self.side / 2, device).view(-1, 1, 1)
            covered[places] = (inside * px + 0.5).clamp(0, 1).unsqueeze(1)
        return drawn, covered


def textures_of(images: Iterable[Image], *, count: int, side: int, device: Device) -> Textures:
    """Load `count` RGB pictures of any size, each scaled to a long side of `side` px, a multiple of four."""
    pixels = np.empty((count, side, side, 3), np.uint8)
    wh = np.empty((count, 2))
    for place, picture in enumerate(images):
        height, width = picture.shape[:2]
        factor = side / max(height, width)
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        right, below = side - size[0], side - size[1]
        pixels[place] = cv2.copyMakeBorder(scaled, 0, below, 0, right, cv2.BORDER_REPLICATE)
        wh[place] = size
    levels = [torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous()]
    for _ in range(_LEVELS - 1):
        parts = [functional.avg_pool2d(part.float(), 2).round().byte() for part in torch.split(levels[-1], _AT_ONCE)]
        levels.append(torch.cat(parts))
    return Textures(tuple(levels), wh)
