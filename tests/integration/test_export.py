"""The export stage on a real, seeded network that was never trained: what it finds is the whole picture, everywhere."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

from emotion_yolo.data.prepared import read_crops
from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ModelError, ParityError
from emotion_yolo.evaluation.metrics import assign
from emotion_yolo.export.fitting import check_scale, predict
from emotion_yolo.export.parity import check_parity, refuse_differences
from emotion_yolo.inference.artefact import Calibration, ModelSpec, checked_file, read_spec
from emotion_yolo.inference.backends import as_planes
from emotion_yolo.inference.calibration import probabilities
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import load_params
from emotion_yolo.paths import EXPORT, EXPORT_REPORT, PREPARED, RUN, TRAINED, WEIGHTS_NAME
from emotion_yolo.stages import export as stage
from emotion_yolo.stages import run_stage
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import read_rgb
from emotion_yolo.yolo.network import torch_forward
from emotion_yolo.yolo.training import check
from tests.builders import COLOURS, Image, exported_model, labels_of, painted, painted_labels, prepared_set

REPOSITORY = Path(__file__).parents[2]
SIDE = 96
SEEDS = (*range(18), *range(50, 53))


def write_network(path: Path, *, class_bias: float) -> None:
    """Write a seeded checkpoint of the eight emotions; `class_bias` is the logit of each score at a flat picture."""
    torch.manual_seed(0)
    model = DetectionModel("yolo11n.yaml", nc=len(NAMES), verbose=False)
    model.names, model.args = dict(enumerate(NAMES)), DEFAULT_CFG
    for branch in model.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, std=1.0)
        torch.nn.init.constant_(branch[-1].bias, class_bias)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # as after a training: with statistics of pictures, so that signals reach the head
    with torch.no_grad():
        model.train()(torch.cat([tensor_of(i) for i in SEEDS]))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var *= 2  # a random network is chaotic at full strength
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.eval().half(), "train_args": {"task": "detect"}}, path)


def picture(seed: int) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3))
    return ((noise + 2 * np.asarray(COLOURS[seed % 8])) // 3).astype(np.uint8)


def tensor_of(seed: int) -> torch.Tensor:
    return torch.from_numpy(picture(seed)).permute(2, 0, 1)[None] / 255


def make_project(root: Path) -> Path:
    """Make a project as the train stage leaves it; every face fills its picture."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))
    params["export"] |= {"imgsz": SIDE, "iou": 0.4}
    params["evaluate"]["scene_imgsz"] = 128
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    write_network(root / TRAINED / WEIGHTS_NAME, class_bias=-4.0)
    (root / RUN).parent.mkdir(parents=True)
    environment = check(load_params(root / "params.yaml").train).environment
    (root / RUN).write_text(json.dumps({"environment": environment}))
    forward = torch_forward(root / TRAINED / WEIGHTS_NAME)
    whole = [[0, 0, SIDE, SIDE]]
    crops = {}
    for i in range(18):
        # The network's own answer is the truth of two pictures in three, so that there is a temperature to be fitted.
        scores = forward(tensor_of(i).numpy())[0, 4:]
        cls = i % 8 if i % 3 == 0 else int(scores[:, scores.sum(axis=0).argmax()].argmax())
        crops[f"{i}.png"] = (picture(i), labels_of([cls], whole))
    scenes = {f"s{i}.png": (picture(i), labels_of([FACE_ID], whole)) for i in range(50, 53)}
    prepared_set(root / PREPARED, crops=crops, scenes=scenes, split="valid")
    return root


def run(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        stage.main()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("export"))
    run(root)
    return root


@pytest.fixture
def project(exported: Path, tmp_path: Path) -> Path:
    """A project of one's own, exported from before."""
    return shutil.copytree(exported, tmp_path / "project")


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def report_of(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / EXPORT_REPORT / "report.json").read_text("utf-8"))
    return content


def spec_of(root: Path) -> ModelSpec:
    return read_spec(root / EXPORT)


