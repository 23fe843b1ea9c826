import re
from pathlib import Path
from typing import Any

import pytest

from emotion_yolo.errors import ModelError
from emotion_yolo.evaluation.model_card import list_files
from emotion_yolo.inference.artefact import read_spec, write_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.release import make_release
from tests.builders import exported_model, painted, save_picture


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    export = exported_model(tmp_path / "export")
    report = tmp_path / "report"
    report.mkdir()
    spec = read_spec(export)
    (report / "MODEL_CARD.md").write_text(f"Version {spec.version}\nFiles: {list_files(spec.files.values())}.\n")
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    return {
        "weights": tmp_path / "weights.pt",
        "export": export,
        "report": report,
        "metrics": tmp_path / "metrics.json",
        "pictures": [save_picture(tmp_path / "free.png", painted({(1, 1): 3}))],
        "out": tmp_path / "release",
    }


def test_a_release_serves_without_the_openvino_files(parts: dict[str, Any]) -> None:
    names = {path.name for path in make_release(**parts)}
    assert names == {"weights.pt", "model.onnx", "model.json", "metrics.json", "MODEL_CARD.md", "example.jpg"}
    answer = Detector.load(parts["out"], backend="openvino").predict(painted({(1, 1): 3}))
    assert [emotion.label for emotion in answer.emotions] == ["fear"]
    assert read_spec(parts["out"]).version == read_spec(parts["export"]).version


def test_the_reference_travels_with_a_release(parts: dict[str, Any]) -> None:
    (parts["report"] / "reference.parquet").write_bytes(b"reference")
    make_release(**parts)
    assert (parts["out"] / "reference.parquet").read_bytes() == b"reference"


def test_the_card_of_a_release_lists_the_files_that_are_there(parts: dict[str, Any]) -> None:
    assert "`model.bin`" in (parts["report"] / "MODEL_CARD.md").read_text()
    make_release(**parts)
    card = (parts["out"] / "MODEL_CARD.md").read_text()
    assert re.search(r"^Files: `model\.onnx` \([\d.]+ MiB\), `weights\.pt` \(0\.0 MiB\)\.$", card, re.MULTILINE)
    assert all((parts["out"] / name).is_file() for name in re.findall(r"`(.+?)`", card))


def test_a_release_replaces_the_one_before_whole(parts: dict[str, Any]) -> None:
    parts["out"].mkdir()
    (parts["out"] / "old.onnx").write_bytes(b"old")
    make_release(**parts)
    assert not (parts["out"] / "old.onnx").exists()


def test_refuses_a_card_that_is_about_another_export(parts: dict[str, Any]) -> None:
    (parts["report"] / "MODEL_CARD.md").write_text("Version 000000000000\n")
    with pytest.raises(ModelError, match="dvc repro evaluate"):
        make_release(**parts)
    assert not parts["out"].exists()


def test_names_every_missing_part(parts: dict[str, Any]) -> None:
    parts["weights"].unlink()
    parts["pictures"][0].unlink()
    with pytest.raises(ModelError, match=r"weights\.pt, .*free\.png: missing"):
        make_release(**parts)


def test_refuses_a_release_too_large_for_git(parts: dict[str, Any]) -> None:
    parts["weights"].write_bytes(bytes(15_000_000))
    with pytest.raises(ModelError, match="expected at most 15,000,000"):
        make_release(**parts)


@pytest.mark.parametrize("revision", ["0" * 40 + "-dirty", "unknown"])
def test_refuses_a_model_of_uncommitted_changes_with_the_remedy(parts: dict[str, Any], revision: str) -> None:
    spec = read_spec(parts["export"])
    write_spec(
        parts["export"], spec.model_copy(update={"lineage": spec.lineage.model_copy(update={"revision": revision})})
    )
    with pytest.raises(
        ModelError, match=rf"export: made from uncommitted changes \(revision {revision}\).*then `dvc repro`"
    ):
        make_release(**parts)
    assert not parts["out"].exists()


def test_a_release_by_a_recipe_names_it_and_its_commit(parts: dict[str, Any]) -> None:
    card = parts["report"] / "MODEL_CARD.md"
    card.write_text(f"{card.read_text()}Code: `{'r' * 40}` (git)\n")
    make_release(**parts, recipe=("configs/recipes/some.yaml", "c" * 40))
    lineage = read_spec(parts["out"]).lineage
    assert (lineage.recipe, lineage.revision) == ("configs/recipes/some.yaml", "c" * 40)
    assert (
        f"Code: `{'c' * 40}` (git), recipe `configs/recipes/some.yaml`" in (parts["out"] / "MODEL_CARD.md").read_text()
    )
