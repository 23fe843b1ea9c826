"""Windows of a real log against references: distances, thresholds, verdicts, files."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from typer.testing import CliRunner

from emotion_yolo.cli import app
from emotion_yolo.data.prepared import Sample
from emotion_yolo.errors import DriftError, MonitoringError
from emotion_yolo.evaluation.outcomes import Outcome
from emotion_yolo.evaluation.reference import observe, write_reference
from emotion_yolo.monitoring.drift import (
    COLUMNS,
    Comparison,
    calibrate,
    compare,
    compared,
    distances,
    draw_null,
    labelled,
)
from emotion_yolo.monitoring.monitor import Choices, monitor, raise_on_drift, reference_of
from emotion_yolo.monitoring.reporting import Verdict, write_page
from emotion_yolo.monitoring.window import Window, parse_time, read_window
from emotion_yolo.prediction_log.observations import (
    REFERENCE_NAME,
    Collector,
    Observations,
    Reference,
    read_reference,
    write_observations,
)
from emotion_yolo.prediction_log.quality import InputQuality
from emotion_yolo.prediction_log.rows import Feedback, PictureRecord
from emotion_yolo.prediction_log.store import LogLimits, Store
from emotion_yolo.structures.emotions import NAMES
from tests.api.process import ROOT
from tests.builders import detections_of, painted, painted_labels, save_picture

MODEL = "a" * 64
NOW = datetime.now(UTC)


def population(count: int, *, seed: int = 0, darker: float = 1.0) -> Observations:
    """Draw pictures of one or two faces; the faces of one picture are alike."""
    random = np.random.default_rng(seed)
    collector = Collector()
    for _ in range(count):
        faces, side = int(random.integers(1, 3)), float(random.uniform(30, 90))
        emotion = float(random.choice([0, 4, 5, 6]))
        collector.add(
            image_wh=(640, 480),
            bytes_=int(random.integers(20_000, 60_000)),
            quality=InputQuality(float(random.normal(120, 20)) * darker, float(random.gamma(9, 2))),
            faces=[(side, float(random.uniform(0.5, 0.95)), float(random.uniform(0.4, 1)), emotion)] * faces,
            truth=[emotion if random.random() < 0.8 else 7.0] * faces,
        )
    return collector.observations()


def record(number: int, *, brightness: float | None = None, **changes: Any) -> PictureRecord:
    random = np.random.default_rng(number)
    side = random.uniform(10, 40)
    fields: dict[str, Any] = {
        "request_id": f"r{number}",
        "item": 0,
        "model": MODEL,
        "format": "JPEG",
        "bytes": int(random.integers(2_000, 4_000)),
        "quality": InputQuality(random.normal(120, 20) if brightness is None else brightness, random.gamma(9, 2)),
        "detections": detections_of([(0, 0, side, side)], confidence=[0.9], emotions=[int(random.integers(8))]),
        "latency_ms": 10.0,
        "plain": True,
    }
    return PictureRecord(**fields | changes)


Log = Callable[..., Path]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    def write(*records: PictureRecord | Feedback, rows: int = 100_000) -> Path:
        store = Store(tmp_path / "log.db", LogLimits(rows=rows))
        store.append(records)
        store.keep_limits()
        store.close()
        return store.path

    return write


@pytest.fixture
def reference(tmp_path: Path, log: Log) -> Path:
    """Return a reference like the pictures of `record`."""
    path = log(*(record(number) for number in range(10_000, 10_400)))
    window = read_window(path, begin=NOW - timedelta(days=1), end=NOW + timedelta(days=1))
    write_observations(tmp_path / REFERENCE_NAME, window.observations, model=MODEL, origin="pictures of a test")
    for file in tmp_path.glob("log.db*"):
        file.unlink()
    return tmp_path / REFERENCE_NAME


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["monitor", *map(str, arguments)])


def test_a_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = population(20)
    write_observations(tmp_path / "r.parquet", written, model=MODEL, origin="made")
    read = read_reference(tmp_path / "r.parquet")
    assert (read.model, read.origin, len(read.observations)) == (MODEL, "made", 20)
    for name, column in {**written.pictures, **written.faces}.items():
        found = {**read.observations.pictures, **read.observations.faces}[name]
        np.testing.assert_allclose(found, column, rtol=1e-6)
    np.testing.assert_array_equal(read.observations.truth, written.truth)


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    # An out of DVC that differed between two runs would run everything behind it again.
    for name in ("one", "two"):
        write_observations(tmp_path / name, population(20), model=MODEL, origin="made")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no parquet", None])
def test_refuses_what_is_no_reference(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MonitoringError, match="reference"):
        read_reference(path)


def test_refuses_a_table_that_is_no_reference(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"brightness": [1.0]}), tmp_path / "r.parquet")
    with pytest.raises(MonitoringError, match="no reference of this version"):
        read_reference(tmp_path / "r.parquet")


def test_taking_pictures_takes_their_faces() -> None:
    everything = population(10)
    starts = np.cumsum(everything.counts) - everything.counts
    taken = everything.take(np.asarray([3, 3, 0]))
    rows = [i for p in (3, 3, 0) for i in range(starts[p], starts[p] + everything.counts[p])]
    np.testing.assert_array_equal(taken.faces["confidence"], everything.faces["confidence"][rows])
    np.testing.assert_array_equal(taken.pictures["brightness"], everything.pictures["brightness"][[3, 3, 0]])


@pytest.mark.parametrize("pictures", [3, 40])
def test_distances_of_drawn_windows_are_those_of_the_windows_themselves(pictures: int) -> None:
    reference = population(60, seed=1)
    null = draw_null(reference, pictures=pictures, draws=20, seed=5)
    random = np.random.default_rng(5)
    for row in null.distances:
        base = reference.take(random.integers(60, size=60))
        window = reference.take(random.integers(60, size=pictures))
        for name, distance in zip(COLUMNS, row, strict=True):
            ours, theirs, all_ = ({**side.pictures, **side.faces}[name] for side in (base, window, reference))
            if name == "emotion":
                ours, theirs = (np.bincount(ids.astype(int), minlength=8) / len(ids) for ids in (ours, theirs))
                expected = jensenshannon(ours, theirs)
            else:  # in units of the reference, not of the draw
                expected = wasserstein_distance(ours, theirs) / max(all_.std(), 0.001)
            assert distance == pytest.approx(expected, abs=1e-12)


def test_windows_without_a_face_are_at_no_distance_in_columns_of_faces() -> None:
    collector = Collector()
    for i in range(8):
        faces = [(40.0, 0.9, 0.8, 4.0)] if i == 0 else []
        collector.add(
            image_wh=(64, 48), bytes_=i + 1, quality=InputQuality(i, i), faces=faces, truth=[4.0] * len(faces)
        )
    null = draw_null(collector.observations(), pictures=2, draws=50)
    assert np.isfinite(null.distances).all()
    assert (null.distances[:, COLUMNS.index("confidence")] == 0).all()


def test_false_alarms_are_about_as_frequent_as_asked_for() -> None:
    reference = population(1500, seed=1)
    thresholds = calibrate(reference, pictures=100, rate=0.05, draws=400)
    alarms = [
        bool(Comparison(distances(reference, population(100, seed=seed)), thresholds).drifted)
        for seed in range(100, 300)
    ]
    assert 0.01 <= np.mean(alarms) <= 0.12
    assert np.mean(alarms) < 0.5 * np.mean(
        [max(distances(reference, population(100, seed=seed)).values()) > 0.1 for seed in range(100, 300)]
    )  # Evidently's own threshold, on any column


def test_a_column_that_never_changes_raises_no_alarm() -> None:
    reference, window = population(300, seed=1), population(60, seed=2)
    assert np.ptp(reference.pictures["log2_megapixels"]) == 0
    comparison = compare(reference, window, rate=0.01, draws=50)
    assert comparison.distances["log2_megapixels"] < comparison.thresholds["log2_megapixels"] == 0.02


def with_a_second_face(observations: Observations, *pictures: int) -> Observations:
    """Return pictures of one face each, but for some that have two."""
    single = observations.take(np.flatnonzero(observations.counts == 1))
    counts = np.ones(len(single), np.int64)
    counts[list(pictures)] = 2
    faces = {name: np.repeat(column, counts) for name, column in single.faces.items()}
    return Observations({**single.pictures, "faces": counts.astype(float)}, faces, np.repeat(single.truth, counts))


def test_a_rare_picture_that_the_reference_happens_not_to_hold_raises_no_alarm() -> None:
    reference = with_a_second_face(population(600, seed=1))
    window = with_a_second_face(population(100, seed=2), 7)
    assert compare(reference, window, rate=0.01, draws=200).drifted == []
    many = with_a_second_face(population(100, seed=2), *range(20))
    assert compare(reference, many, rate=0.01, draws=200).drifted == ["faces"]


def test_an_emotion_that_the_reference_happens_not_to_hold_raises_no_alarm_until_it_is_frequent() -> None:
    reference, window = population(600, seed=1), population(100, seed=2)
    ids = window.faces["emotion"]
    ids[0] = 1.0
    shares = [np.bincount(x.astype(int), minlength=8) / len(x) for x in (reference.faces["emotion"], ids[1:])]
    assert distances(reference, window)["emotion"] == pytest.approx(jensenshannon(*shares))
    ids[:40] = 1.0
    assert compare(reference, window, rate=0.01, draws=200).drifted == ["emotion"]


def test_a_rare_picture_in_the_reference_does_not_hide_drift_of_other_columns() -> None:
    # One draw in fifty holds such a picture, which is then far from all others.
    reference = with_a_second_face(population(3000, seed=1), 11)
    window = with_a_second_face(population(60, seed=2, darker=0.75))
    assert compare(reference, window, rate=0.01, draws=4000).drifted == ["brightness"]


def test_drift_names_the_column() -> None:
    comparison = compare(population(800, seed=1), population(200, seed=2, darker=0.8), rate=0.01, draws=200)
    assert comparison.drifted == ["brightness"]


def test_a_window_without_faces_is_compared_by_its_pictures() -> None:
    collector = Collector()
    for _ in range(50):
        collector.add(image_wh=(640, 480), bytes_=40_000, quality=InputQuality(120, 18), faces=[], truth=[])
    assert "faces" in compare(population(500), collector.observations(), rate=0.01, draws=100).drifted


@pytest.mark.filterwarnings("ignore")  # Evidently's and its dependencies' own
def test_distances_and_thresholds_are_those_on_evidentlys_page(tmp_path: Path) -> None:
    reference, observations = population(300, seed=1), population(80, seed=2, darker=0.7)
    comparison = compare(reference, observations, rate=0.01, draws=50)
    window = Window(observations, MODEL, NOW, NOW, 0, 0)
    write_page(tmp_path / "new" / "report.html", Verdict(window, Reference(reference, MODEL, "made"), comparison, 0.01))
    page = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert all(name in page for name in COLUMNS)

    import pandas as pd
    from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
    from evidently.legacy.core import ColumnType

    for name, distance in comparison.distances.items():
        columns = [pd.Series(column) for column in compared(reference, observations)[name]]
        categorical = name == "emotion"
        test = jensenshannon_stat_test if categorical else wasserstein_stat_test
        kind = ColumnType.Categorical if categorical else ColumnType.Numerical
        assert distance == pytest.approx(test(*columns, kind, 0.1).drift_score, abs=1e-9), name


def test_accuracy_and_calibration_of_known_answers() -> None:
    collector = Collector()
    faces = [(50.0, 0.9, 0.75, 4.0)] * 4
    truth = [4.0, 4.0, 4.0, 6.0]
    collector.add(
        image_wh=(9, 9), bytes_=1, quality=InputQuality(1, 1), faces=[*faces, *faces], truth=[*truth, *[np.nan] * 4]
    )
    found = labelled(collector.observations())
    assert found is not None
    assert (found.faces, found.accuracy) == (4, 0.75)
    assert found.calibration_error == pytest.approx(0)
    assert found.interval == pytest.approx((0.3006, 0.9544), abs=1e-3)  # Wilson, 3 of 4
    collector = Collector()
    collector.add(image_wh=(9, 9), bytes_=1, quality=InputQuality(1, 1), faces=faces, truth=[np.nan] * 4)
    assert labelled(collector.observations()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-26T04:00", datetime(2026, 11, 26, 4, tzinfo=UTC)),
        ("2026-11-26T04:00+02:00", datetime(2026, 11, 26, 2, tzinfo=UTC)),
    ],
)
def test_reads_times(text: str, expected: datetime) -> None:
    assert parse_time(text, now=NOW) == expected


def test_refuses_what_is_no_time() -> None:
    with pytest.raises(MonitoringError, match="'soon' is no time"):
        parse_time("soon", now=NOW)


def test_a_window_holds_log_and_archive_without_gap_or_overlap(log: Log) -> None:
    path = log(*(record(number) for number in range(100)), rows=40)
    assert list(path.with_name("log.db.archive").iterdir())
    window = read_window(path, begin=NOW - timedelta(hours=1), end=NOW + timedelta(hours=1))
    expected = [record(number).quality.brightness for number in range(100)]
    np.testing.assert_allclose(window.observations.pictures["brightness"], expected, rtol=1e-6)
    assert len(window.observations.truth) == 100
    last = read_window(path, begin=NOW - timedelta(hours=1), end=NOW + timedelta(hours=1), last=70)
    assert len(last.observations) == 70
    path.with_name("log.db.archive").joinpath("faces-0-0.parquet").touch()  # of no pictures
    next(path.with_name("log.db.archive").glob("faces-1*")).unlink()  # deleted between two looks at the folder
    assert len(read_window(path, begin=NOW - timedelta(hours=1), end=NOW + timedelta(hours=1)).observations) == 32


def test_a_window_is_of_one_model_and_of_plain_requests(log: Log) -> None:
    path = log(record(1, model="b" * 64), record(2), record(3, plain=False), record(4))
    window = read_window(path, begin=NOW - timedelta(hours=1), end=NOW + timedelta(hours=1))
    assert (window.model, len(window.observations), window.other_models) == (MODEL, 2, 1)
    with pytest.raises(MonitoringError, match="no picture of that time was answered by model cccccccccccc"):
        read_window(path, begin=NOW - timedelta(hours=1), end=NOW + timedelta(hours=1), model="c" * 64)
    with pytest.raises(MonitoringError, match="holds no picture from"):
        read_window(path, begin=NOW - timedelta(hours=2), end=NOW - timedelta(hours=1))


def test_feedback_is_joined_by_request_picture_and_face(log: Log) -> None:
    faces = detections_of([(0, 0, 20, 20), (30, 0, 50, 20)], confidence=[0.9, 0.8], emotions=[4, 5])
    records = [record(1, detections=faces), record(1, item=1, detections=faces)]
    path = log(*records, Feedback("r1", 1, 1, "fear"), Feedback("r1", 1, 1, "sad"), Feedback("unknown", 0, 0, "sad"))
    window = read_window(path, begin=NOW - timedelta(hours=1), end=NOW + timedelta(hours=1))
    np.testing.assert_array_equal(window.observations.truth, [np.nan, np.nan, np.nan, NAMES.index("sad")])
    assert window.feedback == 1


def test_refuses_what_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(MonitoringError, match="EMOTION_LOG_DB"):
        read_window(tmp_path / "none.db", begin=NOW, end=NOW)
    (tmp_path / "text.db").write_bytes(b"text " * 1000)
    with pytest.raises(MonitoringError, match="cannot be read as a prediction log"):
        read_window(tmp_path / "text.db", begin=NOW, end=NOW)


def test_like_the_reference_ends_with_0(tmp_path: Path, log: Log, reference: Path) -> None:
    path = log(*(record(number) for number in range(200)))
    out, metrics = tmp_path / "out", tmp_path / "metrics" / "emotion.prom"
    done = run("--log", path, "--reference", reference, "--out", out, "--no-page", "--prometheus", metrics)
    assert done.exit_code == 0, done.output
    document = json.loads((out / "verdict.json").read_text())
    assert (document["verdict"], document["window"]["pictures"], document["model"]) == ("ok", 200, MODEL)
    families = {family.name: family for family in text_string_to_metric_families(metrics.read_text())}
    assert families["emotion_monitor_findings"].samples[0].value == 0
    assert {sample.labels["column"] for sample in families["emotion_monitor_distance"].samples} == set(COLUMNS)
    assert not (out / "report.html").exists()


def test_drift_is_an_error_of_its_own(tmp_path: Path, log: Log, reference: Path) -> None:
    path = log(*(record(number, brightness=30.0) for number in range(60)))
    choices = Choices(path, reference, page=False, out=tmp_path / "out", prometheus=tmp_path / "m.prom")
    verdict = monitor(choices)
    with pytest.raises(DriftError, match=r"brightness: distance .* \(mean 1\d\d → 30\)"):
        raise_on_drift(verdict)
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["columns"]["brightness"]["drifted"] is True
    assert 'emotion_monitor_drifted{column="brightness",model="aaaaaaaaaaaa"} 1.0' in (tmp_path / "m.prom").read_text()


def test_answers_that_people_correct_are_a_finding(tmp_path: Path, log: Log) -> None:
    write_observations(tmp_path / "r.parquet", population(400), model=MODEL, origin="made")
    records = [record(number) for number in range(100)]
    wrong = [Feedback(f"r{n}", 0, 0, NAMES[(int(records[n].detections.emotion_ids[0]) + 1) % 8]) for n in range(100)]
    verdict = monitor(Choices(log(*records, *wrong), tmp_path / "r.parquet", prometheus=tmp_path / "m.prom"))
    assert verdict.findings[-1].startswith("accuracy: 0.000 (")
    assert "emotion_monitor_accuracy" in (tmp_path / "m.prom").read_text()


def test_a_window_becomes_the_reference(tmp_path: Path, log: Log) -> None:
    path = log(*(record(number, brightness=40.0 + number % 7) for number in range(320)))
    done = run("--log", path, "--accept", tmp_path / "mine.parquet")
    assert done.exit_code == 0, done.output
    assert read_reference(tmp_path / "mine.parquet").model == MODEL
    assert run("--log", path, "--reference", tmp_path / "mine.parquet", "--out", tmp_path, "--no-page").exit_code == 0


@pytest.mark.parametrize("option", [[], ["--accept", "mine.parquet"]])
def test_refuses_too_few_pictures(log: Log, reference: Path, option: list[str]) -> None:
    path = log(*(record(number) for number in range(20)))
    done = run("--log", path, "--reference", reference, "--no-page", *option)
    assert isinstance(done.exception, MonitoringError)
    assert "20 pictures" in str(done.exception)


def test_the_reference_lies_beside_the_model_or_in_the_last_report(tmp_path: Path) -> None:
    assert reference_of(tmp_path) == Path("reports/evaluate/reference.parquet")
    (tmp_path / REFERENCE_NAME).touch()
    assert reference_of(tmp_path) == tmp_path / REFERENCE_NAME


def test_the_reference_of_an_evaluation_is_what_the_log_would_hold(tmp_path: Path) -> None:
    faces = {(0, 0): 4, (2, 1): 6}
    image = save_picture(tmp_path / "one.png", painted(faces))
    found = detections_of(
        [(0, 0, 32, 32), (64, 32, 96, 64), (0, 64, 20, 96)], confidence=[0.9, 0.8, 0.7], emotions=[4, 5, 1]
    )
    outcome = Outcome(Sample(image, painted_labels(faces)), found, found)
    observed = observe([outcome])
    assert observed.pictures["faces"].tolist() == [3]
    np.testing.assert_array_equal(observed.truth, [4, 6, np.nan])
    assert observed.faces["emotion"].tolist() == [4, 5, 1]
    np.testing.assert_allclose(2 ** observed.faces["log2_face_px"], [32, 32, 20])
    assert observed.pictures["bits_per_pixel"][0] == pytest.approx(8 * image.stat().st_size / 96**2)
    write_reference(tmp_path / "r.parquet", [outcome], model=MODEL)
    assert read_reference(tmp_path / "r.parquet").origin == "test split, 1 pictures"


def test_the_page_is_made_without_a_look_up(tmp_path: Path, log: Log, reference: Path) -> None:
    path = log(*(record(number) for number in range(60)))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def note(event, arguments):\n"
        "    if event in ('socket.getaddrinfo', 'socket.connect'): print('LOOKED UP', arguments, file=sys.stderr)\n"
        "sys.addaudithook(note)\n"
    )
    command = ["monitor", "--log", path, "--reference", reference, "--out", tmp_path / "out"]
    program = "from emotion_yolo.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, command)],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "HOME": str(tmp_path), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "LOOKED UP" not in done.stderr
    assert "like the reference (pictures of a test)" in done.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
