"""A face recognition network fine-tuned to classify expressions: dlib's ResNet of 29 convolutions.

AffectNet's subset has some 16,000 train crops, and a network learns from them what a face looks like as well as what it
expresses. This one has learnt the first from three million pictures (Davis King, dlib 19.3, weights in the public
domain). They are read as face-api.js packs them: eight bits a number, in TensorFlow.js' format.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from emotion_yolo.expression.tfjs import Folded, Weights, named, read_tfjs, unfold
from emotion_yolo.structures.emotions import NAMES

SIDE = 150
"""px of its square input, which the recognition network was trained at."""

MANIFEST = "face_recognition_model-weights_manifest.json"
_MEAN = (122.782, 117.001, 104.298)  # RGB, 0-255, of the pictures it was trained on
_BLOCKS = (
    ("conv32_1", 32, 32), ("conv32_2", 32, 32), ("conv32_3", 32, 32),
    ("conv64_down", 32, 64), ("conv64_1", 64, 64), ("conv64_2", 64, 64), ("conv64_3", 64, 64),
    ("conv128_down", 64, 128), ("conv128_1", 128, 128), ("conv128_2", 128, 128),
    ("conv256_down", 128, 256), ("conv256_1", 256, 256), ("conv256_2", 256, 256),
    ("conv256_down_out", 256, 256),
)  # fmt: skip
"""Name in the weights, channels in and out; `down` halves the side."""


def read_face_weights(folder: Path) -> Weights:
    """Read the recognition network's weights from face-api.js' folder `model`, as float32 by name.

    Raises:
        ModelError: files that are missing, cut off, or of another network.
    """
    return read_tfjs(folder / MANIFEST, package="face-api.js", folder="model")


class _Conv(nn.Module):
    def __init__(self, given: int, answered: int, *, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, answered, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(answered, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.conv(x))
        return answer


class _Residual(nn.Module):
    def __init__(self, given: int, answered: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = _Conv(given, answered, kernel=3, stride=1 + down, padding=0 if down else 1)
        self.second = _Conv(answered, answered, kernel=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.down:
            # The way past halves by averaging, and has nothing to say in the new channels. An unpadded convolution of
            # an odd side is one short of it.
            x = F.avg_pool2d(x, 2)
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)


class FaceNet(nn.Module):
    """RGB crops [B, 3, 150, 150] in 0-1 to logits [B, 8], from the last two stages' features."""

    imgsz = SIDE

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.stem = _Conv(3, 32, kernel=7, stride=2)
        self.blocks = nn.Sequential(
            *(_Residual(given, answered, down="down" in name) for name, given, answered in _BLOCKS)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * _BLOCKS[-1][2], len(NAMES))

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of what is new, and learns faster."""
        return list(self.head.parameters())

    def features(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the last stage is given and what it answers, each averaged over the picture: [B, 256] twice."""
        x = ((crops * 255 - self.mean) / 256).contiguous(memory_format=torch.channels_last)
        x = self.blocks[:-1](F.max_pool2d(F.relu(self.stem(x)), 3, 2))
        return x.mean((2, 3)), self.blocks[-1](x).mean((2, 3))

    def forward(self, crops: Tensor) -> Tensor:
        """Return the logits [B, 8]."""
        logits: Tensor = self.head(self.dropout(torch.cat(self.features(crops), 1)).float())
        return logits


def face_net(weights: Weights, crops: Tensor, *, dropout: float) -> FaceNet:
    """Build the network with the recognition network's weights and a new head.

    dlib folds its batch norms into a scale and a shift for each channel. Here they become batch norms again, with the
    statistics of `crops` [B, 3, 150, 150].

    Raises:
        ModelError: weights of another network.
    """
    net = FaceNet(dropout=dropout)
    unfold(net, _folded(net, weights), crops)
    return net.to(memory_format=torch.channels_last)


def _folded(net: FaceNet, weights: Weights) -> Iterator[Folded]:
    layers = {"conv32_down": net.stem}
    for (name, *_), block in zip(_BLOCKS, net.blocks, strict=True):
        assert isinstance(block, _Residual)
        layers |= {f"{name}/conv1": block.first, f"{name}/conv2": block.second}
    for name, layer in layers.items():
        kernel = named(weights, f"{name}/conv/filters").permute(3, 2, 0, 1)
        affine = (named(weights, f"{name}/{part}") for part in ("conv/bias", "scale/weights", "scale/biases"))
        yield Folded(name, layer.conv, layer.norm, kernel, *affine)
