"""The graph and what stands behind it: dvc.yaml, params.yaml, paths.py and the imports of the stages agree."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from pydantic import BaseModel

from emotion_yolo import paths
from emotion_yolo.params import MODEL_PARAMS, Baselines, Params

REPOSITORY = Path(__file__).parents[2]
STAGES = ("prepare", "train", "export", "evaluate")
BASELINE_STAGES = ("classify", "assemble")
"""Of baselines/dvc.yaml, each for every model of params.yaml; a plain `dvc repro` runs none of them."""
WITHOUT_STAGE = {"tracking", "classifier", "baselines"}
"""Sections of params.yaml that no stage of dvc.yaml depends on: they change no out, or are of what is beside it."""


WITHOUT_OUTS = {"emotion_yolo.tracking.tracker", "emotion_yolo.tracking.wandb_run"}
"""Modules that write no out: W&B gets copies, and an edit there is no reason to train for hours again."""


def graph() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text("utf-8"))
    return loaded


def baseline_stage(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "baselines/dvc.yaml").read_text("utf-8"))
    stage: dict[str, Any] = loaded["stages"][name]["do"]
    return stage


def stage_of(name: str) -> dict[str, Any]:
    stage: dict[str, Any] = baseline_stage(name) if name in BASELINE_STAGES else graph()["stages"][name]
    return stage


def paths_of(entries: list[Any]) -> set[str]:
    """Return the paths of a list of deps, outs or metrics, whose entries may carry settings or name a param."""
    paths = {path for entry in entries for path in (entry if isinstance(entry, dict) else [entry])}
    return {param_value(named[1]) if (named := re.fullmatch(r"\$\{(.+)\}", path)) else path for path in paths}


def param_value(key: str) -> Any:
    value = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))
    for name in key.split("."):
        value = value[name]
    return value


def outs_of(stage: dict[str, Any]) -> set[str]:
    return paths_of([*stage["outs"], *stage.get("metrics", [])])


def dvc(*arguments: str) -> str:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    built = grimp.build_graph("emotion_yolo", cache_dir=None)
    for module in WITHOUT_OUTS:
        built.remove_module(module)
    return built


def source_of(module: str) -> Path:
    path = Path("src", *module.split("."))
    return path / "__init__.py" if (REPOSITORY / path).is_dir() else path.with_suffix(".py")


def has_code(path: Path) -> bool:
    """Say whether there is more in a module than its docstring."""
    text = (REPOSITORY / path).read_text("utf-8")
    return bool(re.sub(r'^""".*?"""', "", text, flags=re.DOTALL).strip())


@pytest.mark.parametrize("stage", [*STAGES, *BASELINE_STAGES])
def test_a_stage_depends_on_exactly_the_code_it_imports(imports: grimp.ImportGraph, stage: str) -> None:
    module = f"emotion_yolo.stages.{stage}"
    modules = {module, *imports.find_upstream_modules(module)}
    packages = {parent for name in modules for parent in _packages(name)}
    imported = {path for name in modules | packages if has_code(path := source_of(name))}
    listed = {path for path in stage_of(stage)["deps"] if path.startswith("src/")}
    # A folder stands for its files where a stage imports all of them. Training has none: in a folder, a docstring of
    # another module would be a reason to train again.
    folders = {Path(path) for path in listed if (REPOSITORY / path).is_dir()}
    assert stage not in {"train", "classify"} or not folders
    for folder in folders:
        code = {path.relative_to(REPOSITORY) for path in (REPOSITORY / folder).rglob("*.py")}
        assert {path for path in code if has_code(path)} <= imported, folder
    assert listed == {(path.parent if path.parent in folders else path).as_posix() for path in imported}


@pytest.mark.parametrize("package", ["export", "evaluation", "expression", "sources", "preparation", "onnx_store"])
def test_an_edit_elsewhere_invalidates_no_training(package: str) -> None:
    train = paths_of(graph()["stages"]["train"]["deps"])
    teachers = {
        f"src/emotion_yolo/expression/{name}.py" for name in ("face_mobile_net", "face_net", "teaching", "tfjs")
    }
    assert not [path for path in train - teachers if path.startswith(f"src/emotion_yolo/{package}")]


def test_stages_are_shells_that_nothing_imports(imports: grimp.ImportGraph) -> None:
    for stage in ("train", "export"):
        assert len((REPOSITORY / source_of(f"emotion_yolo.stages.{stage}")).read_text("utf-8").splitlines()) <= 60
        assert imports.find_modules_that_directly_import(f"emotion_yolo.stages.{stage}") == set()


def _packages(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_named_as_its_module_and_its_params(stage: str) -> None:
    entry = graph()["stages"][stage]
    assert entry["cmd"] == f"python -m emotion_yolo.stages.{stage}"
    assert source_of(f"emotion_yolo.stages.{stage}").as_posix() in entry["deps"]
    assert stage in entry["params"]
    assert entry["desc"]


@pytest.mark.parametrize("stage", [*STAGES, *BASELINE_STAGES])
def test_deps_are_listed_in_order_and_once(stage: str) -> None:
    code = [path for path in stage_of(stage)["deps"] if path.startswith("src/")]
    assert code == sorted(set(code))


def test_the_graph_is_these_four_stages() -> None:
    assert tuple(graph()["stages"]) == STAGES


@pytest.mark.parametrize("name", BASELINE_STAGES)
def test_a_stage_of_the_baselines_is_named_as_its_module_and_runs_in_the_root(name: str) -> None:
    stage = baseline_stage(name)
    assert stage["wdir"] == ".."
    assert stage["cmd"] == f"python -m emotion_yolo.stages.{name} ${{key}}"
    known = {value.as_posix() for value in vars(paths).values() if isinstance(value, Path)}
    assert {Path(out).parent.as_posix() for out in stage["outs"]} <= known


def test_every_param_of_the_baselines_that_is_read_for_a_model_is_of_a_stage() -> None:
    listed = {param for name in BASELINE_STAGES for param in baseline_stage(name)["params"]}
    named = re.findall(r"\$\{(baselines\.\w+)\}", str([baseline_stage(name) for name in BASELINE_STAGES]))
    read = {param.partition(".${key}")[0] for param in listed.union(named) if param.startswith("baselines")}
    assert read == {f"baselines.{name}" for name in Baselines.model_fields}


def test_every_path_of_the_graph_is_in_paths_or_below_one() -> None:
    known = {value.as_posix() for value in vars(paths).values() if isinstance(value, Path)}
    for name, stage in graph()["stages"].items():
        for path in outs_of(stage) | {path for path in paths_of(stage["deps"]) if not path.startswith("src/")}:
            assert {path, Path(path).parent.as_posix()} & known, f"{name}: {path}"


def test_every_path_of_the_pipeline_is_in_the_graph() -> None:
    listed = {path for stage in graph()["stages"].values() for path in outs_of(stage) | paths_of(stage["deps"])}
    for path in (
        *(paths.DATA, paths.CARDS, paths.RELEASE, paths.PREPARED, paths.TRAINED, paths.EXPORT),
        *(paths.PREPARE_REPORT, paths.EXPORT_REPORT, paths.EVALUATE_REPORT, paths.METRICS, paths.RUN),
    ):
        assert path.as_posix() in listed


def test_models_that_params_name_are_dependencies_of_the_stage_that_reads_them() -> None:
    stages = graph()["stages"]
    named = {name: set(re.findall(r"\$\{(.+?)\}", " ".join(map(str, stage["deps"])))) for name, stage in stages.items()}
    assert set().union(*named.values()) == set(MODEL_PARAMS)
    assert all(param.startswith(f"{stage}.") for stage, params in named.items() for param in params)


def test_the_path_that_stands_for_no_model_exists() -> None:
    # DVC takes no dependency that is empty or missing.
    assert (REPOSITORY / paths.NO_MODEL).is_file()


def test_checkpoints_and_caches_are_no_outs() -> None:
    # DVC deletes outs before their stage runs, and what is resumed from has to outlive that.
    outs = {path for stage in graph()["stages"].values() for path in outs_of(stage)}
    for path in (paths.CHECKPOINTS, paths.DOWNLOADS, paths.WANDB, paths.RECIPE_RUNS):
        assert not any(Path(out) == path or path in Path(out).parents for out in outs)


def test_metrics_lie_in_git_and_the_rest_in_the_cache() -> None:
    for stage in graph()["stages"].values():
        assert all(settings == {"cache": False} for entry in stage.get("metrics", []) for settings in entry.values())
        assert all(isinstance(entry, str) for entry in stage["outs"])


def test_plots_and_the_artifact_are_made_by_a_stage() -> None:
    made = {path for stage in graph()["stages"].values() for path in outs_of(stage)}
    shown = [source for plot in graph()["plots"] for entry in plot.values() for source in entry["y"]]
    assert len(shown) == 13
    for source in (*shown, graph()["artifacts"]["emotion-yolo"]["path"]):
        assert source in made or made & {parent.as_posix() for parent in Path(source).parents}


def sections(model: type[BaseModel]) -> dict[str, Any]:
    """Return the tree of keys of a section of params.py, down to values (None)."""
    tree: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        tree[name] = sections(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return tree


def keys(values: Any, mirrored: Any) -> Any:
    """Return the tree of keys of params.yaml; a table that params.py takes as one value is one."""
    if not isinstance(values, dict) or mirrored is None:
        return None
    return {name: keys(value, mirrored.get(name)) for name, value in values.items()}


def test_params_and_their_mirror_have_the_same_keys_in_the_same_order() -> None:
    mirrored = sections(Params)
    written = keys(yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8")), mirrored)
    assert written == mirrored
    assert str(written) == str(mirrored)


def test_every_section_of_params_is_some_stages() -> None:
    used = {entry.partition(".")[0] for stage in graph()["stages"].values() for entry in stage["params"]}
    assert used == set(Params.model_fields) - WITHOUT_STAGE


def test_every_value_has_a_comment_that_says_what_it_is() -> None:
    lines = (REPOSITORY / "params.yaml").read_text("utf-8").splitlines()
    values = [line for line in lines if re.match(r"\s*\w+: *\S", line)]
    assert len(values) == len(_leaves(sections(Params)))
    assert [line for line in values if not re.search(r"\S +# \S{1,}.{3,}$", line)] == []


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, inner in tree.items():
        found += [f"{prefix}{name}"] if inner is None else _leaves(inner, f"{prefix}{name}.")
    return found


# Nearly all of these are handed on as a whole: they are Ultralytics' own arguments.
HANDED_ON = {f"train.{name}" for name in sections(Params)["train"]}


@pytest.mark.parametrize("key", sorted(set(_leaves(sections(Params))) - HANDED_ON))
def test_every_param_is_read_by_some_stage(key: str) -> None:
    *_, section, name = key.split(".")
    sources = [path for path in (REPOSITORY / "src").rglob("*.py") if path.name != "params.py"]
    read = re.compile(rf"\b(params|{section}|settings|self)\.({section}\.)?{name}\b")
    assert any(read.search(path.read_text("utf-8")) for path in sources)


def test_the_root_is_the_pinned_data_and_the_order_that_of_the_story() -> None:
    edges = set(re.findall(r'"(?:\./)?([^"]+)" -> "(?:\./)?([^"]+)"', dvc("dag", "--dot")))
    targets = {target for _, target in edges}
    nodes = {node for edge in edges for node in edge}
    assert nodes - targets == {"data.dvc"}
    models = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))["baselines"]["models"]
    beside = {f"baselines/dvc.yaml:{stage}@{name}" for stage in BASELINE_STAGES for name in models}
    assert nodes == {"data.dvc", *STAGES, *beside}
    assert all(f"baselines/dvc.yaml:assemble@{name}" not in {source for source, _ in edges} for name in models)
    assert ("data.dvc", "prepare") in edges
    assert {("prepare", "train"), ("train", "export"), ("export", "evaluate")} <= edges
    order = {node: place for place, node in enumerate(("data.dvc", *STAGES))}
    assert all(order[source] < order[target] for source, target in edges if target in order)


def test_what_ultralytics_writes_beside_labels_is_ignored() -> None:
    # Inside a tracked folder its caches would make every `dvc repro` train again.
    assert "*.cache" in (REPOSITORY / ".dvcignore").read_text("utf-8").splitlines()
    assert "*.cache" in (REPOSITORY / ".gitignore").read_text("utf-8").splitlines()
