"""Writes the model card from an evaluation: what the model is, what it may be used for, and figures with conditions.

Sections after Mitchell et al., Model Cards for Model Reporting, arXiv:1810.03993.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from emotion_yolo.artefact import ModelSpec
from emotion_yolo.cards import load_card
from emotion_yolo.emotions import NAMES
from emotion_yolo.evaluation import HEIGHTS
from emotion_yolo.metrics import HEIGHT_SIDE
from emotion_yolo.params import Evaluate
from emotion_yolo.prepared import SOURCES
from emotion_yolo.report import BACKGROUND, TITLES, Figures, Intervals, interval_text

_SUMMARY = """Finds the faces in a picture and names the expression of each as one of eight, in one pass of one YOLO
network. Written by the stage `evaluate` from its own measurements of the exported artefact; not edited by hand."""

_USE = """## Intended use

Research on facial expression, and tools in which people know of it and want it: to sort one's own pictures, to study
films or drawings, to test interfaces. It names the expression that people would **perceive**. It does not know what
anyone feels.

## Out of scope

* Any decision about a person: hiring, grading, credit, policing, health, insurance.
* **Workplaces and schools.** The EU AI Act bans inferring emotions there, but for medical or safety reasons
  (Art. 5(1)(f)).
* Elsewhere in the EU, emotion recognition is high-risk (Annex III 1(c)), and whoever deploys it must tell the people
  exposed to it (Art. 50(3)).
* Identifying people, lie detection, diagnosis."""

_TERMS = """The licence of a model does not lift the terms of its data: with data for research only, the model is for
research only. The checkpoint that training began with has a history of its own."""

_HOW = """For the eight-class average precision each box counts with each of its eight scores (confidence ×
probability), as in Ultralytics' multi-label validation; 101-point interpolation, comparable with its mAP. A face is
found where an answer overlaps it by an IoU of 0.5. Boxes of crops are tight around the face, not the frame of the
picture that AffectNet's own labels give; they come from the face detector that the stage `prepare` used. Boxes of
scenes are the sets' own, so that the figures of scenes are the ones to judge localisation by."""

_LIMITS = """## Limits

* Perceived expression is not felt emotion: faces are posed, hidden, and read otherwise in other cultures. People
  themselves agree on about 60 % of AffectNet's labels, so that figures on it hold the labels' own noise.
* The eight classes are a simplification. An unclear face should be read by its probabilities, not by its first name.
* Skin tone, age, gender, culture and disability are not annotated in these sets, so that fairness between groups was
  **not measured**.
* Very small, turned, covered or badly lit faces are found less often and named worse. Drawn faces and photographs are
  different domains: what is learnt on the one says little about the other.
* Where one source of photographs is happier than the others, a model can lean on the source; the table by source shows
  how far this one does.
* A test split of the same origin flatters: expect less on pictures of another kind, and measure on your own before
  relying on it."""

_HEIGHT_NAMES = {
    "": "all",
    "_32px": "≥ 32",
    "_128px": "≥ 128",
    "_0_16px": "below 16",
    "_16_32px": "16 to 32",
    "_32_64px": "32 to 64",
    "_64_128px": "64 to 128",
}


@dataclass(frozen=True)
class UsedSet:
    """A data set the model was trained and measured on, as far as `data.dvc` and the dataset cards tell."""

    kind: str
    title: str
    licence: str
    origin: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Evaluation:
    """All that a card is written from; `imgsz` is the input side for crops in px."""

    spec: ModelSpec
    settings: Evaluate
    imgsz: int
    backend: str
    metrics: Figures
    intervals: Intervals
    confusion: Sequence[tuple[str, str]]
    sets: Sequence[UsedSet]


def used_sets(pin: Path, cards: Path) -> list[UsedSet]:
    """Read from `data.dvc` and the dataset cards which sets lie in `data/`; empty if the pin does not say."""
    if not pin.is_file():
        return []
    content = yaml.safe_load(pin.read_text("utf-8")) or {}
    found = []
    for kind, entry in (content.get("meta") or {}).items():
        path = cards / f"{entry.get('card')}.yaml"
        if path.is_file():
            card = load_card(path)
            found.append(UsedSet(kind, card.title, card.licence, card.origin, card.citation))
        else:
            found.append(UsedSet(kind, "a set without a dataset card", entry.get("licence", "unknown")))
    return found


def model_card(evaluation: Evaluation) -> str:
    """Return the card as Markdown."""
    spec = evaluation.spec
    sections = [
        f"# {spec.name} {spec.version}",
        _SUMMARY,
        _details(evaluation),
        _USE,
        _data(evaluation.sets),
        _results(evaluation),
        _LIMITS,
    ]
    return "\n\n".join(sections) + "\n"


