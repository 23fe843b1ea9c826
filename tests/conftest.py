"""What concerns all tests."""

import ast
from pathlib import Path

import hypothesis
import pytest

from tests.e2e.browser import NAMES, find_browser

# A busy machine is slow, and nothing is wrong with the example that was drawn then.
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")


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
