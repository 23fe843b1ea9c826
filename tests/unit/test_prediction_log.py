"""The prediction log's files and its writer, on real disks, locks and damaged files."""

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from emotion_yolo.prediction_log.quality import InputQuality, input_quality
from emotion_yolo.prediction_log.rows import Feedback, PictureRecord
from emotion_yolo.prediction_log.store import LogLimits, Store
from emotion_yolo.prediction_log.writer import PredictionLog
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES
from tests.api.process import wait_until
from tests.builders import detections_of


def record(number: int = 0, *, faces: int = 2, time_us: int | None = None) -> PictureRecord:
    boxes = [(i, 0, i + 8, 8) for i in range(faces)]
    return PictureRecord(
        request_id=f"request-{number}",
        item=0,
        model="m" * 64,
        format="JPEG",
        bytes=1000 + number,
        quality=InputQuality(100.0, 5.0),
        detections=detections_of(boxes, confidence=[0.9] * faces, emotions=[4] * faces),
        latency_ms=12.5,
        plain=True,
        time_us=time.time_ns() // 1000 if time_us is None else time_us,
    )


def rows(path: Path, query: str = "SELECT request_id FROM pictures ORDER BY id") -> list[tuple]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def archived(store: Store, name: str = "pictures") -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file) for file in sorted(store.archive.glob(f"{name}-*.parquet"))])


class Counts:
    """What a log reports."""

    def __init__(self) -> None:
        self.written, self.size = 0, 0
        self.lost: Counter[str] = Counter()

    def add_written(self, count: int) -> None:
        self.written += count

    def add_lost(self, reason: str, count: int) -> None:
        self.lost[reason] += count

    def set_size(self, count: int) -> None:
        self.size = count


Open = Callable[..., tuple[PredictionLog, Counts]]


@pytest.fixture
def open_log() -> Iterator[Open]:
    opened = []

    def begin(path: Path, *, capacity: int = 2000, **limits: float) -> tuple[PredictionLog, Counts]:
        counts, bounds = Counts(), LogLimits(**limits)  # type: ignore[arg-type]
        log = PredictionLog(
            Store(path, bounds), bounds, on_written=counts.add_written, on_lost=counts.add_lost,
            on_size=counts.set_size, capacity=capacity,
        )  # fmt: skip
        opened.append(log)
        return log, counts

    yield begin
    for log in opened:
        log.close(20)


def test_a_picture_is_a_row_and_each_face_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "log.db"
    store = Store(path, LogLimits())
    store.append([record(1), record(2, faces=0), Feedback("request-1", 0, 1, "sad")])
    store.close()
    query = "SELECT request_id, model, width, height, format, bytes, brightness, faces, latency_ms, plain FROM pictures"
    assert rows(path, query)[0] == ("request-1", "m" * 64, 96, 96, "JPEG", 1001, 100.0, 2, 12.5, 1)
    faces = rows(path, "SELECT face, x1, x2, confidence, emotion, p_happy FROM faces ORDER BY face")
    assert faces == [(0, 0, 8, 0.9, "happy", 0.86), (1, 1, 9, 0.9, "happy", 0.86)]
    assert rows(path, "SELECT request_id, item, face, emotion FROM feedback") == [("request-1", 0, 1, "sad")]
    assert path.stat().st_mode & 0o077 == 0


