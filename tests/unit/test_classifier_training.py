from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from emotion_yolo.data.prepared import read_crops
from emotion_yolo.errors import DataError, ParamsError
from emotion_yolo.expression.augmentation import augmented, mixed, plain, smoothed
from emotion_yolo.expression.classifier import ExpressionClassifier
from emotion_yolo.expression.crops import Crops
from emotion_yolo.expression.exporting import export_classifier, temperature_of
from emotion_yolo.expression.face_net import FaceNet, read_face_weights
from emotion_yolo.expression.starting import start_net
from emotion_yolo.expression.tfjs import Weights
from emotion_yolo.expression.training import CropBatches, Epoch, fingerprint, logits_of, train_classifier
from emotion_yolo.params import Classifier, load_params
from tests.builders import COLOURS, painted, painted_labels, prepared_set
from tests.face_weights import write_face_weights


def settings(**changes: object) -> Classifier:
    """The shipped params with some values changed."""
    return load_params().classifier.model_copy(update=changes)


def coloured(copies: int) -> Crops:
    """Crops that are one colour each, an emotion a colour."""
    colours = torch.tensor(COLOURS, dtype=torch.uint8).repeat(copies, 1)
    pictures = colours.view(-1, 3, 1, 1).expand(-1, 3, 96, 96).contiguous()
    return Crops.labelled(pictures, torch.arange(len(COLOURS)).repeat(copies))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return read_face_weights(write_face_weights(tmp_path_factory.mktemp("face-api")))


@pytest.fixture(scope="module")
def train(weights: Weights) -> Callable[..., tuple[FaceNet, float]]:
    def call(checkpoint: Path, **options: Any) -> tuple[FaceNet, float]:
        on_epoch = options.pop("on_epoch", lambda *_: None)
        crops = coloured(options.pop("copies", 2))
        params = settings(**{"epochs": 2, "lr": 0.03, "batch": 8, **options})
        net = start_net(weights, crops.pictures, params)
        net = train_classifier(
            net, CropBatches(crops, params), coloured(1), params, checkpoint=checkpoint, on_epoch=on_epoch
        )
        return net, temperature_of(logits_of(net, coloured(1)), coloured(1))

    return call


def test_it_learns_what_it_is_shown_and_tells_of_each_epoch(
    train: Callable[..., tuple[FaceNet, float]], tmp_path: Path
) -> None:
    epochs: list[Epoch] = []
    net, temperature = train(tmp_path / "run.pt", copies=6, epochs=8, on_epoch=epochs.append)
    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].valid_top1 == epochs[-1].valid_macro_recall >= 0.75
    assert all(epoch.best for epoch in epochs)  # without patience the last one is the result
    assert not net.training
    # Smoothed and blended targets make it less sure than it may be.
    assert temperature < 1


def test_an_interrupted_training_goes_on_and_ends_alike(
    train: Callable[..., tuple[FaceNet, float]], tmp_path: Path
) -> None:
    whole, temperature = train(tmp_path / "whole.pt")

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run.pt", on_epoch=interrupt)
    seen: list[int] = []
    resumed, again = train(tmp_path / "run.pt", on_epoch=lambda epoch: seen.append(epoch.number))
    assert seen == [2]
    assert again == pytest.approx(temperature)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_a_checkpoint_is_named_after_all_that_it_depends_on(weights: Weights) -> None:
    named = fingerprint(coloured(1), settings(epochs=3), weights)
    assert named == fingerprint(coloured(1), settings(epochs=3), weights)
    relabelled = Crops.labelled(coloured(1).pictures, coloured(1).emotions.flip(0))
    repainted = Crops.labelled(coloured(1).pictures + 1, coloured(1).emotions)
    other = {**weights, "conv32_down/conv/bias": weights["conv32_down/conv/bias"] + 1}
    names = {
        named,
        fingerprint(coloured(1), settings(epochs=4), weights),
        fingerprint(coloured(1), settings(epochs=3, lr=0.1), weights),
        fingerprint(relabelled, settings(epochs=3), weights),
        fingerprint(repainted, settings(epochs=3), weights),
        fingerprint(coloured(1), settings(epochs=3), other),
    }
    assert len(names) == 6


