"""The page's live mode, with Chromium's fake camera."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx2 as httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.api.conftest import wait_until
from tests.api.process import Process
from tests.builders import painted
from tests.e2e.browser import fake_camera, find_browser

HAPPY = 4
KEY = "a-key-of-24-characters-x"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser whose camera shows a happy face in the middle, 160 of 480 px wide."""
    image = cv2.resize(painted({(1, 1): HAPPY}), (480, 480), interpolation=cv2.INTER_NEAREST)
    camera = fake_camera(tmp_path_factory.mktemp("camera") / "face.y4m", [image] * 25)
    with sync_playwright() as playwright:
        yield (running := playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", *camera]))
        running.close()


def go_live(page: Page) -> None:
    page.get_by_role("button", name="Go live").click()


@contextmanager
def fresh(browser: Browser, *, permissions: Sequence[str] = ("camera",)) -> Iterator[Page]:
    context = browser.new_context(permissions=list(permissions))
    yield context.new_page()
    context.close()


def boxes(page: Page) -> int:
    return page.locator("#live-boxes g").count()


def test_boxes_with_track_and_emotion_lie_on_the_faces_until_it_is_stopped(page: Page, service: Process) -> None:
    go_live(page)
    expect(page.locator("#live-boxes text")).to_have_text("#0 happy", timeout=60_000)
    expect(page.locator("#live-figures")).to_have_text(re.compile(r"^1 face · \d+\.\d frames/s · \d+ ms each$"))
    # At once: with the next answer, the box is another element.
    box, video = page.evaluate(
        "['#live-boxes g rect.edge', '#video'].map((s) => document.querySelector(s).getBoundingClientRect().toJSON())"
    )
    side = min(video["width"], video["height"])  # the square picture lies in the middle of the view
    assert box["width"] == pytest.approx(side / 3, abs=8)
    assert box["x"] - video["x"] == pytest.approx((video["width"] - side) / 2 + side / 3, abs=8)
    assert box["y"] - video["y"] == pytest.approx((video["height"] - side) / 2 + side / 3, abs=8)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#camera")).to_be_hidden()
    expect(page.get_by_role("button", name="Go live")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    assert boxes(page) == 0
    assert page.evaluate("document.querySelector('#video').srcObject") is None
    wait_until(lambda: "emotion_streams 0.0" in httpx.get(f"{service.url}/metrics").text)


def test_asks_no_faster_than_it_is_answered(page: Page, service: Process) -> None:
    go_live(page)
    expect(page.locator("#live-boxes g")).to_have_count(1, timeout=60_000)
    page.wait_for_timeout(1_000)
    text = httpx.get(f"{service.url}/metrics").text
    assert not re.search(r'emotion_stream_frames_total\{outcome="(dropped|refused)"\} [1-9]', text)


@pytest.mark.parametrize(
    ("error", "said"),
    [("NotFoundError", "There is no camera."), ("NotReadableError", "Another program may be using it.")],
)
def test_says_why_there_is_no_camera(page: Page, error: str, said: str) -> None:
    page.evaluate(
        f"void (navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{error}'); }})"
    )
    go_live(page)
    expect(page.get_by_role("status")).to_contain_text(said)
    expect(page.locator("#drop")).to_be_visible()


def test_says_what_to_do_when_the_camera_is_refused(browser: Browser, service: Process) -> None:
    with fresh(browser, permissions=[]) as page:
        page.goto(service.url)
        go_live(page)
        expect(page.get_by_role("status")).to_contain_text("The camera was refused. Allow it for this page")


@pytest.fixture
def locked(e2e_model: Path) -> Iterator[Process]:
    variables = {"EMOTION_MODEL": str(e2e_model), "EMOTION_PORT": "0", "EMOTION_API_KEYS": KEY}
    process = Process(variables).wait_ready()
    yield process
    process.stop()


def test_sends_the_key_in_the_first_message_and_says_when_the_server_ends_it(browser: Browser, locked: Process) -> None:
    with fresh(browser) as page:
        page.goto(locked.url)
        page.get_by_label("API key").fill("a-wrong-key-of-32-characters-000")
        go_live(page)
        expect(page.get_by_role("status")).to_contain_text("Unknown API key")
        page.get_by_label("API key").fill(KEY)
        go_live(page)
        expect(page.locator("#live-boxes text")).to_have_text("#0 happy", timeout=60_000)
        locked.popen.terminate()
        expect(page.get_by_role("status")).to_have_text("The server restarts; start again.")
        assert locked.end() == 0
        assert KEY not in locked.text
