"""Writes the model card of an evaluation: what the model is, what it may be used for, and metrics with conditions.

Sections after Mitchell et al., Model Cards for Model Reporting, arXiv:1810.03993.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from emotion_yolo.data.cards import load_card
from emotion_yolo.evaluation.card_tables import (
    by_class,
    by_corruption,
    by_face_height,
    by_set,
    by_source,
    negatives,
    number,
    photographs_by_height,
    photographs_by_input,
    table,
)
from emotion_yolo.evaluation.measuring import Evaluation
from emotion_yolo.evaluation.summary import TITLES, interval_text
from emotion_yolo.inference.artefact import File, ModelSpec

CARD_NAME = "MODEL_CARD.md"

_SUMMARY = """Finds the faces in a picture and classifies the expression of each as one of eight, in one pass of one
YOLO network, which may look at each face once more in a close-up. The stage `evaluate` writes this card from its own
measurements of the exported artefact."""

_USE = """## Intended use

Research on facial expression, and tools whose users know of it and want it: sorting one's own pictures, studying
films or drawings, testing interfaces. The model predicts the expression that people would **perceive**. It does not
know what anyone feels.

## Out of scope

* Any decision about a person: hiring, grading, credit, policing, health, insurance.
* **Workplaces and schools.** The EU AI Act prohibits inferring emotions there except for medical or safety reasons
  (Art. 5(1)(f)).
* Elsewhere in the EU, emotion recognition is high-risk (Annex III 1(c)), and deployers must inform the people exposed
  to it (Art. 50(3)).
* Identifying people, lie detection, diagnosis."""

_TERMS = """The licence of a model does not lift the terms of its data: a model trained on data for research only is
for research only. The checkpoint that training started from has its own history."""

_HOW = """For the eight-class average precision each box counts with each of its eight scores (confidence ×
probability), as in Ultralytics' multi-label validation; 101-point interpolation, comparable with its mAP. A face is
found if a prediction overlaps it with an IoU of at least 0.5. Boxes of single-face crops come from the face detector
that the stage `prepare` used, not from the set, whose boxes are the frame of the picture. Boxes of photographs are
the set's own, so judge localisation by the metrics of photographs."""

_LIMITS = """## Limits

* Perceived expression is not felt emotion: faces are posed or hidden, and cultures read them differently. People
  agree on about 60 % of AffectNet's labels, so metrics on it include the noise of its labels.
* The eight classes are a simplification. Read an unclear face by its probabilities, not by the most probable class
  alone.
* Skin tone, age, gender, culture and disability are not annotated in these sets, so fairness between groups was **not
  measured**.
* Very small, rotated, covered or badly lit faces are found less often and classified worse. Drawings and photographs
  are different domains; results on one say little about the other.
* If expressions are distributed differently between sources, a model can learn the source; the table by source and
  expression shows how far this one does.
* A test split from the same origin as the training data is optimistic: expect less on other pictures, and measure on
  your own before relying on it."""


@dataclass(frozen=True)
class UsedSet:
    """A data set that the model was trained and measured on, from `data.dvc` and the dataset cards."""

    name: str
    title: str
    licence: str
    origin: str = ""
    citation: str = ""


def used_sets(pin: Path, cards: Path) -> list[UsedSet]:
    """Read the sets in `data/` from `data.dvc` and the dataset cards; empty if `data.dvc` does not record them."""
    if not pin.is_file():
        return []
    content = yaml.safe_load(pin.read_text("utf-8")) or {}
    meta = content.get("meta") or {}
    found = []
    for name, entry in (meta.get("sets") or meta).items():
        path = cards / f"{entry.get('card')}.yaml"
        if path.is_file():
            card = load_card(path)
            found.append(UsedSet(name, card.title, card.licence, card.origin, card.citation))
        else:
            found.append(UsedSet(name, "a set without a dataset card", entry.get("licence", "unknown")))
    return found


def model_card(evaluation: Evaluation, sets: Sequence[UsedSet]) -> str:
    """Return the card as Markdown."""
    spec = evaluation.spec
    sections = [
        f"# {spec.name} {spec.version}",
        _SUMMARY,
        _details(spec),
        _USE,
        _data(sets),
        _results(evaluation),
        _LIMITS,
    ]
    return "\n\n".join(sections) + "\n"


