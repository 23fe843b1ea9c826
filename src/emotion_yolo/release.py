"""A release: the model in git that a fresh clone serves, fine-tunes from, and localises faces with."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from emotion_yolo.drawing import Tile, contact_sheet, draw_detections
from emotion_yolo.errors import ModelError
from emotion_yolo.evaluation.model_card import list_files
from emotion_yolo.inference.artefact import describe, read_spec, write_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.prediction_log.observations import REFERENCE_NAME
from emotion_yolo.structures.images import read_rgb

_LIMIT = 15_000_000  # bytes; git keeps every release for ever
_CARD = "MODEL_CARD.md"
_EXAMPLE = "example.jpg"


def make_release(
    *,
    weights: Path,
    export: Path,
    report: Path,
    metrics: Path,
    pictures: Sequence[Path],
    out: Path,
    recipe: tuple[str, str] | None = None,
) -> list[Path]:
    """Copy a trained, exported and evaluated model into `out`, replacing what is there; returns its files.

    The OpenVINO files are left out: they hold the same network as the ONNX file, which OpenVINO reads as well. So is
    the report's own contact sheet, of faces whose licence may forbid to publish them; `example.jpg` shows the model's
    answers to `pictures` instead, whose licence has to allow it. The card lists what is there.

    `recipe` is the file it was made by and the commit that file is of. It takes the place of the commit in the clone
    that the recipe ran in, whose params.yaml follows from both.

    Raises:
        ModelError: something of it is missing, it was made from uncommitted changes, the evaluation is of another
            export, or it is too large for git.
    """
    spec = read_spec(export)
    revision = spec.lineage.revision
    if revision.endswith("-dirty") or revision == "unknown":
        raise ModelError(
            f"{export}: made from uncommitted changes (revision {revision}), so it cannot be reproduced; "
            "commit them, `dvc repro --force --single-item export`, then `dvc repro`"
        )
    sources = [weights, export / spec.files["onnx"].path, metrics, report / _CARD]
    if missing := [str(path) for path in (*sources, *pictures) if not path.is_file()]:
        raise ModelError(f"{', '.join(missing)}: missing; a release is made after `dvc repro` has run to its end")
    card = (report / _CARD).read_text("utf-8")
    if spec.version not in card:
        message = f"{report / _CARD} is not about version {spec.version}, which is in {export}"
        raise ModelError(f"{message}; run `dvc repro evaluate` first")
    size = sum(path.stat().st_size for path in sources)
    if size > _LIMIT:
        raise ModelError(f"{size:,} bytes; expected at most {_LIMIT:,}, since git keeps every release for ever")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sources:
        shutil.copyfile(path, out / path.name)
    if (reference := report / REFERENCE_NAME).is_file():  # an evaluation before 2026-11-26 has none
        shutil.copyfile(reference, out / REFERENCE_NAME)
    served = describe(out / spec.files["onnx"].path)
    lineage = spec.lineage
    if recipe:
        file, commit = recipe
        lineage = lineage.model_copy(update={"recipe": file, "revision": commit})
        card = card.replace(f"`{revision}` (git)", f"`{commit}` (git), recipe `{file}`")
    write_spec(out, spec.model_copy(update={"files": {"onnx": served}, "lineage": lineage}))
    released = list_files([served, describe(out / weights.name)])
    (out / _CARD).write_text(card.replace(list_files(spec.files.values()), released), "utf-8")
    if pictures:
        write_example(Detector.load(out), pictures, out / _EXAMPLE)
    return sorted(out.iterdir())


def write_example(detector: Detector, pictures: Sequence[Path], out: Path) -> None:
    """Write one picture of the detector's answers to `pictures`, side by side."""
    tiles = []
    for path in pictures:
        image = read_rgb(path)
        tiles.append(Tile(draw_detections(image, detector.predict(image))))
    title = f"{detector.spec.name} {detector.spec.version}: answers to drawn pictures"
    sheet = contact_sheet(tiles, title=title, columns=min(len(tiles), 3), side=400)
    Image.fromarray(sheet).save(out, quality=88)
