"""Answers in files: their rows, and runs that go on where they were."""

import csv
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars
import pytest
from typer.testing import CliRunner

from emotion_yolo import cli
from emotion_yolo.errors import DependencyError, EmotionYoloError, SourceError, StorageError
from emotion_yolo.inference.artefact import Calibration, CloseUp, read_spec, write_spec
from emotion_yolo.predict.sources import Inputs
from emotion_yolo.predict.tables import COLUMNS, AnswerFile, Format, Position
from tests.builders import exported_model, painted, save_picture
from tests.video_builders import timed


@dataclass(frozen=True)
class Done:
    """What a command printed and exited with."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
    result = CliRunner().invoke(cli.app, [*map(str, arguments)], input=stdin)
    if isinstance(result.exception, EmotionYoloError):  # `cli.main` makes a message and an exit code of it
        return Done(result.exception.exit_code, result.stdout, f"error: {result.exception}")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of five pictures, with none, one, two, one faces, and one that is damaged."""
    folder = tmp_path / "pictures"
    for name, faces in {"a": {}, "b": {(0, 0): 4}, "c": {(0, 0): 1, (2, 2): 6}, "d": {(1, 1): 7}}.items():
        save_picture(folder / f"{name}.png", painted(faces))
    (folder / "e.jpg").write_bytes(b"no picture")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_has_a_row_a_face_and_one_for_a_picture_without(model: Path, pictures: Path, tmp_path: Path) -> None:
    done = run("predict", pictures, "--model", model, "--csv", tmp_path / "faces.csv")
    assert done.returncode == 10  # one could not be read
    assert done.stdout == ""
    found = rows(tmp_path / "faces.csv")
    assert [*found[0]] == [*COLUMNS]
    assert [Path(row["source"]).name for row in found] == ["a.png", "b.png", "c.png", "c.png", "d.png", "e.jpg"]
    assert [row["emotion"] for row in found] == ["", "happy", *(row["emotion"] for row in found[2:4]), "surprise", ""]
    assert {found[2]["emotion"], found[3]["emotion"]} == {"contempt", "sad"}
    assert found[1]["x1"] and float(found[1]["happy"]) > 0.5 and found[1]["width"] == "96"
    assert "cannot be decoded" in found[5]["error"]


