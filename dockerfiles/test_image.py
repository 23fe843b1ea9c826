"""Takes the steps of api.Dockerfile into an empty folder, where no container engine is at hand: `make test-image`.

It follows the file itself: what is copied, run, set and started is read from there, and the folder stands for `/app`.
"""
# ruff: noqa: D102, D103, S310

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "dockerfiles" / "api.Dockerfile"
UNWANTED = ("torch", "torchvision", "ultralytics", "dvc", "wandb", "kagglehub", "boto3", "onnx")


@dataclass
class Image:
    """A folder that was built as the Dockerfile says, and what it says of running it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: int | None = None
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        return text.replace("/app", str(self.root / "app"))


def instructions() -> Iterator[tuple[str, str]]:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def build(root: Path) -> Image:
    image = Image(root)
    clean = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    clean |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(root)}
    workdir = root
    for name, rest in instructions():
        match name:
            case "WORKDIR":
                workdir = Path(image.here(rest))
                workdir.mkdir(parents=True, exist_ok=True)
            case "COPY" if rest.startswith("--from="):
                assert rest.endswith("/app /app")  # the build's folder is the image's
            case "COPY":
                source, target = rest.split()
                place = workdir / target
                place.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
                else:
                    shutil.copy(ROOT / source, place)
            case "RUN" if not rest.startswith("useradd"):
                subprocess.run(["/bin/sh", "-ec", image.here(rest)], cwd=workdir, env=clean, check=True)
            case "ENV":
                image.environment |= dict(pair.split("=", 1) for pair in shlex.split(image.here(rest)))
            case "USER":
                image.user = int(rest)
            case "CMD":
                image.command = json.loads(image.here(rest))
            case "HEALTHCHECK":
                image.health = json.loads(image.here(rest[rest.index("CMD") + 4 :]))
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("image")
    built = build(root)
    for folder in (
        root,
        root.parent,
        root.parent.parent,
    ):  # pytest keeps them to itself; the image's user must get there
        folder.chmod(0o755)
    return built


def test_the_image_holds_nothing_of_the_training_side(image: Image) -> None:
    program = f"import importlib.util as u; print([n for n in {UNWANTED!r} if u.find_spec(n)])"
    found = subprocess.run([image.command[0], "-c", program], capture_output=True, text=True, check=True, env={})
    assert found.stdout.strip() == "[]"
    assert not list(image.root.rglob("*.pt"))


def test_the_service_runs_from_the_image_as_nobody_and_writes_nothing(image: Image) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    before = set(image.root.rglob("*"))
    # The image's user, if we may become it and this machine's Python is not in a home that it can't enter.
    becomes = os.geteuid() == 0 and all(path.stat().st_mode & 0o001 for path in Path(sys.executable).resolve().parents)
    user = image.user if becomes else None
    environment = image.environment | {"EMOTION_HOST": "127.0.0.1", "EMOTION_PORT": str(port)}
    process = subprocess.Popen(
        image.command,
        cwd=image.root / "app",
        env=environment,
        user=user,
        group=user,
        extra_groups=[] if becomes else None,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/readyz", timeout=5)
                break
            except OSError:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.1)
        health = [argument.replace("8000", str(port)) for argument in image.health]
        subprocess.run(health, check=True, env=image.environment)
        picture = _picture()
        request = urllib.request.Request(f"{url}/v1/detect", picture, {"content-type": "image/png"})
        answer = json.load(urllib.request.urlopen(request, timeout=30))
        assert answer["image"] == {"width": 32, "height": 32}
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    assert code == 0
    assert set(image.root.rglob("*")) == before


def _picture() -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.full((32, 32, 3), 114, np.uint8))[1].tobytes()
