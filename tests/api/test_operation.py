import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.engine import State
from api.logs import LOGGER, JsonFormatter
from api.main import create_app
from api.settings import Settings
from emotion_yolo.errors import ModelError
from tests.api.conftest import Serve, code_of
from tests.builders import exported_model

Lines = Callable[[], list[dict]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Return a reader of what the service logs."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    LOGGER.addHandler(handler)
    level = LOGGER.level
    LOGGER.setLevel("DEBUG")
    yield lambda: [json.loads(line) for line in log.getvalue().splitlines()]
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json"])
def test_head_is_answered_like_get_without_the_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == got.headers["content-length"]


def test_is_alive_before_it_is_ready_and_unready_while_draining(serve: Serve) -> None:
    client = serve()
    engine = client.app.state.parts.engine  # type: ignore[attr-defined]
    assert client.get("/readyz").json() == {"status": "ready"}
    for state in (State.LOADING, State.DRAINING):
        engine.state = state
        answer = client.get("/readyz")
        assert (answer.status_code, code_of(answer)) == (503, "not_ready")
        assert "retry-after" in answer.headers
        assert client.get("/healthz").json() == {"status": "alive"}


def test_a_draining_server_still_answers(serve: Serve, photo: bytes) -> None:
    client = serve()
    client.app.state.parts.engine.drain()  # type: ignore[attr-defined]
    assert client.post("/v1/detect", files={"file": photo}).status_code == 200


def test_asks_for_patience_while_the_model_loads(settings: Callable[..., Settings], photo: bytes) -> None:
    client = TestClient(create_app(settings()))  # not started: nothing is loaded
    for answer in (client.post("/v1/detect", files={"file": photo}), client.get("/v1/model")):
        assert (answer.status_code, code_of(answer)) == (503, "not_ready")


def test_a_missing_model_is_kept_as_the_reason_and_never_ready_nor_healthy(serve: Serve, tmp_path: Path) -> None:
    client = serve(model=tmp_path)
    failure = client.app.state.parts.engine.failure  # type: ignore[attr-defined]
    assert isinstance(failure, ModelError)
    assert [client.get(path).status_code for path in ("/readyz", "/healthz")] == [503, 503]


def test_a_damaged_model_is_refused(serve: Serve, tmp_path: Path) -> None:
    folder = exported_model(tmp_path / "model")
    weights = folder / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    client = serve(model=folder)
    assert "sha256" in str(client.app.state.parts.engine.failure)  # type: ignore[attr-defined]


def test_onnx_runtime_gives_the_same_answer(serve: Serve, client: TestClient, photo: bytes) -> None:
    other = serve(backend="onnx")
    assert other.get("/v1/model").json()["backend"] == "onnx"
    answers = [c.post("/v1/detect", files={"file": photo}).json()["detections"] for c in (client, other)]
    assert [d["emotion"] for d in answers[0]] == [d["emotion"] for d in answers[1]]
    for one, two in zip(*answers, strict=True):
        assert one["confidence"] == pytest.approx(two["confidence"], abs=1e-3)


def test_the_card_has_the_metrics_that_lay_beside_the_model_when_it_was_loaded(serve: Serve, tmp_path: Path) -> None:
    folder = exported_model(tmp_path / "model")
    (folder / "metrics.json").write_text('{"map50": 0.8, "split": "test"}')
    client = serve(model=folder)
    card = client.get("/v1/model").json()
    assert (card["metrics"], card["metrics_split"]) == ({"map50": 0.8, "split": "test"}, "test")
    assert card["licence"] == "AGPL-3.0"
    assert "Not for decisions about people" in card["intended_use"]
    (folder / "metrics.json").write_text('{"map50": 0.9, "split": "test"}')  # of another model
    assert client.get("/v1/model").json() == card


@pytest.mark.parametrize("text", [None, "[1]", "broken", '{"map50": NaN}', '{"split": 3}', "[" * 100_000])
def test_the_card_has_no_metrics_where_there_are_none_to_read(serve: Serve, tmp_path: Path, text: str | None) -> None:
    folder = exported_model(tmp_path / "model")
    if text is not None:
        (folder / "metrics.json").write_text(text)
    answer = serve(model=folder).get("/v1/model")
    assert answer.status_code == 200
    assert (answer.json()["metrics"], answer.json()["metrics_split"]) == (None, None)


def test_the_card_costs_no_picture_of_the_rate(serve: Serve) -> None:
    client = serve(rate_per_minute=1, rate_burst=1, batch_files=1)
    assert [client.get("/v1/model").status_code for _ in range(3)] == [200, 200, 200]


def test_counts_what_it_saw(serve: Serve, photo: bytes) -> None:
    client = serve()
    client.post("/v1/detect", files={"file": photo})
    client.post("/v1/detect", files={"file": b"no picture"})
    client.post("/v1/detect/batch", files=[("files", ("a", photo)), ("files", ("b", b"no picture"))])
    client.request("BREW", "/coffee")
    text = client.get("/metrics").text
    for line in (
        'emotion_http_requests_total{method="POST",route="/v1/detect",status="200"} 1.0',
        'emotion_http_requests_total{method="POST",route="/v1/detect",status="415"} 1.0',
        'emotion_http_requests_total{method="(any)",route="(none)",status="404"} 1.0',
        'emotion_rejections_total{code="unsupported_format"} 2.0',
        'emotion_detections_total{emotion="happy"} 2.0',
        'emotion_faces_per_picture_bucket{le="2.0"} 2.0',
        'emotion_inputs_total{format="JPEG"} 2.0',
        'emotion_phase_seconds_count{phase="inference"} 2.0',
        'emotion_phase_seconds_count{phase="queue"} 4.0',
        "emotion_input_brightness_count 2.0",
        "emotion_confidence_count 4.0",
        "emotion_queue_waiting 0.0",
        "emotion_queue_running 0.0",
        "emotion_ready 1.0",
    ):
        assert line in text


def test_logs_one_line_a_request_with_its_id_and_nothing_of_the_picture(
    serve: Serve, photo: bytes, lines: Lines
) -> None:
    client = serve()
    answer = client.post(
        "/v1/detect?conf=0.5", files={"file": ("secret-name.jpg", photo)}, headers={"x-request-id": "abc-123"}
    )
    assert answer.headers["x-request-id"] == "abc-123"
    (line,) = [line for line in lines() if line["event"] == "request" and line["route"] == "/v1/detect"]
    assert line | {"ms": 0, "time": ""} == {
        "time": "",
        "level": "info",
        "event": "request",
        "request_id": "abc-123",
        "method": "POST",
        "route": "/v1/detect",
        "status": 200,
        "ms": 0,
        "faces": 2,
    }


def test_probes_are_logged_for_debugging_only(serve: Serve, lines: Lines) -> None:
    serve().get("/healthz")
    assert {line["level"] for line in lines() if line.get("route") in {"/healthz", "/readyz"}} == {"debug"}


@pytest.mark.parametrize("given", ["", "a" * 65, "a b", 'x"}{', "\xe9"])
def test_makes_a_request_id_of_its_own_where_the_given_one_is_none(client: TestClient, given: str) -> None:
    answer = client.get("/healthz", headers={"x-request-id": given.encode("latin-1")})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 16


def test_an_error_in_a_route_is_logged_with_its_id_and_answered_without_its_text(
    serve: Serve, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    monkeypatch.setattr("api.routes.model.model_name", lambda _: 1 / 0)
    answer = client.get("/v1/model")
    assert (answer.status_code, code_of(answer)) == (500, "internal_error")
    assert "ZeroDivision" not in answer.text
    (line,) = [line for line in lines() if line["level"] == "error"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in line["exception"]


def test_an_error_with_a_picture_is_logged_with_the_id_of_its_request(
    serve: Serve, photo: bytes, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    monkeypatch.setattr(client.app.state.parts.engine.detector, "preprocess", lambda _: 1 / 0)  # type: ignore[attr-defined]
    answer = client.post("/v1/detect", files={"file": photo})
    assert (answer.status_code, code_of(answer)) == (500, "internal_error")
    (line,) = [line for line in lines() if line["level"] == "error"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in line["exception"]


def test_shortage_of_memory_is_a_reason_to_try_again(
    serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: object) -> None:
        raise MemoryError

    client = serve()
    monkeypatch.setattr(client.app.state.parts.engine.detector, "infer", no_memory)  # type: ignore[attr-defined]
    answer = client.post("/v1/detect", files={"file": photo})
    assert (answer.status_code, code_of(answer)) == (503, "overloaded")
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("path", ["/healthz", "/v1/model", "/nothing", "/"])
def test_every_answer_carries_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_a_path_with_a_slash_too_many_is_not_found(client: TestClient) -> None:
    for path in ("/v1/detect/", "/healthz/"):
        answer = client.get(path, headers={"host": "evil.example"}, follow_redirects=False)
        assert (answer.status_code, code_of(answer)) == (404, "not_found")


def test_methods_of_any_name_are_one_series_of_the_metrics(serve: Serve) -> None:
    client = serve()
    for number in range(20):
        client.request(f"ODD{number}", "/healthz")
    text = client.get("/metrics").text
    assert 'emotion_http_requests_total{method="(other)",route="/healthz",status="405"} 20.0' in text
    assert "ODD" not in text


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    answer = client.get("/nothing")
    assert (answer.status_code, code_of(answer)) == (404, "not_found")
    answer = client.get("/v1/detect")
    assert (answer.status_code, code_of(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert client.post("/v1/model").headers["allow"] == "GET, HEAD"


def test_cors_is_off_by_default_and_on_for_named_origins(serve: Serve) -> None:
    asking = {"origin": "https://example.org", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in serve().options("/v1/detect", headers=asking).headers
    client = serve(cors_origins="https://example.org")
    assert client.options("/v1/detect", headers=asking).headers["access-control-allow-origin"] == asking["origin"]
    other = client.options("/v1/detect", headers=asking | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
