"""DVCLive's files, their journal and the choice of W&B's mode: all that needs no W&B."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_yolo.errors import StorageError
from emotion_yolo.params import Params, Tracking, load_params
from emotion_yolo.tracking.curves import Curves, flat_name
from emotion_yolo.tracking.tracker import Tracker
from emotion_yolo.tracking.wandb_run import wandb_mode

ROOT = Path(__file__).parents[2]
OFF: Params = load_params(ROOT / "params.yaml").model_copy(
    update={"tracking": Tracking(wandb="off", project="emotion-yolo-test", pictures=True, system=False)}
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def start(*, resume: bool = False) -> Curves:
    return Curves(Path("live"), journal=Path("checkpoints/journal.jsonl"), resume=resume)


def curve(name: str) -> list[tuple[int, float]]:
    with Path(f"live/plots/metrics/{name}.tsv").open(newline="") as file:
        return [(int(row["step"]), float(row[name])) for row in csv.DictReader(file, delimiter="\t")]


def metrics() -> dict[str, float]:
    found: dict[str, float] = json.loads(Path("live/metrics.json").read_text())
    return found


def delete_outs() -> None:
    """As DVC does before it runs a stage again."""
    for path in Path("live").rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("metrics/mAP50-95(B)", "map50_95"),
        ("metrics/mAP50(B)", "map50"),
        ("metrics/precision(B)", "precision"),
        ("train/box_loss", "train_box_loss"),
        ("val/cls_loss", "val_cls_loss"),
        ("lr/pg0", "lr_pg0"),
        ("map50", "map50"),
    ],
)
def test_gives_ultralytics_metrics_flat_names(name: str, flat: str) -> None:
    assert flat_name(name) == flat


@given(st.text())
def test_a_flat_name_needs_no_quotes_and_stays_as_it_is(name: str) -> None:
    flat = flat_name(name)
    assert set(flat) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert flat_name(flat) == flat


@pytest.mark.parametrize(
    ("setting", "environ", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": ""}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "off"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, "offline"),
        ("online", {}, "online"),
        ("online", {"WANDB_MODE": "Offline "}, "offline"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("offline", {"WANDB_MODE": "online"}, "online"),
        ("offline", {"WANDB_MODE": "run"}, "online"),
        ("off", {"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "off"),
    ],
)
def test_chooses_the_mode_of_wandb(setting: str, environ: dict[str, str], mode: str) -> None:
    assert wandb_mode(setting, environ) == mode  # type: ignore[arg-type]


def test_ignores_a_misspelt_wandb_mode_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert wandb_mode("offline", {"WANDB_MODE": "onlin"}) == "offline"
    assert "'onlin'" in caplog.text
    assert "disabled" in caplog.text


def test_writes_a_row_an_epoch_and_the_last_values() -> None:
    with start() as curves:
        curves.log_epoch(1, {"metrics/mAP50(B)": 0.25, "train/box_loss": 2.0}, best=True)
        curves.log_epoch(2, {"metrics/mAP50(B)": 0.5, "train/box_loss": 1.0}, best=True)
    assert curve("map50") == [(1, 0.25), (2, 0.5)]
    assert curve("train_box_loss") == [(1, 2.0), (2, 1.0)]
    last = {"map50": 0.5, "train_box_loss": 1.0}
    assert metrics() == {**last, "best_epoch": 2, "step": 2, "last": last}


def test_the_metrics_are_those_of_the_best_epoch_whose_weights_are_kept() -> None:
    with start() as curves:
        curves.log_epoch(1, {"map50": 0.25}, best=True)
        curves.log_epoch(2, {"map50": 0.5}, best=True)
        curves.log_epoch(3, {"map50": 0.4}, best=False)
    assert curves.best_epoch == 2
    assert metrics() == {"map50": 0.5, "best_epoch": 2, "step": 3, "last": {"map50": 0.4}}


def test_the_best_epoch_is_known_after_an_interruption() -> None:
    killed = start()
    killed.log_epoch(1, {"map50": 0.5}, best=True)
    delete_outs()
    with start(resume=True) as curves:
        curves.log_epoch(2, {"map50": 0.4}, best=False)
    assert metrics() == {"map50": 0.5, "best_epoch": 1, "step": 2, "last": {"map50": 0.4}}


def test_the_same_epochs_leave_the_same_files() -> None:
    written = []
    for _ in range(2):
        with start() as curves:
            curves.log_epoch(1, {"map50": 0.25}, best=True)
        written.append({path: path.read_bytes() for path in Path("live").rglob("*") if path.is_file()})
        delete_outs()
    assert written[0] == written[1]


def test_metrics_are_on_disk_while_the_training_runs() -> None:
    curves = start()
    curves.log_epoch(1, {"map50": 0.25}, best=True)
    assert metrics() == {"map50": 0.25, "step": 1}
    curves.finish()


def test_an_interrupted_training_goes_on_where_its_checkpoint_was() -> None:
    killed = start()
    for epoch in (1, 2, 3):
        killed.log_epoch(epoch, {"map50": epoch / 10}, best=True)
    delete_outs()
    with start(resume=True) as curves:  # the checkpoint is the one of epoch 2
        curves.log_epoch(3, {"map50": 0.33}, best=True)
        curves.log_epoch(4, {"map50": 0.44}, best=True)
    assert curve("map50") == [(1, 0.1), (2, 0.2), (3, 0.33), (4, 0.44)]
    assert metrics() == {"map50": 0.44, "best_epoch": 4, "step": 4, "last": {"map50": 0.44}}


def test_a_training_interrupted_twice_repeats_no_epoch() -> None:
    for first in (1, 2, 3):
        curves = start(resume=first > 1)
        for epoch in (first, first + 1):
            curves.log_epoch(epoch, {"map50": first + epoch / 10}, best=True)
        delete_outs()
    start(resume=True).finish()
    assert curve("map50") == [(1, 1.1), (2, 2.2), (3, 3.3), (4, 3.4)]


def test_a_training_interrupted_after_its_last_epoch_keeps_all_rows() -> None:
    start().log_epoch(1, {"map50": 0.1}, best=True)
    delete_outs()
    start(resume=True).finish()
    assert curve("map50") == [(1, 0.1)]
    assert metrics() == {"map50": 0.1, "best_epoch": 1, "step": 1, "last": {"map50": 0.1}}


def test_a_journal_torn_in_the_middle_of_a_line_counts_up_to_there() -> None:
    killed = start()
    killed.log_epoch(1, {"map50": 0.1}, best=True)
    killed.log_epoch(2, {"map50": 0.2}, best=True)
    journal = Path("checkpoints/journal.jsonl")
    journal.write_text(journal.read_text()[:-9])
    delete_outs()
    with start(resume=True) as curves:
        curves.log_epoch(2, {"map50": 0.22}, best=True)
    assert curve("map50") == [(1, 0.1), (2, 0.22)]


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"[]\n", b'{"epoch": 1, "extra": 1}\n', None])
def test_resuming_without_a_readable_journal_starts_anew(damage: bytes | None) -> None:
    if damage is not None:
        Path("checkpoints").mkdir()
        Path("checkpoints/journal.jsonl").write_bytes(damage)
    with start(resume=True) as curves:
        curves.log_epoch(5, {"map50": 0.5}, best=True)
    assert curve("map50") == [(5, 0.5)]


def test_a_new_training_forgets_the_rows_of_the_one_before() -> None:
    with start() as curves:
        curves.log_epoch(1, {"map50": 0.1, "gone": 1.0}, best=True)
    with start() as curves:
        curves.log_epoch(1, {"map50": 0.9}, best=True)
    assert curve("map50") == [(1, 0.9)]
    assert not Path("live/plots/metrics/gone.tsv").exists()


def test_a_loss_that_is_not_a_number_is_written_and_survives_an_interruption() -> None:
    start().log_epoch(1, {"train/box_loss": float("nan")}, best=True)
    delete_outs()
    start(resume=True).finish()
    assert json.loads(Path("live/metrics.json").read_text())["train_box_loss"] == "nan"


def test_off_writes_nothing_of_wandb_and_imports_nothing() -> None:
    code = """
