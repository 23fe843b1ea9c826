import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel
from ultralytics.utils import DEFAULT_CFG, nms
from ultralytics.utils.tal import TaskAlignedAssigner

from emotion_yolo.composition.loader import LABELS, SHARES
from emotion_yolo.errors import ModelError, ParamsError
from emotion_yolo.params import load_params
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.yolo import own_teacher
from emotion_yolo.yolo.assigner import FaceAwareAssigner, criterion
from emotion_yolo.yolo.console import epoch_line, start_line
from emotion_yolo.yolo.hardware import resolve_amp, resolve_device, workers_that_fit
from emotion_yolo.yolo.mirror import divergence, mirrored
from emotion_yolo.yolo.network import export_onnx, torch_forward
from emotion_yolo.yolo.shares import cross_entropy, named
from emotion_yolo.yolo.trainer import EmotionTrainer, EmotionValidator, batch_norm_momentum
from emotion_yolo.yolo.training import check
from emotion_yolo.yolo.view import attach_targets, data_yaml
from emotion_yolo.yolo.weights import check_weights, save_weights


@pytest.fixture(scope="module")
def network() -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel("yolo11n.yaml", nc=len(NAMES), verbose=False)
    model.names = dict(enumerate(NAMES))
    model.args = DEFAULT_CFG
    return model


@pytest.fixture(scope="module")
def weights(network: DetectionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save({"model": network, "train_args": {"task": "detect"}}, path)
    return path


@pytest.fixture
def scene() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(1, 64, 8, generator=generator) * 0.1
    centres = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="xy"), -1).view(-1, 2) * 8 + 4
    boxes = torch.cat([centres - 12, centres + 12], -1)[None]
    return {
        "pd_scores": scores,
        "pd_bboxes": boxes,
        "anc_points": centres,
        "gt_bboxes": torch.tensor([[[8.0, 8.0, 32.0, 32.0], [36.0, 36.0, 60.0, 60.0]]]),
        "mask_gt": torch.ones(1, 2, 1),
    }


def assign(kind: type[TaskAlignedAssigner], scene: dict[str, torch.Tensor], labels: list[int], classes: int):
    assigner = kind(topk=10, num_classes=classes, alpha=0.5, beta=6.0)
    gt_labels = torch.tensor(labels).view(1, -1, 1)
    order = ("pd_scores", "pd_bboxes", "anc_points")
    return assigner(*(scene[key] for key in order), gt_labels, scene["gt_bboxes"], scene["mask_gt"])


def test_faces_with_an_emotion_are_assigned_as_ultralytics_does(scene: dict[str, torch.Tensor]) -> None:
    ours = assign(FaceAwareAssigner, scene, [2, 5], 9)
    theirs = assign(TaskAlignedAssigner, scene, [2, 5], 8)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_face_without_an_emotion_asks_for_the_sum_and_leaves_the_proportions(scene: dict[str, torch.Tensor]) -> None:
    _, _, scores, foreground, index = assign(FaceAwareAssigner, scene, [FACE_ID, FACE_ID], 9)
    assert foreground.any()
    target, predicted = scores[foreground], scene["pd_scores"][foreground]
    torch.testing.assert_close(target / target.sum(-1, keepdim=True), predicted / predicted.sum(-1, keepdim=True))
    # The best anchor of each face is asked for the overlap it reaches, as for a face with an emotion.
    best = torch.stack([target.sum(-1)[index[foreground] == face].max() for face in range(2)])
    assert (best > 0.5).all()
    assert (best <= 1).all()
    assert scores[~foreground].sum() == 0


