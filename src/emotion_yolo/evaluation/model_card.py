"""Writes the model card from an evaluation: what the model is, what it may be used for, and figures with conditions.

Sections after Mitchell et al., Model Cards for Model Reporting, arXiv:1810.03993.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import yaml

from emotion_yolo.data.cards import load_card
from emotion_yolo.data.negatives import HELD_OUT, LEARNT
from emotion_yolo.data.prepared import SOURCES, Source
from emotion_yolo.evaluation.figures import HEIGHTS, Slice
from emotion_yolo.evaluation.metrics import HEIGHT_SIDE
from emotion_yolo.evaluation.report import BACKGROUND, TITLES, Answer, Figures, Intervals, interval_text
from emotion_yolo.evaluation.robustness import FACE_HEIGHTS
from emotion_yolo.inference.artefact import File, ModelSpec
from emotion_yolo.params import Evaluate
from emotion_yolo.structures.emotions import NAMES

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

_HEIGHTS_TEXT = f"""Heights in px of the photograph, scaled down where its long side is above {HEIGHT_SIDE} px. Faces of
other heights are ignored: neither missed nor wrongly found."""

_SOURCE_NAMES: dict[Source, str] = {"ffhq": "Flickr-Faces-HQ (`ffhq_…`)", "other": "others"}

_CHANGE_NAMES = {
    "plain": "as they are",
    "blur": "blurred, Gaussian of 2 px",
    "jpeg10": "JPEG of quality 10",
    "dark": "darkened to 0.3",
    "grey": "without colour",
    "roll_left": "turned left by 30°",
    "roll_right": "turned right by 30°",
    "mouth_covered": "lower third of the face covered",
    "eyes_covered": "eyes covered",
    "mirrored": "mirror image",
    **{f"face_{height}px": f"face {height} px high in the input" for height in FACE_HEIGHTS},
}

_CHANGES_TEXT = """Boxes follow the change; those of turned faces are of the turned ellipse. Coverings are flat grey,
that of the eyes from a quarter to half of the tight box's height. A face of a given height stands alone on grey."""


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
    confusion: Sequence[Answer]
    sets: Sequence[UsedSet]
    slices: Sequence[Slice] = ()


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


def list_files(files: Iterable[File]) -> str:
    """Return the names and sizes of an artefact's files in a line."""
    return ", ".join(f"`{file.path}` ({file.bytes / 2**20:.1f} MiB)" for file in files)


