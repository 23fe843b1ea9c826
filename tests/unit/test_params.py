import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from dvc.stage.cache import _get_cache_hash
from dvc.utils.serialize import modify_yaml
from pydantic import BaseModel, ValidationError

from emotion_yolo.errors import ParamsError
from emotion_yolo.params import MODEL_PARAMS, Params, load_params, named_models

SHIPPED = Path(__file__).parents[2] / "params.yaml"

Write = Callable[..., Path]


@pytest.fixture
def changed(tmp_path: Path) -> Write:
    """Write the shipped params with values set by dotted key (None takes the key away) and return the file."""

    def write(**values: object) -> Path:
        raw = yaml.safe_load(SHIPPED.read_text("utf-8"))
        for dotted, value in values.items():
            *sections, key = dotted.split("__")
            section = raw
            for name in sections:
                section = section[name]
            if value is None:
                del section[key]
            else:
                section[key] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw), "utf-8")
        return path

    return write


def complaint(path: Path) -> str:
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    return str(caught.value)


def test_the_shipped_params_are_taken_as_they_stand() -> None:
    raw = yaml.safe_load(SHIPPED.read_text("utf-8"))
    assert load_params(SHIPPED).model_dump() == raw


def test_params_are_read_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SHIPPED, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_params() == load_params(SHIPPED)


def test_no_value_has_a_second_home() -> None:
    def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
        inner = [field.annotation for field in model.model_fields.values()]
        return [model] + [s for m in inner if isinstance(m, type) and issubclass(m, BaseModel) for s in sections(m)]

    assert all(field.is_required() for section in sections(Params) for field in section.model_fields.values())


def test_params_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_params(SHIPPED).train.epochs = 3  # type: ignore[misc]


def test_a_typo_is_named_with_its_section(changed: Write) -> None:
    path = changed(train__epoch=3)
    assert f"{path}: train.epoch: unknown key" in complaint(path)


def test_a_missing_key_is_named_with_its_section(changed: Write) -> None:
    path = changed(prepare__localise__conf=None)
    assert complaint(path) == f"{path}: prepare.localise.conf: missing; add it"


def test_all_findings_are_reported_a_line_each(changed: Write) -> None:
    lines = complaint(changed(train__epochs=0, train__batch="32", evaluate__seed=None)).splitlines()
    assert len(lines) == 3
    assert "train.epochs: got 0: " in lines[0]
    assert "train.batch: got '32': " in lines[1]
    assert "evaluate.seed: missing" in lines[2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prepare__workers", -1),
        ("prepare__near_duplicate_distance", 17),
        ("prepare__localise__train_boxes", "loose"),
        ("prepare__localise__conf", 1.5),
        ("prepare__scenes__use", "yes"),
        ("prepare__scenes__min_face", -1),
        ("prepare__sheets__grids", []),
        ("prepare__sheets__grids", [0]),
        ("prepare__sheets__side", 100),
        ("train__imgsz", 100),
        ("train__imgsz", 0),
        ("train__epochs", 1.5),
        ("train__lr0", 0.0),
        ("train__lr0", float("inf")),
        ("train__lr0", float("nan")),
        ("train__weight_decay", float("inf")),
        ("train__degrees", 181.0),
        ("train__multi_scale", 1.0),
        ("train__amp", "half"),
        ("train__cos_lr", 1),
        ("export__parity", 0.0),
        ("evaluate__gallery", 201),
        ("tracking__wandb", "on"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_got(changed: Write, key: str, value: object) -> None:
    assert f"{key.split('__grids')[0].replace('__', '.')}" in complaint(changed(**{key: value}))
    assert "; correct the value" in complaint(changed(**{key: value}))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.8)])
def test_scenes_leave_some_for_training(changed: Write, shares: tuple[float, float]) -> None:
    valid, test = shares
    message = complaint(changed(prepare__scenes__valid=valid, prepare__scenes__test=test))
    assert "prepare.scenes: " in message
    assert "expected below 1" in message


def test_parts_of_scenes_are_shares_of_all(changed: Write) -> None:
    message = complaint(changed(prepare__scenes__cut=0.6, prepare__scenes__zoomed=0.5))
    assert "prepare.scenes: " in message
    assert "cut + zoomed is 1.1, expected at most 1" in message


def test_the_least_face_is_not_above_the_largest(changed: Write) -> None:
    message = complaint(changed(prepare__framing__low=0.9, prepare__framing__high=0.5))
    assert "prepare.framing: " in message
    assert "low is 0.9, expected at most high, 0.5" in message


@pytest.mark.parametrize("value", [0.00001, 2e-7, 1e-10])
def test_takes_small_numbers_as_dvc_writes_them(changed: Write, value: float) -> None:
    path = changed()
    with modify_yaml(str(path)) as raw:  # what `dvc exp run -S` does
        raw["train"]["weight_decay"] = value
    assert load_params(path).train.weight_decay == value


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", ".1e-2", "1.e-3", "1.0e-3"])
def test_takes_exponents_however_they_are_spelled(changed: Write, text: str) -> None:
    path = changed(train__lr0=12345.0)
    path.write_text(path.read_text("utf-8").replace("12345.0", text), "utf-8")
    assert load_params(path).train.lr0 == 0.001


