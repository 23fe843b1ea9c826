"""The page in the browser alone: `emotion-yolo export-web`, and the switch of a page that has a server."""

import functools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from emotion_yolo.errors import SourceError
from emotion_yolo.inference.detector import Detector
from emotion_yolo.web import export_web
from tests.api.conftest import encoded, painted, wait_until
from tests.api.process import ROOT, Process

RELEASE = ROOT / "models/release"
SCENES = sorted((ROOT / "datasets/sample/sample-scenes/all/images").glob("*.jpg"))

# Tolerance of the parity between browser and server.
BOX_PX = 2.0
CONFIDENCE = 0.02
PROBABILITY = 0.03


class _Host(SimpleHTTPRequestHandler):
    """A web host that knows nothing but files."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return npm's archive of the runtime; skips where npm has none."""
    exported = tmp_path_factory.mktemp("runtime") / "web"
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, which fetches onnxruntime-web")
    try:
        export_web(exported, RELEASE)
    except SourceError as error:
        pytest.skip(f"npm's registry cannot be reached: {error}")
    package = exported.parent / "package"
    (package / "dist").mkdir(parents=True)
    for path in (exported / "device").glob("ort*"):
        shutil.move(path, package / "dist" / path.name)
    return package


@pytest.fixture(scope="module")
def folder(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the command writes with the release."""
    out = tmp_path_factory.mktemp("web") / "site"
    command = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "export-web", str(out)]
    options = ["--model", str(RELEASE), "--runtime", str(runtime)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"  {out}/index.html" in done.stdout
    again = subprocess.run([*command, *options], capture_output=True, text=True)
    assert again.returncode == 7
    assert "add --overwrite" in again.stderr
    return out


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """Yield the address of a host of the folder's files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Host, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def opened(browser: Browser, site: str) -> Iterator[Page]:
    """Yield the page of an exported folder; fails where it asked for more than that folder's files."""
    context = browser.new_context(permissions=["camera"])
    page = context.new_page()
    faults: list[str] = []
    page.on(
        "request", lambda r: None if r.method == "GET" and r.url.startswith((site, "blob:")) else faults.append(r.url)
    )
    page.on("response", lambda r: faults.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(site)
    yield page
    context.close()
    assert not faults


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with hosted(folder) as address:
        yield address


@pytest.fixture
def alone(browser: Browser, site: str) -> Iterator[Page]:
    with opened(browser, site) as page:
        yield page


def answer_to(page: Page, path: Path) -> dict[str, Any]:
    page.evaluate("document.querySelector('#json').textContent = ''")
    page.locator("#file").set_input_files(path)
    wait_until(lambda: bool(page.evaluate("document.querySelector('#json').textContent")), seconds=120)
    answer: dict[str, Any] = json.loads(page.evaluate("document.querySelector('#json').textContent"))
    return answer


def pictures(out: Path) -> list[Path]:
    """Return twenty pictures of drawn people: whole, enlarged, small, and in several formats and shapes."""
    paths = list(SCENES[:8])
    for number, path in enumerate(SCENES[8:20]):
        image = Image.open(path).convert("RGB")
        match number:
            case 0 | 1 | 2 | 3:  # enlarged and reduced again: odd sizes, above and below a half
                image = image.resize((731 + 613 * number, 548 + 460 * number), Image.Resampling.BICUBIC)
            case 4 | 5:
                image = image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS)
            case 6 | 7:
                image = image.crop((30, 0, image.width // 2, image.height))
            case 8:
                image = image.transpose(Image.Transpose.ROTATE_90)
            case 9:
                image = image.convert("L")
            case _:
                opacity = Image.fromarray(np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1)))
                image.putalpha(opacity)
        kind = ("jpg", "png", "webp")[(number + 1) % 3] if image.mode != "RGBA" else "png"
        target = out / f"{number}.{kind}"
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 8 else 1  # upright by a quarter turn to the right
        image.save(
            target, **({"quality": 92} if kind == "jpg" else {"lossless": True} if kind == "webp" else {}), exif=exif
        )
        paths.append(target)
    return paths


def compare(page: Page, detector: Detector, paths: Sequence[Path]) -> int:
    """Compare the page's answers with the detector's; returns how many faces there were."""
    found, worst = 0, np.zeros(3)
    for path in paths:
        answer = answer_to(page, path)
        expected = detector.predict(path)
        assert (answer["image"]["width"], answer["image"]["height"]) == expected.image_wh, path
        assert answer["model"]["digest"] == detector.spec.digest
        assert len(answer["detections"]) == len(expected), path
        for got, wanted in zip(answer["detections"], expected.records(), strict=True):
            box: Any = wanted["box"]
            probabilities: Any = wanted["probabilities"]
            differences = (
                max(abs(got["box"][side] - box[side]) for side in box),
                abs(got["confidence"] - float(str(wanted["confidence"]))),
                max(abs(got["probabilities"][name] - probabilities[name]) for name in probabilities),
            )
            assert np.all(np.asarray(differences) <= (BOX_PX, CONFIDENCE, PROBABILITY)), (path, differences)
            worst = np.maximum(worst, differences)
            found += 1
    within = f"boxes within {worst[0]:.2f} px, confidence {worst[1]:.4f}, probabilities {worst[2]:.4f}"
    print(f"{found} faces in {len(paths)} pictures: {within}")
    return found


def test_browser_and_server_answer_alike_on_twenty_pictures(alone: Page, tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    assert len(paths) == 20
    assert compare(alone, Detector.load(RELEASE), paths) >= 20


def test_faces_are_named_from_close_ups_where_the_model_says_so(
    browser: Browser, runtime: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    shutil.copyfile(RELEASE / "model.onnx", model / "model.onnx")
    spec = json.loads((RELEASE / "model.json").read_text()) | {"close_up": {"faces": 2, "side": 128, "face": 96}}
    (model / "model.json").write_text(json.dumps(spec))
    export_web(tmp_path / "site", model, runtime=runtime)
    with hosted(tmp_path / "site") as address, opened(browser, address) as page:
        assert compare(page, Detector.load(model), pictures(tmp_path)[5:12]) > 2


def test_without_a_server_the_page_says_so_and_offers_no_switch(alone: Page, tmp_path: Path) -> None:
    expect(alone.locator("#model")).to_have_text("Works in this browser alone.")
    expect(alone.locator("#where")).to_be_hidden()
    expect(alone.get_by_role("link", name="For programs")).to_be_hidden()
    expect(alone.get_by_text("nothing is uploaded")).to_be_visible()
    expect(alone.get_by_text("It is sent to this server")).to_be_hidden()
    scan = tmp_path / "scan.tif"
    scan.write_bytes(encoded(painted(), "TIFF"))
    alone.locator("#file").set_input_files(scan)
    expect(alone.get_by_role("status")).to_contain_text("This browser can’t read the picture", timeout=120_000)


def test_live_works_in_the_browser_alone(alone: Page) -> None:
    alone.get_by_role("button", name="Go live").click()
    expect(alone.locator("#live-figures")).to_contain_text("frames/s", timeout=120_000)
    expect(alone.get_by_role("status")).to_have_text("Live. Frames stay in this browser.")
    alone.get_by_role("button", name="Stop").click()
    expect(alone.locator("#camera")).to_be_hidden()


@pytest.fixture(scope="module")
def both(folder: Path, e2e_model: Path) -> Iterator[Process]:
    variables = {"EMOTION_MODEL": str(e2e_model), "EMOTION_PORT": "0", "EMOTION_WEB": str(folder)}
    process = Process(variables).wait_ready()
    yield process
    process.stop()


def test_the_switch_keeps_pictures_from_the_server(browser: Browser, both: Process, photo_file: Path) -> None:
    page = browser.new_page()
    posts: list[str] = []
    errors: list[str] = []
    page.on("request", lambda r: posts.append(r.url) if r.method == "POST" else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(both.url)
    assert answer_to(page, photo_file)["model"]["name"] == "painted-cells"
    assert len(posts) == 1
    page.evaluate("document.querySelector('#json').textContent = ''")
    page.get_by_label("on this device").check()
    expect(page.get_by_text("nothing is uploaded")).to_be_visible()
    wait_until(lambda: bool(page.evaluate("document.querySelector('#json').textContent")), seconds=120)
    assert json.loads(page.evaluate("document.querySelector('#json').textContent"))["model"]["name"] == "emotion-yolo"
    assert answer_to(page, SCENES[0])["detections"]
    assert len(posts) == 1
    page.context.close()
    assert not errors
