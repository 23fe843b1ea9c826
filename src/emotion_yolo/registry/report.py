"""Writes a comparison as Markdown with a plot."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from emotion_yolo.registry.comparing import Comparison, Difference

REPORT_NAME = "promotion.md"
PLOT_NAME = "differences.png"

_LEGEND = (
    "Gains are positive where the candidate is better; those of latency and size are shares. Intervals are of a paired "
    "bootstrap over pictures. A figure is worse where its whole interval lies below minus the tolerance."
)


def verdict(comparison: Comparison) -> str:
    """Return the decision in one sentence."""
    if worse := comparison.worse:
        return f"Refused: worse beyond noise in {'; '.join(map(describe, worse))}."
    return f"Not worse beyond noise in any of {len(comparison.differences)} figures."


def describe(difference: Difference) -> str:
    """Return one figure of both models in a line."""
    low, high = difference.interval
    figures = f"{_number(difference.present)} to {_number(difference.candidate)}"
    return f"{difference.title} {figures} (gain {difference.gain:+.3f}, 95 % {low:+.3f} to {high:+.3f})"


def message(comparison: Comparison) -> str:
    """Return the reason, as the message of a tag."""
    head = f"{comparison.candidate.name} {comparison.candidate.version} against {comparison.present.version}"
    lines = [describe(difference) for difference in comparison.differences]
    lines += [f"not measured: {title}" for title in comparison.missing]
    return "\n".join([f"{head}, {comparison.pictures:,} test pictures", "", verdict(comparison), *lines])


def write_report(comparison: Comparison, out: Path) -> Path:
    """Write `promotion.md` and its plot into the folder `out`; returns the former."""
    out.mkdir(parents=True, exist_ok=True)
    _plot(comparison).savefig(out / PLOT_NAME, dpi=120)
    rows = [
        f"| {d.title} | {_number(d.present)} | {_number(d.candidate)} | {d.gain:+.4f} | "
        f"{d.interval[0]:+.4f} to {d.interval[1]:+.4f} | {d.tolerance:.2f} | {'worse' if d.worse else 'passed'} |"
        for d in comparison.differences
    ]
    text = [
        f"# Candidate {comparison.candidate.version} against {comparison.present.version}",
        "",
        verdict(comparison),
        "",
        "| figure | present | candidate | gain | 95 % interval | tolerance | |",
        "|---|---|---|---|---|---|---|",
        *rows,
        *(f"| {title} | – | – | – | – | – | not measured |" for title in comparison.missing),
        "",
        f"![Gains with their intervals]({PLOT_NAME})",
        "",
        f"{comparison.pictures:,} pictures of the test split. {_LEGEND}",
    ]
    path = out / REPORT_NAME
    path.write_text("\n".join(text) + "\n", "utf-8")
    return path


def _plot(comparison: Comparison) -> Figure:
    figure = Figure(figsize=(8, 0.6 * len(comparison.differences) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, d in enumerate(reversed(comparison.differences)):
        low, high = d.interval
        colour = "tab:red" if d.worse else "tab:blue"
        axes.plot([low, high], [row, row], color=colour, linewidth=2)
        axes.plot([d.gain], [row], "o", color=colour)
        axes.plot([-d.tolerance], [row], "|", color="black", markersize=14)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(comparison.differences)), [d.title for d in reversed(comparison.differences)])
    axes.set_xlabel("gain of the candidate, 95 % interval; bars: tolerance")
    return figure


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and value > 1 else f"{value:.4f}"
