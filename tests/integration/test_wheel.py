"""The wheel, installed into empty environments: what is in it, and what each command does with just its extra."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.api.process import wait_until

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "datasets/sample/sample-scenes/all/images/scene_003.jpg"
MAX_BYTES = 8_000_000
TRAINING = (
    "pull sample",
    "check .",
    "data list",
    "data remove x",
    "train-classifier",
    "release",
    "models",
    "lineage 123456",
)
"""Commands of the extra `train`."""

Install = Callable[[str], Path]


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=environment)
    assert not check or done.returncode == 0, done.stderr
    return done


def uv(*arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(Path(sys.executable).with_name("uv"), *arguments, cwd=cwd, check=check)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from an sdist of a copy: what is missing in either is missing here, and the checkout stays clean."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("src", "api", "models/release"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    uv("build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", out, ".", cwd=copy)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Return a function that installs the wheel with an extra, into an environment of its own, and returns its folder.

    Packages come from uv's cache, as `make setup` has filled it, else from the index.
    """
    environments: dict[str, Path] = {}
    overrides = tmp_path_factory.mktemp("overrides") / "overrides.txt"
    overrides.write_text("opencv-python; sys_platform == 'never'\n")  # as [tool.uv] in pyproject.toml has it

    def installed(extra: str) -> Path:
        if extra not in environments:
            folder = tmp_path_factory.mktemp(extra or "base") / "environment"
            wanted = f"emotion-yolo{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}"
            uv("venv", "--quiet", "--python", sys.executable, folder, cwd=folder.parent)
            command = ["pip", "install", "--quiet", "--python", folder, "--constraint", ROOT / "requirements/dev.txt"]
            command += ["--override", overrides, wanted]
            if uv(*command, "--offline", cwd=folder.parent, check=False).returncode:
                uv(*command, cwd=folder.parent)
            environments[extra] = folder
        return environments[extra]

    return installed


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is no checkout, with a picture in it."""
    shutil.copy(PICTURE, tmp_path / "photo.jpg")
    return tmp_path


def test_the_wheel_holds_one_name_with_page_release_and_type_marker(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {
        "emotion_yolo",
        f"{'-'.join(wheel.name.split('-')[:2])}.dist-info",
    }
    assert {"emotion_yolo/py.typed", "emotion_yolo/api/server.py", "emotion_yolo/api/routes/detect.py"} <= names
    served = {f"emotion_yolo/api/static/{path.name}" for path in (ROOT / "api/static").iterdir() if path.is_file()}
    assert {name for name in names if "/static/" in name} == served
    release = {Path(name).name for name in names if "packaged_release" in name}
    assert release == {"MODEL_CARD.md", "metrics.json", "model.json", "model.onnx", "reference.parquet"}
    modules = {
        *(path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")),
        *(f"emotion_yolo/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "api").rglob("*.py")),
    }
    assert {name for name in names if name.endswith(".py")} == modules


def test_an_index_would_take_the_distributions(wheel: Path) -> None:
    distributions = [path for path in wheel.parent.iterdir() if path.suffix in {".whl", ".gz"}]
    assert len(distributions) == 2
    done = run(sys.executable, "-m", "twine", "check", "--strict", *distributions, cwd=wheel.parent)
    assert done.stdout.count("PASSED") == 2


def test_predict_works_with_no_extra_and_other_commands_name_theirs(install: Install, elsewhere: Path) -> None:
    program = install("") / "bin/emotion-yolo"
    done = run(program, "predict", "photo.jpg", cwd=elsewhere)
    assert [face["emotion"] for face in json.loads(done.stdout)["detections"]]
    assert run(program, "--version", cwd=elsewhere).stdout.startswith("emotion-yolo ")
    for extra, commands in {
        "train": TRAINING,
        "api": ("serve", "serve --help"),
        "monitor": ("monitor --log log.db",),
        "score": ("score photo.jpg --out scores",),
    }.items():
        for command in commands:
            refused = run(program, *command.split(), cwd=elsewhere, check=False)
            assert refused.returncode == 16, refused.stderr
            assert len(refused.stderr.splitlines()) == 1
            assert f"pip install 'emotion-yolo[{extra}]'" in refused.stderr


def test_the_service_works_with_its_extra_and_without_torch(install: Install, elsewhere: Path) -> None:
    environment = install("api")
    site = next(environment.glob("lib/python*/site-packages"))
    assert not [name for name in ("torch", "ultralytics", "dvc", "wandb", "api") if (site / name).exists()]
    log = elsewhere / "log.txt"
    with log.open("wb") as file:
        service = subprocess.Popen(
            [environment / "bin/emotion-yolo", "serve", "--port", "0"], cwd=elsewhere, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: '"event": "ready"' in log.read_text() or service.poll() is not None, seconds=300)
        (port,) = set(re.findall(r"http://127\.0\.0\.1:(\d+)", log.read_text()))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert b"<title>" in page.read()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/detect", (elsewhere / "photo.jpg").read_bytes(), {"content-type": "image/jpeg"}
        )
        with urllib.request.urlopen(request) as answer:
            detections = json.load(answer)["detections"]
        assert detections
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0


def test_videos_are_read_with_their_extra_and_name_it_without(install: Install, elsewhere: Path) -> None:
    writing = (
        "import numpy as np; from pathlib import Path; from emotion_yolo.video.writing import VideoWriter\n"
        "with VideoWriter(Path('clip.mp4')) as video:\n"
        "    for number in range(3): video.write(np.full((64, 64, 3), 90, np.uint8), time_s=number / 10)\n"
    )
    run(install("video") / "bin/python", "-c", writing, cwd=elsewhere)
    done = run(install("video") / "bin/emotion-yolo", "predict", "clip.mp4", cwd=elsewhere)
    assert len(done.stdout.splitlines()) == 3
    refused = run(install("") / "bin/emotion-yolo", "predict", "clip.mp4", cwd=elsewhere, check=False)
    assert "pip install 'emotion-yolo[video]'" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


def test_heic_pictures_are_read_with_their_extra(install: Install, elsewhere: Path) -> None:
    writing = (
        "import pillow_heif; from PIL import Image; pillow_heif.register_heif_opener()\n"
        "Image.open('photo.jpg').save('photo.heic', quality=90)\n"
    )
    run(install("heic") / "bin/python", "-c", writing, cwd=elsewhere)
    done = run(install("heic") / "bin/emotion-yolo", "predict", "photo.heic", cwd=elsewhere)
    assert json.loads(done.stdout)["detections"]


@pytest.mark.timeout(3600)
def test_the_commands_of_the_pipeline_find_all_they_import_with_their_extra(install: Install, elsewhere: Path) -> None:
    refused = run(install("train") / "bin/emotion-yolo", "pull", "sample", cwd=elsewhere, check=False)
    assert refused.returncode == 3, refused.stderr
    assert "run from the project's root" in refused.stderr
    imports = run(install("train") / "bin/python", "-c", IMPORT_ALL, cwd=elsewhere, check=False)
    assert imports.returncode == 0, imports.stderr


IMPORT_ALL = """
import pkgutil
from importlib import import_module

import emotion_yolo

for _, name, _ in pkgutil.walk_packages(emotion_yolo.__path__, "emotion_yolo."):
    if not name.startswith("emotion_yolo.api"):
        import_module(name)
"""


def test_the_locked_versions_are_above_those_with_known_holes() -> None:
    floors = {"python-multipart": (0, 0, 27), "starlette": (1, 0, 1), "onnx": (1, 21), "pillow": (12, 3)}
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    for name, floor in floors.items():
        assert re.search(rf'"{name}>={".".join(map(str, floor))}"', declared)
    for file in ("api.txt", "train.txt", "dev.txt"):
        locked = dict(re.findall(r"^([a-z0-9-]+)==([\d.]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))
        for name, floor in floors.items():
            if name in locked:
                assert tuple(map(int, locked[name].split("."))) >= floor


def test_workflows_run_the_audit_and_pin_what_they_use() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text("utf-8"))
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40)), step
    assert "make audit" in (ROOT / ".github/workflows/ci.yml").read_text()
    done = run(Path(sys.executable).with_name("zizmor"), "--offline", "--quiet", ".github/workflows", cwd=ROOT)
    assert "error" not in done.stdout