def test_the_artefact_is_whole_and_says_what_it_was_made_from(exported: Path) -> None:
    spec = spec_of(exported)
    assert {path.name for path in (exported / EXPORT).iterdir()} == {
        "model.json",
        *(f.path for f in spec.files.values()),
    }
    assert all(checked_file(exported / EXPORT, file) for file in spec.files.values())
    assert spec.version == spec.files["onnx"].sha256[:12]
    assert (spec.classes, spec.input.imgsz, spec.thresholds.iou) == (NAMES, SIDE, 0.4)
    assert spec.lineage.data == "abc.dir"
    assert spec.lineage.weights == sha256_of(exported / TRAINED / WEIGHTS_NAME)
    assert spec.lineage.environment is not None
    assert spec.lineage.settings is not None
    assert spec.lineage.settings["export"]["iou"] == 0.4
    assert spec.storage == "fp16"


def test_both_exports_answer_as_pytorch_does_and_the_report_says_how_nearly(exported: Path) -> None:
    report = report_of(exported)
    assert report["parity_tolerance"] == 0.01
    assert report["storage"] == "fp16"
    forward = torch_forward(exported / TRAINED / WEIGHTS_NAME)
    for backend in ("onnx", "openvino"):
        detector = Detector.load(exported / EXPORT, backend=backend)
        tensor, _ = detector.preprocess(picture(0))
        difference = np.abs(forward(as_planes(tensor))[0, 4:] - detector.infer(tensor)[0, 4:]).max()
        assert (
            difference <= report["parity"][backend]["score"] + 1e-6 <= 1e-3
        )  # fp16 storage loses nothing; rounding the fused weights costs more than 0.01 here
        assert report["parity"][backend]["box_px"] < 1


def test_the_threshold_is_the_best_one_on_scenes(exported: Path) -> None:
    report = report_of(exported)
    assert report["conf_chosen_on"] == "valid scenes"
    assert spec_of(exported).thresholds.conf == report["conf"]
    assert 0.01 < report["conf"] < 1


def test_the_calibration_is_the_likeliest_one_on_the_crops_found(exported: Path) -> None:
    report, fitted = report_of(exported), spec_of(exported).calibration
    assert fitted.temperature == report["temperature"] != 1.0
    assert fitted.bias is not None
    assert list(fitted.bias) == report["bias"]
    assert any(fitted.bias)
    # Fitted at temperature 1, to which the mean over a close-up and its mirror image is taken back only nearly.
    plain = spec_of(exported).model_copy(update={"calibration": Calibration()})
    detector = Detector.load(exported / EXPORT, spec=plain)
    found, truth = [], []
    for sample in read_crops(exported / PREPARED, "valid"):
        answer = detector.predict(read_rgb(sample.image), conf=0.01)
        (finder,) = assign(answer, sample.labels)
        if finder >= 0:
            found.append(answer.probabilities[finder])
            truth.append(sample.labels.cls[0])
    assert len(found) == report["valid_faces_found"] > 0
    prior = load_params(exported / "params.yaml").export.bias_prior

    def loss(temperature: float, bias: Sequence[float]) -> float:
        shares = probabilities(np.stack(found), temperature=temperature, bias=bias)
        surprise = -np.log(shares[np.arange(len(truth)), truth])
        return float(surprise.sum() + prior / 2 * np.square(bias).sum())

    least = loss(fitted.temperature, fitted.bias)
    for temperature in (0.9 * fitted.temperature, 1.1 * fitted.temperature):
        assert least <= loss(min(temperature, 20), fitted.bias)  # the fit looks no further
    for index in range(len(NAMES)):
        for shift in (-0.05, 0.05):
            bias = [value + shift * (place == index) for place, value in enumerate(fitted.bias)]
            assert least <= loss(fitted.temperature, bias)


