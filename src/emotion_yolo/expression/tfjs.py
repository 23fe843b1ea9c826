"""Face networks as TensorFlow.js keeps them: reading their numbers, and giving them their batch norms back."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion_yolo.errors import ModelError

Weights = dict[str, NDArray[np.float32]]


def read_tfjs(path: Path, *, package: str, folder: str) -> Weights:
    """Read the weights that a manifest or a model.json lists and that lie beside it, as float32 by name.

    Numbers of 8 and 16 bits with a scale and a least value, half floats and plain ones are read. The errors say that
    the file is from `folder` of the npm package `package`.

    Raises:
        ModelError: files that are missing, cut off, or something else.
    """
    weights: Weights = {}
    try:
        manifest = json.loads(path.read_text("utf-8"))
        for group in manifest["weightsManifest"] if isinstance(manifest, dict) else manifest:
            raw = b"".join((path.parent / name).read_bytes() for name in group["paths"])
            offset = 0
            for entry in group["weights"]:
                packed = entry.get("quantization")
                kind = np.dtype((packed or entry)["dtype"])
                values = np.frombuffer(raw, kind, int(np.prod(entry["shape"])), offset).astype(np.float32)
                offset += values.size * kind.itemsize
                if packed and kind.kind == "u":
                    values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
                weights[entry["name"]] = values.reshape(entry["shape"])
            if offset != len(raw):
                raise ValueError(f"{', '.join(group['paths'])} should end after {offset:,} of {len(raw):,} bytes")
    except OSError as error:
        where = f"{error.filename}: cannot be read ({error.strerror})"
        raise ModelError(f"{where}; name the folder `{folder}` of {package}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not the weights that {package} comes with: {error}") from error
    return weights


def named(weights: Weights, name: str) -> Tensor:
    """Return one of the weights.

    Raises:
        ModelError: no such name.
    """
    if name not in weights:
        raise ModelError(f"the face recognition weights have no {name!r}; they are another network's")
    return torch.from_numpy(weights[name])


@dataclass(frozen=True)
class Folded:
    """What a convolution and the batch norm after it shall be: x ↦ (kernel ∗ x + bias) · scale + shift.

    The kernel is [out, in, height, width], the others [out].
    """

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    kernel: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


def unfold(net: nn.Module, layers: Iterable[Folded], crops: Tensor) -> None:
    """Set a network's convolutions and batch norms to folded ones, and leave it in eval mode.

    A network without batch norms is hard to train, so folded ones become batch norms again: their statistics are those
    of `crops` [B, 3, S, S], and their weights chosen so that they still do what the scale and the shift did.

    Raises:
        ModelError: weights of another network.
    """
    handles = []
    for layer in layers:
        expected = layer.conv.weight.shape
        if layer.kernel.shape != expected:
            raise ModelError(f"{layer.name} has a kernel of {list(layer.kernel.shape)}, expected {list(expected)}")
        for part in ("bias", "scale", "shift"):
            if (shape := getattr(layer, part).shape) != expected[:1]:
                raise ModelError(f"{layer.name} has a {part} of {list(shape)}, expected {list(expected[:1])}")
        layer.conv.weight.data = layer.kernel.clone(memory_format=torch.contiguous_format)
        handles.append(layer.norm.register_forward_pre_hook(_restored(layer)))
    net.eval()
    with torch.no_grad():
        net(crops)  # layer by layer, so that each sees what the ones before it, already set, answer
    for handle in handles:
        handle.remove()


def _restored(layer: Folded) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    # A hook that gives a batch norm its input's statistics, and weights by which it does as the folded one.
    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        norm = layer.norm
        mean, variance = given[0].mean((0, 2, 3)), given[0].var((0, 2, 3), unbiased=False)
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.data = layer.scale * (variance + norm.eps).sqrt()
        norm.bias.data = (mean + layer.bias) * layer.scale + layer.shift

    return hook