def test_a_finished_training_is_not_done_again(train: Callable[..., tuple[FaceNet, float]], tmp_path: Path) -> None:
    first, _ = train(tmp_path / "run.pt", epochs=1)
    second, _ = train(tmp_path / "run.pt", epochs=1, on_epoch=lambda *_: pytest.fail("trained again"))
    torch.testing.assert_close(logits_of(first, coloured(1)), logits_of(second, coloured(1)))


def test_the_exported_file_answers_as_the_network_does(
    train: Callable[..., tuple[FaceNet, float]], tmp_path: Path
) -> None:
    net, _ = train(tmp_path / "run.pt", epochs=1)
    export_classifier(net, 1.7, tmp_path / "new" / "classifier.onnx")
    assert (tmp_path / "new/classifier.onnx").stat().st_size < 13e6
    crop = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    crop = np.repeat(np.repeat(crop[::16, ::16], 16, 0), 16, 1)
    both = torch.from_numpy(np.stack([crop, crop[:, ::-1]])).permute(0, 3, 1, 2)
    expected = (logits_of(net, Crops.labelled(both, torch.zeros(2))) / 1.7).softmax(1).mean(0)
    got = ExpressionClassifier(tmp_path / "new/classifier.onnx", threads=1).soft_label(crop)
    np.testing.assert_allclose(got, expected.numpy(), atol=0.02)


def test_augmented_crops_are_of_the_networks_size_and_no_two_alike() -> None:
    torch.manual_seed(0)
    pictures = torch.from_numpy(painted({(0, 0): 4, (1, 1): 1, (2, 2): 2})).permute(2, 0, 1).expand(64, -1, -1, -1)
    faces = augmented(pictures, settings(), imgsz=150)
    assert faces.shape == (64, 3, 150, 150)
    assert faces.min() >= 0
    assert faces.max() <= 1
    apart = torch.pdist(faces.flatten(1))
    assert apart.min() > 1


def test_augmenting_keeps_an_upright_face_upright_and_mirrors_half() -> None:
    torch.manual_seed(0)
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[:24, :48] = 255  # top left
    faces = augmented(torch.from_numpy(picture).permute(2, 0, 1).expand(200, -1, -1, -1), settings(), imgsz=150).mean(1)
    upper = faces[:, :60].mean((1, 2)) > faces[:, 90:].mean((1, 2))
    assert upper.float().mean() > 0.95
    left = faces[:, :60, :75].mean((1, 2)) > faces[:, :60, 75:].mean((1, 2))
    assert 0.4 < left.float().mean() < 0.6


def test_blended_pictures_have_blended_targets() -> None:
    torch.manual_seed(0)
    # Each picture's brightness is its number, and so is its target's first entry.
    numbers = torch.linspace(0, 1, 16)
    pictures, targets = mixed(
        numbers.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), torch.stack([numbers, 1 - numbers], 1), settings()
    )
    torch.testing.assert_close(pictures.mean((1, 2, 3)), targets[:, 0])
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    assert not torch.allclose(targets[:, 0], numbers)


def test_smoothed_targets_leave_a_tenth_to_all() -> None:
    target = smoothed(torch.eye(8)[[3]], settings())[0]
    assert target.sum() == pytest.approx(1)
    assert target[3] == pytest.approx(0.9125)
    assert target[0] == pytest.approx(0.0125)


def test_crops_as_they_are_fill_the_input() -> None:
    enlarged = plain(torch.full((2, 3, 96, 96), 51, dtype=torch.uint8), imgsz=150)
    torch.testing.assert_close(enlarged, torch.full((2, 3, 150, 150), 0.2))


