"""A release: what a fresh clone serves at once, starts fine-tuning from, and localises faces with; it lies in git."""

import shutil
from pathlib import Path

from emotion_yolo.artefact import describe, read_spec, write_spec
from emotion_yolo.errors import ModelError

_LIMIT = 15_000_000  # bytes; git keeps every release for ever
_CARD_FILES = ("MODEL_CARD.md", "detections.jpg")


def make_release(*, weights: Path, export: Path, report: Path, metrics: Path, out: Path) -> list[Path]:
    """Copy a trained, exported and evaluated model into `out`, replacing what is there; returns its files.

    The OpenVINO files stay behind: they hold the same network as the ONNX file, which OpenVINO reads as well.

    Raises:
        ModelError: something of it is missing, the evaluation is of another export, or it is too large for git.
    """
    spec = read_spec(export)
    sources = [weights, export / spec.files["onnx"].path, metrics, *(report / name for name in _CARD_FILES)]
    if missing := [str(path) for path in sources if not path.is_file()]:
        raise ModelError(f"{', '.join(missing)}: missing; a release is made after `dvc repro` has run to its end")
    if spec.version not in (report / "MODEL_CARD.md").read_text("utf-8"):
        message = f"{report}/MODEL_CARD.md is not about version {spec.version}, which lies in {export}"
        raise ModelError(f"{message}; run `dvc repro evaluate` first")
    size = sum(path.stat().st_size for path in sources)
    if size > _LIMIT:
        raise ModelError(f"{size:,} bytes; expected at most {_LIMIT:,}, since git keeps every release for ever")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sources:
        shutil.copyfile(path, out / path.name)
    write_spec(out, spec.model_copy(update={"files": {"onnx": describe(out / spec.files["onnx"].path)}}))
    return sorted(out.iterdir())