def test_rows_above_the_limit_move_to_parquet_and_none_is_lost_or_doubled(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.db", LogLimits(rows=100))
    for start in range(0, 1000, 100):
        store.append([record(number) for number in range(start, start + 100)])
        store.keep_limits()
    kept, moved = rows(store.path), archived(store)
    assert len(kept) <= 100
    names = [*moved["request_id"], *(name for (name,) in kept)]
    assert names == [f"request-{number}" for number in range(1000)]
    faces = archived(store, "faces")
    assert faces["picture"].n_unique() == len(moved)
    assert faces["p_happy"].unique().to_list() == [0.86]


def test_rows_that_were_moved_before_a_crash_are_not_moved_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.db", LogLimits(rows=10))
    store.append([record(number) for number in range(20)])
    before = store.path.read_bytes(), (tmp_path / "log.db-wal").read_bytes()
    store.keep_limits()
    store.close()
    # As if the process had ended after the Parquet file was there and before the rows were deleted.
    store.path.write_bytes(before[0])
    (tmp_path / "log.db-wal").write_bytes(before[1])
    again = Store(store.path, LogLimits(rows=10))
    again.append([record(20)])
    again.keep_limits()
    again.close()
    names = [*archived(again)["request_id"], *(name for (name,) in rows(again.path))]
    assert sorted(names) == sorted(f"request-{number}" for number in range(21))


def test_without_pyarrow_old_rows_are_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.db", LogLimits(rows=100))
    store.keeps_archive = False
    store.append([record(number) for number in range(200)])
    store.keep_limits()
    assert rows(store.path)[0] == ("request-120",)
    assert not store.archive.exists()


def test_old_rows_and_old_parquet_files_are_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.db", LogLimits(rows=20, days=1))
    store.append([record(number) for number in range(100)])
    store.keep_limits()
    assert len(list(store.archive.iterdir())) == 2
    yesterday = time.time_ns() // 1000 - 25 * 3_600_000_000
    for file in store.archive.glob("*.parquet"):
        name, first, _ = file.stem.split("-")
        file.rename(file.with_name(f"{name}-{int(first) - 25 * 3_600_000_000}-{yesterday}.parquet"))
    store.append([record(500, time_us=yesterday)])
    store.keep_limits()
    assert list(store.archive.iterdir()) == []
    assert ("request-500",) not in rows(store.path)
    assert rows(store.path, "SELECT count(*) FROM faces WHERE picture NOT IN (SELECT id FROM pictures)") == [(0,)]


@pytest.mark.parametrize("archive", [True, False])
def test_the_log_never_takes_more_bytes_than_it_may(tmp_path: Path, archive: bool) -> None:
    limit = 1_500_000
    store = Store(tmp_path / "log.db", LogLimits(rows=1_000_000, bytes=limit))
    store.keeps_archive = archive
    sizes = []
    for start in range(0, 3_000, 200):
        store.append([record(number, faces=4) for number in range(start, start + 200)])
        store.keep_limits()
        sizes.append(store.size())
    assert max(sizes) <= limit
    assert rows(store.path)[-1] == ("request-2999",)


def test_feedback_is_bounded_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.db", LogLimits(rows=50))
    store.append([Feedback(f"request-{number}", 0, 0, "sad") for number in range(200)])
    store.keep_limits()
    assert rows(store.path, "SELECT count(*), max(request_id) FROM feedback") == [(50, "request-199")]


def test_keys_grow_although_the_clock_goes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.db", LogLimits())
    store.append([record(0)])
    connection = sqlite3.connect(store.path)
    connection.execute("UPDATE pictures SET id = id + 86400000000")
    connection.commit()
    connection.close()
    store.append([record(1)])
    assert [name for (name,) in rows(store.path)] == ["request-0", "request-1"]


def test_it_is_read_while_it_is_written(tmp_path: Path, open_log: Open) -> None:
    log, counts = open_log(tmp_path / "log.db")
    seen = []
    for number in range(400):
        assert log.put(record(number))
        if number % 40 == 39:
            wait_until(lambda number=number: counts.written == number + 1)
            connection = sqlite3.connect(tmp_path / "log.db")
            frame = pl.read_database("SELECT * FROM pictures JOIN faces ON id = picture", connection)
            connection.close()
            seen.append(frame["id"].n_unique())
    assert seen == list(range(40, 401, 40))
    assert not counts.lost


def test_records_that_keep_coming_do_not_delay_writing(tmp_path: Path, open_log: Open) -> None:
    log, counts = open_log(tmp_path / "log.db")
    numbers = iter(range(400))  # fewer than fill a batch, each before the wait for another one ends

    def written() -> bool:
        assert log.put(record(next(numbers)))
        return counts.written > 0

    wait_until(written)


def test_what_is_queued_is_written_at_the_end(tmp_path: Path, open_log: Open) -> None:
    log, counts = open_log(tmp_path / "log.db")
    for number in range(700):
        log.put(record(number))
    log.close(30)
    assert counts.written == 700
    assert len(rows(tmp_path / "log.db")) == 700
    assert not log.put(record(701))
    assert counts.lost == {"closing": 1}


def test_a_locked_file_costs_rows_until_it_is_free(tmp_path: Path, open_log: Open) -> None:
    path = tmp_path / "log.db"
    log, counts = open_log(path, capacity=20)
    log.put(record(0))
    wait_until(lambda: counts.written == 1)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE');"
        "print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        number = 1
        while (
            counts.lost["locked"] == 0 or counts.lost["queue"] == 0
        ):  # the writer waits; the queue overflows meanwhile
            log.put(record(number))
            number += 1
            time.sleep(0.001)
        holder.stdin.close()
    before = counts.written

    def writes_again() -> bool:
        log.put(record(-1))
        time.sleep(0.01)
        return counts.written > before

    wait_until(writes_again)


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, open_log: Open) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"no database at all " * 1000)
    log, counts = open_log(path)
    log.put(record(0))
    wait_until(lambda: counts.lost["corrupt"] == 1)
    log.put(record(1))
    wait_until(lambda: counts.written == 1)
    assert rows(path) == [("request-1",)]
    assert (tmp_path / "log.db.corrupt").read_bytes().startswith(b"no database")


def test_a_damaged_database_is_set_aside(tmp_path: Path, open_log: Open) -> None:
    path = tmp_path / "log.db"
    store = Store(path, LogLimits())
    store.append([record(number) for number in range(500)])
    store.keep_limits()
    store.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = os.urandom(len(damaged) - 4096)
    path.write_bytes(damaged)
    log, counts = open_log(path)
    log.put(record(0))
    wait_until(lambda: counts.lost["corrupt"] == 1)
    log.put(record(1))
    wait_until(lambda: counts.written == 1)
    assert rows(path) == [("request-1",)]


