"""Teachers: trained on composed close-ups, kept in files, and asked about the view that is trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_yolo.composition.chances import teachers_shares
from emotion_yolo.composition.composer import CLOSE_UP, SIDES, Composer, close_ups_of
from emotion_yolo.composition.draws import Draws
from emotion_yolo.composition.loader import LABELS, SHARES, ComposedLoader, most_close_ups
from emotion_yolo.composition.material import Faces, Material, read_material
from emotion_yolo.data.prepared import read_crops
from emotion_yolo.errors import ModelError, ParamsError
from emotion_yolo.expression.close_ups import GIVEN, ComposedFaces, cut_close_ups
from emotion_yolo.expression.face_mobile_net import FaceMobileNet
from emotion_yolo.expression.face_net import FaceNet
from emotion_yolo.expression.teacher_training import prepare_training
from emotion_yolo.expression.teaching import Teacher, load_teachers, resized, save_teacher
from emotion_yolo.params import Compose, load_params
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.labels import Labels
from tests.builders import COLOURS, painted, painted_labels, prepared_set
from tests.face_weights import write_face_weights

CPU = torch.device("cpu")


def compose(**changes: Any) -> Compose:
    given = load_params().train.compose.model_dump()
    return Compose.model_validate({**given, "updates": 3, "close_ups": 6, "pictures": 2, **changes})


def teacher(kind: type[Teacher] = FaceNet, *, seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    net = kind(dropout=0.5)
    torch.nn.init.normal_(net.head.weight, std=0.5)
    return net.eval()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of one face each, an emotion a colour, some with soft labels, one without an emotion."""
    root = tmp_path_factory.mktemp("prepared")
    crops = {f"{i}.png": (painted({(1, 1): i}), painted_labels({(1, 1): i})) for i in range(8)}
    unnamed = Labels(np.asarray([FACE_ID]), painted_labels({(1, 1): 0}).xywhn)
    soft = {"2.png": np.asarray([[0, 0.25, 0.75, 0, 0, 0, 0, 0]], np.float32)}
    prepared_set(root, crops={**crops, "face.png": (painted({(1, 1): 3}), unnamed)}, split="train", soft=soft)
    return prepared_set(root, crops=crops, split="valid")


@pytest.fixture(scope="module")
def material(prepared: Path) -> Material:
    return read_material(prepared, device=CPU)


def faces_of(material: Material) -> Faces:
    (faces,) = material.faces
    return faces


def test_labels_are_votes_where_there_are_some_and_even_where_nobody_named_an_emotion(material: Material) -> None:
    faces = faces_of(material)
    rows = material.labels_of(faces)
    assert rows.shape == (9, 8)
    assert np.allclose(rows.sum(1), 1)
    assert np.allclose(rows[faces.emotions == 2], [0, 0.25, 0.75, 0, 0, 0, 0, 0])
    assert np.allclose(rows[faces.emotions == 5], np.eye(8)[5])
    assert np.allclose(rows[faces.emotions == FACE_ID], 1 / 8)


def test_a_batch_says_which_face_is_which(material: Material) -> None:
    faces = faces_of(material)
    composer = Composer(material, np.full(len(faces), 1 / len(faces)), Draws([1], CPU))
    batch = composer.close_ups(40)
    assert (faces.ids[batch.faces] == batch.ids).all()
    assert len(set(batch.faces)) > 5
    pictures = composer.pictures(6, 128)
    assert len(pictures.faces) == len(pictures.ids)
    assert (faces.ids[pictures.faces] == pictures.ids).all()


def test_teachers_have_the_share_of_a_set_and_all_of_a_face_without_an_emotion(material: Material) -> None:
    emotions = faces_of(material).emotions
    assert not teachers_shares(material.faces, compose(teacher_share={"crops": 0.7})).any()  # nobody to ask
    shares = teachers_shares(material.faces, compose(teachers="models", teacher_share={"crops": 0.7}))
    assert np.allclose(shares, np.where(emotions == FACE_ID, 1.0, 0.7))
    with pytest.raises(ParamsError, match=r"teacher_share: faces is not there; expected one of crops"):
        teachers_shares(material.faces, compose(teacher_share={"faces": 0.7}))


def test_close_ups_carry_their_labels_for_the_teachers_and_pictures_do_not(material: Material) -> None:
    def loader(given: Compose) -> ComposedLoader:
        return ComposedLoader(material, given, sides=[64], seed=0, epoch=lambda: 0, device=CPU)

    taught = compose(teachers="models", teacher_share={"crops": 0.25})
    batches = list(loader(taught))
    for close_ups, pictures in zip(batches[::2], batches[1::2], strict=True):
        rows, ids = close_ups[LABELS], close_ups["cls"].ravel().long()
        assert rows.shape == (len(close_ups["img"]), 8)
        for row, number in zip(rows, ids, strict=True):
            if number < FACE_ID:
                assert row.argmax() == number
        assert set(close_ups[SHARES].ravel().tolist()) <= {0.25, 1.0}
        assert LABELS not in pictures
    assert all(LABELS not in batch for batch in loader(compose()))


