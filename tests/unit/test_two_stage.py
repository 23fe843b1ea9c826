"""Two networks behind one contract: a detector finds painted faces, a classifier names them by their colour."""

import json
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.errors import ModelError
from emotion_yolo.imaging import Picture
from emotion_yolo.inference.artefact import SPEC_NAME, read_spec, write_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.loading import load_model
from emotion_yolo.inference.model import Phase
from emotion_yolo.inference.two_stage import TwoStage
from emotion_yolo.structures.emotions import NAMES, Emotion
from tests.builders import SEVEN, exported_model, painted, two_stage_model, yunet_network

FACES = {(0, 0): Emotion.HAPPY, (2, 1): Emotion.SURPRISE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_stage_model(tmp_path_factory.mktemp("two-stage"))


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_faces_are_the_detectors_and_names_the_classifiers(folder: Path, backend: str) -> None:
    model = load_model(folder, backend=backend, threads=1)  # type: ignore[arg-type]
    found = model.predict(painted(FACES))
    assert isinstance(model, TwoStage)
    assert found.names == SEVEN
    assert found.probabilities.shape == (2, 7)
    assert set(found.emotions) == set(FACES.values())
    boxes = Detector.load(exported_model(folder.parent / "detector")).predict(painted(FACES)).xyxy
    np.testing.assert_allclose(found.xyxy, boxes)
    (first, _) = found.records()
    assert list(first["probabilities"]) == list(SEVEN)  # type: ignore[call-overload]
    assert first["emotion"] in SEVEN
    assert model.crops == {"aligned": 0, "plain": 2}


def test_an_emotion_it_does_not_know_is_named_as_the_closest_that_it_does(folder: Path) -> None:
    (face,) = load_model(folder).predict(painted({(1, 1): Emotion.CONTEMPT})).emotions
    assert face != Emotion.CONTEMPT


def test_a_picture_without_a_face_has_seven_columns(folder: Path) -> None:
    found = load_model(folder).predict(painted({}))
    assert found.probabilities.shape == (0, 7)
    assert found.names == SEVEN


def test_boxes_of_a_picture_decoded_smaller_are_cut_from_what_was_decoded(folder: Path) -> None:
    found = load_model(folder).predict_picture(Picture(painted(FACES), (192, 192), 2, "jpeg"))
    assert set(found.emotions) == set(FACES.values())
    assert found.xyxy.max() > 96


def test_only_faces_that_are_kept_are_named_and_phases_are_told(folder: Path) -> None:
    model = load_model(folder)
    phases: list[Phase] = []
    whole = Picture(painted(FACES), (96, 96), 1, "png")
    found = model.predict_picture(
        whole, keep=lambda faces: faces.select(np.arange(len(faces)) < 1), on_phase=phases.append
    )  # fmt: skip
    assert len(found) == 1
    assert sum(model.crops.values()) == 1  # type: ignore[attr-defined]
    assert phases == ["preprocess", "inference", "postprocess", "preprocess", "inference"]


def test_what_a_phase_raises_ends_the_work(folder: Path) -> None:
    def leave(_: Phase) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        load_model(folder).predict_picture(Picture(painted(FACES), (96, 96), 1, "png"), on_phase=leave)


def test_faces_without_usable_landmarks_are_counted(tmp_path: Path) -> None:
    # Its landmarks lie on one point each: no eyes to turn by.
    yunet = yunet_network(tmp_path / "yunet.onnx", side=320, box=(80.0, 80.0, 160.0, 160.0))
    model = load_model(two_stage_model(tmp_path / "model", yunet=yunet))
    assert set(model.predict(painted(FACES)).emotions) == set(FACES.values())
    assert model.crops == {"aligned": 0, "plain": 2}  # type: ignore[attr-defined]


def test_one_network_alone_is_loaded_as_before(tmp_path: Path) -> None:
    assert isinstance(load_model(exported_model(tmp_path)), Detector)


def test_its_digest_is_of_all_its_files(folder: Path, tmp_path: Path) -> None:
    spec, other = read_spec(folder), read_spec(two_stage_model(tmp_path / "other", classes=NAMES))
    assert spec.digest.startswith(spec.version)
    assert spec.digest != spec.files["onnx"].sha256
    assert spec.files["onnx"] == other.files["onnx"]
    assert spec.digest != other.digest


def test_a_detector_is_not_taken_from_it_by_mistake(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"a two-stage model, expected a detector"):
        Detector.load(folder)


def test_a_damaged_classifier_is_refused(tmp_path: Path) -> None:
    folder = two_stage_model(tmp_path)
    (folder / "classifier.onnx").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"classifier\.onnx: sha256 is"):
        load_model(folder)


def test_a_classifier_of_other_classes_than_it_says_is_refused(tmp_path: Path) -> None:
    folder = two_stage_model(tmp_path)
    write_spec(folder, read_spec(folder).model_copy(update={"classes": NAMES}))
    for backend in ("openvino", "onnx"):
        with pytest.raises(ModelError, match=r"answers \[\?,7\], expected \[\?,3,S,S\] and \[\?,8\]"):
            load_model(folder, backend=backend)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [["happy"], ["sad", "happy"], ["happy", "glad"]])
def test_classes_are_emotions_in_our_order(folder: Path, tmp_path: Path, classes: list[str]) -> None:
    spec = read_spec(folder).model_dump(mode="json") | {"classes": classes}
    (tmp_path / SPEC_NAME).write_text(json.dumps(spec))
    with pytest.raises(ModelError, match=r"classes are "):
        read_spec(tmp_path)