def test_a_file_of_another_version_is_left_alone(tmp_path: Path, open_log: Open) -> None:
    path = tmp_path / "log.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE theirs (a); PRAGMA user_version = 99")
    connection.close()
    log, counts = open_log(path)
    log.put(record(0))
    wait_until(lambda: counts.lost["error"] == 1)
    assert rows(path, "SELECT name FROM sqlite_master") == [("theirs",)]


def test_a_path_that_cannot_be_one_costs_rows_only(tmp_path: Path, open_log: Open) -> None:
    (tmp_path / "file").touch()
    log, counts = open_log(tmp_path / "file" / "log.db")
    log.put(record(0))
    wait_until(lambda: counts.lost["disk"] == 1)


def test_a_deleted_file_is_made_again(tmp_path: Path, open_log: Open) -> None:
    path = tmp_path / "log.db"
    log, counts = open_log(path)
    log.put(record(0))
    wait_until(lambda: counts.written == 1)
    for file in tmp_path.iterdir():
        file.unlink()
    log.put(record(1))
    wait_until(lambda: counts.written == 2)
    assert rows(path) == [("request-1",)]


def test_a_full_disk_costs_rows_until_there_is_room(tmp_path: Path) -> None:
    # The kernel refuses to let any file of that process grow, as a full disk does.
    path = tmp_path / "log.db"
    program = f"""
import resource, signal
from pathlib import Path
from tests.api.process import wait_until
from tests.unit.test_prediction_log import Counts, record
from emotion_yolo.prediction_log.store import LogLimits, Store
from emotion_yolo.prediction_log.writer import PredictionLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
counts, limits = Counts(), LogLimits()
log = PredictionLog(
    Store(Path({str(path)!r}), limits), limits,
    on_written=counts.add_written, on_lost=counts.add_lost, on_size=counts.set_size,
)
log.put(record(0))
wait_until(lambda: counts.written == 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for number in range(1, 1501):
    log.put(record(number))
wait_until(lambda: counts.written + sum(counts.lost.values()) == 1501)
assert counts.lost["disk"] > 0, counts.lost
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
before = counts.written
log.put(record(2000))
wait_until(lambda: counts.written == before + 1)
log.close(30)
print(counts.written)
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    names = [name for (name,) in rows(path)]
    assert len(names) == int(done.stdout)
    assert (names[0], names[-1]) == ("request-0", "request-2000")


def test_a_reader_that_never_ends_cannot_make_the_files_grow_without_bound(tmp_path: Path, open_log: Open) -> None:
    path = tmp_path / "log.db"
    log, counts = open_log(path, bytes=4_000_000)
    log.put(record(0))
    wait_until(lambda: counts.written == 1)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM pictures").fetchall()
    number = 0
    large = record(faces=80)
    while not counts.lost["disk"]:
        number += log.put(large)
        time.sleep(0.0005)
        assert number < 10_000
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 16_000_000
    assert reader.execute("SELECT count(*) FROM pictures").fetchone() == (1,)
    reader.close()
    before = counts.written

    def writes_again() -> bool:
        log.put(record(-1))
        time.sleep(0.01)
        return counts.written > before

    wait_until(writes_again)


def test_quality_does_not_depend_on_how_a_picture_was_reduced() -> None:
    noise = np.random.default_rng(0).normal(0, 40, (64, 64, 3))
    picture = np.clip(np.kron(noise + 120, np.ones((16, 16, 1))), 0, 255).astype(np.uint8)  # 1024 px
    whole, reduced = input_quality(picture), input_quality(np.ascontiguousarray(picture[::2, ::2]))
    assert reduced.brightness == pytest.approx(whole.brightness, abs=0.5)
    assert reduced.sharpness == pytest.approx(whole.sharpness, rel=0.02)


def test_quality_tells_dark_blurred_and_blank_pictures() -> None:
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    plain, dark = input_quality(picture), input_quality((picture * 0.4).astype(np.uint8))
    blurred = input_quality(cv2.GaussianBlur(picture, (0, 0), 3))
    assert dark.brightness == pytest.approx(plain.brightness * 0.4, abs=1)
    assert blurred.sharpness < plain.sharpness / 10
    assert input_quality(np.full((50, 1, 3), 7, np.uint8)) == InputQuality(7.0, 0.0)


def test_files_can_be_limited_here() -> None:
    # What `test_a_full_disk…` relies on.
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY


def test_emotions_that_a_model_does_not_name_have_no_probability(tmp_path: Path) -> None:
    names = tuple(name for name in NAMES if name != "contempt")
    shares = np.asarray([[0.03, 0.03, 0.03, 0.03, 0.03, 0.03, 0.82]], np.float32)
    faces = Detections(np.asarray([[0, 0, 8, 8]], np.float32), np.asarray([0.9], np.float32), shares, (64, 64), names)
    store = Store(tmp_path / "log.db", LogLimits())
    store.append([replace(record(), detections=faces)])
    store.close()
    found = rows(tmp_path / "log.db", "SELECT emotion, p_anger, p_contempt, p_surprise FROM faces")
    assert found == [("surprise", 0.03, 0.0, 0.82)]
