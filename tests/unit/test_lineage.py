import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ModelError, SourceError
from emotion_yolo.export.artefact import collect
from emotion_yolo.inference.artefact import Lineage
from emotion_yolo.params import load_params
from emotion_yolo.paths import TEACHER_NAME
from emotion_yolo.tracking.lineage import data_digest, git_revision, input_digests, uncommitted
from emotion_yolo.yolo.training import check
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_revision_of_another_users_clone_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))  # no safe.directory of this machine's own
    head = commit(tmp_path)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    (tmp_path / "file").write_text("b")
    assert git_revision(tmp_path) == f"{head}-dirty"


def test_outside_git_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() == "unknown"


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    """What a training has left: data pin, weights and its record."""
    paths = {"pin": tmp_path / "data.dvc", "weights": tmp_path / "weights.pt", "run": tmp_path / "run.json"}
    paths["pin"].write_text("outs:\n- md5: abc.dir\n  path: data\n")
    paths["weights"].write_bytes(b"weights")
    paths["run"].write_text(json.dumps({"environment": check(load_params().train).environment}))
    return paths


def test_the_lineage_changes_with_the_params_it_was_made_by_and_not_with_the_evaluation(made: dict[str, Path]) -> None:
    params = load_params()
    lineage = collect(params, **made)
    assert lineage.data == "abc.dir"
    assert lineage.weights == sha256_of(made["weights"])
    other = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"seed": 7})})
    assert collect(other, **made).params == lineage.params
    other = params.model_copy(update={"train": params.train.model_copy(update={"seed": 7})})
    assert collect(other, **made).params != lineage.params


def test_the_lineage_holds_the_params_themselves_and_where_the_weights_were_trained(made: dict[str, Path]) -> None:
    params = load_params()
    lineage = Lineage.model_validate_json(collect(params, **made).model_dump_json())
    assert lineage.settings is not None
    assert set(lineage.settings) == {"prepare", "train", "export"}
    assert lineage.settings["train"]["lr0"] == params.train.lr0
    assert lineage.environment is not None
    assert lineage.environment.libraries["torch"] == torch.__version__.partition("+")[0]
    assert lineage.environment.precision in {"fp16", "bf16", "fp32"}


@pytest.mark.parametrize("content", [None, "", "{}", '{"environment": {"device": "cpu"}}', "[]"])
def test_weights_without_a_record_of_their_training_are_not_exported(
    made: dict[str, Path], content: str | None
) -> None:
    made["run"].unlink()
    if content is not None:
        made["run"].write_text(content)
    with pytest.raises(ModelError, match=r"run\.json: does not say where .*`dvc repro train`"):
        collect(load_params(), **made)


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
    for place in ("b", "a"):
        (tmp_path / "teachers" / place).mkdir(parents=True)
        (tmp_path / "teachers" / place / TEACHER_NAME).write_bytes(place.encode())
    compose = params.train.compose.model_copy(update={"teachers": "teachers"})
    train = params.train.model_copy(update={"weights": "start.pt", "compose": compose})
    of_each = "".join(f"{hashlib.sha256(place).hexdigest()}\n" for place in (b"a", b"b"))
    assert input_digests(params.model_copy(update={"prepare": prepare, "train": train})) == {
        "prepare.localise.detector": sha256_of(tmp_path / "finder/model.onnx"),
        "prepare.teacher.classifier": sha256_of(tmp_path / "names.onnx"),
        "train.weights": sha256_of(tmp_path / "start.pt"),
        "train.compose.teachers": hashlib.sha256(of_each.encode()).hexdigest(),
    }


def test_a_models_digest_is_left_out_where_params_name_what_ultralytics_provides() -> None:
    params = load_params()
    train = params.train.model_copy(update={"weights": "yolo11n.yaml"})
    assert "train.weights" not in input_digests(params.model_copy(update={"train": train}))
