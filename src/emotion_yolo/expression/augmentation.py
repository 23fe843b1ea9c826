"""Augmentation of face crops, a batch at once: picture by picture it would take longer than the network."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from emotion_yolo.params import Fitting


def plain(pictures: Tensor, *, imgsz: int) -> Tensor:
    """Scale crops [B, 3, H, W] uint8 to a network's input [B, 3, imgsz, imgsz] in 0-1."""
    given = pictures.float() / 255
    if given.shape[2:] == (imgsz, imgsz):
        return given
    return F.interpolate(given, size=(imgsz, imgsz), mode="bicubic", antialias=True).clamp(0, 1)


def smoothed(targets: Tensor, params: Fitting) -> Tensor:
    """Return targets [B, C] with label smoothing of those that are all for one class: votes are smooth already."""
    smoothing = params.label_smoothing
    hard = targets.amax(1, keepdim=True) >= 1
    return torch.where(hard, targets * (1 - smoothing) + smoothing / targets.shape[1], targets)


def mixed(pictures: Tensor, targets: Tensor, params: Fitting) -> tuple[Tensor, Tensor]:
    """Blend a batch with itself in another order (Zhang et al., mixup, arXiv:1710.09412)."""
    share = float(torch.distributions.Beta(params.mixup_alpha, params.mixup_alpha).sample())
    other = torch.randperm(len(pictures)).to(pictures.device)
    return torch.lerp(pictures[other], pictures, share), torch.lerp(targets[other], targets, share)


def augmented(pictures: Tensor, params: Fitting, *, imgsz: int) -> Tensor:
    """Rotate, shift, scale, mirror, recolour, blur and cover crops [B, 3, H, W] uint8.

    Returns [B, 3, imgsz, imgsz] in 0-1. Numbers are drawn on the CPU: a seed gives the same ones on every device.
    """
    return _covered(_coarse(_recoloured(_moved(pictures, params, imgsz), params), params), params).clamp(0, 1)


def _random(pictures: Tensor, *shape: int) -> Tensor:
    return torch.rand(len(pictures), *shape).to(pictures.device)


def _jitter(pictures: Tensor, reach: float, *shape: int) -> Tensor:
    return (_random(pictures, *(shape or (1, 1, 1))) * 2 - 1) * reach


def _moved(pictures: Tensor, params: Fitting, imgsz: int) -> Tensor:
    count = len(pictures)
    angle = _jitter(pictures, math.radians(params.degrees), 1)
    zoom, aspect = 1 + _jitter(pictures, params.scale, 1), 1 + _jitter(pictures, params.aspect, 1)
    mirror = 1 - 2 * (_random(pictures, 1) < params.fliplr).float()
    turn = torch.cat([angle.cos() * mirror * aspect, -angle.sin(), angle.sin() * mirror, angle.cos() / aspect], 1)
    affine = torch.cat([(turn * zoom).view(count, 2, 2), _jitter(pictures, params.translate, 2, 1)], 2)
    grid = F.affine_grid(affine, [count, 3, imgsz, imgsz], align_corners=False)
    return F.grid_sample(pictures.float() / 255, grid, padding_mode="reflection", align_corners=False)


def _recoloured(faces: Tensor, params: Fitting) -> Tensor:
    faces = faces * (1 + _jitter(faces, params.brightness)) * (1 + _jitter(faces, params.colour_cast, 3, 1, 1))
    mean = faces.mean((1, 2, 3), keepdim=True)
    faces = (faces - mean) * (1 + _jitter(faces, params.contrast)) + mean
    coloured = (_random(faces, 1, 1, 1) >= params.greyscale).float()
    grey = faces.mean(1, keepdim=True)
    return grey + (faces - grey) * coloured * (1 + _jitter(faces, params.saturation))


def _coarse(faces: Tensor, params: Fitting) -> Tensor:
    for side in params.coarse_sides:
        chosen = _random(faces) < params.coarse
        if side < faces.shape[2] and chosen.any():
            small = F.interpolate(faces[chosen], size=(side, side), mode="area")
            faces[chosen] = F.interpolate(small, size=faces.shape[2:], mode="bilinear")
    return faces


def _covered(faces: Tensor, params: Fitting) -> Tensor:
    least, largest = params.erase_sides
    imgsz = faces.shape[2]
    for row in torch.nonzero(torch.rand(len(faces)) < params.erase).flatten():
        high, wide = (int(imgsz * (least + (largest - least) * torch.rand(()))) for _ in range(2))
        top, left = int(torch.rand(()) * (imgsz - high)), int(torch.rand(()) * (imgsz - wide))
        faces[row, :, top : top + high, left : left + wide] = torch.rand(3, 1, 1).to(faces.device)
    return faces
