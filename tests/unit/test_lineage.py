import subprocess
from pathlib import Path

import pytest

from emotion_yolo.errors import SourceError
from emotion_yolo.inference.artefact import sha256_of
from emotion_yolo.params import load_params
from emotion_yolo.tracking.lineage import collect, data_digest, git_revision, input_digests, uncommitted
from tests.builders import exported_model


def commit(folder: Path) -> str:
    def git(*args: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *args]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (folder / "file").write_text("a")
    (folder / "dvc.lock").write_text("a")
    git("add", "file", "dvc.lock")
    git("commit", "-qm", "first")
    return git("rev-parse", "HEAD")


def test_the_digest_of_the_data_is_that_of_its_pin(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    assert data_digest(tmp_path / "data.dvc") == "abc.dir"


@pytest.mark.parametrize("text", ["outs: []\n", "other: 1\n", "outs:\n- path: data\n", ""])
def test_a_pin_without_a_digest_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.dvc").write_text(text)
    with pytest.raises(SourceError, match="emotion-yolo pull"):
        data_digest(tmp_path / "data.dvc")


def test_a_missing_pin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="pins no data"):
        data_digest(tmp_path / "data.dvc")


def test_the_revision_is_the_commit_and_says_when_tracked_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = commit(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert git_revision() == head
    (tmp_path / "dvc.lock").write_text("changed by a stage before this one")
    assert git_revision() == head
    (tmp_path / "file").write_text("b")
    assert git_revision() == f"{head}-dirty"
    assert uncommitted() == ["file"]


def test_outside_git_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() == "unknown"


def test_the_lineage_changes_with_the_params_it_was_made_by_and_not_with_the_evaluation(tmp_path: Path) -> None:
    pin, weights = tmp_path / "data.dvc", tmp_path / "weights.pt"
    pin.write_text("outs:\n- md5: abc.dir\n  path: data\n")
    weights.write_bytes(b"weights")
    params = load_params()
    lineage = collect(params, weights=weights, pin=pin)
    assert lineage.data == "abc.dir"
    assert lineage.weights == sha256_of(weights)
    other = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"seed": 7})})
    assert collect(other, weights=weights, pin=pin).params == lineage.params
    other = params.model_copy(update={"train": params.train.model_copy(update={"seed": 7})})
    assert collect(other, weights=weights, pin=pin).params != lineage.params


def test_the_lineage_holds_the_digest_of_every_model_that_params_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params()
    monkeypatch.chdir(tmp_path)
    exported_model(tmp_path / "finder")
    for name in ("names.onnx", "start.pt"):
        (tmp_path / name).write_bytes(name.encode())
    teacher = params.prepare.teacher.model_copy(update={"detector": "models/none", "classifier": "names.onnx"})
    localise = params.prepare.localise.model_copy(update={"detector": "finder"})
    prepare = params.prepare.model_copy(update={"teacher": teacher, "localise": localise})
    train = params.train.model_copy(update={"weights": "start.pt"})
    assert input_digests(params.model_copy(update={"prepare": prepare, "train": train})) == {
        "prepare.localise.detector": sha256_of(tmp_path / "finder/model.onnx"),
        "prepare.teacher.classifier": sha256_of(tmp_path / "names.onnx"),
        "train.weights": sha256_of(tmp_path / "start.pt"),
    }


def test_a_models_digest_is_left_out_where_params_name_what_ultralytics_provides() -> None:
    params = load_params()
    train = params.train.model_copy(update={"weights": "yolo11n.yaml"})
    assert "train.weights" not in input_digests(params.model_copy(update={"train": train}))
