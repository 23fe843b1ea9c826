"""The factory of classifiers: every architecture is built, trained a step, saved and read again."""

import json
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_yolo.errors import ModelError
from emotion_yolo.expression.crops import Crops
from emotion_yolo.expression.exporting import export_classifier
from emotion_yolo.expression.networks import FaceClassifier, build, load, save
from emotion_yolo.expression.training import CropBatches, logits_of, train_classifier
from emotion_yolo.inference.classifier import CropClassifier
from emotion_yolo.params import BaselineModel, load_params
from emotion_yolo.structures.emotions import NAMES

SEVEN = tuple(name for name in NAMES if name != "contempt")
SMALL: dict[str, dict[str, Any]] = {
    "small_cnn": {},
    "resnet18": {},
    "vgg11_bn": {"mlp_ratio": 0.01},
    "vit_tiny_patch16_224": {"depth": 2, "patch_size": 8},
    "hf_vit": {
        "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 8,
    },
}  # fmt: skip


def model(architecture: str, **changes: Any) -> BaselineModel:
    given = {
        "imgsz": 32,
        "weights": "models/none",
        "hub": False,
        "options": SMALL.get(architecture, {}),
        "training": {},
        "faces": {},
    }
    return BaselineModel.model_validate({"architecture": architecture, **given, **changes})


def built(architecture: str, classes: tuple[str, ...] = SEVEN, **changes: Any) -> FaceClassifier:
    torch.manual_seed(0)
    return build(model(architecture, **changes), classes, dropout=0.1)


def random_crops(count: int) -> Crops:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)
    return Crops.labelled(pictures, torch.arange(count) % 7, classes=7)


@pytest.mark.parametrize("architecture", SMALL)
def test_every_architecture_is_trained_saved_and_read_again(architecture: str, tmp_path: Path) -> None:
    crops = random_crops(14)
    params = load_params().classifier.model_copy(update={"epochs": 1, "batch": 7, "ema_decay": 0.5})
    start = built(architecture)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    net = train_classifier(start, CropBatches(crops, params), crops, params, checkpoint=tmp_path / "run.pt")
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    logits = logits_of(net, crops)
    assert logits.shape == (14, 7)
    assert logits.isfinite().all()
    save(net, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.spec.classes == SEVEN
    assert not again.training
    torch.testing.assert_close(logits_of(again, crops), logits)
    export_classifier(again, 1.0, tmp_path / "classifier.onnx")
    pictures = np.ascontiguousarray(crops.pictures.permute(0, 2, 3, 1).numpy())
    for backend in ("onnx", "openvino"):
        served = CropClassifier(tmp_path / "classifier.onnx", classes=7, backend=backend)(pictures)  # type: ignore[arg-type]
        np.testing.assert_allclose(served, logits.softmax(1).numpy(), atol=0.01)


@pytest.mark.parametrize("architecture", SMALL)
def test_the_head_is_the_last_layer_alone(architecture: str) -> None:
    shapes = sorted(tuple(parameter.shape) for parameter in built(architecture).head_parameters())
    assert len(shapes) == 2
    assert shapes[0] == (7,)
    assert shapes[1][0] == 7


def test_the_small_cnn_starts_from_a_file_of_its_own(tmp_path: Path) -> None:
    first = built("small_cnn")
    torch.save(first.body.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(1)
    second = build(model("small_cnn", weights=str(tmp_path / "weights.pt")), SEVEN, dropout=0.1)
    torch.testing.assert_close(second.state_dict(), first.state_dict())
    assert second.spec.start == "file"


def test_a_model_of_timms_starts_from_a_file_but_for_its_head(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(3)
    thousand = timm.create_model("resnet18", num_classes=1000)
    torch.save(thousand.state_dict(), tmp_path / "resnet18.pth")
    net = built("resnet18", weights=str(tmp_path / "resnet18.pth"))
    torch.testing.assert_close(net.body.get_parameter("conv1.weight"), thousand.get_parameter("conv1.weight"))
    assert net.head_parameters()[0].shape[0] == 7


def hub_folder(folder: Path, labels: list[str]) -> Path:
    """Write a ViT as the hub has them, with labels of its own in an order of its own."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(5)
    vit = ViTForImageClassification(ViTConfig(image_size=32, id2label=dict(enumerate(labels)), **SMALL["hf_vit"]))
    vit.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    ViTImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(folder)
    return folder


OF_FER = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def test_a_vit_in_the_hubs_layout_keeps_its_head_in_our_order(tmp_path: Path) -> None:
    from transformers import ViTForImageClassification

    shuffled = OF_FER[::-1]
    folder = hub_folder(tmp_path / "hub", shuffled)
    net = built("hf_vit", weights=str(folder), options={}).eval()
    crops = random_crops(4)
    theirs = ViTForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = theirs((crops.pictures.float() / 255 - 0.4) / 0.2).logits
    torch.testing.assert_close(logits_of(net, crops), expected.flip(1), atol=1e-5, rtol=1e-4)
    save(net, tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text("utf-8"))
    assert list(config["id2label"].values()) == list(SEVEN)
    assert (tmp_path / "saved/model.safetensors").is_file()


def test_a_vit_of_other_classes_gets_a_new_head(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", ["cat", "dog"])
    net = built("hf_vit", weights=str(folder), options={})
    assert logits_of(net, random_crops(2)).shape == (2, 7)


def test_a_vit_of_another_size_says_what_to_set(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", OF_FER)
    with pytest.raises(ModelError, match=r"a ViT of 32 px; set imgsz, which is 64, to that"):
        built("hf_vit", weights=str(folder), imgsz=64, options={})


class Hub(SimpleHTTPRequestHandler):
    """Serves files as the hub does: /{repository}/resolve/{revision}/{file}, with a commit and an ETag."""

    def translate_path(self, path: str) -> str:
        name = path.partition("?")[0].rpartition("/")[2] if "/resolve/" in path else "missing"
        return str(Path(self.directory) / name)

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{abs(hash(self.path))}"')
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_vit_comes_from_a_hub(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", OF_FER)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The hub's address is read when its library is imported: a process of its own.
    code = (
        "from tests.unit.test_networks import *\n"
        "net = built('hf_vit', hub=True, options={'name': 'somebody/faces'})\n"
        "assert net.spec.start == 'hub'\n"
        "print(net.body.classifier.bias.sum().item())\n"
    )
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2],
        env={**environment, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": ""},
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = built("hf_vit", weights=str(folder), options={})
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(theirs.body.classifier.bias.sum().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("resnet19", {}, r"'resnet19' is not small_cnn, hf_vit or a model of timm's"),
        ("resnet18", {"weights": "missing.pt"}, r"missing\.pt: no such file"),
        ("resnet18", {"options": {"wings": 2}}, r"resnet18 from scratch cannot be built .*wings.*correct `options`"),
        ("small_cnn", {"hub": True}, r"no hub has weights of small_cnn"),
        ("hf_vit", {"hub": True}, r"from the hub has no name"),
        ("hf_vit", {"weights": "nowhere"}, r"nowhere: no config\.json there"),
    ],
)
def test_what_cannot_be_built_is_said_with_what_to_do(architecture: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        built(architecture, **changes)


def test_a_folder_without_a_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"classifier\.json: no trained classifier there.*make baselines"):
        load(tmp_path)


def test_a_description_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "classifier.json").write_text("{}")
    with pytest.raises(ModelError, match=r"does not describe a classifier"):
        load(tmp_path)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    save(built("small_cnn"), tmp_path)
    torch.save({"x": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"its weights are not those of small_cnn"):
        load(tmp_path)