def test_parquet_holds_what_csv_holds_with_types(model: Path, pictures: Path, tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        run("predict", pictures, "--model", model, f"--{kind}", tmp_path / f"faces.{kind}")
    table = polars.read_parquet(tmp_path / "faces.parquet")
    assert table.schema["x1"] == polars.Float64
    assert table.schema["width"] == polars.Int64
    assert table.rows() == polars.read_csv(tmp_path / "faces.csv", schema=table.schema).rows()
    assert sorted(path.name for path in tmp_path.glob("faces*")) == [
        *("faces.csv", "faces.csv.run.json"),
        *("faces.parquet", "faces.parquet.run.json"),
    ]


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
@pytest.mark.parametrize("lost", [1, 40])
def test_a_run_that_was_killed_goes_on_where_it_was(
    model: Path, pictures: Path, tmp_path: Path, kind: Format, lost: int
) -> None:
    options = [pictures, "--model", model, f"--{kind}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("predict", *options, whole)
    # What a kill leaves: the rows of the first pictures, the last of them torn.
    if kind == "parquet":
        run("predict", *options[:-1], "--csv", tmp_path / "rows")
        lines = (tmp_path / "rows").read_bytes().splitlines(keepends=True)
        left = tmp_path / "cut.partial.csv"
    else:
        lines, left = whole.read_bytes().splitlines(keepends=True), cut
    left.write_bytes(b"".join(lines[:4])[:-lost])
    shutil.copy(tmp_path / "whole.run.json", tmp_path / "cut.run.json")
    begun = left.stat().st_ino
    done = run("predict", *options, cut, "--resume")
    assert done.returncode == 10, done.stderr
    assert cut.read_bytes() == whole.read_bytes()
    assert kind == "parquet" or cut.stat().st_ino == begun


def test_a_video_goes_on_at_the_frame_where_it_was(model: Path, tmp_path: Path) -> None:
    clip = timed(tmp_path / "clip.mp4", [0.0, 0.1, 0.2, 0.3])
    run("predict", clip, "--model", model, "--json", tmp_path / "whole")
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    (tmp_path / "cut").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    shutil.copy(tmp_path / "whole.run.json", tmp_path / "cut.run.json")
    done = run("predict", clip, "--model", model, "--json", tmp_path / "cut", "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_file_is_neither_replaced_nor_continued_unasked(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text('{"source": "a.png"}\n')
    with pytest.raises(StorageError, match="exists already; add --overwrite"):
        AnswerFile(path, "json")
    assert path.read_text()
    with AnswerFile(path, "json", overwrite=True) as file:
        assert file.last is None
    assert path.read_text() == ""
    for kind, foreign in (("json", "notes of mine\n"), ("json", "[1]\n"), ("json", "{}\n"), ("csv", "a,b\n1,2\n")):
        path.write_text(foreign)
        with pytest.raises(StorageError, match="was not written by predict"):
            AnswerFile(path, kind, resume=True)
        assert path.read_text() == foreign
    with pytest.raises(StorageError, match="cannot be written"):
        AnswerFile(tmp_path / "nowhere" / "answers.json", "json")


def test_parquet_without_polars_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(DependencyError, match=r"emotion-yolo\[table\]"):
        AnswerFile(tmp_path / "a.parquet", "parquet")


def test_other_sources_than_those_of_the_interrupted_run_are_refused(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    run("predict", pictures, "--model", model, "--json", tmp_path / "answers")
    (tmp_path / "answers").write_text('{"source": "elsewhere/z.png"}\n')
    done = run("predict", pictures, "--model", model, "--json", tmp_path / "answers", "--resume")
    assert done.returncode == SourceError.exit_code
    assert "ends with elsewhere/z.png, which is not among the sources" in done.stderr


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--conf", "0.5"], "conf: 0.25 there, 0.5 now"),
        (["--min-face", "40"], "min_face: 0 there, 40 now"),
        (["--imgsz", "128"], "imgsz: 96 there, 128 now"),
        (["--track"], "tracking: None there, {'half_life_s': 0.5, 'every': 1} now"),
    ],
)
def test_a_run_with_other_options_is_not_continued(
    model: Path, pictures: Path, tmp_path: Path, kind: Format, option: list[str], named: str
) -> None:
    path = tmp_path / "answers"
    arguments = ["predict", pictures, "--model", model, f"--{kind}", path]
    run(*arguments)
    if kind == "parquet":  # as before its last picture
        run("predict", pictures, "--model", model, "--csv", tmp_path / "answers.partial.csv")
        path.unlink()
    before = {file: file.read_bytes() for file in tmp_path.glob("answers*")}
    done = run(*arguments, *option, "--resume")
    assert done.returncode == StorageError.exit_code
    assert f"started with other settings ({named}); use those" in done.stderr
    assert {file: file.read_bytes() for file in tmp_path.glob("answers*")} == before


def test_the_same_network_fed_or_read_otherwise_is_another_model(model: Path, pictures: Path, tmp_path: Path) -> None:
    """The digest is that of the network alone: how it is fed and read lies in model.json."""
    run("predict", pictures, "--model", model, "--json", tmp_path / "answers")
    changed = shutil.copytree(model, tmp_path / "changed")
    spec = read_spec(changed)
    for update, named in (
        ({"close_up": CloseUp(faces=1, side=96, face=32)}, "(close_up: None there, {'faces': 1"),
        ({"input": spec.input.model_copy(update={"upscale_to": 64})}, "(upscale_to: 4096 there, 64 now)"),
        ({"calibration": Calibration(temperature=2.0)}, "(temperature: 1.0 there, 2.0 now)"),
    ):
        write_spec(changed, spec.model_copy(update=update))
        done = run("predict", pictures, "--model", changed, "--json", tmp_path / "answers", "--resume")
        assert done.returncode == StorageError.exit_code
        assert named in done.stderr


@pytest.mark.parametrize("record", [None, "", "[1]"])
def test_answers_of_unknown_settings_are_not_continued(
    model: Path, pictures: Path, tmp_path: Path, record: str | None
) -> None:
    run("predict", pictures, "--model", model, "--json", tmp_path / "answers")
    (tmp_path / "answers.run.json").unlink()
    if record is not None:
        (tmp_path / "answers.run.json").write_text(record)
    done = run("predict", pictures, "--model", model, "--json", tmp_path / "answers", "--resume")
    assert done.returncode == StorageError.exit_code
    assert "answers.run.json, which records its settings, cannot be read; use --overwrite" in done.stderr


def test_a_name_that_is_not_utf_8_is_found_again() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert Position(name, None).is_in(name)
    assert Position(name.encode("utf-8", errors="backslashreplace").decode(), None).is_in(name)


@pytest.mark.parametrize(
    "options", [["--csv", "a", "--json", "b"], ["--resume"], ["--csv", "a", "--resume", "--overwrite"]]
)
def test_options_that_contradict_each_other_are_refused(
    pictures: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    done = run("predict", pictures, *options)
    assert done.returncode == 2
    assert "--parquet" in done.stderr
    assert not (pictures / "a").exists()


def test_a_picture_on_standard_input_is_answered_and_copied(model: Path, pictures: Path, tmp_path: Path) -> None:
    done = run("predict", "-", "--model", model, "--out", tmp_path / "out", stdin=(pictures / "b.png").read_bytes())
    (face,) = json.loads(done.stdout)["detections"]
    assert face["emotion"] == "happy"
    assert (tmp_path / "out/stdin.jpg").is_file()
    refused = run("predict", "-", "--model", model, stdin=b"no picture")
    assert refused.returncode == 10
    assert json.loads(refused.stdout)["error"].startswith("standard input: ")


def test_small_faces_are_left_out(model: Path, pictures: Path) -> None:
    def faces(*options: str) -> int:
        answer = json.loads(run("predict", pictures / "c.png", "--model", model, *options).stdout)
        return len(answer["detections"])

    assert (faces(), faces("--min-face", "32"), faces("--min-face", "33")) == (2, 2, 0)


def test_patterns_and_folders_without_their_subfolders(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_picture(pictures / "below/f.png", painted({}))

    def names(*sources: str, recursive: bool = True) -> list[str]:
        return [source.path.name for source in Inputs(sources, recursive=recursive)]

    monkeypatch.chdir(pictures)
    assert names("[bd].png") == ["b.png", "d.png"]
    assert names("**/*.png") == ["a.png", "b.png", "f.png", "c.png", "d.png"]
    assert names(str(pictures / "*.jpg")) == ["e.jpg"]
    assert names(".", recursive=False) == ["a.png", "b.png", "c.png", "d.png", "e.jpg"]
    with pytest.raises(SourceError, match="no file has a name like this"):
        names("*.bmp")


def test_the_doctor_says_what_a_report_needs(model: Path) -> None:
    done = run("doctor", "--model", model)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    for word in ("Python", "openvino", "CPU features", "sha256", "ms (median", "GB here"):
        assert word in text
    assert re.search(r"openvino, (f32|bf16), 96 px", text)  # bf16 where the CPU computes in it
    refused = run("doctor", "--model", model.parent / "nothing")
    assert refused.returncode == 11
    assert refused.stderr.startswith("error: ")