def _details(evaluation: Evaluation) -> str:
    spec = evaluation.spec
    rows = [
        ("Classes", ", ".join(spec.classes)),
        (
            "Input",
            f"RGB, scaled to fit a square of {spec.input.imgsz} px; any multiple of {spec.input.stride} px works",
        ),
        ("Answer", "per face: box, confidence that it is a face, probabilities of the eight expressions given a face"),
        ("Files", ", ".join(f"`{file.path}` ({file.bytes / 2**20:.1f} MiB)" for file in spec.files.values())),
        ("Thresholds, chosen on valid", f"conf {spec.thresholds.conf:g}, iou {spec.thresholds.iou:g}"),
        ("Temperature, fitted on valid", f"{spec.calibration.temperature:.3f}"),
        ("Licence", f"{spec.licence}, as Ultralytics' YOLO, which it derives from; the data's terms below come on top"),
        ("Data", f"`{spec.lineage.data}` (DVC's digest of `data/`)"),
        ("Parameters", f"`{spec.lineage.params}` (SHA-256)"),
        ("Code", f"`{spec.lineage.revision}` (git)"),
        ("Trained checkpoint", f"`{spec.lineage.weights}` (SHA-256)"),
    ]
    return "## Model details\n\n" + _table(("", ""), rows)


def _data(sets: Sequence[UsedSet]) -> str:
    if not sets:
        return "## Data\n\n`data.dvc` does not say which sets these are; treat their licence as unknown."
    rows = [(used.kind, used.title, used.licence, used.origin, used.citation) for used in sets]
    return f"## Data\n\n{_table(('', 'Set', 'Licence', 'Origin', 'Citation'), rows)}\n\n{_TERMS}"


def _results(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    headline = [
        (title, f"{metrics[name]:.3f}", interval_text(name, evaluation.intervals))
        for name, title in TITLES.items()
        if name in metrics
    ]
    parts = [
        "## Results",
        _conditions(evaluation),
        _table(("", "", "95 %"), headline),
        _HOW,
        _by_class(evaluation),
        _by_source(evaluation),
    ]
    if metrics.get("n_scenes"):
        parts.append(_by_height(evaluation))
    ece = f"Expected calibration error of the faces found, 15 bins of top probability: {_figure(metrics, 'ece')}"
    parts.append(f"### Calibration\n\n{ece}. The curve is in `reliability.csv`.")
    return "\n\n".join(parts)


def _conditions(evaluation: Evaluation) -> str:
    metrics, settings, served = evaluation.metrics, evaluation.settings, evaluation.spec.thresholds
    scenes = "Scenes: the prepared set has none, so that faces in whole photographs were **not measured**."
    if metrics.get("n_scenes"):
        count = f"n = {metrics['n_scenes']:,} with {metrics['n_faces']:,} faces"
        scenes = f"Scenes: {count}, input {settings.scene_imgsz} px."
    lines = [
        f"Split: test. Crops: n = {metrics['n_crops']:,}, input {evaluation.imgsz} px. {scenes}",
        f"Average precision, and precision and recall at the best F1: conf {settings.conf:g}, iou {settings.iou:g}.",
        f"All else as served: conf {served.conf:g}, iou {served.iou:g}. Suppression of doubles disregards classes.",
        f"Runtime: {evaluation.backend}, fp32.",
        f"Intervals: 95 %, {settings.bootstrap} bootstrap resamples of the pictures.",
    ]
    return "\n".join(lines)


def _by_class(evaluation: Evaluation) -> str:
    rows = []
    for name in NAMES:
        answers = [predicted for actual, predicted in evaluation.confusion if actual == name]
        found = [predicted for predicted in answers if predicted != BACKGROUND]
        recall = f"{found.count(name) / len(found):.3f}" if found else "-"
        wrong = sorted({p for p in found if p != name}, key=lambda p: (-found.count(p), p))
        often = f"{wrong[0]} ({found.count(wrong[0]) / len(found):.0%})" if wrong else "-"
        rows.append((name, len(answers), *_with_interval(evaluation, f"ap50_{name}"), recall, often))
    header = ("", "n", "AP50", "95 %", "recall of the faces found", "most often taken for")
    return f"### By expression\n\n{_table(header, rows)}"


def _by_source(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    rows = [
        (
            {"ffhq": "Flickr-Faces-HQ (`ffhq_…`)", "other": "others"}[source],
            int(metrics[f"n_{source}"]),
            *_with_interval(evaluation, f"top1_{source}"),
            _figure(metrics, f"macro_recall_{source}"),
            _figure(metrics, f"map50_{source}"),
        )
        for source in SOURCES
    ]
    gap = ""
    if "top1_gap" in metrics:
        gap = f"\n\nThe top-1 of the two differs by {metrics['top1_gap']:+.3f}. "
        gap += "Part of that is another mix of expressions; macro recall weighs them alike."
    return (
        f"### By source of the photograph\n\n{_table(('', 'n', 'top-1', '95 %', 'macro recall', 'mAP50'), rows)}{gap}"
    )


def _by_height(evaluation: Evaluation) -> str:
    rows = [
        (
            _HEIGHT_NAMES[suffix],
            int(evaluation.metrics[f"n_faces{suffix}"]),
            *_with_interval(evaluation, f"face_ap50{suffix}"),
        )
        for suffix in HEIGHTS
    ]
    text = f"Heights in px of the photograph, scaled down where its long side is above {HEIGHT_SIDE} px. "
    text += "Faces of other heights are ignored: neither missed nor wrongly found."
    return f"### Faces in scenes by height\n\n{_table(('height, px', 'faces', 'AP50', '95 %'), rows)}\n\n{text}"


def _with_interval(evaluation: Evaluation, name: str) -> tuple[str, str]:
    return _figure(evaluation.metrics, name), interval_text(name, evaluation.intervals) or "-"


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