def test_a_face_without_an_emotion_pulls_each_class_in_proportion_to_its_score(network: DetectionModel) -> None:
    loss = criterion(network)
    logits = torch.full((1, 8, 84), -9.0)
    logits[:, 3] = -7.0
    logits.requires_grad_()
    feats = [torch.zeros(1, 1, 64 // s, 64 // s) for s in (8, 16, 32)]
    preds = {"boxes": torch.zeros(1, 64, 84), "scores": logits, "feats": feats}
    batch = {
        "batch_idx": torch.zeros(1),
        "cls": torch.tensor([[float(FACE_ID)]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
    }
    total, _ = loss(preds, batch)
    total.sum().backward()
    gradient = logits.grad[0]  # [8, anchors]
    raised = gradient.sum(0) < 0
    assert raised.any()
    share = logits.detach().sigmoid()[0] / logits.detach().sigmoid()[0].sum(0)
    torch.testing.assert_close(gradient[:, raised] / gradient[:, raised].sum(0), share[:, raised], atol=1e-4, rtol=1e-3)


def predictions(side: int, *, pictures: int) -> dict[str, Any]:
    """Predictions of a network with levels of 8, 16 and 32 px for pictures of `side` px; every score its own."""
    feats = [torch.zeros(pictures, 1, side // stride, side // stride) for stride in (8, 16, 32)]
    anchors = sum(level.shape[2] * level.shape[3] for level in feats)
    scores = torch.randn(pictures, 8, anchors, generator=torch.Generator().manual_seed(0))
    return {"boxes": torch.zeros(pictures, 64, anchors), "scores": scores, "feats": feats}


def in_the_mirror(scores: torch.Tensor, feats: list[torch.Tensor]) -> torch.Tensor:
    """Scores [B, 8, A] of a network that answers for a mirror image with its answer's mirror image."""
    levels = scores.split([level.shape[2] * level.shape[3] for level in feats], dim=-1)
    grids = [part.unflatten(-1, level.shape[2:]) for part, level in zip(levels, feats, strict=True)]
    return torch.cat([grid.flip(-1).flatten(2) for grid in grids], dim=-1)


def faces_at(*boxes: list[float]) -> dict[str, torch.Tensor]:
    """A batch of two pictures, one face each."""
    return {
        "img": torch.arange(2 * 3 * 64 * 64).view(2, 3, 64, 64),
        "batch_idx": torch.arange(2.0),
        "cls": torch.tensor([[3.0], [5.0]]),
        "bboxes": torch.tensor(boxes),
    }


LEFT, RIGHT = [0.25, 0.5, 0.4, 0.5], [0.75, 0.5, 0.4, 0.5]


def test_a_mirrored_batch_has_the_first_half_and_its_mirror_image_with_the_labels() -> None:
    batch = faces_at(LEFT, RIGHT)
    both = mirrored(batch)
    torch.testing.assert_close(both["img"][0], batch["img"][0])
    torch.testing.assert_close(both["img"][1], batch["img"][0].flip(-1))
    assert both["batch_idx"].tolist() == [0, 1]
    assert both["cls"].tolist() == [[3], [3]]
    torch.testing.assert_close(both["bboxes"], torch.tensor([LEFT, RIGHT]))


def test_only_a_network_that_names_the_mirror_image_otherwise_pays_for_it(network: DetectionModel) -> None:
    batch = mirrored(faces_at(LEFT, RIGHT))
    plain, consistent = criterion(network), criterion(network, mirror=2.0)
    preds = predictions(64, pictures=2)
    same = {**preds, "scores": torch.cat([preds["scores"][:1], in_the_mirror(preds["scores"][:1], preds["feats"])])}
    for answers, pays in ((same, False), (preds, True)):
        (without, _), (with_, items) = plain(answers, batch), consistent(answers, batch)
        extra = with_ - without
        assert (extra[1] > 0.1) == pays
        torch.testing.assert_close(extra[[0, 2]], torch.zeros(2))
        assert items["cls_loss"] * 2 == pytest.approx(float(with_[1]))
        if not pays:
            assert float(extra[1]) == pytest.approx(0, abs=1e-4)


def test_the_price_is_the_symmetric_divergence_of_the_class_shares() -> None:
    # Scores far below 0, where the sigmoid is the exponential: shares are the softmax of the logits.
    logits = torch.full((2, 2, 8), -20.0)
    logits[0, 0, 1] += np.log(7)  # shares 7/14 and seven of 1/14 in the picture; even in the mirror image
    foreground = torch.tensor([[True, False], [False, True]])
    half, small = 7 / 14, 1 / 14
    expected = (half - 1 / 8) * np.log(half * 8) + 7 * (small - 1 / 8) * np.log(small * 8)
    assert float(divergence(logits, foreground, [(1, 2)])) == pytest.approx(expected, rel=1e-3)


def test_anchors_that_stand_for_a_face_in_one_image_only_are_not_compared() -> None:
    scores = torch.randn(2, 2, 8, requires_grad=True)
    price = divergence(scores, torch.tensor([[True, False], [True, False]]), [(1, 2)])
    assert float(price.detach()) == 0
    price.backward()
    assert not scores.grad.any()


def test_a_batch_that_is_not_mirrored_costs_what_it_did(network: DetectionModel) -> None:
    preds, batch = predictions(64, pictures=2), faces_at(LEFT, RIGHT)
    torch.testing.assert_close(criterion(network, mirror=2.0)(preds, batch)[0], criterion(network)(preds, batch)[0])


def test_the_cross_entropy_is_least_where_the_shares_are_the_target() -> None:
    target = torch.tensor([0.6, 0.1, 0.1, 0.04, 0.04, 0.04, 0.04, 0.04])
    named_ = torch.ones(1, 1, dtype=torch.bool)

    def price(shares: torch.Tensor, *, height: float = 0.01) -> float:
        # Scores whose sigmoids are `height` times the shares, whatever their sum.
        return float(cross_entropy(torch.logit(height * shares).view(1, 1, 8), 0.7 * target.view(1, 1, 8), named_))

    entropy = -(target * target.log()).sum()
    assert price(target) == pytest.approx(float(0.7 * entropy), rel=1e-4)  # weights below 1 are not scaled up
    assert price(target, height=0.9) == pytest.approx(price(target), rel=1e-4)  # the confidence costs nothing
    for part in (0.2, 0.6, 1.0):
        farther = torch.lerp(target, torch.full((8,), 0.125), part)
        assert price(farther) > price(torch.lerp(target, torch.full((8,), 0.125), part / 2)) > price(target)


def test_anchors_weigh_by_their_target_scores_and_unnamed_ones_nothing() -> None:
    scores = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(1, 3, 8)
    targets[0, 0, 1], targets[0, 1, 2], targets[0, 2, 3] = 2.0, 1.0, 1.0
    shares = scores.sigmoid() / scores.sigmoid().sum(-1, keepdim=True)
    expected = -(2 * shares[0, 0, 1].log() + shares[0, 1, 2].log()) / 3
    which = named(torch.tensor([[[4.0], [float(FACE_ID)]]]), torch.ones(1, 3), torch.tensor([[0, 0, 1]]))
    assert which.tolist() == [[True, True, False]]
    torch.testing.assert_close(cross_entropy(scores, targets, which), expected)


def test_the_shares_cost_what_they_weigh_and_nothing_without_a_named_face(network: DetectionModel) -> None:
    preds, batch = predictions(64, pictures=2), faces_at(LEFT, RIGHT)
    empty = {**batch, "batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    unnamed = {**batch, "cls": torch.full((2, 1), float(FACE_ID))}
    plain, once, twice = (criterion(network, shares=weight) for weight in (0.0, 1.0, 2.0))
    for case, costs in ((batch, True), (unnamed, False), (empty, False)):
        losses = [loss(preds, case) for loss in (plain, once, twice)]
        first, second = losses[1][0] - losses[0][0], losses[2][0] - losses[0][0]
        torch.testing.assert_close(second, 2 * first, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(first[[0, 2]], torch.zeros(2))
        assert (first[1] > 0.1) == costs
        assert costs or float(first[1]) == 0
        assert losses[1][1]["cls_loss"] * 2 == pytest.approx(float(losses[1][0][1]))


def test_a_face_with_a_soft_label_pulls_its_shares_there(network: DetectionModel) -> None:
    targets = torch.tensor([[0.0, 0, 0, 0.25, 0.75, 0, 0, 0]])
    batch = {"batch_idx": torch.zeros(1), "cls": torch.tensor([[FACE_ID + 1.0]]), "bboxes": torch.tensor([LEFT])}
    preds = predictions(64, pictures=1)
    logits = preds["scores"].clone().requires_grad_()
    plain, with_shares = (criterion(network, targets, shares=weight) for weight in (0.0, 1.0))
    answers = {**preds, "scores": logits}
    (with_shares(answers, batch)[0][1] - plain(answers, batch)[0][1]).backward()
    pulled = logits.grad[0].T[logits.grad[0].abs().sum(0) > 0]  # [anchors, 8]
    assert len(pulled)
    assert (pulled[:, 4] < 0).all()
    assert (pulled[:, [0, 1, 2, 5, 6, 7]] > 0).all()


def test_a_batch_counts_once_where_it_is_asked_to(network: DetectionModel) -> None:
    preds, batch = predictions(64, pictures=2), faces_at(LEFT, RIGHT)
    (whole, items), (mean, same) = criterion(network)(preds, batch), criterion(network, mean=True)(preds, batch)
    torch.testing.assert_close(mean, whole / 2)
    assert items == same


def test_weights_are_updated_once_the_gradients_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[bool] = []
    monkeypatch.setattr(DetectionTrainer, "optimizer_step", lambda trainer: steps.append(trainer._complete))
    trainer = EmotionTrainer.__new__(EmotionTrainer)
    for complete in (False, True, False, True):
        trainer._complete = complete
        trainer.optimizer_step()
    assert steps == [True, True]


def test_a_face_with_probabilities_is_asked_for_these_whatever_the_network_says(scene: dict[str, torch.Tensor]) -> None:
    targets = torch.zeros(2, 8)
    targets[0, 3], targets[1, 4], targets[1, 5] = 1, 0.75, 0.25
    assigner = FaceAwareAssigner(topk=10, num_classes=9, alpha=0.5, beta=6.0, targets=targets)
    order = ("pd_scores", "pd_bboxes", "anc_points")
    labels = torch.tensor([[[FACE_ID + 2.0], [FACE_ID + 1.0]]])
    given = assigner(*(scene[key] for key in order), labels, scene["gt_bboxes"], scene["mask_gt"])
    unnamed = assign(FaceAwareAssigner, scene, [FACE_ID, FACE_ID], 9)
    _, _, scores, foreground, index = given
    torch.testing.assert_close(scores.sum(-1), unnamed[2].sum(-1))  # which anchors, and how much of a face, is the same
    shares = scores[foreground] / scores[foreground].sum(-1, keepdim=True)
    torch.testing.assert_close(shares, targets[1 - index[foreground]])


def test_probabilities_and_classes_and_unnamed_faces_go_together(scene: dict[str, torch.Tensor]) -> None:
    assigner = FaceAwareAssigner(topk=10, num_classes=9, alpha=0.5, beta=6.0, targets=torch.full((1, 8), 0.125))
    order = ("pd_scores", "pd_bboxes", "anc_points")
    labels = torch.tensor([[[2.0], [float(FACE_ID)]]])
    got = assigner(*(scene[key] for key in order), labels, scene["gt_bboxes"], scene["mask_gt"])
    for mine, other in zip(got, assign(FaceAwareAssigner, scene, [2, FACE_ID], 9), strict=True):
        torch.testing.assert_close(mine, other)


def view_of(root: Path, targets: str | None) -> dict[str, object]:
    """Make what Ultralytics knows of a train picture with two faces, whose targets file holds `targets`."""
    image = root / "images/train/a.jpg"
    if targets is not None:
        (root / "targets/train").mkdir(parents=True)
        (root / "targets/train/a.txt").write_text(targets)
    return {"im_file": str(image), "cls": np.asarray([[4.0], [FACE_ID]], np.float32)}


def test_labels_stand_for_their_targets_and_nan_leaves_them_alone(tmp_path: Path) -> None:
    half = "0.5 0.5 0 0 0 0 0 0"
    first, second = view_of(tmp_path / "1", f"{half}\n" + "nan " * 8), view_of(tmp_path / "2", f"{half}\n" * 2)
    plain = view_of(tmp_path / "3", None)
    targets = attach_targets([first, plain, second])
    assert targets.shape == (3, 8)
    assert first["cls"].ravel().tolist() == [FACE_ID + 1, FACE_ID]
    assert plain["cls"].ravel().tolist() == [4, FACE_ID]
    assert second["cls"].ravel().tolist() == [FACE_ID + 2, FACE_ID + 3]


def test_targets_that_are_not_one_a_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 1 soft labels for 2 labels"):
        attach_targets([view_of(tmp_path, "0.5 0.5 0 0 0 0 0 0\n")])


def test_pictures_without_faces_are_assigned_to_nothing(scene: dict[str, torch.Tensor]) -> None:
    empty = {**scene, "gt_bboxes": torch.zeros(1, 0, 4), "mask_gt": torch.zeros(1, 0, 1)}
    _, _, scores, foreground, _ = assign(FaceAwareAssigner, empty, [], 9)
    assert scores.shape == (1, 64, 8)
    assert not foreground.any()


def test_both_branches_of_an_end_to_end_network_know_faces_without_an_emotion() -> None:
    model = DetectionModel("yolo26n.yaml", nc=len(NAMES), verbose=False)
    model.args = DEFAULT_CFG
    loss = criterion(model)
    assert isinstance(loss.one2many.assigner, FaceAwareAssigner)
    assert isinstance(loss.one2one.assigner, FaceAwareAssigner)
    assert (loss.one2one.assigner.topk, loss.one2one.assigner.topk2) == (7, 1)


def test_the_table_of_the_training_view_names_the_ninth_label() -> None:
    table = data_yaml(Path("train.txt"), Path("valid.txt"))
    assert table["names"] == {**dict(enumerate(NAMES)), FACE_ID: "face"}
    assert (table["train"], table["val"]) == ("train.txt", "valid.txt")


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "0"),
        ("cuda:1", 2, "1"),
        ("0", 1, "0"),
        ("0, 1", 2, "0,1"),
    ],
)
def test_the_device_is_the_one_asked_for_or_the_first_gpu(
    device: str, count: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    assert resolve_device(device) == expected


@pytest.mark.parametrize(
    ("device", "count", "names"),
    [
        ("cuda", 0, "auto or cpu"),
        ("0", 0, "auto or cpu"),
        ("1", 1, "auto or cpu or 0"),
        ("0,2", 2, "auto or cpu or 0 or 1"),
        ("gpu", 1, "auto or cpu or 0"),
        ("-1", 1, "auto or cpu or 0"),
        ("mps", 0, "auto or cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    device: str, count: int, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ParamsError, match=rf"train\.device is '{device}', .* {count} GPUs? here; set it to {names}$"):
        resolve_device(device)


COMPOSE = load_params().train.compose.model_copy(update={"updates": 1})


@pytest.mark.parametrize(
    "setting", [{"sizes": [64]}, {"mirror": 1.0}, {"shares": 1.0}, {"freeze_bn": True}, {"compose": COMPOSE}]
)
def test_what_one_device_alone_can_do_is_refused_on_several(
    setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(ParamsError, match=r"train\.sizes, .* and train\.compose need a single device"):
        check(load_params().train.model_copy(update={"device": "0,1", **setting}))


def test_a_training_that_is_to_teach_itself_needs_other_teachers_beside() -> None:
    compose = COMPOSE.model_copy(update={"own_share": 0.3})
    with pytest.raises(ParamsError, match=r"own_share is 0\.3, but train\.compose\.teachers names no folder; name one"):
        check(load_params().train.model_copy(update={"device": "cpu", "compose": compose}))


def test_workers_are_as_many_as_the_shared_memory_has_room_for(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert workers_that_fit(4, batch=1, imgsz=32, folder=tmp_path) == 4
    assert workers_that_fit(4, batch=free, imgsz=320, folder=tmp_path) == 0
    assert workers_that_fit(4, batch=free, imgsz=320, folder=tmp_path / "not on this system") == 4
    some = [workers_that_fit(8, batch=batch, imgsz=320, folder=tmp_path) for batch in free // 38_400_000 * np.arange(9)]
    assert some == sorted(some, reverse=True)
    assert (some[1], some[8]) == (8, 0)
    assert 0 < some[4] < 8


def test_the_first_line_says_where_and_after_which_epoch() -> None:
    environment = {"device": "cpu", "cpu": "EPYC", "precision": "fp32", "threads": 2, "workers": 1}
    counts = {"pictures": 2260, "valid": 128, "epochs": 12}
    line = start_line(**counts, finished=3, environment=environment)
    assert line.startswith("resuming after epoch 3 of 12 of 2,260 pictures")
    assert "CPU (EPYC), fp32, 2 threads, 1 data-loading" in line
    assert start_line(**counts, finished=0, environment=environment | {"device": "NVIDIA H100"}).startswith("12 epochs")


def test_an_epochs_line_has_losses_figures_and_time() -> None:
    metrics = {"train/box_loss": 1.0, "train/cls_loss": 2.0, "train/dfl_loss": 3.0, "metrics/mAP50(B)": 0.5}
    line = epoch_line(epoch=4, epochs=12, metrics=metrics, seconds=14.2, left=125, best=True)
    assert line == (
        "epoch  4/12: loss box 1.000 cls 2.000 dfl 3.000; valid mAP50 0.500; 14 s, 2 min 05 s left, best so far"
    )
    assert epoch_line(epoch=12, epochs=12, metrics=metrics, seconds=1, left=0, best=False).endswith("1 s, done")


@pytest.mark.parametrize(
    ("amp", "device", "has_bf16", "expected"),
    [
        ("auto", "0", False, "fp16"),
        ("auto", "cpu", True, "bf16"),
        ("auto", "cpu", False, "fp32"),
        ("fp32", "cpu", True, "fp32"),
        ("bf16", "0", False, "bf16"),
    ],
)
def test_the_precision_is_what_the_device_is_fast_in(
    amp: str, device: str, has_bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_amp(amp, device=device) == expected


def test_fp16_on_a_cpu_is_refused_with_the_choices() -> None:
    with pytest.raises(ModelError, match="set auto, bf16 or fp32"):
        resolve_amp("fp16", device="cpu")


def test_suppression_answers_for_every_picture_however_slow_the_machine_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validator = EmotionValidator(save_dir=tmp_path, args={"task": "detect"})
    validator.end2end = False
    answer = torch.zeros(1, 12, 4)
    answer[0, :4] = torch.tensor([[8.0, 24, 40, 56]] * 2 + [[10.0] * 4] * 2)  # four boxes that do not overlap
    answer[0, 6] = 0.9
    hours = iter(range(0, 360_000, 3_600))
    monkeypatch.setattr(nms.time, "time", lambda: next(hours))  # each look at the clock is an hour later
    found = validator.postprocess(answer.repeat(3, 1, 1))
    assert [len(picture["conf"]) for picture in found] == [4, 4, 4]
    assert [len(picture) for picture in nms.non_max_suppression(answer.repeat(3, 1, 1))] == [4, 0, 0]  # the default


def test_the_best_epoch_is_the_one_that_finds_and_names_the_most_faces(tmp_path: Path) -> None:
    validator = EmotionValidator(save_dir=tmp_path, args={"task": "detect", "plots": False})
    loose = np.zeros((4, 10), bool)
    loose[:3, 0] = True  # three of four boxes overlap their faces by half, none more tightly
    answers = {"tp": loose, "conf": np.linspace(0.9, 0.6, 4), "pred_cls": np.zeros(4)}
    validator.metrics.update_stats(
        {**answers, "target_cls": np.zeros(4), "target_img": np.zeros(1), "im_name": "0.png"}
    )
    stats = validator.get_stats()
    assert stats["fitness"] == stats["metrics/mAP50(B)"] > 5 * stats["metrics/mAP50-95(B)"]


@pytest.mark.parametrize(("batches", "momentum"), [(1, 0.1), (8, 0.1), (20, 0.05), (33, 0.0303), (2000, 0.03)])
def test_running_statistics_keep_up_with_short_epochs(batches: int, momentum: float) -> None:
    assert batch_norm_momentum(batches) == pytest.approx(momentum, abs=1e-4)


def test_weights_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match=r"broken\.pt.*cannot be loaded"):
        check_weights(str(tmp_path / "broken.pt"))


def test_a_checkpoint_for_another_task_is_refused(tmp_path: Path) -> None:
    model = YOLO("yolo11n-cls.yaml").model
    torch.save({"model": model, "train_args": {"task": "classify"}}, tmp_path / "classify.pt")
    with pytest.raises(ModelError, match="expected one for 'detect'"):
        check_weights(str(tmp_path / "classify.pt"))


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("yolo11n-seg.yaml", "a model for 'segment'; expected one for 'detect'"),
        ("yolo99.yaml", "which cannot be loaded"),
        ("configs/missing.yaml", "which cannot be loaded"),
        ("params.yaml", "which cannot be loaded"),
        ("yolov8s-worldv2.yaml", "a WorldModel; expected a plain YOLO detection network"),
        ("rtdetr-l.yaml", "which cannot be loaded"),
        ("yolov8n-p6.yaml", "a network with a stride of 64 px; expected 32"),
        ("models/release/model.onnx", r"expected a \.pt checkpoint or a \.yaml of a network"),
        ("models/release", r"expected a \.pt checkpoint or a \.yaml of a network"),
    ],
)
def test_weights_that_this_pipeline_cannot_use_to_the_end_are_refused_with_those_it_can(
    weights: str, reason: str
) -> None:
    with pytest.raises(
        ModelError, match=f"(?s)train.weights is '{weights}', .*{reason}.*take models/release/weights.pt"
    ):
        check_weights(weights)


def test_a_checkpoint_of_another_detector_is_refused(tmp_path: Path) -> None:
    model = RTDETRDetectionModel("rtdetr-l.yaml", nc=8, verbose=False).half()
    torch.save({"model": model, "train_args": {"task": "detect"}}, tmp_path / "rtdetr.pt")
    with pytest.raises(ModelError, match="a RTDETRDetectionModel; expected a plain YOLO detection network"):
        check_weights(str(tmp_path / "rtdetr.pt"))


def test_a_pickle_that_wants_to_run_code_is_refused_by_its_names(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"model": Command(), "train_args": {"task": "detect"}}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"its pickle wants to run \w+\.system, which a YOLO checkpoint does not need"):
        check_weights(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


def test_only_weights_of_the_eight_emotions_can_be_kept_in_part(weights: Path, tmp_path: Path) -> None:
    check_weights(str(weights), alpha=0.6, own_share=0.3)
    model = DetectionModel("yolo11n.yaml", nc=len(NAMES), verbose=False)
    model.names = dict(enumerate("abcdefgh"))
    torch.save({"model": model, "train_args": {"task": "detect"}}, tmp_path / "others.pt")
    for start in (str(tmp_path / "others.pt"), "yolo11n.yaml"):
        check_weights(start)
        with pytest.raises(ModelError, match=r"train\.wise_ft_alpha is 0\.6.*set train\.wise_ft_alpha to 1"):
            check_weights(start, alpha=0.6)
        with pytest.raises(ModelError, match=r"train\.compose\.own_share is 0\.3.*set train\.compose\.own_share to 0"):
            check_weights(start, own_share=0.3)


def test_kept_weights_are_averaged_with_the_trained_ones_by_their_share(weights: Path, tmp_path: Path) -> None:
    trained = DetectionModel("yolo11n.yaml", nc=len(NAMES), verbose=False)
    trained.names = dict(enumerate(NAMES))
    ends = [YOLO(weights).model.state_dict(), trained.state_dict()]
    checkpoint = {"model": trained, "train_args": {"task": "detect", "imgsz": 64}, "version": "8"}
    torch.save(checkpoint, tmp_path / "trained.pt")
    save_weights(tmp_path / "trained.pt", tmp_path / "out.pt", start=str(weights), alpha=0.75)
    averaged = YOLO(tmp_path / "out.pt").model.state_dict()
    for name, value in averaged.items():
        if value.is_floating_point():
            expected = 0.25 * ends[0][name].float() + 0.75 * ends[1][name].float()
            torch.testing.assert_close(value.float(), expected, atol=2e-3, rtol=2e-3)
    save_weights(tmp_path / "trained.pt", tmp_path / "alone.pt", start="not looked at", alpha=1.0)
    alone = YOLO(tmp_path / "alone.pt").model.state_dict()
    name = "model.0.conv.weight"
    torch.testing.assert_close(alone[name].float(), ends[1][name].float(), atol=2e-3, rtol=2e-3)
    assert not torch.allclose(alone[name].float(), averaged[name].float(), atol=2e-3)


def test_an_export_answers_as_the_network_does_and_leaves_the_weights_alone(weights: Path, tmp_path: Path) -> None:
    before = weights.read_bytes()
    export_onnx(weights, tmp_path / "model.onnx", imgsz=64)
    import onnxruntime as ort

    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    forward = torch_forward(weights)
    for side in (64, 96):  # free dimensions: another side than the one it was exported at
        tensor = np.random.default_rng(0).random((1, 3, side, side), np.float32)
        (answer,) = session.run(None, {"images": tensor})
        np.testing.assert_allclose(answer, forward(tensor), atol=2e-3)
        assert answer.shape[1] == 12
    assert weights.read_bytes() == before
    assert list(weights.parent.iterdir()) == [weights]


def test_a_network_of_other_classes_is_not_exported(tmp_path: Path) -> None:
    model = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    model.names = {0: "cat", 1: "dog"}
    torch.save({"model": model, "train_args": {"task": "detect"}}, tmp_path / "pets.pt")
    with pytest.raises(ModelError, match=r"\['cat', 'dog'\]"):
        export_onnx(tmp_path / "pets.pt", tmp_path / "model.onnx", imgsz=64)


def test_the_targets_of_close_ups_are_their_labels_and_what_the_teachers_see() -> None:
    trainer = object.__new__(EmotionTrainer)
    trainer.targets = torch.zeros(10, 8)  # two rows of the set's own, eight for the present batch
    trainer.targets[:2] = 0.125
    labels, seen = torch.eye(8)[[3, 0, 7]], torch.eye(8)[[4, 4, 4]]
    asked: list[torch.Tensor] = []

    def teachers(images: torch.Tensor) -> torch.Tensor:
        asked.append(images)
        return seen

    batch = {"img": torch.rand(3, 3, 32, 32), LABELS: labels, SHARES: torch.tensor([[0.25], [0.0], [1.0]])}
    taught = trainer._taught({**batch, "cls": torch.zeros(3, 1)}, teachers)
    rows = taught["cls"].ravel().long() - (FACE_ID + 1)
    assert rows.tolist() == [7, 8, 9]
    assert torch.allclose(trainer.targets[rows], torch.lerp(labels, seen, batch[SHARES]))
    assert torch.equal(trainer.targets[:2], torch.full((2, 8), 0.125))
    assert asked[0] is batch["img"]


def test_a_network_teaches_what_its_surest_box_says_but_surer_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_teacher, "has_bf16", lambda _: False)
    close_ups = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(5))

    def said(share: float) -> torch.Tensor:
        release, cpu = "models/release/weights.pt", torch.device("cpu")
        return own_teacher.OwnTeacher(release, beside=lambda _: others, share=share, device=cpu)(close_ups)

    others = torch.eye(8)[[1, 4, 2]]
    with torch.no_grad():
        scores = YOLO("models/release/weights.pt").model.float().eval()(close_ups)[0][:, 4:]
    surest = torch.stack([of[:, of.sum(0).argmax()] for of in scores]).clamp(min=1e-6)
    shares = surest / surest.sum(1, keepdim=True)
    sharper = shares ** (1 / 0.69)
    own = sharper / sharper.sum(1, keepdim=True)
    assert (own.amax(1) > shares.amax(1) + 0.01).all()
    assert torch.allclose(said(1.0), own, atol=1e-5)
    assert torch.allclose(said(0.3), 0.7 * others + 0.3 * own, atol=1e-5)
