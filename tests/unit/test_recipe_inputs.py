"""Models that a recipe starts from: found in git's history or given, and compared with their digests."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from emotion_yolo.errors import RecipeError
from emotion_yolo.recipes.inputs import parse_given, place_inputs
from emotion_yolo.recipes.recipe import Input


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


FILE = Input(about="the start", sha256=digest("start"))
FOLDER = Input(about="two files", sha256={"a.bin": digest("a"), "b.bin": digest("b")})


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository and the commit in which models/old lay in it."""
    root = tmp_path / "repository"
    (root / "models/old").mkdir(parents=True)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (root / "models/old/a.bin").write_text("a")
    (root / "models/old/b.bin").write_text("b")
    git("add", "-A")
    git("commit", "-qm", "old")
    commit = git("rev-parse", "HEAD")
    git("rm", "-qr", "models")
    git("commit", "-qm", "new")
    return root, commit


def test_files_and_folders_that_are_given_are_copied(tmp_path: Path) -> None:
    (tmp_path / "start.pt").write_text("start")
    (tmp_path / "pair").mkdir()
    for name in "ab":
        (tmp_path / f"pair/{name}.bin").write_text(name)
    known = {"start.pt": FILE, "pair": FOLDER}
    given = parse_given([f"start.pt={tmp_path}/start.pt", f"pair={tmp_path}/pair"], known)
    place_inputs(known, given, folder=tmp_path / "inputs", root=tmp_path)
    assert (tmp_path / "inputs/start.pt").read_text() == "start"
    assert (tmp_path / "inputs/pair/b.bin").read_text() == "b"
    # What is there already need not be given again.
    place_inputs(known, {}, folder=tmp_path / "inputs", root=tmp_path)


def test_what_git_knows_comes_out_of_its_history(repository: tuple[Path, str], tmp_path: Path) -> None:
    root, commit = repository
    folder = FOLDER.model_copy(update={"git": f"{commit}:models/old"})
    file = Input(about="one of them", git=f"{commit}:models/old/a.bin", sha256=digest("a"))
    place_inputs({"old": folder, "a.bin": file}, {}, folder=tmp_path / "inputs", root=root)
    assert sorted(path.name for path in (tmp_path / "inputs").iterdir()) == ["a.bin", "old"]
    assert (tmp_path / "inputs/old/a.bin").read_text() == (tmp_path / "inputs/a.bin").read_text() == "a"


def test_everything_that_is_missing_or_another_is_told_at_once(repository: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "start.pt").write_text("another")
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair/a.bin").write_text("another")
    known = {
        "start.pt": FILE,
        "pair": FOLDER,
        "lost.pt": FILE,
        "old": FOLDER.model_copy(update={"git": f"{'0' * 40}:models/old"}),
    }
    given = {"start.pt": tmp_path / "start.pt", "pair": tmp_path / "pair"}
    with pytest.raises(RecipeError) as caught:
        place_inputs(known, given, folder=tmp_path / "inputs", root=repository[0])
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "inputs.start.pt", "inputs.pair", "inputs.pair", "inputs.lost.pt", "inputs.old",
    ]  # fmt: skip
    assert f"sha256 is {digest('another')[:12]}…, expected {digest('start')[:12]}…; the start" in lines[0]
    assert "b.bin: no such file" in lines[2]
    assert "add --input lost.pt=PATH: the start" in lines[3]
    assert "git does not have it" in lines[4]
    assert list((tmp_path / "inputs").iterdir()) == []


@pytest.mark.parametrize("pair", ["start.pt", "other.pt=.", "old=."])
def test_an_input_that_the_recipe_does_not_take_is_refused(pair: str) -> None:
    known = {"start.pt": FILE, "old": FOLDER.model_copy(update={"git": "0000000:models/old"})}
    with pytest.raises(RecipeError, match=r"expected NAME=PATH, where the recipe takes NAME from: start\.pt"):
        parse_given([pair], known)


def test_a_given_path_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--input start\.pt=nowhere: nowhere is not there; the start"):
        parse_given(["start.pt=nowhere"], {"start.pt": FILE})
