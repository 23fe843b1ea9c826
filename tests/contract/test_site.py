"""The documentation site: it builds, its reference is the code's, nothing on it is dead or foreign."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import emotion_yolo
from api.schemas import DetectAnswer
from emotion_yolo.cli import app

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300


def build(out: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs/site/build.py"), "--root", str(root), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    done = build(out)
    assert done.returncode == 0, done.stderr
    return out


def page(built: Path, name: str) -> str:
    return (built / "site" / name / "index.html").read_text("utf-8")


def text(built: Path, name: str) -> str:
    return (built / "pages/docs/reference" / f"{name}.md").read_text("utf-8")


def test_every_page_of_the_documentation_is_in_the_site(built: Path) -> None:
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/adr").glob("0*.md")]:
        assert page(built, path.relative_to(ROOT).with_suffix("").as_posix())
    assert "Out of scope" in page(built, "models/release/MODEL_CARD")


def test_every_page_of_the_documentation_is_in_the_menu(built: Path) -> None:
    menu = (ROOT / "docs/site/zensical.toml").read_text("utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert f'"docs/{path.name}"' in menu


def test_every_decision_is_in_the_list() -> None:
    listed = (ROOT / "docs/adr/README.md").read_text("utf-8")
    for path in (ROOT / "docs/adr").glob("0*.md"):
        assert f"[{path.name[:4]}]({path.name})" in listed


def test_the_reference_has_every_param_with_its_comment(built: Path) -> None:
    reference = text(built, "params")
    values = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))

    def leaves(tree: dict[str, object], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict) and f"| `{prefix}{name}` |" not in reference:
                assert f" {prefix}{name}\n" in reference
                leaves(value, f"{prefix}{name}.")
            else:
                assert f"| `{prefix}{name}` |" in reference

    leaves(values, "")
    assert "| `train.batch` | `32` | pictures a step |" in reference


def test_the_reference_has_every_command_and_option(built: Path) -> None:
    reference = text(built, "cli")
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"## `emotion-yolo {name}`" in reference
        for option in (option for parameter in command.params for option in parameter.opts if option[:2] == "--"):
            assert option in reference


def test_the_reference_has_every_path_and_field_of_the_service(built: Path) -> None:
    reference = text(built, "http")
    assert "## POST /v1/detect\n" in reference
    for field in DetectAnswer.model_fields:
        assert f"| `{field}` |" in reference.partition("### DetectAnswer")[2].partition("###")[0]


def test_the_reference_has_the_public_names(built: Path) -> None:
    reference = text(built, "python")
    assert re.findall(r"^## (.+)$", reference, re.MULTILINE) == emotion_yolo.__all__
    assert "### Detector.predict\n" in reference
    assert " at 0x" not in reference


@pytest.mark.parametrize(
    "broken",
    [
        # What Zensical finds, and what it does not.
        {"[x](nothing.md)": "page does not exist", "[x](service.md#nowhere)": "anchor does not exist"},
        {
            "[x](../nothing.yaml)": "docs/broken/index.html: ../../nothing.yaml leads nowhere",
            '<a href="service/#nowhere">x</a>': "docs/broken/index.html: ../service/#nowhere: the page has no such",
            '<img src="https://example.org/x.png">': "would fetch https://example.org/x.png from elsewhere",
        },
    ],
)
def test_a_dead_link_or_a_foreign_picture_ends_the_build(built: Path, tmp_path: Path, broken: dict[str, str]) -> None:
    root = tmp_path / "root"
    shutil.copytree(built / "pages", root)
    (root / "docs/broken.md").write_text("\n\n".join(["# Broken", *broken]))
    done = build(tmp_path / "out", root)
    assert done.returncode == 1
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)
    for said in broken.values():
        assert said in plain
