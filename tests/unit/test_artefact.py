import json
from pathlib import Path

import pytest

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ModelError
from emotion_yolo.inference.artefact import SPEC_NAME, checked_file, describe, read_spec, write_spec
from emotion_yolo.inference.detector import Detector
from tests.builders import exported_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("export"), conf=0.4, temperature=1.5)


def edited(model: Path, folder: Path, **changes: object) -> Path:
    content = json.loads((model / SPEC_NAME).read_text("utf-8")) | changes
    (folder / SPEC_NAME).write_text(json.dumps(content), "utf-8")
    return folder


def test_a_spec_comes_back_as_it_was_written(model: Path, tmp_path: Path) -> None:
    spec = read_spec(model)
    write_spec(tmp_path, spec)
    assert read_spec(tmp_path) == spec
    assert (spec.thresholds.conf, spec.calibration.temperature) == (0.4, 1.5)
    assert (tmp_path / SPEC_NAME).read_text("utf-8").endswith("}\n")


def test_the_version_is_the_beginning_of_the_onnx_files_digest(model: Path) -> None:
    spec = read_spec(model)
    assert sha256_of(model / "model.onnx").startswith(spec.version)


def test_a_folder_without_a_model_says_which_folders_hold_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json: no exported model there .* models/release"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": ["happy", "sad"]}, r"classes are \['happy', 'sad'\], expected \['anger'"),
        ({"files": {}}, "files names no onnx"),
        ({"speed": "fast"}, "speed"),
        ({"spec": 2}, "spec"),
        ({"thresholds": {"conf": 1.5, "iou": 0.5}}, r"thresholds\.conf"),
        ({"thresholds": {"conf": 0.0, "iou": 0.5}}, r"thresholds\.conf"),  # as exports that did not finish once left
        ({"input": {"imgsz": 100}}, r"input\.imgsz"),
        ({"calibration": {"temperature": 0}}, r"calibration\.temperature"),
        ({"calibration": {"bias": [0.5, -0.5]}}, "bias has 2 numbers, expected 8"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused(
    model: Path, tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ModelError, match=rf"(?s)does not describe a model this version can serve.*{complaint}"):
        read_spec(edited(model, tmp_path, **changes))


def test_a_spec_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / SPEC_NAME).write_text("{", "utf-8")
    with pytest.raises(ModelError, match="does not describe a model"):
        read_spec(tmp_path)


def test_a_file_with_its_own_digest_is_found(model: Path) -> None:
    file = read_spec(model).files["onnx"]
    assert checked_file(model, file) == model / "model.onnx"
    assert describe(model / "model.onnx") == file


def test_a_file_with_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"network")
    file = describe(path)
    path.write_bytes(b"netw0rk")
    with pytest.raises(ModelError, match=rf"sha256 is {sha256_of(path)[:12]}…, model\.json says {file.sha256[:12]}…"):
        checked_file(tmp_path, file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"network")
    file = describe(path)
    path.unlink()
    with pytest.raises(ModelError, match=r"missing beside model\.json"):
        checked_file(tmp_path, file)


def test_a_file_outside_the_artefact_is_refused_even_if_its_digest_fits(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"network")
    (tmp_path / "model").mkdir()
    file = describe(outside).model_copy(update={"path": "../secret"})
    with pytest.raises(ModelError, match="missing beside"):
        checked_file(tmp_path / "model", file)


def test_an_export_that_did_not_finish_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.xml", "model.bin"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    (tmp_path / f"{SPEC_NAME}.partial").write_text("{}", "utf-8")  # killed while writing it
    with pytest.raises(ModelError, match=rf"^{tmp_path}: .* its export did not finish; run `dvc repro export` again"):
        Detector.load(tmp_path)


def test_a_detector_loads_from_a_path_written_as_text(model: Path) -> None:
    assert Detector.load(str(model), backend="onnx").spec == read_spec(model)


def test_a_model_that_was_made_before_the_lineage_held_params_still_loads(tmp_path: Path) -> None:
    described = json.loads((Path(__file__).parents[2] / "models/release/model.json").read_text())
    for name in ("settings", "environment", "recipe"):
        described["lineage"].pop(name, None)
    del described["close_up"]
    (tmp_path / "model.json").write_text(json.dumps(described))
    spec = read_spec(tmp_path)
    assert (spec.lineage.settings, spec.lineage.environment, spec.close_up) == (None, None, None)


def test_a_model_of_before_small_pictures_had_a_size_and_weights_a_storage_still_loads(tmp_path: Path) -> None:
    described = json.loads((Path(__file__).parents[2] / "models/release/model.json").read_text())
    del described["storage"], described["input"]["upscale_to"]
    (tmp_path / "model.json").write_text(json.dumps(described))
    spec = read_spec(tmp_path)
    assert spec.storage is None
    assert spec.input.upscale_to >= 4096  # enlarged as far as `max_upscale` allows
