"""The tables of the model card, in Markdown."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from emotion_yolo.data.negatives import HELD_OUT, LEARNT
from emotion_yolo.evaluation.figures import HEIGHTS, LEAST_IN_CELL
from emotion_yolo.evaluation.measuring import Evaluation
from emotion_yolo.evaluation.metrics import HEIGHT_SIDE, Interval, Measured
from emotion_yolo.evaluation.report import BACKGROUND, Prediction, confusion_rows
from emotion_yolo.evaluation.summary import SET_COLUMNS, interval_text
from emotion_yolo.structures.emotions import NAMES

_HEIGHT_NAMES = {
    "": "all",
    "_32px": "≥ 32",
    "_128px": "≥ 128",
    "_0_16px": "below 16",
    "_16_32px": "16 to 32",
    "_32_64px": "32 to 64",
    "_64_128px": "64 to 128",
    "_128_256px": "128 to 256",
    "_256px": "≥ 256",
}

_CORRUPTION_NAMES = {
    "plain": "none",
    "blur": "Gaussian blur of 2 px",
    "jpeg10": "JPEG of quality 10",
    "dark": "darkened to 0.3",
    "grey": "without colour",
    "roll_left": "rotated left by 30°",
    "roll_right": "rotated right by 30°",
    "mouth_covered": "lower third of the face covered",
    "eyes_covered": "eyes covered",
    "mirrored": "mirror image",
}

_SETS_TEXT = """A set without labelled emotions has no metrics of expressions, one of single-face crops none of face
detection. *Right, of all* counts a missed face as wrong; *right, of found*, *macro recall* and *votes' CE*
(cross-entropy of the predicted probabilities against the annotators' votes, in nats) are of the faces found.
*Neutral* and *happy* are the recall of that expression, of all faces. *Majority right* is of the faces to which at
least half of the votes that name one of the eight expressions give the same one. Means are over the expressions that
the set has."""

_CELLS_TEXT = f"""Share of all labelled faces whose expression is predicted, a missed face counting as wrong, with the
number of faces in brackets. Cells of fewer than {LEAST_IN_CELL} faces do not count for the worst one. A model that
recognises the source rather than the expression shows in the rows here, not in a mean."""

_HEIGHTS_TEXT = f"""Heights in px of the photograph, scaled down where its long side is above {HEIGHT_SIDE} px. Faces
of other heights are ignored: neither missed nor false detections."""

_FACE_HEIGHTS_TEXT = """Pictures of one face, scaled so that the face is this high in the network's input and centred
on grey; at the largest heights it fills the input. *Right* counts a missed face as wrong. Enlarged faces have no more
detail than the pictures they come from."""

_CORRUPTIONS_TEXT = """Boxes follow the change; that of a rotated face bounds the rotated ellipse. Coverings are flat
grey; that of the eyes spans from a quarter to half of the box's height."""


def by_class(evaluation: Evaluation) -> str:
    """Return the metrics of each expression."""
    predictions, rows = confusion_rows(evaluation.named, evaluation.faces), []
    for name in NAMES:
        count, *scores = _scores(predictions, name)
        found = [predicted for actual, predicted, _ in predictions if actual == name and predicted != BACKGROUND]
        wrong = sorted({other for other in found if other != name}, key=lambda other: (-found.count(other), other))
        often = f"{wrong[0]} ({found.count(wrong[0]) / len(found):.0%})" if wrong else "-"
        rows.append((name, count, *_with_interval(evaluation.overall, f"ap50_{name}"), *scores, often))
    header = ("", "faces", "AP50", "95 %", "precision", "recall", "F1", "most often confused with")
    text = "Precision, recall and F1 are of the faces found, at the served threshold."
    return f"### By expression\n\n{table(header, rows)}\n\n{text}\n\n{_confusion(predictions)}"


def by_set(evaluation: Evaluation) -> str:
    """Return the metrics of the test split of each set."""
    columns = [name for name in SET_COLUMNS if any(name in of.metrics for of in evaluation.sets.values())]
    rows = [(name or "-", *(number(of, column) for column in columns)) for name, of in evaluation.sets.items()]
    header = ("", *(SET_COLUMNS[name] for name in columns))
    return f"### By set\n\n{table(header, rows)}\n\n{_SETS_TEXT}"


def by_source(evaluation: Evaluation) -> str:
    """Return the accuracy of each expression in each source of pictures, and the worst of them."""
    cells = {(cell.source, cell.emotion): f"{cell.accuracy:.3f} ({cell.faces:,})" for cell in evaluation.cells}
    rows = [
        (
            source,
            number(of, "recall_served"),
            interval_text("recall_served", of.intervals) or "-",
            *(cells.get((source, name), "-") for name in NAMES),
        )
        for source, of in evaluation.sources.items()
    ]
    parts = ["### By source and expression", table(("", "all", "95 %", *NAMES), rows), _CELLS_TEXT]
    if worst := evaluation.worst:
        low, high = worst.interval
        parts.append(
            f"Worst: {worst.emotion} of {worst.source}, {worst.accuracy:.3f}"
            f" ({low:.3f}-{high:.3f}, n = {worst.faces:,})."
        )
    return "\n\n".join(parts)


def by_face_height(evaluation: Evaluation) -> str:
    """Return the accuracy of single faces by set and height in the input."""
    rows = [
        (
            height,
            name or "-",
            r.faces,
            _share(r.found),
            _share(r.accuracy),
            _range(r.interval),
            _share(r.neutral),
            _share(r.happy),
        )
        for (name, height), r in evaluation.robustness.heights.items()
    ]
    header = ("height, px", "set", "faces", "found", "right", "95 %", "neutral right", "happy right")
    return f"### By height of the face in the input\n\n{table(header, rows)}\n\n{_FACE_HEIGHTS_TEXT}"


def by_corruption(evaluation: Evaluation) -> str:
    """Return the metrics of corrupted pictures."""
    robustness, metrics = evaluation.robustness, evaluation.overall.metrics
    rows = [
        (
            _CORRUPTION_NAMES[name],
            _share(r.found),
            _share(r.top1),
            _range(r.top1_interval),
            _share(r.accuracy),
            _share(robustness.scenes.get(name, float("nan"))),
        )
        for name, r in robustness.corruptions.items()
    ]
    header = ("", "faces found", "right, of found", "95 %", "right, of all", "photographs: AP50, faces ≥ 32 px")
    count = f"{int(metrics['n_robustness']):,} of the test crops, evenly picked, and all test photographs."
    text = f"{count} {_CORRUPTIONS_TEXT}"
    if "flip_changed" in metrics:
        text += (
            f" In the mirror image {metrics['flip_changed']:.1%} of the faces found in both change their expression;"
        )
        text += f" a probability differs by up to {metrics['flip_difference']:.3f} on average over the faces, by"
        text += f" {metrics['flip_max_difference']:.3f} at most."
    return f"### Corrupted pictures\n\n{table(header, rows)}\n\n{text}"


def photographs_by_height(evaluation: Evaluation) -> str:
    """Return the average precision of faces in photographs by their height."""
    measured = evaluation.overall
    rows = [
        (
            _HEIGHT_NAMES[suffix],
            int(measured.metrics[f"n_faces{suffix}"]),
            *_with_interval(measured, f"face_ap50{suffix}"),
        )
        for suffix in HEIGHTS
    ]
    header = ("height, px", "faces", "AP50", "95 %")
    return f"### Faces in photographs by height\n\n{table(header, rows)}\n\n{_HEIGHTS_TEXT}"


def photographs_by_input(evaluation: Evaluation) -> str:
    """Return the average precision of faces in photographs by the size of the network's input."""
    served, measured = evaluation.settings.scene_imgsz, evaluation.overall
    suffixes = {f"{served}, as served": "", **{f"{side}": f"_{side}" for side in evaluation.settings.scene_sizes}}
    rows = [
        (
            title,
            *_with_interval(measured, f"face_ap50_32px{suffix}"),
            *_with_interval(measured, f"face_ap50_128px{suffix}"),
            number(measured, f"frame_boxes{suffix}"),
        )
        for title, suffix in suffixes.items()
    ]
    header = ("input, px", "AP50, faces ≥ 32 px", "95 %", "AP50, faces ≥ 128 px", "95 %", "best box is the picture")
    return f"### Faces in photographs by size of the input\n\n{table(header, rows)}"


def negatives(evaluation: Evaluation) -> str:
    """Return how often a face is found in drawn pictures without one."""
    rows = [
        (kind.replace("_", " "), learnt, number(evaluation.overall, f"false_faces_{kind}"))
        for kinds, learnt in ((LEARNT, "yes"), (HELD_OUT, "no"))
        for kind in kinds
    ]
    count = f"{int(evaluation.overall.metrics['n_negatives']):,} drawn pictures of each kind, none of them trained on."
    return (
        f"### Pictures without a face\n\n{table(('', 'kind in training', 'share with a face found'), rows)}\n\n{count}"
    )


def number(measured: Measured, name: str) -> str:
    """Return a metric for a table, `-` where it was not measured."""
    value = measured.metrics.get(name)
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _scores(predictions: Sequence[Prediction], name: str) -> tuple[int, str, str, str]:
    """Return the number of faces of an expression; precision, recall and F1 of those found, `-` where there is none."""
    of_class = [predicted for actual, predicted, _ in predictions if actual == name]
    as_class = [actual for actual, predicted, _ in predictions if predicted == name and actual != BACKGROUND]
    right, found = of_class.count(name), len(of_class) - of_class.count(BACKGROUND)
    parts = ((right, len(as_class)), (right, found), (2 * right, len(as_class) + found))
    precision, recall, f1 = (f"{part / whole:.3f}" if whole else "-" for part, whole in parts)
    return len(of_class), precision, recall, f1


def _confusion(predictions: Sequence[Prediction]) -> str:
    counts = Counter((actual, predicted) for actual, predicted, _ in predictions)
    rows = [(name, *(counts[name, other] for other in (*NAMES, BACKGROUND))) for name in NAMES]
    return f"Labels in rows, predictions in columns:\n\n{table(('', *NAMES, 'not found'), rows)}"


def _with_interval(measured: Measured, name: str) -> tuple[str, str]:
    return number(measured, name), interval_text(name, measured.intervals) or "-"


def _share(value: float) -> str:
    return f"{value:.3f}" if isfinite(value) else "-"


def _range(interval: Interval) -> str:
    low, high = interval
    return f"{low:.3f}-{high:.3f}" if isfinite(low) else "-"