def test_the_largest_batch_of_close_ups_is_known() -> None:
    assert SIDES[0] == CLOSE_UP
    assert most_close_ups(compose(close_ups=64)) == close_ups_of(64, 128) == 100


def test_composed_faces_are_the_same_in_each_run_and_others_in_each_epoch(material: Material) -> None:
    def epoch(number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        faces = ComposedFaces(material, compose(), updates=2, batch=5, seed=4)
        assert len(faces) == 2
        return list(faces.epoch(number, imgsz=96, device=CPU))

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert len(first) == 2
    for (pictures, targets), (same, same_targets) in zip(first, again, strict=True):
        assert pictures.shape[1:] == (3, 96, 96)
        assert targets.shape == (len(pictures), 8)
        assert torch.equal(pictures, same)
        assert torch.equal(targets, same_targets)
        assert 0 <= pictures.min() <= pictures.max() <= 1
    assert first[0][0].shape != other[0][0].shape or not torch.equal(first[0][0], other[0][0])


def test_a_face_without_an_emotion_teaches_a_classifier_nothing(material: Material) -> None:
    only_it = np.where(faces_of(material).emotions == FACE_ID, 1.0, 0.0)
    faces = ComposedFaces(material, compose(), updates=1, batch=5, seed=0)
    faces._chances = only_it
    ((_, targets),) = faces.epoch(0, imgsz=64, device=CPU)
    assert not targets.any()


def test_valid_close_ups_show_the_face_as_it_is_served(prepared: Path) -> None:
    crops = cut_close_ups(read_crops(prepared, "valid"))
    assert crops.pictures.shape == (8, 3, CLOSE_UP, CLOSE_UP)
    assert GIVEN.face == 120
    middle = crops.pictures[:, :, CLOSE_UP // 2, CLOSE_UP // 2].numpy().astype(int)
    for colour, emotion in zip(middle, crops.emotions.tolist(), strict=True):
        assert np.abs(colour - np.asarray(COLOURS[emotion])).max() < 8


def test_teachers_are_kept_and_asked_as_they_were_trained(tmp_path: Path) -> None:
    nets = {"a": teacher(seed=1), "b/c": teacher(FaceMobileNet, seed=2)}
    for name, net in nets.items():
        (tmp_path / name).mkdir(parents=True)
        save_teacher(net, 1.5, tmp_path / name / "classifier.pt")
    views = torch.rand(3, 3, 160, 160)
    teachers = load_teachers(tmp_path, CPU)
    assert len(teachers) == 2
    with torch.no_grad():
        expected = sum((net(resized(views, net.imgsz)) / 1.5).softmax(1) for net in nets.values()) / 2
    given = teachers(views)
    assert given.shape == (3, 8)
    assert torch.allclose(given.sum(1), torch.ones(3), atol=1e-5)
    assert (given - expected).abs().max() < 0.05  # weights are kept in half precision, and asked in bf16
    assert not given.requires_grad
    assert list(tmp_path.rglob("*.part")) == []


def test_statistics_beyond_half_precision_are_kept(tmp_path: Path) -> None:
    net = teacher(FaceMobileNet)
    net.stem.norm.running_var = torch.full((32,), 1e6)  # type: ignore[union-attr]
    save_teacher(net, 1.0, tmp_path / "classifier.pt")
    state = torch.load(tmp_path / "classifier.pt", weights_only=True)["state"]
    assert state["stem.norm.running_var"].tolist() == [1e6] * 32
    assert state["stem.conv.weight"].dtype == torch.float16
    assert torch.isfinite(load_teachers(tmp_path, CPU)(torch.rand(1, 3, 160, 160))).all()


def test_a_folder_without_teachers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no classifier\.pt in it, expected at least one teacher; make it with"):
        load_teachers(tmp_path, CPU)


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_a_file_that_is_no_teacher_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "classifier.pt"
    if content is None:
        torch.save({"network": "FaceNet", "temperature": 1.0, "state": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"classifier\.pt: not a teacher"):
        load_teachers(tmp_path, CPU)


def test_a_pickle_in_a_teachers_place_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"network": "FaceNet", "temperature": 1.0, "state": Evil()}, tmp_path / "classifier.pt")
    with pytest.raises(ModelError, match="not a teacher"):
        load_teachers(tmp_path, CPU)
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_trained_on_crops_or_on_composed_close_ups(prepared: Path, tmp_path: Path) -> None:
    weights = write_face_weights(tmp_path / "face-api")
    params = load_params().classifier.model_copy(update={"weights": str(weights), "batch": 4, "norm_crops": 4})
    net, train, valid, name = prepare_training(prepared, params, compose())
    assert isinstance(net, FaceNet)
    assert len(train) == 2
    assert valid.pictures.shape[-1] == 96
    composing = params.model_copy(update={"updates": 7})
    _, train, valid, other = prepare_training(prepared, composing, compose())
    assert len(train) == 7
    assert valid.pictures.shape[-1] == CLOSE_UP
    _, _, _, third = prepare_training(prepared, composing, compose(class_power=0.9))
    assert len({name, other, third}) == 3
    without = params.model_copy(update={"weights": "models/none"})
    with pytest.raises(ParamsError, match=r"classifier\.weights names no model; set it to the folder `model`"):
        prepare_training(prepared, without, compose())
