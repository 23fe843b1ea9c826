"""What `emotion_yolo` itself offers: pinned here, and shown in docs/python.md."""

import re
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import emotion_yolo
from emotion_yolo import Detections, Detector, Emotion, EmotionYoloError, plot
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.packaged import default_model, packaged_release
from tests.builders import detections_of, exported_model, painted, save_picture

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/python.md").read_text("utf-8")
BLOCKS = re.findall(r"<!-- runnable -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_names_and_their_parameters_are_these() -> None:
    assert emotion_yolo.__all__ == ["Detections", "Detector", "Emotion", "EmotionYoloError", "plot"]
    assert set(emotion_yolo.__all__) <= set(dir(emotion_yolo))
    assert [*signature(Detector.load).parameters][:1] == ["folder"]
    assert [*signature(Detector.predict).parameters][1:] == ["image", "conf", "iou", "max_faces"]
    assert [*signature(plot).parameters] == ["image", "detections"]
    assert {"xyxy", "confidence", "probabilities", "image_wh", "names"} == set(Detections.__dataclass_fields__)
    assert [emotion.label for emotion in Emotion] == (
        ["anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    )
    assert issubclass(EmotionYoloError, Exception)
    with pytest.raises(AttributeError, match="has no attribute 'Classifier'"):
        emotion_yolo.Classifier  # noqa: B018
    for name in emotion_yolo.__all__:
        assert f"| `{name}` |" in PAGE


def test_importing_the_package_loads_nothing_until_a_name_is_asked_for() -> None:
    program = (
        "import sys, emotion_yolo; before = set(sys.modules); emotion_yolo.Detector\n"
        "print('numpy' in before, 'emotion_yolo.inference.detector' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_examples_of_the_page_run(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "datasets/sample/sample-scenes/all/images/scene_003.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "python.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_without_a_folder_the_release_of_the_package_is_loaded_wherever_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Detector.load().spec == read_spec(ROOT / "models/release")
    assert default_model() == packaged_release()
    exported_model(tmp_path / "models/release")
    assert default_model() == Path("models/release")  # a checkout's own, for the command line and the service
    assert Detector.load().spec == read_spec(ROOT / "models/release")


def test_a_file_and_its_pixels_give_the_same_faces_and_a_plot_of_them(tmp_path: Path) -> None:
    detector = Detector.load(exported_model(tmp_path / "model"))
    image = painted({(1, 1): 4})
    path = save_picture(tmp_path / "a.png", image)
    faces = detector.predict(str(path))
    assert faces.records() == detector.predict(image).records()
    drawn = np.asarray(plot(path, faces))
    assert drawn.shape == image.shape
    assert (drawn != image).any()
    assert (drawn == np.asarray(plot(image, faces))).all()
    with pytest.raises(ValueError, match=r"has 48×96 px, the one of the detections \(96, 96\)"):
        plot(image[:, :48], faces)
    assert re.fullmatch(r"<Detector .+: \d+ px, \w+>", repr(detector))


def test_detections_describe_themselves_in_a_line_and_in_a_table() -> None:
    assert repr(Detections.empty((64, 48))) == "<Detections: 0 faces in 64×48 px>"
    faces = detections_of([[0, 0, 10, 10]] * 4, confidence=[0.9] * 4, emotions=[4] * 4)
    assert repr(faces).startswith("<Detections: 4 faces in ")
    assert repr(faces).count("happy") == 3
    assert repr(faces).endswith(", …>")
    html = faces._repr_html_()
    assert html.count("<tr>") == 5
    assert html.count("<td>happy</td>") == 4