def test_only_single_crops_are_read(tmp_path: Path) -> None:
    crops = {f"crop{i}.png": (painted({(1, 1): i}), painted_labels({(1, 1): i})) for i in range(3)}
    sheet = {"sheet_000001.jpg": (painted({(0, 0): 1, (2, 2): 4}), painted_labels({(0, 0): 1, (2, 2): 4}))}
    nothing = {"negative_000001.jpg": (painted({}), painted_labels({}))}
    root = prepared_set(tmp_path / "prepared", crops={**sheet, **crops, **nothing}, split="train")
    read = Crops.read(read_crops(root, "train"))
    assert read.emotions.tolist() == [0, 1, 2]
    assert read.pictures.shape == (3, 3, 96, 96)
    assert tuple(read.pictures[1, :, 48, 48].tolist()) == COLOURS[1]


def test_a_set_of_sheets_alone_says_what_to_change(tmp_path: Path) -> None:
    sheet = {"sheet_000001.jpg": (painted({(0, 0): 1}), painted_labels({(0, 0): 1}))}
    root = prepared_set(tmp_path / "prepared", crops=sheet, split="train")
    with pytest.raises(DataError, match=r"no single crops .*prepare\.sheets\.singles: 1\.0"):
        Crops.read(read_crops(root, "train"))


def test_votes_are_not_smoothed_once_more() -> None:
    votes = torch.tensor([[0.6, 0.4, 0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(smoothed(votes, settings()), votes)


class Shades(nn.Module):
    """A linear layer on the mean colour: as small as a network can be that the loop trains."""

    imgsz = 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return self.head(crops.mean((2, 3)))


def shades(reds: list[int], emotions: list[int], classes: int = 2) -> Crops:
    pictures = torch.tensor(reds, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return Crops.labelled(pictures, torch.tensor(emotions), classes=classes)


PLAIN: dict[str, Any] = {
    "brightness": 0.0, "colour_cast": 0.0, "contrast": 0.0, "saturation": 0.0, "erase": 0.0, "mixup": 0.0,
    "label_smoothing": 0.0, "batch": 20, "warmup_steps": 1, "ema_decay": 0.0, "lr": 0.05, "weight_decay": 0.0,
}  # fmt: skip


def fitted(train: Crops, checkpoint: Path, **changes: Any) -> tuple[Shades, list[Epoch]]:
    torch.manual_seed(0)
    epochs: list[Epoch] = []
    params = settings(**{**PLAIN, **changes})
    return train_classifier(
        Shades(2), CropBatches(train, params), train, params, checkpoint=checkpoint, on_epoch=epochs.append
    ), epochs


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balanced_classes_weigh_alike_however_rare_one_is(balance: str, tmp_path: Path) -> None:
    # The same grey nineteen times of one class and once of the other: nothing but the balance can tell them apart.
    train = shades([128] * 20, [0] * 19 + [1])
    grey = torch.full((1, 3, 8, 8), 128 / 255)
    net, _ = fitted(train, tmp_path / "none.pt", balance="none", epochs=40)
    assert net(grey).softmax(1)[0, 1] < 0.2
    net, _ = fitted(train, tmp_path / "balanced.pt", balance=balance, epochs=40)
    assert 0.3 < net(grey).softmax(1)[0, 1] < 0.7


def test_training_ends_early_with_the_best_weights(tmp_path: Path) -> None:
    # Both classes look alike: the first epoch is as good as any.
    train = shades([128] * 20, [0, 1] * 10)
    net, epochs = fitted(train, tmp_path / "run.pt", epochs=30, patience=3)
    assert len(epochs) == 4
    assert [epoch.best for epoch in epochs] == [True, False, False, False]
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    torch.testing.assert_close(net.state_dict(), state["best"])
    assert not torch.equal(net.head.weight, state["net"]["head.weight"])


def test_soft_targets_are_what_is_learnt(tmp_path: Path) -> None:
    crops = shades([128] * 20, [0] * 20)
    voted = Crops(crops.pictures, torch.tensor([[0.7, 0.3]]).repeat(20, 1), crops.emotions)
    net, _ = fitted(voted, tmp_path / "run.pt", epochs=60)
    assert net(torch.full((1, 3, 8, 8), 128 / 255)).softmax(1)[0, 1].item() == pytest.approx(0.3, abs=0.03)


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"classifier\.device is 'tpu9'.*set it to auto or cpu"):
        fitted(shades([1, 2], [0, 1]), tmp_path / "run.pt", device="tpu9")