@pytest.mark.parametrize("data", [b"", b"- 1\n", b"train", b"train: 3\n"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    assert str(path) in complaint(path)


@pytest.mark.parametrize("data", [b"train: [", b"train: \xff"])
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    assert complaint(path).startswith(f"{path}: not valid YAML: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert complaint(path) == f"{path}: cannot be read (No such file or directory); run from the project's root"


@pytest.mark.parametrize(
    ("former", "present"),
    [("train__keep", "train.wise_ft_alpha"), ("prepare__sheets__faceless", "prepare.sheets.negatives")],
)
def test_a_former_name_is_answered_with_the_present_one(changed: Write, former: str, present: str) -> None:
    assert f"{former.replace('__', '.')}: this is now {present}" in complaint(changed(**{former: 0.5}))


@pytest.mark.parametrize("word", ["off", "offline", "'off'"])
def test_off_is_a_word_and_no_boolean(tmp_path: Path, word: str) -> None:
    path = tmp_path / "params.yaml"
    text = SHIPPED.read_text("utf-8")
    path.write_text(text.replace("wandb: auto ", f"wandb: {word} "), "utf-8")
    params = load_params(path)
    assert params.tracking.wandb == word.strip("'")
    assert params.prepare.scenes.use is True


def test_the_run_cache_tells_every_param_from_another_value_of_it() -> None:
    values = yaml.safe_load(SHIPPED.read_text("utf-8"))

    def variants(node: object) -> Iterator[object]:
        """Yield `node` with another value for one leaf, for each leaf in turn."""
        if not isinstance(node, dict):
            yield "another value"
            return
        for key, value in node.items():
            for other in variants(value):
                yield {**node, key: other}

    keys = [_get_cache_hash({"params": {"params.yaml": params}}) for params in (values, *variants(values))]
    assert len(keys) > 60
    assert len(set(keys)) == len(keys)


def test_an_empty_path_of_a_model_is_refused(changed: Write) -> None:
    path = changed(prepare__teacher__detector="")
    assert f"{path}: prepare.teacher.detector: got ''" in complaint(path)


def test_models_that_params_name_are_listed_without_those_that_are_none(changed: Write) -> None:
    params = load_params(changed(prepare__teacher__classifier="names.onnx", prepare__localise__detector="finder"))
    named = named_models(params)
    assert named["prepare.teacher.classifier"] == Path("names.onnx")
    assert named.keys() == MODEL_PARAMS.keys() - {"train.compose.teachers"}
    assert "prepare.teacher.classifier" not in named_models(load_params(SHIPPED))


def test_a_baseline_is_trained_as_the_classifier_but_for_its_own_values(changed: Write) -> None:
    params = load_params(SHIPPED)
    fitting = params.fitting("vit_tiny")
    assert fitting.lr == 0.0005
    assert fitting.balance == "weights"
    assert fitting.epochs == params.classifier.epochs
    assert load_params(changed(classifier__epochs=3)).fitting("vit_tiny").epochs == 3


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"epoch": 3}, "baselines.training or baselines.models.hf_vit.training: epoch: got 3"),
        ({"epochs": 0}, "epochs: got 0: Input should be greater than or equal to 1"),
    ],
)
def test_changes_of_a_training_are_checked_as_strictly(changed: Write, training: object, message: str) -> None:
    said = complaint(changed(baselines__training=training))
    assert message in said
    assert len(said) < 300


def one_baseline(changed: Write, faces: object) -> Path:
    entry = {"architecture": "resnet18", "imgsz": 64, "weights": "models/none", "hub": False, "options": {}}
    return changed(baselines__models={"one": {**entry, "training": {}, "faces": faces}})


def test_a_baseline_may_learn_from_faces_of_its_own(changed: Write) -> None:
    given = load_params(one_baseline(changed, {"sets": ["fer2013"], "train_faces": 500})).baselines
    assert (given.of("one").sets, given.of("one").train_faces) == (["fer2013"], 500)
    assert given.of("one").margin == given.margin
    assert given.sets == []


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ({"margin": 2}, "baselines.models.one.faces: got margin, expected some of classes, sets, soft_labels"),
        ({"train_faces": -1}, "baselines.models.one.faces: train_faces: got -1"),
        ({"classes": ["angry"]}, "baselines.models.one.faces: classes.0: got 'angry'"),
    ],
)
def test_faces_of_a_baseline_are_checked_as_strictly(changed: Write, faces: object, message: str) -> None:
    assert message in complaint(one_baseline(changed, faces))


def test_a_baseline_starts_from_one_place(changed: Write) -> None:
    entry = {"architecture": "resnet18", "imgsz": 64, "weights": "a.pth", "hub": True, "options": {}}
    entry |= {"training": {}, "faces": {}}
    assert "hub is true and weights are 'a.pth'" in complaint(changed(baselines__models={"one": entry}))
