"""Sweep files: what is refused before anything starts, and how values reach DVC."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from emotion_yolo.errors import ParamsError
from emotion_yolo.params import Params, load_params, load_yaml
from emotion_yolo.recipes.recipe import merged
from emotion_yolo.tuning.sweep import METRICS, Sweep, load_sweep, nested, overrides_for_dvc, whole_params

REPOSITORY = Path(__file__).parents[2]

Load = Callable[..., Sweep]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that writes a sweep with the given changes, and loads it."""
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())

    def write(**changes: Any) -> Sweep:
        sweep = {"about": "x", "metric": "map50", "trials": 2, "space": {"train.lr0": {"low": 0.001, "high": 0.01}}}
        path = tmp_path / "configs/sweeps/one.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(sweep | changes))
        return load_sweep("one", root=tmp_path)

    return write


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_fits_the_project(path: Path) -> None:
    assert load_sweep(path.stem, root=REPOSITORY).space


def test_metrics_are_those_that_training_measures_on_valid() -> None:
    written = json.loads((REPOSITORY / "reports/train/metrics.json").read_text("utf-8"))
    on_train = {name for name in written if name.startswith(("train_", "lr_"))} | {"best_epoch", "step", "last"}
    assert set(METRICS) == written.keys() - on_train


def test_losses_are_minimised_and_the_rest_maximised(load: Load) -> None:
    assert load(metric="val_cls_loss").direction == "minimize"
    assert load(metric="recall").direction == "maximize"


@pytest.mark.parametrize(
    ("space", "finding"),
    [
        ({"train.lr": {"low": 0.1, "high": 0.2}}, r"space: train\.lr: unknown key; check its spelling"),
        ({"train.lr0": {"low": -1.0, "high": 0.2}}, r"space: train\.lr0: got -1\.0: .*greater than 0"),
        ({"train.lr0": {"choices": ["high", "low"]}}, r"space: train\.lr0: got 'high': .*valid number"),
        ({"train.epochs": {"low": 1.5, "high": 3.5}}, r"space: train\.epochs: got 1\.5: .*valid integer"),
        ({"train.imgsz": {"low": 96, "high": 160}}, r"space: train\.imgsz: got 97: .*multiple of 32"),
        ({"train.lr0": {"low": 0.2, "high": 0.2}}, r"space\.train\.lr0.*low is 0\.2 and high 0\.2, expected low below"),
        ({"train.lr0": {"low": 0.0, "high": 0.2, "log": True}}, "a logarithmic range begins above 0"),
        ({"train.imgsz": {"low": 96, "high": 160, "step": 48}}, "step is 48, expected one that leads from low to high"),
        ({"train.imgsz": {"low": 96, "high": 160, "step": 0}}, "step is 0, expected one that leads"),
        ({"train.amp": {"choices": ["fp32"]}}, "at least 2 items"),
        ({"train.lr0": {"low": 0.1, "hihg": 0.2}}, r"space\.train\.lr0.*hihg: unknown key"),
        ({}, "space: got {}"),
        ({"evaluate.iou": {"low": 0.1, "high": 0.2}}, r"space\.evaluate\.iou: no param of the training"),
        ({"train.valid_pictures": {"low": 10, "high": 20}}, "changes what is measured"),
        ({"prepare.seed": {"low": 1, "high": 2}}, "changes what is measured"),
    ],
)
def test_a_wrong_space_is_refused_with_the_param(load: Load, space: dict[str, Any], finding: str) -> None:
    with pytest.raises(ParamsError, match=rf"configs/sweeps/one\.yaml: .*{finding}"):
        load(space=space)


def test_all_findings_are_told_at_once(load: Load) -> None:
    with pytest.raises(ParamsError) as refused:
        load(metric="emotion_top1", space={"train.lr": {"choices": [1, 2]}, "train.lrf": {"low": 2.0, "high": 3.0}})
    lines = str(refused.value).splitlines()
    assert "emotion_top1" in lines[0]
    assert "Nothing is chosen by figures of the test split" in lines[0]
    assert [line.split(": ")[2] for line in lines[1:]] == ["train.lr", "train.lrf", "train.lrf"]


def test_overrides_of_all_trials_are_checked_too(load: Load) -> None:
    with pytest.raises(ParamsError, match=r"params: train\.epochs: got 0"):
        load(params={"train": {"epochs": 0}})


def test_a_sweep_that_is_not_there_names_those_that_are(load: Load, tmp_path: Path) -> None:
    load()
    with pytest.raises(ParamsError, match=r"configs/sweeps/two\.yaml: no such sweep; expected one of: one"):
        load_sweep("two", root=tmp_path)


def test_a_range_is_of_whole_numbers_where_the_param_is() -> None:
    whole = whole_params(load_yaml(REPOSITORY / "params.yaml"))
    assert {"train.imgsz", "train.epochs"} <= whole
    assert not whole & {"train.warmup_epochs", "train.lr0", "train.cos_lr", "train.amp"}


def test_values_reach_dvc_as_arguments_that_it_reads_back_as_the_same(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    base = load_yaml(path)
    values = {
        "train.lr0": 1e-05, "train.imgsz": 96, "train.cos_lr": False, "train.device": "0,1",
        "prepare.sampling.class_weights.fear": 2.0,
    }  # fmt: skip
    overrides = merged(nested(values), {"train": {"sizes": [96, 128]}})
    arguments = overrides_for_dvc(overrides, base)
    assert arguments[::2] == ["-S"] * 6
    apply_overrides(path, arguments[1::2])
    assert load_params(path) == Params.model_validate(merged(base, overrides))
