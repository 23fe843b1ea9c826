"""A headless Chromium and a running service. Without a browser the tests of the page are not collected."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.api.conftest import encoded, painted
from tests.api.process import Process
from tests.builders import exported_model
from tests.e2e.browser import find_browser

BROWSER = find_browser()

collect_ignore_glob = [] if BROWSER else ["test_page.py", "test_live.py", "test_device.py"]


@pytest.fixture(scope="module")  # not longer: while it lives, its event loop keeps other tests from running theirs
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        yield (running := playwright.chromium.launch(executable_path=BROWSER, args=arguments))
        running.close()


@pytest.fixture(scope="session")
def e2e_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def service(e2e_model: Path) -> Iterator[Process]:
    process = Process({"EMOTION_MODEL": str(e2e_model), "EMOTION_PORT": "0"}).wait_ready()
    yield process
    process.stop()


@pytest.fixture
def page(browser: Browser, service: Process) -> Iterator[Page]:
    """Return the loaded page; fails a test whose page logged an error or asked another host for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["camera"], base_url=service.url)
    fresh = context.new_page()
    foreign: list[str] = []
    errors: list[str] = []
    fresh.on("request", lambda r: None if r.url.startswith((service.url, "blob:")) else foreign.append(r.url))
    own = service.url.replace("http", "ws", 1)
    fresh.on("websocket", lambda ws: None if ws.url.startswith(own) else foreign.append(ws.url))
    # A refusal is logged by the browser as a failed resource; everything else is a fault of the page.
    fresh.on("console", lambda m: errors.append(m.text) if m.type == "error" and "status of 4" not in m.text else None)
    fresh.on("pageerror", lambda error: errors.append(str(error)))
    fresh.goto("/")
    yield fresh
    context.close()
    assert not foreign
    assert not errors


@pytest.fixture(scope="session")
def photo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.jpg"
    path.write_bytes(encoded(painted(), "JPEG", quality=95))
    return path
