"""A sweep's results: a table for the terminal and as CSV, and a plot."""

import csv
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from emotion_yolo.progress import duration
from emotion_yolo.tuning.study import EXPERIMENT, Study
from emotion_yolo.tuning.sweep import Sweep

TABLE_NAME = "trials.csv"
PLOT_NAME = "sweep.png"

_COLOURS = {"complete": "tab:blue", "pruned": "tab:orange", "failed": "tab:red"}


def table(sweep: Sweep, study: Study) -> str:
    """Return the finished trials, the best first."""
    ranked = sorted(study.finished, key=lambda trial: _rank(trial, sweep))
    rows = [_header(sweep), *([_short(cell) for cell in _row(trial, sweep)] for trial in ranked)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_report(sweep: Sweep, study: Study, out: Path) -> list[Path]:
    """Write all finished trials as CSV, and their plot, into the folder `out`; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_header(sweep), *(_row(trial, sweep) for trial in study.finished)])
    _plot(sweep, study).savefig(out / PLOT_NAME, dpi=120)
    return [out / TABLE_NAME, out / PLOT_NAME]


def _rank(trial: FrozenTrial, sweep: Sweep) -> tuple[int, float]:
    complete = trial.state == TrialState.COMPLETE
    value = trial.value if trial.value is not None else 0.0
    return (not complete, value if sweep.direction == "minimize" else -value)


def _header(sweep: Sweep) -> list[str]:
    return ["experiment", "state", sweep.metric, "epochs", "time", *sweep.space]


def _row(trial: FrozenTrial, sweep: Sweep) -> list[object]:
    took = duration(trial.duration.total_seconds()) if trial.duration else ""
    epochs = max(trial.intermediate_values, default=0)
    value = trial.value if trial.value is not None else ""
    values = [trial.params.get(key, "") for key in sweep.space]
    return [trial.user_attrs.get(EXPERIMENT, ""), _state(trial), value, epochs, took, *values]


def _state(trial: FrozenTrial) -> str:
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def _short(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _plot(sweep: Sweep, study: Study) -> Figure:
    """Return the figure by trial with the best so far, the curves by epoch, and the importance of params."""
    importance = study.importance()
    figure = Figure(figsize=(13 if importance else 9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    history, curves, *rest = figure.subplots(1, 3 if importance else 2)
    best: float | None = None
    course = []
    pick = min if sweep.direction == "minimize" else max
    for number, trial in enumerate(study.finished, 1):
        colour = _COLOURS[_state(trial)]
        steps = sorted(trial.intermediate_values)
        figures = [trial.intermediate_values[step] for step in steps]
        curves.plot(steps, figures, color=colour, marker=".", linewidth=1, alpha=0.7)
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            best = trial.value if best is None else pick(best, trial.value)
            history.plot([number], [trial.value], "o", color=colour)
        elif figures:
            history.plot([number], [pick(figures)], "x", color=colour)
        if best is not None:
            course.append((number, best))
    history.plot(*zip(*course, strict=True), drawstyle="steps-post", color="grey") if course else None
    history.set(title="Trials: complete ●, pruned ×; line: the best so far", xlabel="trial", ylabel=sweep.metric)
    curves.set(title="Epochs (pruned trials in orange)", xlabel="epoch", ylabel=sweep.metric)
    for axes in rest:
        names = list(reversed(importance))
        axes.barh(names, [importance[name] for name in names])
        axes.set(title="Importance of params (PED-ANOVA)", xlim=(0, 1))
    return figure