def list_files(files: Iterable[File]) -> str:
    """Return the names and sizes of an artefact's files in a line."""
    return ", ".join(f"`{file.path}` ({file.bytes / 2**20:.1f} MiB)" for file in files)


def _details(spec: ModelSpec) -> str:
    given, fitted = spec.close_up, spec.calibration
    shown = [f"RGB, scaled to fit a square of {spec.input.imgsz} px", f"any multiple of {spec.input.stride} px works"]
    close_ups = [f"close-ups of {given.side} px, faces {given.face} px high or wide"] if given else []
    biases = [f"{name} {value:+.2f}" for name, value in zip(spec.classes, fitted.bias or (), strict=False)]
    rows = [
        ("Classes", ", ".join(spec.classes)),
        ("Input", "; ".join([*shown, *close_ups])),
        ("Output", "per face: box, confidence that it is a face, probabilities of the eight expressions given a face"),
        ("Files", list_files(spec.files.values())),
        ("Thresholds, chosen on valid", _thresholds(spec)),
        ("Temperature, fitted on valid", f"{fitted.temperature:.3f}"),
        ("Biases of the classes, fitted on valid", ", ".join(biases) or "none"),
        ("Licence", f"{spec.licence}, as that of Ultralytics' YOLO; the terms of the data below apply as well"),
        ("Data", f"`{spec.lineage.data}` (DVC's digest of `data/`)"),
        ("Parameters", f"`{spec.lineage.params}` (SHA-256)"),
        ("Code", f"`{spec.lineage.revision}` (git)"),
        ("Trained checkpoint", f"`{spec.lineage.weights}` (SHA-256)"),
    ]
    return "## Model details\n\n" + table(("", ""), rows)


def _data(sets: Sequence[UsedSet]) -> str:
    if not sets:
        return "## Data\n\n`data.dvc` does not say which sets these are; treat their licence as unknown."
    rows = [(used.name, used.title, used.licence, used.origin, used.citation) for used in sets]
    return f"## Data\n\n{table(('', 'Set', 'Licence', 'Origin', 'Citation'), rows)}\n\n{_TERMS}"


def _results(evaluation: Evaluation) -> str:
    overall = evaluation.overall
    headline = [
        (title, f"{overall.metrics[name]:.3f}", interval_text(name, overall.intervals))
        for name, title in TITLES.items()
        if name in overall.metrics
    ]
    parts = ["## Results", _conditions(evaluation), table(("", "", "95 %"), headline), _HOW, by_set(evaluation)]
    if evaluation.named:
        parts += [by_class(evaluation), by_source(evaluation)]
    if evaluation.robustness.heights:
        parts += [by_face_height(evaluation), by_corruption(evaluation)]
    if evaluation.photographs:
        parts += [photographs_by_height(evaluation), photographs_by_input(evaluation)]
    if overall.metrics.get("n_negatives"):
        parts.append(negatives(evaluation))
    ece = f"Expected calibration error of the faces found, 15 bins of top probability: {number(overall, 'ece')}"
    parts.append(f"### Calibration\n\n{ece}. The curve is in `reliability.csv`.")
    return "\n\n".join(parts)


def _thresholds(spec: ModelSpec) -> str:
    served = spec.thresholds
    ios = f", ios {served.ios:g}" if served.ios < 1 else ""
    return f"conf {served.conf:g}, iou {served.iou:g}{ios}"


def _conditions(evaluation: Evaluation) -> str:
    metrics, settings = evaluation.overall.metrics, evaluation.settings
    photographs = "Photographs: the prepared set has none, so faces in whole photographs were **not measured**."
    if metrics["n_scenes"]:
        count = f"n = {metrics['n_scenes']:,} with {metrics['n_faces']:,} faces"
        photographs = f"Photographs: {count}, input {settings.scene_imgsz} px."
    lines = [
        f"Split: test. Single-face crops: n = {metrics['n_crops']:,}, input {evaluation.imgsz} px. {photographs}",
        f"Average precision: conf {settings.conf:g}, iou {settings.iou:g}.",
        f"All else as served: {_thresholds(evaluation.spec)}. Non-maximum suppression is class-agnostic.",
        f"Runtime: {evaluation.backend}, fp32.",
        f"Intervals: 95 %, {settings.bootstrap} bootstrap resamples of the pictures.",
    ]
    return "\n".join(lines)
