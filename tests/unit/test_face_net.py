import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from emotion_yolo.errors import ModelError
from emotion_yolo.expression.face_net import SIDE, face_net, read_face_weights
from emotion_yolo.expression.tfjs import Weights
from tests.face_weights import LAYERS, MANIFEST, write_face_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_face_weights(tmp_path_factory.mktemp("face-api"))


@pytest.fixture(scope="module")
def weights(folder: Path) -> Weights:
    return read_face_weights(folder)


def test_packed_numbers_are_unpacked_across_files(folder: Path, weights: Weights) -> None:
    raw = (folder / "one.bin").read_bytes()
    kernel = np.frombuffer(raw, np.uint8, 7 * 7 * 3 * 32).reshape(7, 7, 3, 32)
    scale = 3 / (255 * np.sqrt(7 * 7 * 3))
    np.testing.assert_allclose(weights["conv32_down/conv/filters"], (kernel.astype(float) - 128) * scale, atol=1e-6)
    bias = np.frombuffer(raw, np.float32, 32, kernel.size)
    np.testing.assert_array_equal(weights["conv32_down/conv/bias"], bias)
    assert len(weights) == 4 * len(LAYERS)
    last = (folder / "two.bin").read_bytes()[-256 * 4 :]
    np.testing.assert_array_equal(weights["conv256_down_out/conv2/scale/biases"], np.frombuffer(last, np.float32))


def folded(weights: Weights, crops: Tensor) -> tuple[Tensor, Tensor]:
    """The recognition network as dlib keeps it: after each convolution a scale and a shift, no batch norm."""

    def layer(name: str, x: Tensor, *, stride: int, padding: int) -> Tensor:
        kernel = torch.from_numpy(weights[f"{name}/conv/filters"]).permute(3, 2, 0, 1)
        y = F.conv2d(x, kernel, torch.from_numpy(weights[f"{name}/conv/bias"]), stride, padding)
        scale, shift = (torch.from_numpy(weights[f"{name}/scale/{part}"]) for part in ("weights", "biases"))
        return y * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    x = (crops * 255 - torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1)) / 256
    x = F.max_pool2d(layer("conv32_down", x, stride=2, padding=0).relu(), 3, 2)
    before = x
    for name in dict.fromkeys(name.split("/")[0] for name, *_ in LAYERS[1:]):
        down = "down" in name
        before = x
        y = layer(f"{name}/conv1", x, stride=2 if down else 1, padding=0 if down else 1).relu()
        y = layer(f"{name}/conv2", y, stride=1, padding=1)
        if down:
            x = F.avg_pool2d(x, 2)
        sides = [max(x.shape[i], y.shape[i]) for i in (1, 2, 3)]
        total = torch.zeros(len(x), *sides)
        for part in (x, y):
            total[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
        x = total.relu()
    return before.mean((2, 3)), x.mean((2, 3))


def test_with_batch_norms_it_still_answers_as_without(weights: Weights) -> None:
    crops = torch.rand(4, 3, SIDE, SIDE, generator=torch.manual_seed(0))
    net = face_net(weights, crops, dropout=0.3)
    with torch.no_grad():
        got, expected = net.features(crops), folded(weights, crops)
    for one, other in zip(got, expected, strict=True):
        assert other.std() > 0.01
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert net(crops).shape == (4, 8)


def test_a_missing_folder_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"none/{MANIFEST}: cannot be read .*name the folder `model` of face-api"):
        read_face_weights(tmp_path / "none")


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    folder = write_face_weights(tmp_path / "cut")
    path = folder / "two.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"not the weights that face-api\.js comes with"):
        read_face_weights(folder)


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps([{"weights": []}]), "utf-8")
    with pytest.raises(ModelError, match=r"not the weights that face-api\.js comes with: 'paths'"):
        read_face_weights(tmp_path)


def test_weights_of_another_network_are_refused(weights: Weights) -> None:
    crops = torch.zeros(1, 3, SIDE, SIDE)
    with pytest.raises(ModelError, match="no 'conv64_2/conv1/scale/weights'; they are another network's"):
        face_net({k: v for k, v in weights.items() if k != "conv64_2/conv1/scale/weights"}, crops, dropout=0.3)
    other = {**weights, "conv64_1/conv1/conv/filters": np.zeros((1, 1, 64, 64), np.float32)}
    with pytest.raises(ModelError, match=r"conv64_1/conv1 has a kernel of \[64, 64, 1, 1\], expected \[64, 64, 3, 3\]"):
        face_net(other, crops, dropout=0.3)