import sys
from pathlib import Path
from test_tracking import OFF
from emotion_yolo.tracking.tracker import Tracker
record = Path("checkpoints/wandb.json")
with Tracker.start(OFF, record=record, wandb_dir=Path(".wandb"), resume=False, lineage={"data": "d1"}) as tracker:
    tracker.log_epoch(1, {"map50": 0.1})
    tracker.log_summary({"test_map50": 0.1})
    tracker.log_image("missing", Path("missing.png"))
    tracker.keep_for("a" * 64, wandb_dir=Path(".wandb"))
    assert tracker.info.mode == "off" and tracker.info.id is None
print("wandb" in sys.modules)
"""
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{Path(__file__).parent}", "HOME": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert done.stderr == ""
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def test_finishing_twice_is_finishing_once() -> None:
    curves = start()
    curves.log_epoch(1, {"map50": 0.1}, best=True)
    curves.finish()
    delete_outs()
    curves.finish()
    assert not Path("live/metrics.json").exists()


def test_reopening_with_wandb_off_logs_nowhere() -> None:
    with Tracker.reopen(OFF, weights="a" * 64, wandb_dir=Path(".wandb"), lineage={}) as tracker:
        tracker.log_epoch(1, {"map50": 0.1})
        tracker.log_summary({"test_map50": 0.1})
    assert list(Path().iterdir()) == []


def block_live() -> None:
    Path("live").write_text("a file where a folder should be")


def block_journal() -> None:
    Path("checkpoints").write_text("")


@pytest.mark.parametrize(("block", "named"), [(block_live, "live"), (block_journal, "checkpoints/journal.jsonl")])
def test_says_which_file_cannot_be_written(block: Callable[[], None], named: str) -> None:
    block()
    with pytest.raises(StorageError, match=f"^{named}: cannot be written .*; free space or correct"):
        start()


def test_says_so_when_dvclive_cannot_write_an_epoch() -> None:
    curves = start()
    Path("live/plots").write_text("")
    with pytest.raises(StorageError, match=r"^live: cannot be written"):
        curves.log_epoch(1, {"map50": 0.1}, best=True)


def test_the_experiments_environment_changes_neither_names_nor_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    monkeypatch.setenv("DVC_EXP_NAME", "wise-owl")
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    with start() as curves:
        curves.log_epoch(1, {"metrics/mAP50(B)": 0.25}, best=True)
    assert curve("map50") == [(1, 0.25)]
    assert metrics()["map50"] == 0.25
