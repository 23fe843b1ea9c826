"""The models that a recipe starts from, from the repository's history or a path given by the user."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import RecipeError
from emotion_yolo.recipes.recipe import Input


def parse_given(pairs: list[str], known: Mapping[str, Input]) -> dict[str, Path]:
    """Return the paths of `--input NAME=PATH`.

    Raises:
        RecipeError: a pair of another form, a name that the recipe has no input of, or a path that is not there.
    """
    given = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or name not in known or known[name].git:
            takes = ", ".join(name for name, item in known.items() if not item.git) or "none"
            raise RecipeError(f"--input {pair}: expected NAME=PATH, where the recipe takes NAME from: {takes}")
        if not Path(path).exists():
            raise RecipeError(f"--input {pair}: {path} is not there; {known[name].about}")
        given[name] = Path(path)
    return given


def place_inputs(inputs: Mapping[str, Input], given: Mapping[str, Path], *, folder: Path, root: Path) -> None:
    """Copy all inputs that are not there yet into `folder`, compared with their digests; all findings at once.

    Raises:
        RecipeError: an input that is neither there nor given, or has other bytes than the recipe says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    findings = []
    for name, item in inputs.items():
        if (folder / name).exists():
            continue
        part = folder / f"{name}.part"
        _remove(part)
        if item.git:
            findings += _from_git(name, item.git, part, root=root)
        elif name in given:
            (shutil.copytree if given[name].is_dir() else shutil.copyfile)(given[name], part)
        else:
            findings.append(f"inputs.{name}: not given; add --input {name}=PATH: {item.about}")
        if part.exists():
            if differing := _differing(name, item, part):
                findings += differing
                _remove(part)
            else:
                part.rename(folder / name)
    if findings:
        raise RecipeError("\n".join(findings))


def _from_git(name: str, revision: str, out: Path, *, root: Path) -> list[str]:
    done = subprocess.run(["git", "archive", *revision.split(":", 1)], cwd=root, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        return [
            f"inputs.{name}: {revision}: git does not have it ({said}); fetch the whole history (git fetch --unshallow)"
        ]
    path = revision.split(":", 1)[1].rstrip("/")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:  # `extractall` with a filter needs Python 3.11.4
            if member.isfile() and (content := archive.extractfile(member)):
                target = out.with_suffix(".git") / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    (out.with_suffix(".git") / path).rename(out)
    shutil.rmtree(out.with_suffix(".git"))
    return []


def _differing(name: str, item: Input, path: Path) -> list[str]:
    expected = item.sha256 if isinstance(item.sha256, dict) else {"": item.sha256}
    findings = []
    for file, digest in expected.items():
        where = path / file if file else path
        label = f"inputs.{name}{f': {file}' if file else ''}"
        if not where.is_file():
            findings.append(f"{label}: no such file in what was given; {item.about}")
        elif (got := sha256_of(where)) != digest:
            findings.append(f"{label}: sha256 is {got[:12]}…, expected {digest[:12]}…; {item.about}")
    return findings


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
