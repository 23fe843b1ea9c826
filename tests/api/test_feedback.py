"""Feedback: who may give it, what it may be, and where it goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from tests.api.conftest import Serve, code_of
from tests.api.process import wait_until
from tests.api.test_prediction_log import metric, rows

KEY = "a-key-of-the-tests-0"
GIVEN = {"request_id": "mine-1", "item": 0, "face": 1, "emotion": "sad"}


@pytest.fixture(scope="module")
def logging_client(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return the client of a server with a prediction log, for requests that it refuses."""
    log = tmp_path_factory.mktemp("feedback") / "log.db"
    with TestClient(create_app(Settings(model=model_folder, threads=1, log_db=log))) as running:
        wait_until(lambda: running.get("/readyz").status_code == 200)
        yield running


def test_feedback_is_written_beside_the_answers(serve: Serve, photo: bytes, tmp_path: Path) -> None:
    client = serve(log_db=tmp_path / "log.db")
    client.post("/v1/detect", files={"file": photo}, headers={"x-request-id": "mine-1"})
    answer = client.post("/v1/feedback", json=GIVEN)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    wait_until(lambda: metric(client.get("/metrics").text, "emotion_prediction_log_rows_total") == 2)
    query = "SELECT faces, face, emotion FROM feedback JOIN pictures USING (request_id, item)"
    assert rows(tmp_path / "log.db", query) == [(2, 1, "sad")]


def test_a_server_without_a_log_takes_none(serve: Serve) -> None:
    answer = serve().post("/v1/feedback", json=GIVEN)
    assert (answer.status_code, code_of(answer)) == (404, "not_found")


def test_feedback_needs_the_key_and_counts_to_the_rate(serve: Serve, tmp_path: Path) -> None:
    client = serve(log_db=tmp_path / "log.db", api_keys=KEY, rate_per_minute=1, rate_burst=16)
    assert code_of(client.post("/v1/feedback", json=GIVEN)) == "unauthorized"
    answers = [client.post("/v1/feedback", json=GIVEN, headers={"x-api-key": KEY}) for _ in range(17)]
    assert [answer.status_code for answer in answers] == [202] * 16 + [429]


@pytest.mark.parametrize(
    "changes",
    [
        {"emotion": "bored"},
        {"face": -1},
        {"face": 10**9},
        {"request_id": "a b"},
        {"request_id": "x" * 65},
        {"note": "text"},
    ],
)
def test_refuses_what_is_no_feedback(logging_client: TestClient, changes: dict) -> None:
    answer = logging_client.post("/v1/feedback", json=GIVEN | changes)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_parameter")


@pytest.mark.parametrize(("body", "code"), [(b"{", "invalid_parameter"), (b" " * 5_000, "too_large")])
def test_refuses_bodies_that_are_none(logging_client: TestClient, body: bytes, code: str) -> None:
    headers = {"content-type": "application/json"}
    answer = logging_client.post("/v1/feedback", content=body, headers=headers)
    assert code_of(answer) == code


def test_a_log_that_cannot_keep_up_is_said_so(serve: Serve, tmp_path: Path) -> None:
    client = serve(log_db=tmp_path / "log.db")
    client.app.state.parts.engine.log.close()
    answer = client.post("/v1/feedback", json=GIVEN)
    assert (answer.status_code, code_of(answer)) == (503, "overloaded")
    assert answer.headers["retry-after"] == "5"
