"""A candidate in the shadow of a real service: what it notes, and that answers never depend on it."""

import os
import signal
import sqlite3
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

from emotion_yolo.errors import ModelError
from emotion_yolo.imaging import LOCAL, decode
from emotion_yolo.inference.loading import load_model
from emotion_yolo.prediction_log.rows import SCHEMA, ShadowRecord
from emotion_yolo.prediction_log.store import LogLimits, Store
from emotion_yolo.shadow.agreement import Agreement, compare
from emotion_yolo.shadow.process import CandidateProcess, Loading
from emotion_yolo.structures.detections import Detections
from tests.api.process import Process, Start, wait_until
from tests.api.test_prediction_log import metric, rows
from tests.api.test_reload import point
from tests.builders import detections_of, exported_model

HEADERS = {"content-type": "image/jpeg"}
KEY = "an-admin-key-of-tests"


def ask(process: Process, photo: bytes, query: str = "") -> httpx.Response:
    return httpx.post(f"{process.url}/v1/detect{query}", content=photo, headers=HEADERS, timeout=60)


def outcome(process: Process, name: str) -> float:
    text = httpx.get(f"{process.url}/metrics").text
    return metric(text, f'emotion_shadow_pictures_total{{outcome="{name}"}}')


def agreed(process: Process) -> dict[str, float]:
    text = httpx.get(f"{process.url}/metrics").text
    kinds = ("same", "other_name", "present_only", "candidate_only")
    return {kind: metric(text, f'emotion_shadow_faces_total{{agreement="{kind}"}}') for kind in kinds}


def loaded(process: Process) -> bool:
    return "emotion_shadow_model_info{" in httpx.get(f"{process.url}/metrics").text


