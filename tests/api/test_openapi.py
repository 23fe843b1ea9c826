import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.main import create_app
from api.problems import STATUS, Code
from api.schemas import EmotionName
from api.settings import Settings
from emotion_yolo.structures.emotions import NAMES
from tests.api.conftest import Serve, encoded, painted

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


def current(settings: Callable[..., Settings]) -> dict:
    # The version is the package's: it changes without the contract.
    document = create_app(settings()).openapi()
    return json.loads(json.dumps(document | {"info": document["info"] | {"version": "1"}}))


def test_the_committed_document_is_the_service_s(settings: Callable[..., Settings]) -> None:
    text = json.dumps(current(settings), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_OPENAPI"):
        DOCUMENT.write_text(text, "utf-8")
    assert DOCUMENT.read_text("utf-8") == text, "run: UPDATE_OPENAPI=1 pytest tests/api/test_openapi.py"


def test_every_field_says_what_it_is(settings: Callable[..., Settings]) -> None:
    for name, schema in current(settings)["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, definition in schema.get("properties", {}).items():
            assert definition.get("description") or "$ref" in definition, f"{name}.{field}"


def test_every_parameter_and_route_says_what_it_is(settings: Callable[..., Settings]) -> None:
    for path, operations in current(settings)["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert all(parameter.get("description") for parameter in operation.get("parameters", [])), path


def test_every_code_is_documented_on_a_route(settings: Callable[..., Settings]) -> None:
    text = json.dumps(current(settings)["paths"])
    # Of no route, never read, or of streams, which OpenAPI does not describe.
    unspoken = {
        Code.METHOD_NOT_ALLOWED,
        Code.MALFORMED_REQUEST,
        Code.HEAD_TOO_LARGE,
        Code.CLIENT_GONE,
        Code.ORIGIN_REFUSED,
        Code.NOT_INSTALLED,
    }
    assert {code for code in Code if f"`{code}`" not in text} == unspoken
    assert set(STATUS) == set(Code)


def test_the_classes_are_the_project_s() -> None:
    assert EmotionName.__args__ == NAMES  # type: ignore[attr-defined]


PICTURES = [
    encoded(painted(), "JPEG"),
    encoded(painted().resize((40, 30)), "PNG"),
    encoded(painted(), "JPEG")[:2000],
    b"",
    b"GIF89a",
]


schemathesis.openapi.format("binary", st.sampled_from(PICTURES) | st.binary(max_size=200))


def test_answers_as_documented_to_whatever_is_asked(serve: Serve) -> None:
    """Schemathesis makes requests out of the document; answers have to fit it, and none may be a 5xx."""
    client = serve()
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    checks = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
    statuses: Counter[tuple[str, int]] = Counter()

    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            response = case.call_and_validate(session=client, checks=checks)
            statuses[case.path, response.status_code] += 1

        ask()
    # It has seen both sides of each door.
    for path in ("/v1/detect", "/v1/detect/batch", "/v1/annotate"):
        assert statuses[path, 200]
        assert sum(count for (asked, status), count in statuses.items() if asked == path and status >= 400)
