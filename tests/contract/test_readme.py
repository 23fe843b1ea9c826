"""What the words promise: commands, files, parameters and code that README and docs name are there and work."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from api.schemas import DetectAnswer
from emotion_yolo.cli import app
from tests.api.conftest import painted
from tests.api.process import Process
from tests.builders import exported_model

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
OURS = (
    "api/",
    "baselines/",
    "benchmarks/",
    "configs/",
    "datasets/sample",
    "dockerfiles/",
    "docs/",
    "models/release",
    "src/",
)
"""What paths of git begin with; others that are named are made by a stage."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> Iterator[str]:
    """Yield what is written as code: inline, and each line of a fenced or indented block, prompts left away."""
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    for block in fenced.findall(text):
        yield from (line.removeprefix("$ ") for line in block.splitlines()[1:-1])
    for line in fenced.sub("", text).splitlines():
        if line.startswith("    "):
            yield line.strip()
    # Spans may run over a line's end.
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", fenced.sub("", text)))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def made_with(lines: Iterator[str]) -> set[str]:
    return {name for line in lines for name in re.findall(r"(?:^|[ ;:])make ([a-z][a-z-]*)", line)}


@pages
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    assert made_with(code(page.read_text("utf-8"))) <= make_targets()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_ci_calls_targets_and_scripts_that_exist(script: Path) -> None:
    lines = [line for line in script.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    assert made_with(iter(lines)) <= make_targets()
    if ".ci/run" in "\n".join(lines) and script.suffix == ".yml":
        assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pages
def test_every_command_and_option_of_the_command_line_that_is_named_exists(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for line in code(page.read_text("utf-8")):
        for name, rest in re.findall(r"(?:^|[ (|])emotion-yolo ([a-z][a-z-]*)([^|`]*)", line):
            assert name in commands, line
            options = {option for parameter in commands[name].params for option in parameter.opts}
            assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= options, line


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pages
def test_every_path_of_the_repository_that_is_named_exists(page: Path) -> None:
    for span in code(page.read_text("utf-8")):
        for path in re.findall(r"(?<![\w./<-])[\w.-]+(?:/[\w.-]+)+/?", span):
            if path.startswith(OURS):
                assert (ROOT / path).exists(), span


@pages
def test_every_module_that_is_named_exists(page: Path) -> None:
    folders = ("src", "api", "tests", "benchmarks", "examples")
    known = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    known |= {path.name for path in ROOT.glob("*.py")}
    for span in code(page.read_text("utf-8")):
        assert set(re.findall(r"\b([a-z_]+\.py)\b", span)) <= known, span


@pages
def test_every_parameter_that_is_named_exists(page: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    pattern = r"(?<![\w./-])((?:prepare|train|export|evaluate|tracking)(?:\.[a-z_0-9]+)+)(?![\w./])"
    for span in code(page.read_text("utf-8")):
        for name in re.findall(pattern, span):
            if name.endswith((".py", ".yml")):
                continue
            value = params
            for key in name.split("."):
                assert key in value, name
                value = value[key]


@pages
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page.read_text("utf-8"), "python"):
        compile(block, page.name, "exec")


def marked(mark: str, language: str, page: Path = README) -> str:
    """Return the one fenced block of a page that stands below a mark."""
    pattern = rf"<!-- {mark} -->\n```{language}\n(.*?)^```$"
    (block,) = re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with a release and pictures where README and docs/service.md expect them."""
    exported_model(tmp_path / "models" / "release")
    scene = tmp_path / "datasets/sample/sample-scenes/all/images/scene_003.jpg"
    scene.parent.mkdir(parents=True)
    for picture in (scene, tmp_path / "photo.jpg"):
        painted().save(picture, quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_block_without_a_service_runs_and_names_the_faces(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(marked("runnable", "python"), "README.md", "exec"), {})
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["happy", "surprise"]


def test_the_client_runs_against_the_service_and_names_the_faces(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Process({"EMOTION_MODEL": str(clone / "models" / "release"), "EMOTION_PORT": "0"})
    try:
        block = marked("runnable: service", "python", ROOT / "docs/service.md").replace(
            "http://127.0.0.1:8000", service.wait_ready().url
        )
        exec(compile(block, "service.md", "exec"), {})
    finally:
        service.popen.terminate()
        service.end()
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["happy", "surprise"]


def test_the_answer_shown_is_one_that_the_service_can_give() -> None:
    (block,) = blocks(README.read_text("utf-8"), "json")
    answer = DetectAnswer.model_validate(json.loads(block))
    for face in answer.detections:
        probabilities = face.probabilities
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)
        assert max(probabilities, key=lambda name: probabilities[name]) == face.emotion
        assert 0 <= face.box.x1 < face.box.x2 <= answer.image.width
        assert 0 <= face.box.y1 < face.box.y2 <= answer.image.height
    assert answer.model.digest.startswith(answer.model.version)


def test_the_graph_shown_is_the_one_that_dvc_draws() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "evaluate"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert normalised(marked("dag", "")) == normalised(printed.stdout)


def normalised(drawing: str) -> list[str]:
    return [line.rstrip() for line in drawing.splitlines() if line.strip()]


@pages
def test_no_place_is_left_to_be_filled(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "{{" not in text
    assert "<!-- lead" not in text


def test_the_hooks_call_tools_that_are_installed() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (repo,) = config["repos"]
    assert repo["repo"] == "local"
    named = {tool for hook in repo["hooks"] for tool in re.findall(r"\.venv/bin/([\w-]+)", hook["entry"])}
    assert named == {"ruff", "mypy", "lint-imports", "dvc"}
    for tool in named:
        assert (Path(sys.executable).parent / tool).exists(), tool
    assert all(shlex.split(hook["entry"]) for hook in repo["hooks"])
