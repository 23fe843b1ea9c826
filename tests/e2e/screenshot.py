"""Picture the page: `python -m tests.e2e.screenshot models/release photo.jpg docs/page.png`."""

import sys

from playwright.sync_api import sync_playwright

from tests.api.process import Process
from tests.e2e.browser import find_browser


def main(model: str, photo: str, out: str) -> None:
    """Show `photo` to the page of a service with `model`, and write what it looks like."""
    service = Process({"EMOTION_MODEL": model, "EMOTION_PORT": "0"}).wait_ready()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.goto(service.url)
            page.locator("#file").set_input_files(photo)
            page.locator("#answer").wait_for()
            page.wait_for_timeout(500)  # the bars grow
            page.screenshot(path=out)
            browser.close()
    finally:
        service.popen.terminate()
        service.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