def children(process: Process) -> list[int]:
    """Return the processes that any thread of the service has started."""
    tasks = Path(f"/proc/{process.popen.pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def event(process: Process, text: str) -> bool:
    return any(text in line for line in list(process.lines))


def test_agreement_counts_faces_of_both_and_names() -> None:
    def faces(boxes: list[tuple[int, ...]], emotions: list[int]) -> Detections:
        return detections_of(boxes, confidence=[0.9] * len(boxes), emotions=emotions)

    answered = faces([(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)], [4, 4, 4])
    candidate = faces([(1, 0, 11, 10), (20, 0, 30, 10), (0, 40, 10, 50), (0, 2, 10, 12)], [4, 1, 4, 4])
    assert compare(answered, candidate) == Agreement(faces=3, candidate_faces=4, matched=2, same=1)
    assert not compare(answered, candidate).complete
    assert compare(answered, answered).complete
    nothing = faces([], [])
    assert compare(nothing, nothing).complete
    assert compare(answered, nothing) == Agreement(3, 0, 0, 0)


def test_the_process_answers_as_the_model_does_here(model_folder: Path, photo: bytes) -> None:
    picture = decode(photo, LOCAL, fit=96)
    process = CandidateProcess(Loading(model_folder, precision="f32"))
    try:
        found = process.score(picture, max_faces=300)
    finally:
        process.end()
    expected = load_model(model_folder, threads=1).predict_picture(picture, max_faces=300)
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert process.candidate.digest == load_model(model_folder).spec.digest
    with pytest.raises(ModelError, match="gave no answer"):
        process.score(picture, max_faces=300)


def test_a_candidate_scores_what_was_answered_and_the_log_says_how_far_they_agree(
    start: Start, photo: bytes, tmp_path: Path
) -> None:
    exported_model(tmp_path / "candidate", box_side=16)  # a quarter of the present model's boxes: none match
    process = start(
        EMOTION_LOG_DB=str(tmp_path / "log.db"),
        EMOTION_SHADOW_MODEL=str(tmp_path / "candidate"),
        EMOTION_SHADOW_SHARE="1",
    ).wait_ready()
    wait_until(lambda: loaded(process), seconds=120)
    answer = ask(process, photo)
    wait_until(lambda: outcome(process, "scored") == 1)
    assert ask(process, photo, "?conf=0.5").status_code == 200  # its own threshold: left out
    assert agreed(process) == {"same": 0, "other_name": 0, "present_only": 2, "candidate_only": 2}
    query = "SELECT request_id, faces, candidate_faces, matched, same, candidate != model FROM shadow"

    def logged() -> bool:
        with suppress(sqlite3.OperationalError):  # the file is there before its tables are
            return rows(tmp_path / "log.db", query) != []
        return False

    wait_until(lambda: (tmp_path / "log.db").exists() and logged())
    assert rows(tmp_path / "log.db", query) == [(answer.headers["x-request-id"], 2, 2, 0, 0, 1)]
    assert outcome(process, "scored") == 1
    process.popen.terminate()
    assert process.end() == 0


def test_a_busy_candidate_costs_nothing_but_the_sample(start: Start, photo: bytes, model_folder: Path) -> None:
    process = start(EMOTION_SHADOW_MODEL=str(model_folder), EMOTION_SHADOW_SHARE="1").wait_ready()
    wait_until(lambda: loaded(process), seconds=120)
    (candidate,) = children(process)
    os.kill(candidate, signal.SIGSTOP)  # the first picture keeps it busy for good
    for _ in range(6):
        assert ask(process, photo).status_code == 200
    assert (outcome(process, "busy"), outcome(process, "scored")) == (5, 0)
    os.kill(candidate, signal.SIGCONT)
    wait_until(lambda: outcome(process, "scored") == 1)
    assert agreed(process)["same"] == 2
    os.kill(candidate, signal.SIGSTOP)
    assert ask(process, photo).status_code == 200
    process.popen.terminate()
    assert process.end() == 0  # and in time: it does not wait for the candidate
    wait_until(lambda: not Path(f"/proc/{candidate}").exists())


def test_a_candidate_that_is_killed_is_started_again(start: Start, photo: bytes, model_folder: Path) -> None:
    process = start(EMOTION_SHADOW_MODEL=str(model_folder), EMOTION_SHADOW_SHARE="1").wait_ready()
    wait_until(lambda: loaded(process), seconds=120)
    (candidate,) = children(process)
    os.kill(candidate, signal.SIGKILL)
    assert ask(process, photo).status_code == 200
    wait_until(lambda: outcome(process, "failed") == 1)

    def scored() -> bool:
        assert ask(process, photo).status_code == 200
        return outcome(process, "scored") > 0

    wait_until(scored, seconds=120)
    assert agreed(process)["same"] == 2 * outcome(process, "scored")


def test_a_candidate_that_cannot_be_loaded_is_left_alone_until_a_reload(
    start: Start, photo: bytes, tmp_path: Path, model_folder: Path
) -> None:
    (tmp_path / "empty").mkdir()
    exported_model(tmp_path / "good")
    link = tmp_path / "candidate"
    link.symlink_to("empty")
    process = start(EMOTION_SHADOW_MODEL=str(link), EMOTION_SHADOW_SHARE="1", EMOTION_ADMIN_KEY=KEY).wait_ready()
    wait_until(lambda: event(process, "the shadow cannot score"), seconds=120)
    assert ask(process, photo).status_code == 200
    wait_until(lambda: outcome(process, "unavailable") == 1)
    point(link, "good")
    answer = httpx.post(f"{process.url}/admin/reload", headers={"x-api-key": KEY})
    assert answer.json()["status"] == "unchanged"  # the present model
    wait_until(lambda: loaded(process), seconds=120)
    assert ask(process, photo).status_code == 200
    wait_until(lambda: outcome(process, "scored") == 1)
    (candidate,) = children(process)
    process.popen.kill()
    process.end()
    wait_until(lambda: not Path(f"/proc/{candidate}").exists())  # its input has ended


def test_a_log_of_the_version_before_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    before = SCHEMA.partition("CREATE TABLE IF NOT EXISTS shadow")[0] + "PRAGMA user_version = 1;"
    connection = sqlite3.connect(path)
    connection.executescript(before)
    connection.close()
    store = Store(path, LogLimits(rows=10))
    record = ShadowRecord("r", 0, "m", "c", 3, 4, 2, 1, 12.5)
    store.append([record] * 15)
    store.keep_limits()
    store.close()
    assert rows(path, "SELECT faces, candidate_faces, matched, same FROM shadow") == [(3, 4, 2, 1)] * 10
    assert rows(path, "PRAGMA user_version") == [(2,)]
