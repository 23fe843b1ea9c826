"""`emotion-yolo check`: all checks of a set without pulling it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_yolo import cli
from tests.pull_builders import files_of, make_project, write_crops, write_picture


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound set; the working folder is a project."""
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return write_crops(tmp_path / "mine", per_split=8)


def test_a_sound_set_exits_with_0_and_nothing_is_changed(source: Path, tmp_path: Path) -> None:
    before = files_of(source)
    result = CliRunner().invoke(cli.app, ["check", str(source)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "24 pictures found, 24 landed, 0 left out" in result.output
    assert "0 left out, 0 findings, 0 near-duplicates to drop" in result.output
    assert files_of(source) == before
    assert not (tmp_path / "project/data").exists()
    assert (tmp_path / "project/reports/check/mine.jpg").stat().st_size > 10_000


def test_findings_are_printed_and_exit_with_1(source: Path) -> None:
    (source / "train/labels/0.txt").write_text("9 0.5 0.5 1 1\n")
    (source / "train/images/1.png").write_bytes(b"no picture")
    (source / "train/images/note.gif").write_bytes(b"GIF89a")
    (source / "valid/images/2.png").write_bytes((source / "test/images/2.png").read_bytes())
    result = CliRunner().invoke(cli.app, ["check", str(source)], catch_exceptions=False)
    assert result.exit_code == 1
    assert "train/labels/0.txt:1: class id 9" in result.output
    assert "train/images/1.png: " in result.output
    assert "train/images/note.gif: left out: .gif is not read" in result.output
    assert "valid/2.png: byte-identical to" in result.output or "valid/2.png: near-duplicate" in result.output


def test_a_set_that_prepare_would_refuse_says_so(source: Path) -> None:
    for i in range(6):
        (source / f"train/images/{i}.png").write_bytes(b"no picture")
    result = CliRunner().invoke(cli.app, ["check", str(source)], catch_exceptions=False)
    assert result.exit_code == 1
    assert "prepare would stop: " in result.output
    assert "expected at most half" in result.output


def test_a_folder_without_a_set_is_a_message_with_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    write_picture(tmp_path / "alone.png", 1)
    for path, code in ((tmp_path / "project/configs", 6), (tmp_path / "gone", 4)):
        monkeypatch.setattr("sys.argv", ["emotion-yolo", "check", str(path)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == code
        assert str(path) in capsys.readouterr().err
