"""Recipe files and the check before a run: what is refused, where, and with which advice."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from emotion_yolo.errors import ParamsError, RecipeError
from emotion_yolo.params import Params
from emotion_yolo.recipes.checking import check_recipe
from emotion_yolo.recipes.recipe import Recipe, load_recipe, phase_params
from emotion_yolo.recipes.running import Finished, compare, run_recipe, seconds_left

REPOSITORY = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (REPOSITORY / "configs/recipes").glob("*.yaml"))

SMALL: dict[str, Any] = {
    "about": "Two phases.",
    "data": ["sample"],
    "inputs": {"start.pt": {"about": "a checkpoint", "sha256": "0" * 64}},
    "phases": [
        {"name": "first", "params": {"train": {"weights": "models/inputs/start.pt"}}, "hands_on": ["weights"]},
        {"name": "second", "params": {"train": {"weights": "models/phases/first/weights.pt"}}},
    ],
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the shipped params, a release and the sample pulled."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "models/release").mkdir(parents=True)
    (tmp_path / "models/release/weights.pt").touch()
    (tmp_path / "models/none").touch()
    (tmp_path / "data.dvc").write_text(yaml.safe_dump({"meta": {"crops": {"card": "sample"}}}))
    (tmp_path / "configs/recipes").mkdir(parents=True)
    return tmp_path


def findings(project: Path, recipe: dict[str, Any]) -> list[str]:
    """Return what is found in a recipe."""
    (project / "configs/recipes/some.yaml").write_text(yaml.safe_dump(recipe))
    try:
        check_recipe("some", load_recipe("some", root=project), root=project)
    except ParamsError as error:
        return str(error).splitlines()
    return []


def with_phases(*phases: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {
        **SMALL,
        "inputs": {},
        **changes,
        "phases": [{"name": f"phase{i}", **phase} for i, phase in enumerate(phases)],
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_recipes_fit_params_yaml(name: str, tmp_path: Path) -> None:
    for path in ("params.yaml", "configs", "models/release", "models/none"):
        source = REPOSITORY / path
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / path)
    recipe = load_recipe(name, root=tmp_path)
    (tmp_path / "data.dvc").write_text(yaml.safe_dump({"meta": {card: {"card": card} for card in recipe.data}}))
    check_recipe(name, recipe, root=tmp_path)


def test_a_recipe_that_fits_has_no_findings(project: Path) -> None:
    assert findings(project, SMALL) == []


def test_all_findings_are_told_at_once_each_with_its_phase(project: Path) -> None:
    recipe = with_phases(
        {"params": {"train": {"epoch": 2, "lr0": -1.0}, "prepare": {"teacher": {"crop_model": "x"}}}},
        {"params": {"train": {"imgsz": 100}}, "hands_on": ["classifier"]},
        data=["sample", "affectnet"],
    )
    lines = findings(project, recipe)
    where = "configs/recipes/some.yaml"
    for text in (
        f"{where}: phase phase0: train.epoch: unknown key",
        f"{where}: phase phase0: train.lr0: got -1.0",
        f"{where}: phase phase0: prepare.teacher.crop_model: this is now prepare.teacher.classifier",
        f"{where}: phase phase1: train.imgsz: got 100",
        f"{where}: phases.phase1.hands_on: a detector phase makes no classifier",
        f"{where}: data: affectnet is not pulled (data.dvc pins sample); `emotion-yolo pull` it",
    ):
        assert any(line.startswith(text) for line in lines), text


def test_unknown_keys_of_the_recipe_itself_are_refused_together(project: Path) -> None:
    lines = findings(project, {**SMALL, "phase": [], "data": [], "expected": [{"split": "train"}]})
    keys = {line.split(": ")[1] for line in lines}
    assert {"phase", "data", "expected.0.command", "expected.0.split", "expected.0.figures"} <= keys


def test_a_recipe_that_is_not_there_lists_the_others(project: Path) -> None:
    assert findings(project, SMALL) == []
    with pytest.raises(ParamsError, match=r"configs/recipes/other\.yaml: no such recipe; expected one of: some"):
        load_recipe("other", root=project)


@pytest.mark.parametrize(
    ("recipe", "finding"),
    [
        (
            with_phases({"params": {"train": {"weights": "models/phases/none/weights.pt"}}}),
            "phase phase0: train.weights: models/phases/none/weights.pt: not handed on by an earlier phase",
        ),
        (
            with_phases(
                {"hands_on": ["detector"]}, {"params": {"train": {"weights": "models/phases/phase0/weights.pt"}}}
            ),
            "expected one of what earlier phases hand on: models/phases/phase0",
        ),
        (
            with_phases({"hands_on": ["weights"]}, {}),
            "phases.phase0.hands_on: no later phase uses models/phases/phase0/weights.pt",
        ),
        (
            with_phases({"params": {"train": {"weights": "models/inputs/yolo11n.pt"}}}),
            "train.weights: models/inputs/yolo11n.pt: no input 'yolo11n.pt'; expected one of inputs: none",
        ),
        (
            with_phases({"params": {"train": {"weights": "yolo11n.pt"}}}),
            "train.weights: yolo11n.pt: not in this repository; declare it under inputs",
        ),
        ({**SMALL, "phases": [{"name": "only"}]}, "inputs.start.pt: no phase uses it"),
        (
            with_phases({"kind": "classifier", "hands_on": ["classifier"]}),
            "the last one, phase0, is of kind classifier",
        ),
        (with_phases({"kind": "classifier"}, {}), "phases.phase0.hands_on: got []; a classifier phase hands on"),
        (
            with_phases({"kind": "classifier", "hands_on": ["classifier"]}, {}),
            "phase phase0: classifier.weights: names no model",
        ),
        ({**SMALL, "inputs": {}, "phases": [{"name": "a"}, {"name": "a"}]}, "phases: a is the name of 2 phases"),
    ],
)
def test_what_a_phase_starts_from_and_hands_on_has_to_fit(project: Path, recipe: dict[str, Any], finding: str) -> None:
    assert any(finding in line for line in findings(project, recipe))


def test_teachers_are_all_that_earlier_phases_hand_on_below_a_folder(project: Path) -> None:
    handed_on = {"kind": "classifier", "hands_on": ["classifier"]}
    classifier = {**handed_on, "params": {"classifier": {"weights": "params.yaml"}}}
    taught = {"params": {"train": {"compose": {"teachers": "models/phases"}}}}
    assert findings(project, with_phases(classifier, classifier, taught)) == []
    only_one = {"params": {"train": {"compose": {"teachers": "models/phases/phase0"}}}}
    (line,) = findings(project, with_phases(classifier, classifier, only_one))
    assert "phases.phase1.hands_on: no later phase uses models/phases/phase1/classifier.onnx" in line
    (line,) = findings(project, with_phases(taught))
    assert "phase phase0: train.compose.teachers: models/phases: not handed on by an earlier phase" in line


def test_cards_are_found_among_sets_too(project: Path) -> None:
    (project / "data.dvc").write_text(yaml.safe_dump({"meta": {"sets": {"faces": {"card": "sample"}}}}))
    assert findings(project, SMALL) == []
    (project / "data.dvc").unlink()
    assert "data: sample is not pulled (data.dvc pins no set with a card)" in findings(project, SMALL)[0]


def test_a_phase_overrides_the_recipe_which_overrides_params_yaml(project: Path) -> None:
    (project / "configs/recipes/some.yaml").write_text(
        yaml.safe_dump({**SMALL, "params": {"train": {"epochs": 3, "batch": 8, "weights": "x"}}})
    )
    recipe = load_recipe("some", root=project)
    base = yaml.safe_load((project / "params.yaml").read_text())
    values = phase_params(recipe, recipe.phases[0], base)
    assert (values["train"]["epochs"], values["train"]["weights"]) == (3, "models/inputs/start.pt")
    assert list(values["train"]) == list(base["train"])
    assert base["train"]["epochs"] == 12
    assert Params.model_validate(values).prepare == Params.model_validate(base).prepare


class TestTimeLeft:
    def test_nothing_is_said_where_nothing_is_known(self) -> None:
        assert seconds_left(spent=10, share=0, expected=[None], done=[]) is None
        assert seconds_left(spent=10, share=0.5, expected=[None, None], done=[]) is None

    def test_at_first_it_is_what_the_recipe_says(self) -> None:
        assert seconds_left(spent=0, share=0, expected=[600, 1200], done=[]) == 1800
        assert seconds_left(spent=700, share=0, expected=[600, 1200], done=[]) == 1200

    def test_phases_before_give_the_pace_of_the_machine(self) -> None:
        assert seconds_left(spent=0, share=0, expected=[600], done=[(200, 100), (100, 50)]) == 1200

    def test_epochs_tell_how_long_the_present_phase_takes(self) -> None:
        assert seconds_left(spent=100, share=0.25, expected=[None], done=[]) == 300
        # It takes 400 s instead of 200: the next one will, too.
        assert seconds_left(spent=100, share=0.25, expected=[200, 100], done=[]) == 300 + 200


def test_figures_are_shown_beside_the_expected_ones_and_marked_where_they_differ(tmp_path: Path) -> None:
    expected = {
        "command": "dvc repro evaluate",
        "split": "test",
        "file": "reports/metrics.json",
        "tolerance": 0.01,
        "figures": {"map50": 0.8, "ece": 0.02, "emotion_top1": 0.7},
    }
    recipe = Recipe.model_validate({**SMALL, "expected": [expected]})
    finished = Finished(recipe=recipe, path=Path("some.yaml"), revision="r", project=tmp_path)
    assert [line.split()[-1] for line in compare(finished)[2:]] == ["missing"] * 3
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/metrics.json").write_text('{"map50": 0.805, "ece": 0.05}')
    title, _, map50, ece, top1 = compare(finished)
    assert title == "test split, reports/metrics.json; expected by dvc repro evaluate:"
    assert map50.split() == ["map50", "0.800", "0.805", "+0.005"]
    assert ece.split() == ["ece", "0.020", "0.050", "+0.030", "more", "than", "0.01", "apart"]
    assert top1.split() == ["emotion_top1", "0.700", "missing"]


def test_outside_a_git_repository_nothing_is_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    with pytest.raises(RecipeError, match="not a git repository with a commit"):
        run_recipe("some", root=project, given=[], restart=False, say=print)
    assert not (project / ".recipes").exists()
