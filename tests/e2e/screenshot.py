"""Picture the page: `python -m tests.e2e.screenshot models/release photo.jpg docs/page.png`.

With a video instead of a photo it is in its live mode, and the video is before the camera (docs/live.jpg: a video by
`python -m benchmarks.tracking --draw`).
"""

import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright

from emotion_yolo.video.reading import read_video
from tests.api.process import Process
from tests.e2e.browser import fake_camera, find_browser

LIVE_S = 8  # the first frame waits for the tracker's import


def show_photo(page: Page, photo: str) -> None:
    page.locator("#file").set_input_files(photo)
    page.locator("#answer").wait_for()
    page.wait_for_timeout(500)  # the bars grow


def go_live(page: Page) -> None:
    page.get_by_role("button", name="Go live").click()
    page.locator("#live-boxes g").first.wait_for(timeout=120_000)
    page.wait_for_timeout(LIVE_S * 1000)


def main(model: str, shown: str, out: str) -> None:
    """Show a photo or a video to the page of a service with `model`, and write what it looks like."""
    is_video = Path(shown).suffix == ".mp4"
    service = Process({"EMOTION_MODEL": model, "EMOTION_PORT": "0"}).wait_ready()
    try:
        with TemporaryDirectory() as folder, sync_playwright() as playwright:
            frames = read_video(Path(shown)) if is_video else ()
            # At an eighth of its speed: a busy machine answers a frame or two a second.
            images = (frame.image for frame in frames if frame.image is not None for _ in range(8))
            camera = fake_camera(Path(folder) / "camera.y4m", islice(images, 500))
            browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", *camera])
            page = browser.new_page(viewport={"width": 1200, "height": 900}, permissions=["camera"])
            page.goto(service.url)
            if is_video:
                go_live(page)
            else:
                show_photo(page, shown)
            page.screenshot(path=out, **({"type": "jpeg", "quality": 80} if out.endswith(".jpg") else {}))
            browser.close()
    finally:
        service.popen.terminate()
        service.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
