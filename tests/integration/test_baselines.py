"""The stages of the baselines as DVC runs them: trained, killed and resumed, assembled, served, compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.loading import load_model
from tests.builders import NAMES, SEVEN, exported_model, painted, painted_labels, prepared_set, set_record, write_pin

ROOT = Path(__file__).parents[2]
FAST = {
    "epochs": 3, "patience": 0, "batch": 14, "lr": 0.02, "warmup_steps": 1, "ema_decay": 0.5, "mixup": 0.0,
    "erase": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "greyscale": 0.0, "colour_cast": 0.0,
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a prepared set of seven emotions, a detector, and a baseline that is quick to train."""
    crops = {
        f"{name}{copy}.png": (
            painted({(copy % 3, 1): NAMES.index(name)}),
            painted_labels({(copy % 3, 1): NAMES.index(name)}),
        )
        for name in SEVEN
        for copy in range(6)
    }
    for split in ("train", "valid", "test"):
        prepared_set(tmp_path / "datasets/prepared", crops=crops, split=split)  # type: ignore[arg-type]
    exported_model(tmp_path / "models/release")
    write_pin(tmp_path / "data.dvc", set_record("crops"))
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    entry = {
        "architecture": "small_cnn",
        "imgsz": 32,
        "weights": "models/none",
        "hub": False,
        "options": {},
        "faces": {},
    }
    params["baselines"] |= {"models": {"small_cnn": {**entry, "training": FAST}}, "margin": 1.0}
    params["tracking"]["wandb"] = "off"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    return tmp_path


def start(project: Path, module: str, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=project, env=environment, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def run(project: Path, module: str, *arguments: str) -> str:
    process = start(project, module, *arguments)
    out, said = process.communicate()
    assert process.returncode == 0, said[-3000:]
    return out + said


@pytest.mark.timeout(900)
def test_a_baseline_is_trained_assembled_served_and_compared(project: Path) -> None:
    printed = run(project, "emotion_yolo.stages.classify", "small_cnn")
    assert "epoch 3 of 3" in printed
    curve = (project / "reports/classify/small_cnn/plots/metrics/valid_top1.tsv").read_text("utf-8")
    assert len(curve.splitlines()) == 1 + 3
    record = json.loads((project / "models/classifiers/small_cnn/run.json").read_text("utf-8"))
    assert record["train_faces"] == 42
    assert record["environment"]["device"] == "cpu"
    assert not list((project / ".checkpoints").iterdir())

    run(project, "emotion_yolo.stages.assemble", "small_cnn")
    folder = project / "models/baselines/small_cnn"
    spec = read_spec(folder)
    assert spec.classes == SEVEN
    assert spec.lineage.settings is not None
    assert spec.lineage.inputs == {"baselines.detector": spec.files["onnx"].sha256}
    report = json.loads((project / "reports/assemble/small_cnn/report.json").read_text("utf-8"))
    assert set(report["parity"]) == {"onnx", "openvino"}
    found = load_model(folder).predict(painted({(1, 1): NAMES.index("happy")}))
    assert found.names == SEVEN
    assert np.isclose(found.probabilities.sum(), 1, atol=1e-3)

    arguments = ("models/release", "models/baselines/small_cnn", "--resamples", "5")
    table = run(project, "benchmarks.baselines", *arguments)
    (one_pass,) = (line for line in table.splitlines() if line.startswith("| models/release | plain | crops |"))
    assert "| 42 | 1.000 (1.000–1.000)" in one_pass  # what is painted is known
    assert "| models/baselines/small_cnn | plain | crops | 42 |" in table
    assert (project / "reports/baselines/table.md").read_text("utf-8").strip() in table


@pytest.mark.timeout(900)
def test_a_killed_training_goes_on_after_its_last_epoch(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text("utf-8"))
    params["baselines"]["training"] = {"epochs": 12}
    del params["baselines"]["models"]["small_cnn"]["training"]["epochs"]
    (project / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    process = start(project, "emotion_yolo.stages.classify", "small_cnn")
    while not list(project.glob(".checkpoints/*/state.pt")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    printed = run(project, "emotion_yolo.stages.classify", "small_cnn")
    assert "epoch 1 of 12" not in printed
    assert "epoch 12 of 12" in printed
    curve = (project / "reports/classify/small_cnn/plots/metrics/valid_top1.tsv").read_text("utf-8")
    assert len(curve.splitlines()) == 1 + 12


def test_a_baseline_of_another_name_is_an_error_for_people(project: Path) -> None:
    process = start(project, "emotion_yolo.stages.classify", "resnet99")
    _, said = process.communicate()
    assert process.returncode > 0
    assert "error: baselines.models has no 'resnet99'" in said
    assert "Traceback" not in said
