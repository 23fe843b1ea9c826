"""The command line: what its commands print, write and exit with."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from api.settings import Settings
from emotion_yolo import cli, paths
from emotion_yolo.data.sets import read_sets
from emotion_yolo.errors import DependencyError, ModelError
from emotion_yolo.evaluation.summary import DETAILS
from emotion_yolo.expression.classifier import ExpressionClassifier
from emotion_yolo.expression.teaching import load_teachers
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.sources.landing import exclusive
from tests.builders import exported_model, painted, painted_labels, prepared_set, save_picture
from tests.face_weights import write_face_weights
from tests.pull_builders import commit, files_of, make_project

# pygtrie, which DVC stands on, warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")

COMMANDS = {
    *("pull", "data", "check", "sample", "report", "experiments", "release", "predict", "train-classifier"),
    *("doctor", "serve"),
}
METRICS = {"map50": 0.8125, "map50_95": 0.5, "emotion_top1": 0.75, "n_crops": 24}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> str:
    """Run a command that succeeds; returns what it printed."""
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Run the program where it fails; returns its exit code and what it says."""
    patch.setattr(sys, "argv", ["emotion-yolo", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return exit_.value.code, capsys.readouterr().err


def write_evaluated(root: Path) -> None:
    """Write what training, export and evaluation leave behind, and pictures of the sample."""
    exported_model(root / paths.EXPORT)
    for path, content in (
        (paths.TRAINED / paths.WEIGHTS_NAME, "weights"),
        (paths.METRICS, json.dumps(METRICS)),
        (paths.EVALUATE_REPORT / "MODEL_CARD.md", f"Version {read_spec(root / paths.EXPORT).version}"),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    for i in range(8):
        save_picture(root / paths.SAMPLE / f"sample-scenes/all/images/{i}.jpg", painted({(1, 1): i}))


def write_params(**sections: dict[str, object]) -> None:
    """Write the shipped params.yaml with changed values into the working folder."""
    raw = yaml.safe_load((Path(__file__).parents[2] / paths.PARAMS).read_text("utf-8"))
    for section, values in sections.items():
        raw[section] |= values
    paths.PARAMS.write_text(yaml.safe_dump(raw), "utf-8")


def test_help_lists_every_command_in_a_sentence() -> None:
    printed = call("--help")
    assert {command for command in COMMANDS if re.search(rf"\b{command} +[A-Z]", printed)} == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_without_loading_torch(command: str) -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from emotion_yolo import cli
result = CliRunner().invoke(cli.app, [{command!r}, "--help"], catch_exceptions=False)
assert "usage:" in result.stdout.lower()
assert not {{"torch", "ultralytics", "dvc", "wandb"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tells_its_version() -> None:
    assert call("--version") == f"emotion-yolo {version('emotion-yolo')}\n"


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(cli.app, [])
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_a_pulled_set_lands_and_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    monkeypatch.chdir(project)
    printed = call("pull", "sample")
    assert files_of(project / "data") == files_of(project / "datasets/sample")
    pin = yaml.safe_load((project / "data.dvc").read_text())
    assert pin["outs"][0]["md5"] in printed
    assert "CC0-1.0" in printed

    commit(project, "sample")
    shutil.copytree(project / "datasets/sample/sample", tmp_path / "mine")
    (tmp_path / "mine/data.yaml").write_text("names: [Anger, Contempt, Disgust, Fear, Joy, Neutral, Sad, Surprise]\n")
    printed = call(
        "pull", str(tmp_path / "mine"), "--add", "--name", "joys", "--map", "Joy=happy", "--card", "affectnet"
    )
    assert "kept: sample, sample-scenes" in printed
    assert "the card says 2,339" in printed
    record = read_sets()["joys"]
    assert (record.card, record.classes["Joy"], record.source["kind"]) == ("affectnet", "happy", "folder")
    printed = call("data", "list")
    assert printed.count("licence: ") == 3
    assert "joys: from mine, boxes that are the whole picture, to be localised, emotions named" in printed
    assert "kept: joys, sample-scenes" in call("data", "remove", "sample")
    assert list(read_sets()) == ["joys", "sample-scenes"]


def test_data_that_are_not_pinned_are_replaced_only_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project")
    monkeypatch.chdir(project)
    (project / "data").mkdir()
    (project / "data/mine.txt").write_text("mine")
    code, message = fail(monkeypatch, capsys, "pull", "sample")
    assert code in range(4, 8)
    assert "--force" in message
    assert (project / "data/mine.txt").read_text() == "mine"
    call("pull", "sample", "--force")
    assert (project / "data/sample").is_dir()
    assert [path.read_text() for path in (project / ".downloads").rglob("mine.txt")] == ["mine"]


def test_a_source_that_is_not_there_is_a_message_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(make_project(tmp_path / "project"))
    code, message = fail(monkeypatch, capsys, "pull", "nowhere/at/all")
    assert code == 4
    assert message.startswith("error: ")
    assert "nowhere/at/all" in message
    assert "Traceback" not in message


def test_the_report_is_of_the_last_evaluation_here(folder: Path) -> None:
    (folder / paths.EVALUATE_REPORT).mkdir(parents=True)
    details = {"metrics": METRICS, "intervals": {}, "sets": {}}
    (folder / paths.EVALUATE_REPORT / DETAILS).write_text(json.dumps(details))
    printed = call("report")
    assert re.search(r"0\.812", printed)
    named = re.findall(r"reports/evaluate/\S+", printed)
    assert named == [str(paths.EVALUATE_REPORT / DETAILS)]


def test_metrics_that_came_with_the_clone_are_not_reported_as_ones_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.METRICS.parent.mkdir()
    paths.METRICS.write_text(json.dumps(METRICS))
    code, message = fail(monkeypatch, capsys, "report")
    assert code == ModelError.exit_code == 11
    assert message.startswith("error: reports/evaluate/details.json: no evaluation has run here")
    assert message.endswith("run `dvc repro`\n")
    assert "0.812" not in message


def test_experiments_outside_a_project_are_an_error_and_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fail(monkeypatch, capsys, "experiments")
    assert code == 1
    assert message.startswith(f"error: {folder}: experiments cannot be read")


def test_a_release_is_written_where_the_service_looks_for_it(folder: Path) -> None:
    write_evaluated(folder)
    printed = call("release")
    written = {path.name for path in paths.RELEASE.iterdir()}
    assert {"weights.pt", "model.onnx", "model.json", "metrics.json", "MODEL_CARD.md"} <= written
    assert {Path(line.split()[-1]).name for line in printed.splitlines()} == written
    assert read_spec(paths.RELEASE).version == read_spec(paths.EXPORT).version
    call("release", "elsewhere")
    assert {path.name for path in Path("elsewhere").iterdir()} == written


def test_a_release_of_half_a_run_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_evaluated(folder)
    paths.METRICS.unlink()
    code, message = fail(monkeypatch, capsys, "release")
    assert code == 11
    assert "reports/metrics.json: missing" in message
    assert not paths.RELEASE.exists()


def test_options_of_a_recipe_need_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_evaluated(folder)
    for options in (("--input", "start.pt=start.pt"), ("--restart",)):
        code, message = fail(monkeypatch, capsys, "release", *options)
        assert code == 15
        assert "name it with --recipe" in message
    assert not paths.RELEASE.exists()


def test_a_recipe_outside_git_is_a_message_and_an_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    code, message = fail(monkeypatch, capsys, "release", "--recipe", "sample")
    assert code == 15
    assert "not a git repository" in message


def test_a_release_without_anything_exported_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fail(monkeypatch, capsys, "release")
    assert code == 11
    assert "models/export/model.json: no exported model there" in message


def test_a_release_is_made_without_the_sample_too(folder: Path) -> None:
    write_evaluated(folder)
    shutil.rmtree(paths.SAMPLE)
    call("release")
    assert read_spec(paths.RELEASE).version == read_spec(paths.EXPORT).version


def test_a_classifier_is_trained_from_the_prepared_crops_and_can_be_asked(folder: Path) -> None:
    for split in ("train", "valid"):
        crops = {f"{split}{i}.png": (painted({(1, 1): i}), painted_labels({(1, 1): i})) for i in range(8)}
        prepared_set(paths.PREPARED, crops=crops, split=split)
    write_params(classifier={"weights": str(write_face_weights(folder / "face-api")), "epochs": 1})
    printed = call("train-classifier")
    assert "models/classifier.onnx: written" in printed
    soft_label = ExpressionClassifier(paths.CLASSIFIER, threads=1).soft_label(painted({(1, 1): 4}))
    assert soft_label.sum() == pytest.approx(1, abs=1e-3)
    assert len(load_teachers(paths.CLASSIFIER.parent, torch.device("cpu"))) == 1
    assert not list(paths.CHECKPOINTS.iterdir())


def test_a_classifier_without_weights_to_start_from_says_what_to_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params()
    code, message = fail(monkeypatch, capsys, "train-classifier")
    assert code == 3
    assert "classifier.weights names no model" in message
    assert "@vladmandic/face-api" in message


def test_predictions_are_a_json_line_a_picture(folder: Path) -> None:
    exported_model(folder / "model")
    for i, name in enumerate(("a.png", "b.png")):
        save_picture(folder / "pictures" / name, painted({(1, 1): 3 + i}))
    lines = [json.loads(line) for line in call("predict", "pictures", "--model", "model", "--out", "seen").splitlines()]
    assert [[face["emotion"] for face in line["detections"]] for line in lines] == [["fear"], ["happy"]]
    assert sorted(path.name for path in Path("seen").glob("*.jpg")) == ["a.jpg", "b.jpg"]


def test_a_model_that_is_not_there_is_a_message_and_an_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_picture(folder / "a.png", painted({}))
    code, message = fail(monkeypatch, capsys, "predict", "a.png", "--model", "none")
    assert code == 11
    assert "none/model.json: no exported model there" in message


def test_a_misspelt_command_is_the_shells_usual_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fail(monkeypatch, capsys, "pul")
    assert code == 2
    assert "pul" in message


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_help_is_printed_on_a_terminal_of_any_encoding(encoding: str) -> None:
    command = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "pull", "--help"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert b"Fetch a data set" in done.stdout


def test_the_service_takes_every_setting_but_keys_as_an_option(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fail(monkeypatch, capfd, "serve", "--nonsense")[0] == 2
    monkeypatch.setattr(sys, "argv", ["emotion-yolo", "serve", "--help"])
    with pytest.raises(SystemExit) as helped:
        cli.main()
    assert helped.value.code == 0
    text = capfd.readouterr().out
    assert text.startswith("usage: emotion-yolo serve")
    for name in Settings.model_fields:
        assert (f"--{name.replace('_', '-')} " in text) == (name != "api_keys")
        assert f"EMOTION_{name.upper()}" in text
    monkeypatch.setattr(sys, "argv", ["emotion-yolo", "serve", "--port", "99999"])
    with pytest.raises(SystemExit) as refused:
        cli.main()
    assert refused.value.code == 14


def test_a_command_without_its_extra_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("emotion_yolo.api")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, said = fail(monkeypatch, capsys, "serve")
    assert code == 16
    assert said == ("error: this command needs the package uvicorn; install it with pip install 'emotion-yolo[api]'\n")
    monkeypatch.setitem(sys.modules, "emotion_yolo.sources", None)  # a fault of ours is no missing extra
    monkeypatch.setattr(sys, "argv", ["emotion-yolo", "pull", "sample"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_what_needs_file_locks_says_so_on_windows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DependencyError, match="pull them in WSL"), exclusive(folder):
        pass