def _details(evaluation: Evaluation) -> str:
    spec = evaluation.spec
    rows = [
        ("Classes", ", ".join(spec.classes)),
        (
            "Input",
            f"RGB, scaled to fit a square of {spec.input.imgsz} px; any multiple of {spec.input.stride} px works",
        ),
        ("Answer", "per face: box, confidence that it is a face, probabilities of the eight expressions given a face"),
        ("Files", list_files(spec.files.values())),
        ("Thresholds, chosen on valid", _thresholds(spec)),
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
        parts += [_by_height(evaluation), _by_size(evaluation)]
    if evaluation.slices:
        parts.append(_by_corruption(evaluation))
    if metrics.get("n_negatives"):
        parts.append(_negatives(evaluation))
    ece = f"Expected calibration error of the faces found, 15 bins of top probability: {_figure(metrics, 'ece')}"
    parts.append(f"### Calibration\n\n{ece}. The curve is in `reliability.csv`.")
    return "\n\n".join(parts)


def _thresholds(spec: ModelSpec) -> str:
    served = spec.thresholds
    ios = f", ios {served.ios:g}" if served.ios < 1 else ""
    return f"conf {served.conf:g}, iou {served.iou:g}{ios}"


def _conditions(evaluation: Evaluation) -> str:
    metrics, settings = evaluation.metrics, evaluation.settings
    scenes = "Scenes: the prepared set has none, so that faces in whole photographs were **not measured**."
    if metrics.get("n_scenes"):
        count = f"n = {metrics['n_scenes']:,} with {metrics['n_faces']:,} faces"
        scenes = f"Scenes: {count}, input {settings.scene_imgsz} px."
    lines = [
        f"Split: test. Crops: n = {metrics['n_crops']:,}, input {evaluation.imgsz} px. {scenes}",
        f"Average precision, and precision and recall at the best F1: conf {settings.conf:g}, iou {settings.iou:g}.",
        f"All else as served: {_thresholds(evaluation.spec)}. Suppression of doubles disregards classes.",
        f"Runtime: {evaluation.backend}, fp32.",
        f"Intervals: 95 %, {settings.bootstrap} bootstrap resamples of the pictures.",
    ]
    return "\n".join(lines)


def _by_class(evaluation: Evaluation) -> str:
    rows = []
    for name in NAMES:
        count, *scores = _scores(evaluation.confusion, name)
        found = [said for actual, said, _ in evaluation.confusion if actual == name and said != BACKGROUND]
        wrong = sorted({said for said in found if said != name}, key=lambda said: (-found.count(said), said))
        often = f"{wrong[0]} ({found.count(wrong[0]) / len(found):.0%})" if wrong else "-"
        rows.append((name, count, *_with_interval(evaluation, f"ap50_{name}"), *scores, often))
    header = ("", "n", "AP50", "95 %", "precision", "recall", "F1", "most often taken for")
    text = "Precision, recall and F1 are of the faces found, at the served threshold."
    return f"### By expression\n\n{_table(header, rows)}\n\n{text}"


def _scores(answers: Sequence[Answer], name: str) -> tuple[int, str, str, str]:
    """Return the number of faces of an expression; precision, recall and F1 of those found, `-` where there is none."""
    truth = [said for actual, said, _ in answers if actual == name]
    claimed = [actual for actual, said, _ in answers if said == name and actual != BACKGROUND]
    right, found = truth.count(name), len(truth) - truth.count(BACKGROUND)
    parts = ((right, len(claimed)), (right, found), (2 * right, len(claimed) + found))
    precision, recall, f1 = (f"{part / whole:.3f}" if whole else "-" for part, whole in parts)
    return len(truth), precision, recall, f1


def _by_source(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    rows = [
        (
            _SOURCE_NAMES[source],
            int(metrics[f"n_{source}"]),
            *_with_interval(evaluation, f"top1_{source}"),
            _figure(metrics, f"macro_recall_{source}"),
            _figure(metrics, f"map50_{source}"),
        )
        for source in SOURCES
    ]
    parts = [
        "### By source of the photograph",
        _table(("", "n", "top-1", "95 %", "macro recall", "mAP50"), rows),
    ]
    if "top1_gap" in metrics:
        gap = f"The top-1 of the two differs by {metrics['top1_gap']:+.3f}. "
        parts.append(gap + "Part of that is another mix of expressions; macro recall weighs them alike.")
    for source in SOURCES:
        answers = [answer for answer in evaluation.confusion if answer[2] == source]
        if answers:
            parts += [f"{_SOURCE_NAMES[source]}, true expressions in rows, answers in columns:", _confusion(answers)]
    return "\n\n".join(parts)


def _confusion(answers: Sequence[Answer]) -> str:
    rows = [
        (name, *(sum(a[:2] == (name, said) for a in answers) for said in (*NAMES, BACKGROUND)), *_scores(answers, name))
        for name in NAMES
    ]
    return _table(("", *NAMES, "not found", "n", "precision", "recall", "F1"), rows)


def _by_size(evaluation: Evaluation) -> str:
    served, metrics = evaluation.settings.scene_imgsz, evaluation.metrics
    suffixes = {f"{served}, as served": "", **{f"{side}": f"_{side}" for side in evaluation.settings.scene_sizes}}
    rows = [
        (
            title,
            *_with_interval(evaluation, f"face_ap50_32px{suffix}"),
            *_with_interval(evaluation, f"face_ap50_128px{suffix}"),
            _figure(metrics, f"frame_boxes{suffix}"),
        )
        for title, suffix in suffixes.items()
    ]
    header = ("input, px", "AP50, faces ≥ 32 px", "95 %", "AP50, faces ≥ 128 px", "95 %", "best box is the picture")
    return f"### Faces in scenes by size of the input\n\n{_table(header, rows)}\n\n{_HEIGHTS_TEXT}"


def _negatives(evaluation: Evaluation) -> str:
    rows = [
        (kind.replace("_", " "), among, _figure(evaluation.metrics, f"false_faces_{kind}"))
        for kinds, among in ((LEARNT, "yes"), (HELD_OUT, "no"))
        for kind in kinds
    ]
    count = f"{int(evaluation.metrics['n_negatives']):,} drawn pictures of each kind, other ones than in training."
    header = ("", "among those of `prepare.sheets.negatives`", "share with a face found")
    return f"### Pictures without a face\n\n{_table(header, rows)}\n\n{count}"


def _by_corruption(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    rows = [
        (
            _CHANGE_NAMES.get(s.change, s.change.replace("_", " ")),
            f"{s.found:.3f}",
            f"{s.top1:.3f}" if isfinite(s.top1) else "-",
            interval_text("top1", {"top1": s.interval} if isfinite(s.top1) else {}) or "-",
            f"{s.right:.3f}",
            f"{s.face_ap50_32px:.3f}" if isfinite(s.face_ap50_32px) else "-",
        )
        for s in evaluation.slices
    ]
    header = ("", "faces found", "top-1 of these", "95 %", "right, of all", "scenes: AP50, faces ≥ 32 px")
    count = f"{int(metrics['n_robustness']):,} of the test crops, evenly picked, and all test scenes."
    text = f"{count} {_CHANGES_TEXT}"
    if "flip_changed" in metrics:
        text += f" In a mirror image {metrics['flip_changed']:.1%} of the faces found in both get another name; a "
        text += f"probability differs by up to {metrics['flip_difference']:.3f} on average over the faces, by "
        text += f"{metrics['flip_max_difference']:.3f} at most."
    return f"### Changed pictures\n\n{_table(header, rows)}\n\n{text}"


def _by_height(evaluation: Evaluation) -> str:
    rows = [
        (
            _HEIGHT_NAMES[suffix],
            int(evaluation.metrics[f"n_faces{suffix}"]),
            *_with_interval(evaluation, f"face_ap50{suffix}"),
        )
        for suffix in HEIGHTS
    ]
    header = ("height, px", "faces", "AP50", "95 %")
    return f"### Faces in scenes by height\n\n{_table(header, rows)}\n\n{_HEIGHTS_TEXT}"


def _with_interval(evaluation: Evaluation, name: str) -> tuple[str, str]:
    return _figure(evaluation.metrics, name), interval_text(name, evaluation.intervals) or "-"


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
