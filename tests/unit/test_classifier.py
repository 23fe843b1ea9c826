from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.errors import ModelError
from emotion_yolo.expression.classifier import ExpressionClassifier
from tests.builders import COLOURS, classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExpressionClassifier:
    return ExpressionClassifier(classifier(tmp_path_factory.mktemp("model") / "classifier.onnx"), threads=2)


@pytest.mark.parametrize("side", [20, 96])
def test_a_crop_of_any_size_gets_probabilities(model: ExpressionClassifier, side: int) -> None:
    for emotion, colour in enumerate(COLOURS):
        soft_label = model.soft_label(np.full((side, side, 3), colour, np.uint8))
        assert soft_label.shape == (8,)
        assert soft_label.dtype == np.float32
        assert soft_label.argmax() == emotion
        assert soft_label.sum() == pytest.approx(1, abs=1e-5)


def test_threads_share_it(model: ExpressionClassifier) -> None:
    crops = [np.full((32, 32, 3), COLOURS[i % 8], np.uint8) for i in range(64)]
    with ThreadPoolExecutor(4) as pool:
        assert [int(soft_label.argmax()) for soft_label in pool.map(model.soft_label, crops)] == [
            i % 8 for i in range(64)
        ]


def test_a_missing_file_is_named_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such file.*emotion-yolo train-classifier"):
        ExpressionClassifier(tmp_path / "none.onnx", threads=1)


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a network")
    with pytest.raises(ModelError, match=r"text\.onnx: OpenVINO cannot read it"):
        ExpressionClassifier(path, threads=1)


def test_a_network_of_other_classes_is_refused_with_its_shapes(tmp_path: Path) -> None:
    path = classifier(tmp_path / "seven.onnx", emotions=range(7))
    with pytest.raises(ModelError, match=r"seven\.onnx: takes \[\?,3,32,32\] and answers \[\?,7\], expected"):
        ExpressionClassifier(path, threads=1)
