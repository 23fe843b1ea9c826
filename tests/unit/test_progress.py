import pytest

from emotion_yolo.progress import counting


def test_without_a_terminal_a_line_a_quarter_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("check") as progress:
        for done in range(1, 1001):
            progress(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"check: {n} of 1,000" for n in ("250", "500", "750", "1,000")]


def test_on_a_terminal_a_bar_runs_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with counting("check") as progress:
        for done in range(1, 5):
            progress(done, 4)
    assert "4/4" in capsys.readouterr().err
