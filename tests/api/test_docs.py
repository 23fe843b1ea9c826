from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.problems import STATUS
from api.settings import Settings
from tests.api.conftest import code_of

TEXT = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")


def test_every_code_is_explained_with_its_status() -> None:
    for code, status in STATUS.items():
        assert f"| `{code}` | {status} |" in TEXT


def test_every_setting_is_explained_with_its_own_words() -> None:
    for name, field in Settings.model_fields.items():
        assert f"| `EMOTION_{name.upper()}` |" in TEXT
        assert f"| {field.description} |" in TEXT, name


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/static/page.js", "text/javascript"),
        ("/static/style.css", "text/css"),
    ],
)
def test_pages_come_with_a_policy_that_allows_no_foreign_asset(client: TestClient, path: str, media_type: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"].startswith(media_type)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2fmain.py", "%2e%2e/main.py"])
def test_serves_no_other_file(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}")
    assert (answer.status_code, code_of(answer)) == (404, "not_found")
