import io
import logging
from pathlib import Path

import pytest

from tests.api.conftest import Serve, code_of

KEY, OTHER = "k" * 24, "another-key-of-24-letters"


def test_an_open_server_asks_for_no_key(serve: Serve, photo: bytes) -> None:
    assert serve().post("/v1/detect", files={"file": photo}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detect/batch", "/v1/annotate"])
def test_a_server_with_keys_refuses_requests_without_a_known_one(serve: Serve, path: str) -> None:
    client = serve(api_keys=f"{KEY},{OTHER}")
    for headers in (
        {},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": KEY + "k"},
        {"x-api-key": ""},
        {"x-api-key": b"\xe9" * 24},
    ):
        answer = client.post(path, files={"file": b"x"}, headers=headers)
        assert (answer.status_code, code_of(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "ApiKey"
    assert client.get("/v1/model").status_code == 401


def test_every_key_of_variable_and_file_opens(serve: Serve, photo: bytes, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the partners\n\n{OTHER}\n")
    client = serve(api_keys=KEY, api_keys_file=file)
    for key in (KEY, OTHER):
        assert client.post("/v1/detect", files={"file": photo}, headers={"x-api-key": key}).status_code == 200


def test_machinery_needs_no_key(serve: Serve) -> None:
    client = serve(api_keys=KEY)
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        assert client.get(path).status_code == 200


def test_each_key_has_a_rate_of_its_own(serve: Serve, photo: bytes) -> None:
    client = serve(api_keys=f"{KEY},{OTHER}", rate_per_minute=1, rate_burst=1, batch_files=1)

    def ask(key: str) -> int:
        return client.post("/v1/detect", files={"file": photo}, headers={"x-api-key": key}).status_code

    assert [ask(KEY), ask(KEY), ask(OTHER), ask(OTHER)] == [200, 429, 200, 429]


def test_a_key_is_never_logged_but_its_number_is(serve: Serve, photo: bytes) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(__import__("api.logs", fromlist=["JsonFormatter"]).JsonFormatter())
    logger = logging.getLogger("emotion_yolo.api")
    logger.addHandler(handler)
    try:
        client = serve(api_keys=f"{KEY},{OTHER}")
        client.post("/v1/detect", files={"file": photo}, headers={"x-api-key": OTHER})
        client.post("/v1/detect", files={"file": photo}, headers={"x-api-key": "wrong-key-wrong-key"})
    finally:
        logger.removeHandler(handler)
    assert '"client": "key-2"' in log.getvalue() or not logger.isEnabledFor(logging.INFO)
    for secret in (KEY, OTHER, "wrong-key"):
        assert secret not in log.getvalue()
    assert KEY not in repr(client.app.state.parts.settings)  # type: ignore[attr-defined]
