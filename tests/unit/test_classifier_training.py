from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_yolo.data.prepared import read_crops
from emotion_yolo.errors import DataError
from emotion_yolo.expression.augmentation import augmented, mixed, plain, smoothed
from emotion_yolo.expression.classifier import ExpressionClassifier
from emotion_yolo.expression.face_net import FaceNet, Weights, read_face_weights
from emotion_yolo.expression.training import Crops, export_classifier, fingerprint, logits_of, train_classifier
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
    return Crops(pictures, torch.arange(len(COLOURS)).repeat(copies))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return read_face_weights(write_face_weights(tmp_path_factory.mktemp("face-api")))


@pytest.fixture(scope="module")
def train(weights: Weights) -> Callable[..., tuple[FaceNet, float]]:
    def call(checkpoint: Path, **options: Any) -> tuple[FaceNet, float]:
        on_epoch = options.pop("on_epoch", lambda *_: None)
        params = settings(**{"epochs": 2, "lr": 0.03, "batch": 8, **options})
        return train_classifier(
            coloured(6), coloured(1), params, weights=weights, checkpoint=checkpoint, on_epoch=on_epoch
        )

    return call


def test_it_learns_what_it_is_shown_and_tells_of_each_epoch(
    train: Callable[..., tuple[FaceNet, float]], tmp_path: Path
) -> None:
    epochs: list[tuple[int, float, float]] = []
    net, temperature = train(tmp_path / "run.pt", epochs=4, on_epoch=lambda *told: epochs.append(told))
    assert [epoch for epoch, *_ in epochs] == [1, 2, 3, 4]
    assert epochs[-1][1] < epochs[0][1]
    assert epochs[-1][2] >= 0.75
    assert not net.training
    # Smoothed and blended targets make it less sure than it may be.
    assert temperature < 1


def test_an_interrupted_training_goes_on_and_ends_alike(
    train: Callable[..., tuple[FaceNet, float]], tmp_path: Path
) -> None:
    whole, temperature = train(tmp_path / "whole.pt")

    def interrupt(epoch: int, *_: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run.pt", on_epoch=interrupt)
    seen: list[int] = []
    resumed, again = train(tmp_path / "run.pt", on_epoch=lambda epoch, *_: seen.append(epoch))
    assert seen == [2]
    assert again == pytest.approx(temperature)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_a_checkpoint_is_named_after_all_that_it_depends_on(weights: Weights) -> None:
    named = fingerprint(coloured(1), weights, settings(epochs=3))
    assert named == fingerprint(coloured(1), weights, settings(epochs=3))
    relabelled = Crops(coloured(1).pictures, coloured(1).emotions.flip(0))
    repainted = Crops(coloured(1).pictures + 1, coloured(1).emotions)
    other = {**weights, "conv32_down/conv/bias": weights["conv32_down/conv/bias"] + 1}
    names = {
        named,
        fingerprint(coloured(1), weights, settings(epochs=4)),
        fingerprint(coloured(1), weights, settings(epochs=3, lr=0.1)),
        fingerprint(relabelled, weights, settings(epochs=3)),
        fingerprint(repainted, weights, settings(epochs=3)),
        fingerprint(coloured(1), other, settings(epochs=3)),
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
    expected = (logits_of(net, Crops(both, torch.zeros(2))) / 1.7).softmax(1).mean(0)
    got = ExpressionClassifier(tmp_path / "new/classifier.onnx", threads=1).soft_label(crop)
    np.testing.assert_allclose(got, expected.numpy(), atol=0.02)


def test_augmented_crops_are_of_the_networks_size_and_no_two_alike() -> None:
    torch.manual_seed(0)
    pictures = torch.from_numpy(painted({(0, 0): 4, (1, 1): 1, (2, 2): 2})).permute(2, 0, 1).expand(64, -1, -1, -1)
    faces = augmented(pictures, settings())
    assert faces.shape == (64, 3, 150, 150)
    assert faces.min() >= 0
    assert faces.max() <= 1
    apart = torch.pdist(faces.flatten(1))
    assert apart.min() > 1


def test_augmenting_keeps_an_upright_face_upright_and_mirrors_half() -> None:
    torch.manual_seed(0)
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[:24, :48] = 255  # top left
    faces = augmented(torch.from_numpy(picture).permute(2, 0, 1).expand(200, -1, -1, -1), settings()).mean(1)
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
    target = smoothed(torch.tensor([3]), settings())[0]
    assert target.sum() == pytest.approx(1)
    assert target[3] == pytest.approx(0.9125)
    assert target[0] == pytest.approx(0.0125)


def test_crops_as_they_are_fill_the_input() -> None:
    enlarged = plain(torch.full((2, 3, 96, 96), 51, dtype=torch.uint8))
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
