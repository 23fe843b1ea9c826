"""The train stage as DVC starts it: a process in a project's folder, with the real Ultralytics."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO

from emotion_yolo.expression.face_net import FaceNet
from emotion_yolo.expression.teaching import save_teacher
from emotion_yolo.params import Train, load_params
from emotion_yolo.paths import CHECKPOINTS, TEACHER_NAME
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import read_rgb
from emotion_yolo.structures.labels import read
from emotion_yolo.yolo.hardware import several_gpus
from emotion_yolo.yolo.trainer import Epoch
from emotion_yolo.yolo.training import fingerprint, read_results
from emotion_yolo.yolo.view import write_view
from tests.builders import CELL, COLOURS, painted, painted_labels, prepared_set, uncovered

REPOSITORY = Path(__file__).parents[2]


def project(root: Path, **train: Any) -> Path:
    """Make a project of eight train pictures, one of them a scene, that trains a fresh network for a moment."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["train"] |= {"weights": "yolo11n.yaml", "epochs": 2, "imgsz": 32, "batch": 4, "workers": 0, "amp": "fp32"}
    params["train"] |= {"mosaic": 0.0, "close_mosaic": 0, "warmup_epochs": 0.0}
    params["train"] |= {"sizes": [32, 64], "mirror": 0.5, "mirror_epochs": 1, **train}
    params["tracking"]["wandb"] = "off"
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (root / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    pictures = {f"{i}.png": (painted({(1, 1): i % 8}), painted_labels({(1, 1): i % 8})) for i in range(7)}
    scene = {"scene_a.png": (painted({(0, 0): 1, (2, 2): 2}), painted_labels({(0, 0): 1, (2, 2): 2}, cls=FACE_ID))}
    soft = {
        "3.png": np.asarray([[0, 0, 0.25, 0.75, 0, 0, 0, 0]], np.float32),
        "scene_a.png": np.asarray([[np.nan] * 8, [0, 0, 0.5, 0.5, 0, 0, 0, 0]], np.float32),
    }
    prepared_set(root / "datasets/prepared", crops=pictures, scenes=scene, split="train", soft=soft)
    prepared_set(root / "datasets/prepared", crops=pictures, split="valid")
    return root


def start(root: Path, environment: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    # One thread: two that share a busy core spend their time waiting for each other.
    threads = {"OMP_NUM_THREADS": "1"}
    environment = {**environment, **threads, "PYTHONPATH": str(REPOSITORY / "src"), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "emotion_yolo.stages.train"]
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)


def epochs_of(root: Path) -> list[int]:
    with (root / "reports/train/plots/metrics/map50.tsv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file, delimiter="\t")]


def wait_for(path: Path, lines: int) -> None:
    for _ in range(6000):
        if path.is_file() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never reached {lines} lines")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = project(tmp_path_factory.mktemp("trained"))
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    (root / "stderr.txt").write_text(errors)
    return root


def test_a_training_says_where_it_runs_and_a_line_an_epoch(trained: Path) -> None:
    lines = [line for line in (trained / "stderr.txt").read_text().splitlines() if line.startswith("train: ")]
    assert re.match(
        r"train: 2 epochs of 8 pictures, 7 for validation; CPU \(.+\), fp32, 1 threads, 0 data-load", lines[0]
    )
    assert re.match(r"train: epoch 1/2: loss box \S+ cls \S+ dfl \S+; valid mAP50 \S+ .*; .* s, .* s left", lines[1])
    assert re.match(r"train: epoch 2/2: .*, done", lines[2])
    assert re.match(r"train: models/trained/weights\.pt: epoch [12] of 2, the best on valid", lines[3])


def test_the_outs_hold_nothing_random_and_say_where_they_were_made(trained: Path) -> None:
    run = json.loads((trained / "reports/train/run.json").read_text())
    assert set(run) == {"environment"}
    assert run["environment"]["precision"] == "fp32"
    assert run["environment"]["threads"] == 1
    assert {"torch", "ultralytics"} <= run["environment"]["libraries"].keys()
    metrics = json.loads((trained / "reports/train/metrics.json").read_text())
    assert metrics["best_epoch"] in {1, 2}
    assert not [name for name in metrics if "time" in name or "seconds" in name]


def test_the_first_batch_and_the_answers_on_valid_can_be_looked_at(trained: Path) -> None:
    samples = trained / "reports/train/samples"
    assert {path.name for path in samples.iterdir()} == {"train_batch.jpg", "valid_truth.jpg", "valid_answers.jpg"}
    assert all(read_rgb(path).std() > 1 for path in samples.iterdir())


def test_a_training_leaves_a_plain_checkpoint_of_the_eight_emotions(trained: Path) -> None:
    model = YOLO(trained / "models/trained/weights.pt")
    assert tuple(model.names.values()) == NAMES
    assert model.task == "detect"
    # Two batches an epoch: running statistics have to keep up with the weights.
    assert {m.momentum for m in model.model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
    assert next(model.model.parameters()).dtype == torch.float32  # Ultralytics widens fp16 weights when it loads


def test_the_checkpoint_names_no_folder_of_this_machine(trained: Path) -> None:
    assert str(trained).encode() not in (trained / "models/trained/weights.pt").read_bytes()


def test_every_epoch_is_logged_once_under_flat_names(trained: Path) -> None:
    assert epochs_of(trained) == [1, 2]
    metrics = json.loads((trained / "reports/train/metrics.json").read_text())
    assert {"map50", "map50_95", "precision", "recall", "train_box_loss", "val_cls_loss", "lr_pg0"} <= metrics.keys()


def test_a_finished_training_leaves_no_checkpoints_and_no_caches_in_the_prepared_set(trained: Path) -> None:
    assert list((trained / CHECKPOINTS).iterdir()) == []
    assert list((trained / "datasets").rglob("*.cache")) == []


def test_training_twice_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "again")
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    expected, got = (YOLO(r / "models/trained/weights.pt").model.state_dict() for r in (trained, root))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    outs = [{p.relative_to(r): p.read_bytes() for p in (r / "reports/train").rglob("*.*")} for r in (trained, root)]
    assert outs[0] == outs[1]


def test_the_result_is_averaged_with_the_starting_weights(trained: Path, tmp_path: Path) -> None:
    # Two steps of AdamW at 0.01 move weights by that; a twentieth of the trained ones by a twentieth of it.
    begin = trained / "models/trained/weights.pt"
    root = project(tmp_path, weights=str(begin), wise_ft_alpha=0.05, epochs=1, lr0=0.01)
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    networks = (YOLO(path).model.state_dict() for path in (begin, root / "models/trained/weights.pt"))
    begun, averaged = (network["model.0.conv.weight"].float() for network in networks)
    assert (averaged - begun).abs().max().item() == pytest.approx(0.0005, rel=0.3)


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_frozen_batch_norms_keep_the_statistics_of_the_starting_weights(
    trained: Path, tmp_path: Path, freeze_bn: bool
) -> None:
    begin = trained / "models/trained/weights.pt"
    root = project(tmp_path, weights=str(begin), epochs=1, freeze_bn=freeze_bn)
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    begun, ended = (YOLO(path).model.state_dict() for path in (begin, root / "models/trained/weights.pt"))
    statistics = [name for name in begun if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 100
    assert all(torch.equal(begun[name], ended[name]) for name in statistics) == freeze_bn
    assert not torch.equal(begun["model.0.conv.weight"], ended["model.0.conv.weight"])


def test_a_training_interrupted_twice_goes_on_where_it_stopped(tmp_path: Path) -> None:
    root = project(tmp_path, epochs=14, amp="bf16", cls_pw=0.3)  # so many that none is over before the signal comes
    for how, returned in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(root, uncovered())
        (folder,) = _checkpoint_folders(root)
        journal = folder / "epochs.jsonl"
        before = len(journal.read_text().splitlines()) if journal.exists() else 0
        wait_for(journal, before + 1)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == returned, errors
        assert not (root / "models/trained/weights.pt").exists()
        # With several GPUs, Ultralytics begins by removing its folder; the data must not lie in it.
        arguments = yaml.safe_load((folder / "run/args.yaml").read_text())
        assert Path(arguments["data"]).is_file()
        assert Path(arguments["save_dir"]) not in Path(arguments["data"]).parents
        shutil.rmtree(root / "models")  # as DVC deletes outs before a stage runs
        shutil.rmtree(root / "reports", ignore_errors=True)
    done = journal.read_text().splitlines()
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert re.search(r"train: resuming after epoch [0-9]+ of 14 of 8 pictures", errors)
    assert epochs_of(root) == list(range(1, 15))
    curve = (root / "reports/train/plots/metrics/train_box_loss.tsv").read_text()
    for line in done[:-1]:  # of the last one the checkpoint may be missing, then it is trained again
        assert repr(json.loads(line)["metrics"]["train_box_loss"]) in curve


COMPOSE = {"updates": 2, "close_ups": 4, "pictures": 1, "sets": {}, "class_power": 0.5, "source_power": 0.5}
COMPOSE |= {"class_weights": {}, "teachers": "models/none", "teacher_share": {}, "own_share": 0.0}


def test_a_training_on_composed_batches_survives_a_kill(tmp_path: Path) -> None:
    changes = {"epochs": 5, "compose": COMPOSE, "shares": 1.0, "sizes": [64, 96], "warmup_epochs": 1.0}
    root = project(tmp_path, **changes)
    process = start(root)
    (folder,) = _checkpoint_folders(root)
    wait_for(folder / "epochs.jsonl", 2)  # the checkpoint of the first one is written by then
    process.kill()
    process.communicate(timeout=60)
    shutil.copy(folder / "run/train_batch.jpg", tmp_path)
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert re.search(r"train: resuming after epoch [1-4] of 5 of 8 pictures", errors)
    assert epochs_of(root) == [1, 2, 3, 4, 5]
    metrics = json.loads((root / "reports/train/metrics.json").read_text())
    assert all(np.isfinite(value) for value in metrics["last"].values())
    assert tuple(YOLO(root / "models/trained/weights.pt").model.names.values()) == NAMES
    assert read_rgb(tmp_path / "train_batch.jpg").shape[0] in {128, 160, 192}  # close-ups, of whatever side came first


@pytest.mark.parametrize("own_share", [0.0, 0.3])
def test_teachers_are_asked_while_batches_are_composed(trained: Path, tmp_path: Path, own_share: float) -> None:
    torch.manual_seed(0)
    teachers = tmp_path / "models/phases/teacher"
    teachers.mkdir(parents=True)
    save_teacher(FaceNet(dropout=0.0), 1.0, teachers / TEACHER_NAME)
    given = {**COMPOSE, "teachers": "models/phases", "teacher_share": {"crops": 0.5}, "own_share": own_share}
    begin = str(trained / "models/trained/weights.pt")
    root = project(tmp_path, weights=begin, epochs=1, compose=given, shares=1.0, sizes=[64], mirror=0.0)
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert epochs_of(root) == [1]


def test_a_missing_teacher_is_said_before_training(tmp_path: Path) -> None:
    root = project(tmp_path, epochs=1, compose={**COMPOSE, "teachers": "models/phases"})
    process = start(root)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 11, errors
    assert "models/phases: no classifier.pt in it" in errors
    assert "Traceback" not in errors


def test_composing_from_sheets_is_refused_with_the_remedy(tmp_path: Path) -> None:
    root = project(tmp_path, compose=COMPOSE)
    sheet = {"sheet_0.png": (painted({(1, 1): 2}), painted_labels({(1, 1): 2}))}
    prepared_set(root / "datasets/prepared", crops=sheet, split="train")
    process = start(root)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert "has crops on sheets; set prepare.sheets.side to 0" in errors
    assert "Traceback" not in errors


def _checkpoint_folders(root: Path) -> list[Path]:
    for _ in range(1200):
        found = list((root / CHECKPOINTS).glob("*"))
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("no checkpoint folder was made")


@pytest.mark.parametrize("death", [signal.SIGBUS, signal.SIGKILL], ids=["no shared memory", "no memory"])
def test_a_data_loading_process_that_dies_ends_the_stage_with_a_sentence(tmp_path: Path, death: signal.Signals) -> None:
    root = project(tmp_path, epochs=200, workers=1, batch=2)
    process = start(root)
    (folder,) = _checkpoint_folders(root)
    wait_for(folder / "epochs.jsonl", 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(child) for child in children if b"emotion_yolo" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert workers
    for worker in workers:
        os.kill(worker, death)  # as the kernel does where /dev/shm or memory is full
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 13, errors
    assert "error: a data-loading process has died" in errors
    assert "set train.workers to 0" in errors


def test_a_device_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    root = project(tmp_path, device="cuda:7")
    process = start(root)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "error: train.device is 'cuda:7', but PyTorch sees" in errors
    assert not (root / CHECKPOINTS).exists()


def test_missing_weights_are_named_with_the_remedy(tmp_path: Path) -> None:
    process = start(project(tmp_path, weights="models/none.pt"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 11
    assert "train.weights is 'models/none.pt'" in errors
    assert "Traceback" not in errors


def test_the_view_repeats_scenes_and_thins_the_valid_split(tmp_path: Path) -> None:
    root = project(tmp_path)
    table = yaml.safe_load(
        write_view(root / "datasets/prepared", tmp_path / "view", changed(scene_repeat=3, valid_pictures=3)).read_text()
    )
    names = [Path(line).name for line in Path(table["train"]).read_text().splitlines()]
    assert names.count("scene_a.png") == 3
    assert len(names) == 7 + 3
    assert [Path(line).name for line in Path(table["val"]).read_text().splitlines()] == [
        "0.png",
        "2.png",
        "4.png",
        "6.png",
    ]


def test_valid_crops_lie_on_sheets_where_the_input_has_room_for_several(tmp_path: Path) -> None:
    root = project(tmp_path)
    data = write_view(root / "datasets/prepared", tmp_path / "view", changed(imgsz=256, valid_pictures=7))
    sheets = [Path(line) for line in Path(yaml.safe_load(data.read_text())["val"]).read_text().splitlines()]
    assert len(sheets) == 2
    for number, sheet in enumerate(sheets):
        image = read_rgb(sheet)
        assert image.shape == (256, 256, 3)
        labels = read((sheet.parents[1] / "labels" / sheet.name).with_suffix(".txt"), class_names=NAMES)
        assert labels.cls.tolist() == list(range(7))[number * 4 : number * 4 + 4]
        for emotion, box in zip(labels.cls, labels.xywhn, strict=True):
            column, row = int(box[0] * 256), int(box[1] * 256)
            assert np.abs(image[row, column].astype(int) - COLOURS[emotion]).max() < 8
            assert box[2] == pytest.approx(CELL / 96 / 2, abs=1e-3)


def changed(**values: Any) -> Train:
    return Train.model_validate(load_params(REPOSITORY / "params.yaml").train.model_dump() | {"imgsz": 96} | values)


def test_the_fingerprint_changes_with_params_labels_and_weights(tmp_path: Path) -> None:
    root = project(tmp_path)
    prepared, params = root / "datasets/prepared", load_params(REPOSITORY / "params.yaml").train
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"a")

    def digest(**changes: Any) -> str:
        return fingerprint(Train.model_validate(params.model_dump() | {"weights": str(weights)} | changes), prepared)

    first = digest()
    assert digest() == first
    assert digest(seed=9) != first
    weights.write_bytes(b"b")
    assert (second := digest()) != first
    label = prepared / "labels/train/0.txt"
    label.write_text(label.read_text().replace("0", "1", 1))
    assert digest() != second


def test_the_curves_of_a_training_on_several_gpus_are_read_from_its_table(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(
        "epoch, time, metrics/mAP50(B), metrics/mAP50-95(B)\n1, 2.5, 0.25, 0.0625\n2, 6.0, 0.125, 0.125\n"
    )
    assert list(read_results(tmp_path / "results.csv")) == [
        Epoch(1, {"metrics/mAP50(B)": 0.25, "metrics/mAP50-95(B)": 0.0625}, best=True, seconds=2.5),
        Epoch(2, {"metrics/mAP50(B)": 0.125, "metrics/mAP50-95(B)": 0.125}, best=False, seconds=3.5),
    ]
    assert several_gpus("0,1")
    assert not several_gpus("auto")
