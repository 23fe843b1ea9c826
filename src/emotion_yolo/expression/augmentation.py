"""Augmentation of face crops, a batch at once: picture by picture it would take longer than the network."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from emotion_yolo.expression.face_net import SIDE
from emotion_yolo.params import Classifier
from emotion_yolo.structures.emotions import NAMES


def plain(pictures: Tensor) -> Tensor:
    """Enlarge crops [B, 3, H, W] uint8 to the network's input [B, 3, 150, 150] in 0-1."""
    return F.interpolate(pictures.float() / 255, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)


def smoothed(emotions: Tensor, params: Classifier) -> Tensor:
    """Return targets [B, 8] of emotions' ids [B], with label smoothing."""
    smoothing = params.label_smoothing
    return F.one_hot(emotions, len(NAMES)).float() * (1 - smoothing) + smoothing / len(NAMES)


def mixed(pictures: Tensor, targets: Tensor, params: Classifier) -> tuple[Tensor, Tensor]:
    """Blend a batch with itself in another order (Zhang et al., mixup, arXiv:1710.09412)."""
    share = float(torch.distributions.Beta(params.mixup_alpha, params.mixup_alpha).sample())
    other = torch.randperm(len(pictures))
    return torch.lerp(pictures[other], pictures, share), torch.lerp(targets[other], targets, share)


def augmented(pictures: Tensor, params: Classifier) -> Tensor:
    """Rotate, shift, scale, mirror, recolour, blur and cover crops [B, 3, H, W] uint8.

    Returns [B, 3, 150, 150] in 0-1.
    """
    return _covered(_coarse(_recoloured(_moved(pictures, params), params), params), params).clamp(0, 1)


def _jitter(pictures: Tensor, reach: float, *shape: int) -> Tensor:
    return (torch.rand(len(pictures), *(shape or (1, 1, 1))) * 2 - 1) * reach


def _moved(pictures: Tensor, params: Classifier) -> Tensor:
    count = len(pictures)
    angle = _jitter(pictures, math.radians(params.degrees), 1)
    zoom, aspect = 1 + _jitter(pictures, params.scale, 1), 1 + _jitter(pictures, params.aspect, 1)
    mirror = torch.where(torch.rand(count, 1) < params.fliplr, -1.0, 1.0)
    turn = torch.cat([angle.cos() * mirror * aspect, -angle.sin(), angle.sin() * mirror, angle.cos() / aspect], 1)
    affine = torch.cat([(turn * zoom).view(count, 2, 2), _jitter(pictures, params.translate, 2, 1)], 2)
    grid = F.affine_grid(affine, [count, 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pictures.float() / 255, grid, padding_mode="reflection", align_corners=False)


def _recoloured(faces: Tensor, params: Classifier) -> Tensor:
    faces = faces * (1 + _jitter(faces, params.brightness)) * (1 + _jitter(faces, params.colour_cast, 3, 1, 1))
    mean = faces.mean((1, 2, 3), keepdim=True)
    faces = (faces - mean) * (1 + _jitter(faces, params.contrast)) + mean
    colourless = torch.rand(len(faces), 1, 1, 1) < params.greyscale
    saturation = torch.where(colourless, torch.zeros(()), 1 + _jitter(faces, params.saturation))
    grey = faces.mean(1, keepdim=True)
    return grey + (faces - grey) * saturation


def _coarse(faces: Tensor, params: Classifier) -> Tensor:
    for side in params.coarse_sides:
        chosen = torch.rand(len(faces)) < params.coarse
        if chosen.any():
            small = F.interpolate(faces[chosen], size=(side, side), mode="area")
            faces[chosen] = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    return faces


def _covered(faces: Tensor, params: Classifier) -> Tensor:
    least, largest = params.erase_sides
    for row in torch.nonzero(torch.rand(len(faces)) < params.erase).flatten():
        high, wide = (int(SIDE * (least + (largest - least) * torch.rand(()))) for _ in range(2))
        top, left = int(torch.rand(()) * (SIDE - high)), int(torch.rand(()) * (SIDE - wide))
        faces[row, :, top : top + high, left : left + wide] = torch.rand(3, 1, 1)
    return faces
