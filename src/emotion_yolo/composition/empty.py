"""Pixels without a face: what faces are laid on, and pictures in which nothing is to be found."""

import numpy as np
import torch
from torch.nn import functional

from emotion_yolo.composition.draws import Draws, on_device
from emotion_yolo.composition.textures import Textures
from emotion_yolo.composition.views import Views
from emotion_yolo.structures.images import PAD_GREY

GREY = PAD_GREY / 255
_GREY_PATCH = 0.4  # chance that a part of a photograph lies in grey behind a face, which may be grey itself
_FROM_PATCHES = 0.6  # share of the pictures without a face that are parts of photographs
_ONE_COLOUR, _BLOCKS = 0.35, 0.35  # chances of the others; the rest is graduated
_BLOCKS_A_SIDE = (3, 5, 9, 17)


def backgrounds(
    count: int, canvas: int, draws: Draws, *, patches: Textures | None, photographs: float = 0.4
) -> torch.Tensor:
    """Return [count, 3, canvas, canvas]: parts of photographs, with that chance, one colour, and mostly grey."""
    drawn = torch.full((count, 3, canvas, canvas), GREY, device=draws.device)
    kind = draws.numbers.random(count)
    seen = photographs if patches else 0.0
    coloured = np.flatnonzero((kind >= seen) & (kind < seen + (1 - seen) / 4))
    drawn[on_device(coloured, draws.device)] = draws.uniform(0, 1, len(coloured), 3, 1, 1)
    rows = np.flatnonzero(kind < seen)
    if patches and len(rows):
        parts = _parts(len(rows), canvas, draws, patches)
        grey = on_device(draws.some(len(rows), _GREY_PATCH).astype(np.float64), draws.device).view(-1, 1, 1, 1)
        drawn[on_device(rows, draws.device)] = torch.lerp(parts, parts.mean(1, keepdim=True), grey)
    return drawn


def without_faces(count: int, canvas: int, draws: Draws, *, patches: Textures | None) -> torch.Tensor:
    """Return [count, 3, canvas, canvas]: parts of photographs, plain and graduated pictures, blocks and noise."""
    from_patches = round(count * _FROM_PATCHES) if patches else 0
    parts = [_drawn(count - from_patches, canvas, draws)]
    if patches and from_patches:
        parts.append(_parts(from_patches, canvas, draws, patches))
    return torch.cat(parts)


def _parts(count: int, canvas: int, draws: Draws, patches: Textures) -> torch.Tensor:
    """Draw patches, zoomed in up to 2.5 times, any part of them, mirrored or not."""
    which = draws.numbers.integers(0, len(patches), count)
    wh = patches.wh[which]
    seen = wh.min(axis=1) * draws.numbers.uniform(0.4, 1.0, count)  # px of the patch
    anchor = wh / 2 + draws.numbers.uniform(-0.5, 0.5, (count, 2)) * (wh - seen[:, None])
    middle = np.full((count, 2), canvas / 2)
    views = Views(anchor, middle, canvas / seen, np.zeros(count), draws.signs(count))
    return patches.draw(which, views, canvas=canvas)[0]


def _drawn(count: int, canvas: int, draws: Draws) -> torch.Tensor:
    corners = draws.uniform(0, 1, count, 3, 2, 2)
    plain = on_device(draws.some(count, _ONE_COLOUR).astype(np.float64), draws.device).view(-1, 1, 1, 1)
    corners = torch.lerp(corners, corners[..., :1, :1].expand_as(corners), plain)
    drawn = functional.interpolate(corners, size=(canvas, canvas), mode="bilinear", align_corners=True)
    rows = np.flatnonzero(draws.some(count, _BLOCKS))
    if len(rows):
        side = int(draws.numbers.choice(_BLOCKS_A_SIDE))
        mode = str(draws.numbers.choice(["nearest", "bilinear", "bicubic"]))
        blocks = functional.interpolate(draws.uniform(0, 1, len(rows), 3, side, side), size=(canvas, canvas), mode=mode)
        drawn[on_device(rows, draws.device)] = blocks.clamp(0, 1)
    return drawn
