"""What baselines are trained on: which faces of a prepared set, cut out how, with which targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_yolo.data.prepared import Sample, read_split
from emotion_yolo.errors import DataError, ModelError, ParamsError
from emotion_yolo.expression.baselines import baseline, classes_of, landmarks_of, read_faces
from emotion_yolo.params import Baselines, load_params
from emotion_yolo.structures.emotions import FACE_ID, Emotion
from tests.builders import COLOURS, painted, painted_labels, prepared_set, yunet_network

HAPPY, SAD = ("happy", "sad")


def settings(**changes: Any) -> Baselines:
    return load_params().baselines.model_copy(update=changes)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """A crop of a happy face, a sheet of a sad and a neutral one, a photograph whose faces nobody named."""
    soft = np.zeros((1, 8), np.float32)
    soft[0, [Emotion.HAPPY, Emotion.SAD, Emotion.CONTEMPT]] = (0.5, 0.25, 0.25)
    sheet = {(0, 0): Emotion.SAD, (2, 2): Emotion.NEUTRAL}
    root = prepared_set(
        tmp_path_factory.mktemp("prepared"),
        crops={
            "crop.png": (painted({(1, 1): Emotion.HAPPY}), painted_labels({(1, 1): Emotion.HAPPY})),
            "sheet_1.png": (painted(sheet), painted_labels(sheet)),
        },
        scenes={"scene.png": (painted({(1, 0): 3}), painted_labels({(1, 0): 3}, cls=FACE_ID))},
        split="train",
        soft={"crop.png": soft},
    )
    return read_split(root, "train")


def read(samples: list[Sample], *, classes: tuple[str, ...], **changes: Any) -> Any:
    most = changes.pop("most", 0)
    return read_faces(
        samples, settings=settings(margin=1.0, **changes), classes=classes, imgsz=32, landmarks=None, most=most
    )


def test_every_named_face_is_cut_out_of_whatever_shows_it(train: list[Sample]) -> None:
    assert classes_of(train, settings()) == ("happy", "neutral", "sad")
    faces = read(train, classes=("happy", "neutral", "sad"))
    assert faces.aligned == 0
    assert faces.crops.pictures.shape == (3, 3, 32, 32)
    for place, emotion in zip(
        faces.crops.emotions.tolist(), (Emotion.HAPPY, Emotion.SAD, Emotion.NEUTRAL), strict=True
    ):
        assert ("happy", "neutral", "sad")[place] == emotion.label
    middles = faces.crops.pictures[:, :, 16, 16].tolist()
    assert middles == [list(COLOURS[emotion]) for emotion in (Emotion.HAPPY, Emotion.SAD, Emotion.NEUTRAL)]


def test_votes_are_targets_as_far_as_they_are_of_the_classes(train: list[Sample]) -> None:
    targets = read(train, classes=(HAPPY, SAD)).crops.targets
    np.testing.assert_allclose(targets, [[2 / 3, 1 / 3], [0, 1]], atol=1e-6)
    np.testing.assert_array_equal(read(train, classes=(HAPPY, SAD), soft_labels=False).crops.targets, np.eye(2))


def test_with_named_sets_only_their_crops_count(train: list[Sample]) -> None:
    other = settings(sets=["another"])
    with pytest.raises(DataError, match=r"train faces show 0 emotions.*baselines\.sets"):
        classes_of(train, other)
    with pytest.raises(DataError, match=r"no faces of happy, sad"):
        read(train, classes=(HAPPY, SAD), sets=["another"])


def test_classes_of_params_are_the_classes_in_our_order(train: list[Sample]) -> None:
    assert classes_of(train, settings(classes=["surprise", "anger"])) == ("anger", "surprise")


def test_at_most_so_many_faces_are_read_evenly_picked(train: list[Sample]) -> None:
    crops = read(train, classes=("happy", "neutral", "sad"), most=2).crops
    assert crops.emotions.tolist() == [0, 1]


def test_landmarks_are_yunets_or_none(tmp_path: Path) -> None:
    assert landmarks_of(settings()) is None
    network = yunet_network(tmp_path / "yunet.onnx", side=320, box=(80.0, 80.0, 160.0, 160.0))
    assert landmarks_of(settings(landmarks=str(network))) is not None
    with pytest.raises(ModelError, match=r"missing\.onnx: no such file; baselines\.landmarks names"):
        landmarks_of(settings(landmarks=str(tmp_path / "missing.onnx")))


def test_a_baseline_that_params_do_not_describe_is_named() -> None:
    assert baseline(settings(), "resnet18").architecture == "resnet18"
    with pytest.raises(ParamsError, match=r"baselines\.models has no 'resnet99'; add it .*small_cnn, resnet18"):
        baseline(settings(), "resnet99")
