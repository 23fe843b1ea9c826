"""Changes of colour and quality of whole batches on the device, so that neither reveals the source of a face.

What `prepare.appearance` does to pictures once and on disk, each batch does anew here. Chances and ranges are those of
the ninth release's training.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from emotion_yolo.composition.draws import Draws, on_device

_GREY, _GAIN, _TINT, _SATURATION, _TONE = 0.35, 0.30, 0.10, 0.30, 0.45
_COARSER = ((2, 0.14), (3, 0.09), (4, 0.05))  # factor by which the resolution falls, chance
_BLURS = ((0.8, 0.04), (1.5, 0.04), (2.5, 0.04))  # px, standard deviation; chance
_SHARPEN, _NOISE, _JPEG = 0.10, 0.12, 0.28
_LEAST_COARSE, _LEAST_JPEG = 24, 32  # px of a face below which its expression would be lost
_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as JPEG has it

Change = Callable[[torch.Tensor], torch.Tensor]


def changed(pictures: torch.Tensor, faces: NDArray[np.float64], draws: Draws, *, strength: float) -> torch.Tensor:
    """Change pictures [n, 3, T, T] in 0-1 in place, and return them.

    Args:
        pictures: T is a multiple of eight.
        faces: [n] px of the longer side of the smallest face that has to stay recognisable.
        draws: Where random numbers come from.
        strength: Factor to all chances.
    """

    def some(chance: float, change: Change, least: float = 0.0) -> None:
        rows = np.flatnonzero(draws.some(len(pictures), chance * strength) & (faces >= least))
        if len(rows):
            places = on_device(rows, pictures.device)
            pictures[places] = change(pictures[places])

    some(_GREY, lambda part: _grey(part).expand(-1, 3, -1, -1))
    some(_GAIN, lambda part: part * draws.uniform(0.78, 1.22, len(part), 3, 1, 1))
    some(_TINT, lambda part: _tinted(part, draws))
    some(_SATURATION, lambda part: torch.lerp(_grey(part), part, draws.uniform(0.4, 1.7, len(part), 1, 1, 1)))
    some(_TONE, lambda part: _toned(part, draws))
    pictures.clamp_(0, 1)
    for factor, chance in _COARSER:
        some(chance, partial(_coarser, factor=factor, draws=draws), _LEAST_COARSE * factor)
    for sigma, chance in _BLURS:
        some(chance, partial(blurred, sigma=sigma), _LEAST_COARSE * sigma)
    some(_SHARPEN, lambda part: part + (part - blurred(part, 1.2)) * draws.uniform(0.4, 1.6, len(part), 1, 1, 1))
    some(_NOISE, lambda part: part + draws.noise(part) * draws.uniform(0.01, 0.06, len(part), 1, 1, 1))
    pictures.clamp_(0, 1)
    some(_JPEG, lambda part: compressed(part, draws.uniform(15, 75, len(part))), _LEAST_JPEG)
    return pictures


def _grey(pictures: torch.Tensor) -> torch.Tensor:
    """Return the brightness [n, 1, T, T]."""
    return (pictures * torch.tensor(_LUMA, device=pictures.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _tinted(pictures: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Lay one colour over each, as an old print has it, or skin under one light."""
    one_colour = _grey(pictures) * draws.uniform(0.75, 1.2, len(pictures), 3, 1, 1)
    return torch.lerp(pictures, one_colour, draws.uniform(0.3, 1, len(pictures), 1, 1, 1))


def _toned(pictures: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Change gamma, contrast around the mean, and brightness."""
    count = len(pictures)
    pictures = pictures.clamp(1e-4, 1) ** draws.uniform(-0.55, 0.55, count, 1, 1, 1).exp()
    mean = pictures.mean((1, 2, 3), keepdim=True)
    contrast, brightness = draws.uniform(0.6, 1.35, count, 1, 1, 1), draws.uniform(-0.12, 0.12, count, 1, 1, 1)
    return (pictures - mean) * contrast + mean + brightness


def _coarser(pictures: torch.Tensor, factor: int, draws: Draws) -> torch.Tensor:
    side = pictures.shape[-1]
    small = functional.interpolate(pictures, size=(max(side // factor, 8),) * 2, mode="area")
    mode = "bilinear" if draws.numbers.random() < 0.6 else "bicubic"
    return functional.interpolate(small, size=(side, side), mode=mode)


def blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur pictures [n, C, H, W] by a Gaussian of `sigma` px; edges are repeated beyond."""
    reach = max(math.ceil(2.2 * sigma), 1)
    offsets = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = pictures.shape[1]
    pictures = functional.pad(pictures, (reach,) * 4, mode="replicate")
    for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
        weights = kernel.view(shape)
        pictures = functional.conv2d(pictures, weights.expand(channels, *weights.shape[1:]), groups=channels)
    return pictures


# ITU-T T.81, annex K: quantisation of luminance and chrominance at a quality of 50, by row.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8,) * 4),
)  # fmt: skip
_YCC = (_LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_COSINES = tuple(
    tuple((math.sqrt(1 / 8) if row == 0 else 0.5) * math.cos((2 * x + 1) * row * math.pi / 16) for x in range(8))
    for row in range(8)
)


def compressed(pictures: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Quantise pictures [n, 3, H, W] in 0-1 as JPEG does at `quality` [n], without thinning out colours.

    Sides are multiples of eight, the side of JPEG's blocks.
    """
    (count, _, height, width), device = pictures.shape, pictures.device
    tables = torch.tensor((_LUMINANCE, _CHROMINANCE, _CHROMINANCE), device=device, dtype=torch.float32)
    cosines, to_ycc = torch.tensor(_COSINES, device=device), torch.tensor(_YCC, device=device)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(count, 1, 1, 1, 1, 1)
    steps = (tables.view(1, 3, 1, 1, 8, 8) * scale).clamp(min=1)
    middle = torch.tensor([128.0, 0, 0], device=device).view(1, 3, 1, 1)
    ycc = torch.einsum("oc,nchw->nohw", to_ycc, pictures * 255) - middle
    blocks = ycc.view(count, 3, height // 8, 8, width // 8, 8).transpose(3, 4)
    frequencies = (cosines @ blocks @ cosines.T / steps).round() * steps
    ycc = (cosines.T @ frequencies @ cosines).transpose(3, 4).reshape(count, 3, height, width) + middle
    rgb = torch.einsum("oc,nchw->nohw", torch.linalg.inv(to_ycc), ycc) / 255
    return rgb.clamp(0, 1)


def covered(pictures: torch.Tensor, draws: Draws, *, chance: float) -> torch.Tensor:
    """Lay a rectangle of one colour, 0.1 to 0.32 of the sides, over some of the pictures [n, 3, T, T], in place."""
    side = pictures.shape[-1]
    rows = np.flatnonzero(draws.some(len(pictures), chance))
    if not len(rows):
        return pictures
    sides = draws.numbers.uniform(0.1, 0.32, (len(rows), 2)) * side
    low = draws.numbers.uniform(0, 1, (len(rows), 2)) * (side - sides)
    x1y1, x2y2 = on_device(low, pictures.device), on_device(low + sides, pictures.device)
    px = torch.arange(side, device=pictures.device)
    across, down = ((px >= x1y1[:, [axis]]) & (px < x2y2[:, [axis]]) for axis in (0, 1))
    rectangle = across.view(-1, 1, 1, side) & down.view(-1, 1, side, 1)
    places = on_device(rows, pictures.device)
    pictures[places] = torch.where(rectangle, draws.uniform(0, 1, len(rows), 3, 1, 1), pictures[places])
    return pictures
