import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.api.conftest import encoded, painted, wait_until
from tests.api.process import Process

# Puts a file into an event of the page, as a hand on a mouse or keyboard would.
GIVE = """
([kind, data, type]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "x", { type }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector("#drop").dispatchEvent(event);
}
"""


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def choose(page: Page, path: Path) -> None:
    page.locator("#file").set_input_files(path)


def test_finds_the_faces_of_a_chosen_file_and_shows_everything(page: Page, photo_file: Path) -> None:
    choose(page, photo_file)
    expect(status(page)).to_contain_text("2 faces")
    expect(page.get_by_role("heading", name="Face 1")).to_be_visible()
    faces = page.locator("#faces > li")
    expect(faces).to_have_count(2)
    expect(faces.first.locator("dt")).to_have_count(8)
    expect(faces.first.locator("dd.share").first).to_have_text("100 %")
    expect(page.locator("#timing")).to_contain_text("inference")
    page.get_by_text("The answer as JSON").click()
    expect(page.locator("#json")).to_contain_text('"probabilities"')
    expect(page.get_by_role("img", name="Your picture with 2 faces")).to_be_visible()


def test_the_boxes_lie_on_the_faces(page: Page, photo_file: Path) -> None:
    choose(page, photo_file)
    box = page.locator("#boxes g.happy rect.edge").bounding_box()
    image = page.locator("#shown").bounding_box()
    assert box is not None
    assert image is not None
    scale = image["width"] / 960
    assert box["x"] - image["x"] == pytest.approx(320 * scale, abs=5)
    assert box["y"] - image["y"] == pytest.approx(0, abs=5)
    assert box["width"] == pytest.approx(320 * scale, abs=8)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_takes_pictures_that_are_dropped_or_pasted(page: Page, photo_file: Path, kind: str) -> None:
    page.evaluate(GIVE, [kind, base64.b64encode(photo_file.read_bytes()).decode(), "image/jpeg"])
    expect(status(page)).to_contain_text("2 faces")


def test_says_so_when_what_is_dropped_is_no_picture(page: Page) -> None:
    page.evaluate(GIVE, ["dragover", "", "text/plain"])
    expect(page.locator("#drop")).to_have_class("over")
    page.evaluate(GIVE, ["drop", base64.b64encode(b"hello").decode(), "text/plain"])
    expect(status(page)).to_have_text("That is no picture.")


def test_photographs(page: Page) -> None:
    page.get_by_role("button", name="Take a photo").click()
    wait_until(lambda: page.evaluate("document.querySelector('#video').videoWidth > 0"))
    page.get_by_role("button", name="Take it").click()
    expect(page.locator("#camera")).to_be_hidden()
    expect(status(page)).to_contain_text("face")
    assert page.evaluate("document.querySelector('#video').srcObject") is None


def test_the_camera_can_be_left(page: Page) -> None:
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#drop")).to_be_visible()
    expect(page.get_by_role("button", name="Take a photo")).to_be_focused()


def test_shows_a_refusal_in_words(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(b"no picture")
    choose(page, file)
    expect(status(page)).to_contain_text("no picture of a known format")
    expect(page.locator("#answer")).to_be_hidden()


def test_says_when_there_is_no_face(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "grey.png"
    file.write_bytes(encoded(Image.new("RGB", (200, 100), (114, 114, 114))))
    choose(page, file)
    expect(status(page)).to_have_text("No face found.")


def test_lets_the_server_draw_what_the_browser_cannot_show(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "scan.tif"
    file.write_bytes(encoded(painted(), "TIFF"))
    choose(page, file)
    expect(status(page)).to_contain_text("2 faces")
    wait_until(lambda: page.evaluate("document.querySelector('#shown').naturalWidth === 960"))


def test_asks_again_with_another_confidence(page: Page, photo_file: Path) -> None:
    choose(page, photo_file)
    expect(status(page)).to_contain_text("2 faces")
    slider = page.get_by_role("slider", name="Minimum confidence")
    slider.focus()
    with page.expect_request(lambda request: "conf=0.95" in request.url):
        page.keyboard.press("End")
    expect(page.locator("#conf-value")).to_have_text("95 %")
    expect(slider).to_have_attribute("aria-valuetext", "95 %")


def test_works_by_keyboard_alone(page: Page, photo_file: Path) -> None:
    # Listened for from the start: the browser needs a moment until it hands its file chooser over.
    page.on("filechooser", lambda chooser: chooser.set_files(photo_file))
    names = []
    for _ in range(6):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert names[:5] == ["Skip to the picture", "pick", "photograph", "live", "conf"]
    page.get_by_role("button", name="Choose a file").focus()
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("2 faces")
    page.locator("#faces > li").first.focus()
    expect(page.locator("#box-0.lit")).to_have_count(1)


def test_everything_that_can_be_used_has_a_name(page: Page, photo_file: Path) -> None:
    choose(page, photo_file)
    expect(status(page)).to_contain_text("2 faces")
    tree = page.locator("body").aria_snapshot()
    for line in tree.splitlines():
        for role in ("button", "link", "slider", "img", "region"):
            if line.strip().startswith(f"- {role}"):
                assert '"' in line, line
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.querySelectorAll('h1')].length") == 1


def test_tells_what_happens_to_the_picture_and_what_cannot_be_known(page: Page) -> None:
    expect(page.get_by_role("heading", name="What happens to your picture")).to_be_visible()
    expect(page.get_by_text("It is not stored")).to_be_visible()
    expect(page.get_by_text("does not know what someone feels")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page: Page, photo_file: Path, path: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path)
    if path == "/":
        choose(page, photo_file)
        expect(status(page)).to_contain_text("2 faces")
    else:
        expect(page.get_by_role("heading", name="/healthz")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def _luminance(rgb: str) -> float:
    channels = [int(float(c)) / 255 for c in rgb[rgb.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_readable_in_light_and_dark(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    paper = _luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.5) == (scheme == "light")
    for selector in ("body", ".quiet", "a"):
        ink = _luminance(page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color"))
        ratio = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert ratio >= 4.5, (selector, ratio)  # WCAG 2.2, 1.4.3


def test_the_documentation_shows_every_route_and_field(page: Page, service: Process) -> None:
    page.goto("/docs")
    document = page.request.get("/openapi.json").json()
    for path in document["paths"]:
        expect(page.locator("h2 code", has_text=path).first).to_be_visible()
    for name in document["components"]["schemas"]:
        expect(page.locator(f"section#{name}")).to_be_visible()
    expect(page.get_by_text("Left edge, px.")).to_be_visible()


@pytest.fixture
def locked(e2e_model: Path) -> Iterator[Process]:
    process = Process(
        {"EMOTION_MODEL": str(e2e_model), "EMOTION_PORT": "0", "EMOTION_API_KEYS": "a-key-of-24-characters-x"}
    ).wait_ready()
    yield process
    process.stop()


def test_asks_for_a_key_where_the_server_does(browser: Browser, locked: Process, photo_file: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(locked.url)
    key = page.get_by_label("API key")
    expect(key).to_be_visible()
    choose(page, photo_file)
    expect(status(page)).to_contain_text("requires an API key")
    key.fill("a-key-of-24-characters-x")
    key.press("Enter")
    expect(status(page)).to_contain_text("2 faces")
    expect(page.locator("#model")).to_contain_text("painted-cells")
    context.close()
