"""What concerns all tests."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.e2e.browser import NAMES, find_browser

# Workers share the cores: threads of torch, NumPy and their subprocesses would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow, and nothing is wrong with the example that was drawn then.
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, those with a time limit of their own; the others fill the cores beside them."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests need a browser where there is none."""
    if find_browser() is not None:
        return
    left_out = [
        f"{path.relative_to(Path(__file__).parents[1])}::{node.name}"
        for path in [Path(__file__).parent / "e2e/test_page.py"]
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    terminalreporter.section("left out: no browser", yellow=True)
    terminalreporter.line(f"looked for {', '.join(NAMES)} and CHROMIUM; install one to run these:")
    terminalreporter.line("\n".join(left_out))


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server on loopback with an empty bucket `faces`; the environment points there."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="faces")
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="faces"):
        for item in page.get("Contents", ()):
            client.delete_object(Bucket="faces", Key=item["Key"])
    client.delete_bucket(Bucket="faces")