def test_without_a_prior_there_is_a_temperature_and_no_bias(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["export"]["bias_prior"] = 0
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run(project)
    assert spec_of(project).calibration.bias is None
    assert spec_of(project).calibration.temperature == report_of(project)["temperature"] != 1.0


def test_without_scenes_the_threshold_is_chosen_on_crops_and_the_network_is_the_same(project: Path) -> None:
    index = project / PREPARED / "index.csv"
    index.write_text("".join(line for line in index.read_text().splitlines(True) if ",scene," not in line))
    before = spec_of(project)
    run(project)
    assert report_of(project)["conf_chosen_on"] == "valid crops"
    assert spec_of(project).version == before.version
    # OpenVINO numbers its layers through a process, so that only the first .xml of each is the same.
    for name in ("onnx", "openvino_bin"):
        assert spec_of(project).files[name] == before.files[name]


def test_a_network_that_finds_nothing_is_exported_with_the_fallback_threshold_and_a_warning(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_network(project / TRAINED / WEIGHTS_NAME, class_bias=-12.0)
    run(project)
    report, said = report_of(project), capsys.readouterr().err
    assert (report["conf"], report["conf_chosen_on"], report["temperature"]) == (0.25, "fallback", 1.0)
    assert spec_of(project).thresholds.conf == 0.25
    assert "export: warning: the threshold is export.fallback_conf, 0.25" in said
    assert len(Detector.load(project / EXPORT).predict(picture(0))) == 0  # which an evaluation can measure


def test_scenes_in_which_nothing_is_found_leave_the_threshold_to_the_crops(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (project / PREPARED / "scenes/valid/labels").iterdir():
        path.write_text(f"{FACE_ID} 0.02 0.02 0.02 0.02\n")
    run(project)
    assert report_of(project)["conf_chosen_on"] == "valid crops"
    said = capsys.readouterr().err
    assert "warning: no threshold can be chosen on valid scenes: 0 of 3 faces found in 3 pictures" in said


def test_a_size_that_the_network_was_not_trained_for_is_reported_with_the_remedy(tmp_path: Path) -> None:
    # The network of the builders sees faces of 32 px: enlarged from 96 to 256 px, a picture shows none of that size.
    folder = exported_model(tmp_path / "model", imgsz=256)
    crops = {f"{i}.png": (painted({(1, 1): i}), painted_labels({(1, 1): i})) for i in range(4)}
    valid = read_crops(prepared_set(tmp_path / "prepared", crops=crops, split="valid"), "valid")
    shown = list(predict(Detector.load(folder), valid, "valid crops"))
    report, warning = check_scale(folder, read_spec(folder), valid, shown, train_imgsz=96)
    assert report == {"valid_face_f1_as_shown": 0.0, "valid_face_f1_at_training_size": 1.0}
    assert (
        "set export.max_upscale to 1 and export.upscale_to to 96, or train at the size that crops are shown at"
        in warning
    )


def set_params(root: Path, **changes: dict[str, Any]) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(params))


def test_the_summary_says_what_was_written(exported: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(project)
    said = capsys.readouterr().err
    assert f"export: models/export: version {spec_of(exported).version}" in said
    assert "weights stored in fp16" in said
    assert re.search(r"export: conf 0\.\d+ from valid scenes, temperature \d", said)


def test_an_export_of_other_weights_is_told_from_the_right_one(exported: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(exported / TRAINED / WEIGHTS_NAME, weights_only=False)
    with torch.no_grad():  # one class is answered more readily
        checkpoint["model"].model[-1].cv3[0][-1].bias[0] += 2
    torch.save(checkpoint, tmp_path / "other.pt")
    samples = read_crops(exported / PREPARED, "valid")
    spec = spec_of(exported)
    right = check_parity(exported / EXPORT, spec, torch_forward(exported / TRAINED / WEIGHTS_NAME), samples)
    refuse_differences(right, 0.01)
    wrong = check_parity(exported / EXPORT, spec, torch_forward(tmp_path / "other.pt"), samples)
    with pytest.raises(ParityError, match=r"a class score differs from PyTorch's by 0\.\d+, expected at most 0\.01"):
        refuse_differences(wrong, 0.01)


def test_an_export_that_is_killed_leaves_a_folder_that_is_refused(project: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "emotion_yolo.stages.export"]
    shutil.rmtree(project / EXPORT)
    with subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.DEVNULL) as process:
        while not (project / EXPORT / "model.bin").exists():  # all files are there but model.json
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    with pytest.raises(ModelError, match="its export did not finish"):
        Detector.load(project / EXPORT)


@pytest.mark.usefixtures("sigterm")
class TestRefuses:
    def error(self, root: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
        patch.chdir(root)
        with pytest.raises(SystemExit) as exit_:
            run_stage(stage.main)
        return exit_.value.code, capsys.readouterr().err

    def test_an_export_that_answers_otherwise(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        set_params(project, export={"parity": 1e-9})
        code, message = self.error(project, monkeypatch, capsys)
        assert code == 12
        assert "a class score differs from PyTorch's by" in message
        assert report_of(project)["parity_tolerance"] == 1e-9
        with pytest.raises(ModelError, match="its export did not finish"):
            Detector.load(project / EXPORT)
