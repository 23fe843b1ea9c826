import pytest

from emotion_yolo.progress import counting, show_progress


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
    with counting("check", unit="crops") as progress:
        for done in range(1, 5):
            progress(done, 4)
    shown = capsys.readouterr().err
    assert "check: 100%" in shown
    assert "4/4" in shown
    assert "crops/s" in shown


def test_bytes_are_told_in_mebibytes_from_where_an_interrupted_download_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_progress("Downloading a.zip", total=8 * 2**20, unit="B", initial=3 * 2**20) as bar:
        for _ in range(5):
            bar.update(2**20)
    assert capsys.readouterr().err.splitlines() == [f"Downloading a.zip: {n}.0 MiB of 8.0 MiB" for n in (4, 6, 8)]


def test_a_log_is_told_nothing_of_a_task_without_a_known_end(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("watch", total=None, unit="pictures") as bar:
        bar.update(10)
    assert capsys.readouterr() == ("", "")


def test_work_that_never_begins_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("check"):
        pass
    assert capsys.readouterr() == ("", "")
