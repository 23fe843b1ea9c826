"""The parts of `benchmarks/ablation.py`; the trainings themselves are `dvc exp run`, which the end-to-end test runs."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.ablation import (
    COLUMNS,
    Plan,
    Project,
    keep_valid,
    load_plan,
    pending,
    read_rows,
    run_all,
    table,
    thin,
    write_measured,
)
from emotion_yolo.errors import DataError, ParamsError
from emotion_yolo.structures.emotions import FACE_ID
from tests.builders import exported_model, painted, painted_labels, prepared_set
from tests.pull_builders import commit, make_project

REPOSITORY = Path(__file__).parents[2]
SHIPPED = sorted((REPOSITORY / "configs/ablations").glob("*.yaml"))


@pytest.fixture
def plan() -> Plan:
    variants: dict[str, tuple[str, ...]] = {"full": (), "half-size": ("train.imgsz=128",)}
    return Plan(every=2, base=("train.imgsz=256", "train.epochs=3"), variants=variants)


def row(plan: Plan, name: str, **figures: float) -> dict[str, Any]:
    intervals = {"map50": [figures["map50"] - 0.02, figures["map50"] + 0.02]} if "map50" in figures else {}
    return {"name": name, "overrides": plan.overrides(name), "minutes": 2.5, "figures": figures, "intervals": intervals}


def key_exists(params: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(params, dict) or part not in params:
            return False
        params = params[part]
    return True


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_override_of_a_shipped_plan_is_of_a_param_there_is(path: Path) -> None:
    plan = load_plan(path)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))
    used = {item.partition("=")[0] for name in plan.variants for item in plan.overrides(name)}
    assert [key for key in sorted(used) if not key_exists(params, key)] == []
    assert len({tuple(plan.overrides(name)) for name in plan.variants}) == len(plan.variants)


def test_a_variants_own_override_comes_before_those_of_the_command_line_and_these_before_the_base(plan: Plan) -> None:
    given = ["train.imgsz=64", "train.epochs=1", "train.lr0=0.1"]
    assert plan.overrides("full") == ["train.imgsz=256", "train.epochs=3"]
    assert plan.overrides("half-size", given) == ["train.imgsz=128", "train.epochs=1", "train.lr0=0.1"]


@pytest.mark.parametrize(
    "text",
    [
        "every: 0\nbase: []\nvariants: {full: []}\n",
        "every: 1\nbase: []\nvariants: {}\n",
        "every: 1\nbase: []\nvariants: {no scenes: []}\n",
        "every: 1\nbase: []\nvariants: {full: []}\nepochs: 3\n",
        "every: [",
    ],
)
def test_a_plan_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"plan\.yaml: not the plan of an ablation"):
        load_plan(tmp_path / "plan.yaml")


def test_of_the_train_crops_one_in_so_many_is_kept_and_all_of_the_rest(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "datasets/sample", tmp_path / "data")
    thin(tmp_path / "data", tmp_path / "few", every=4)
    for split, part in (("train", 4), ("valid", 1), ("test", 1)):
        for kind in ("images", "labels"):
            for name in ("sample", "sample-groups"):
                whole = sorted(path.name for path in (tmp_path / "data" / name / split / kind).iterdir())
                kept = sorted(path.name for path in (tmp_path / "few" / name / split / kind).iterdir())
                assert kept == whole[::part]
    assert (tmp_path / "few/sample/data.yaml").is_file()
    scenes = [list((tmp_path / folder / "sample-scenes").rglob("*")) for folder in ("few", "data")]
    assert len(scenes[0]) == len(scenes[1])


def test_says_what_to_do_where_there_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro"):
        thin(tmp_path / "data", tmp_path / "few", every=4)


def test_goes_on_with_the_variants_that_have_no_row(plan: Plan, tmp_path: Path) -> None:
    rows, ran = tmp_path / "rows.jsonl", []

    def run(name: str, overrides: Sequence[str]) -> dict[str, Any]:
        ran.append((name, list(overrides)))
        return {"figures": {"map50": 0.5}, "intervals": {}, "revision": "r"}

    rows.write_text(json.dumps(row(plan, "full", map50=0.4)) + "\n")
    assert run_all(plan, rows, run) == []
    assert ran == [("half-size", ["train.imgsz=128", "train.epochs=3"])]
    assert {name: entry["figures"]["map50"] for name, entry in read_rows(rows).items()} == {
        "full": 0.4,
        "half-size": 0.5,
    }
    assert run_all(plan, rows, run) == []
    assert len(ran) == 1


def test_refuses_rows_that_were_made_with_other_overrides(plan: Plan) -> None:
    with pytest.raises(ParamsError, match=r"full: .*train\.epochs=1, train\.epochs=3.*--workspace"):
        pending(plan, {"full": row(plan, "full")}, ["train.epochs=1"])


def test_a_variant_that_fails_is_named_and_the_others_are_run(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, overrides: Sequence[str]) -> dict[str, Any]:
        if name == failing:
            raise subprocess.CalledProcessError(11, "dvc")
        return {"figures": {}, "intervals": {}, "revision": "r"}

    failing = "half-size"
    assert run_all(plan, tmp_path / "rows.jsonl", run) == ["half-size"]
    assert "half-size: failed with exit code 11; see" in capsys.readouterr().err
    failing = "full"
    assert run_all(plan, tmp_path / "others.jsonl", run) == ["full", "half-size"]
    assert not (tmp_path / "others.jsonl").exists()


def test_the_table_compares_with_the_first_variant(plan: Plan) -> None:
    rows = {
        "full": row(plan, "full", map50=0.5, emotion_top1=0.4, face_ap50_32px=0.7, n_crops=2638.0, n_scenes=124.0),
        "half-size": row(plan, "half-size", map50=0.45, emotion_top1=0.42),
    }
    lines = table(plan, rows).splitlines()
    assert lines[0] == f"| variant | changes | {' | '.join(COLUMNS)} | min |"
    assert lines[2] == "| full | – | 0.500 ±0.020 | – | 0.400 | – | 0.700 | – | – | – | 2.5 |"
    assert lines[3] == (
        "| half-size | `train.imgsz=128` | 0.450 ±0.020 (-0.050) | – | 0.420 (+0.020) | – | – | – | – | – | 2.5 |"
    )
    assert lines[-1].startswith("Valid split, 2,638 crops, 124 photographs;")
    assert table(plan, {}) == ""


def test_an_export_is_measured_on_the_valid_pictures_that_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))
    params["evaluate"]["bootstrap"] = 20
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    crops = {f"image{i}.jpg": (painted({(1, 1): i}), painted_labels({(1, 1): i})) for i in range(8)}
    crops["image8.jpg"] = (painted({(1, 1): 0}), painted_labels({(1, 1): 0}, cls=4))
    faces = {(0, 0): 1, (2, 1): 3}
    scenes = {"scene.jpg": (painted(faces), painted_labels(faces, cls=FACE_ID))}
    prepared = prepared_set(tmp_path / "prepared", crops=crops, scenes=scenes, split="valid")
    keep_valid(prepared, tmp_path / "valid")
    shutil.rmtree(prepared)
    keep_valid(prepared, tmp_path / "valid")  # of a later variant: these stay

    exported_model(tmp_path / "models/export")
    write_measured(str(tmp_path / "valid"), "measured.json")
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["figures"]["emotion_top1"] == pytest.approx(8 / 9, abs=1e-5)
    assert measured["figures"]["n_crops"] == 9
    assert measured["figures"]["frame_boxes"] == 0
    assert set(measured["figures"]) >= {"map50", "n_scenes", "n_faces_32px"}
    kinds = [value for name, value in measured["figures"].items() if name.startswith("false_faces_")]
    assert measured["figures"]["false_faces"] == pytest.approx(sum(kinds) / 5, abs=1e-5)
    assert measured["figures"]["n_negatives"] == params["evaluate"]["negatives"]
    low, high = measured["intervals"]["emotion_top1"]
    assert low <= 8 / 9 <= high <= 1
    assert all(np.isfinite(value) for value in measured["figures"].values())


def test_the_clone_has_a_part_of_the_data_and_no_figures_of_test(tmp_path: Path) -> None:
    source = make_project(tmp_path / "source")
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    (source / "reports").mkdir()
    (source / "reports/metrics.json").write_text("{}")
    commit(source, "all")
    shutil.copytree(source / "datasets/sample", source / "data")

    project = Project(tmp_path / "work" / "project")
    project.create(source, every=4)
    assert project.run("git", "status", "--porcelain") == ""
    assert not (project.folder / "reports/metrics.json").exists()
    for split, kept in (("train", {"0.png", "4.png"}), ("valid", {f"{i}.png" for i in range(8)})):
        assert {path.name for path in (project.folder / "data/sample" / split / "images").iterdir()} == kept
    assert (project.folder / "data.dvc").is_file()

    (project.folder / "mine.txt").write_text("kept")
    project.create(source, every=4)  # called again, it goes on in the clone that is there
    assert (project.folder / "mine.txt").is_file()
