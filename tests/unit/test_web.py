"""What `emotion-yolo export-web` refuses; what it writes is tried in a browser (tests/e2e/test_device.py)."""

import os
import tarfile
from pathlib import Path

import pytest

from emotion_yolo import web
from emotion_yolo.errors import ModelError, SourceError
from emotion_yolo.web import RUNTIME_FILES, export_web
from tests.builders import exported_model, two_stage_model

REFUSED = pytest.raises(SourceError, match="expected the package onnxruntime-web@")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


def package(folder: Path) -> Path:
    """Write what looks like the runtime, and is not."""
    (folder / "dist").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / "dist" / name).write_text("something else")
    return folder


def test_a_runtime_with_another_digest_is_refused(model: Path, tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    archive = tmp_path / "runtime.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "package")
    for runtime in (folder, archive):
        with pytest.raises(SourceError, match=r"not the file of onnxruntime-web@1\.30\.0"):
            export_web(tmp_path / "out", model, runtime=runtime, overwrite=True)


def test_what_holds_no_runtime_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tgz").write_text("no archive")
    with tarfile.open(tmp_path / "empty.tgz", "w:gz"):
        pass
    for name in ("missing", "text.tgz", "empty.tgz", "."):
        with REFUSED:
            export_web(tmp_path / "out", model, runtime=tmp_path / name, overwrite=True)


def test_the_same_files_from_a_folder_and_from_an_archive(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path / "package")
    digest = web.sha256(b"something else").hexdigest()
    monkeypatch.setattr(web, "RUNTIME_FILES", dict.fromkeys(RUNTIME_FILES, digest))
    archive = tmp_path / "runtime.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "package")
    sites = []
    for number, runtime in enumerate((folder, archive)):
        out = tmp_path / str(number)
        sites.append({path.relative_to(out): path.read_bytes() for path in export_web(out, model, runtime=runtime)})
    assert sites[0] == sites[1]
    page = sites[0][Path("index.html")].decode()
    assert "<html data-device data-serverless" in page
    assert "Content-Security-Policy" in page
    used = {name for path, data in sites[0].items() if path.suffix == ".js" for name in _imports(data.decode())}
    assert used <= {path.name for path in sites[0]}


def _imports(script: str) -> set[str]:
    return {line.split('"./')[1].split('"')[0] for line in script.splitlines() if line.startswith("import ")}


def test_a_two_stage_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="two-stage"):
        export_web(tmp_path / "out", two_stage_model(tmp_path / "model"))


def test_a_missing_or_failing_npm_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"npm is not installed.*--runtime PATH"):
        export_web(tmp_path / "out", model)
    npm = tmp_path / "npm"
    npm.write_text(f"#!{os.path.realpath('/bin/sh')}\necho 'E404 no such package' >&2; exit 1\n")
    npm.chmod(0o755)
    with pytest.raises(SourceError, match=r"npm cannot fetch .*\(E404 no such package\)"):
        export_web(tmp_path / "out", model, overwrite=True)
