"""`emotion-yolo monitor`: a window of the prediction log against the reference."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from emotion_yolo.errors import DriftError, MonitoringError
from emotion_yolo.monitoring.drift import compare
from emotion_yolo.monitoring.reporting import LEAST_PICTURES, Verdict, write_json, write_page, write_prometheus
from emotion_yolo.monitoring.window import Window, parse_time, read_window
from emotion_yolo.paths import EVALUATE_REPORT
from emotion_yolo.prediction_log.observations import REFERENCE_NAME, read_reference, write_observations


@dataclass(frozen=True)
class Choices:
    """What to compare, and what to write."""

    log: Path
    reference: Path
    since: str = "24h"
    until: str | None = None
    last: int | None = None
    """Only the latest pictures, this many."""
    rate: float = 0.01
    """Probability of a false alarm, 0-1."""
    out: Path | None = None
    """Folder for verdict.json and, with `page`, report.html."""
    page: bool = True
    prometheus: Path | None = None
    """Text file for the node exporter."""


def reference_of(model: Path) -> Path:
    """Return the reference beside a model, or that of the last evaluation in this project."""
    beside = model / REFERENCE_NAME
    return beside if beside.is_file() else EVALUATE_REPORT / REFERENCE_NAME


def monitor(choices: Choices) -> Verdict:
    """Compare the window with the reference and write the requested files.

    Raises:
        MonitoringError: log or reference cannot be read, are of different models, or hold too few pictures.
    """
    reference = read_reference(choices.reference)
    window = _window(choices, model=reference.model)
    size = len(window.observations)
    if size < LEAST_PICTURES:
        raise MonitoringError(
            f"{choices.log}: {size} pictures in the window, expected at least {LEAST_PICTURES}; choose a longer --since"
        )
    verdict = Verdict(
        window, reference, compare(reference.observations, window.observations, rate=choices.rate), choices.rate
    )
    if choices.out is not None:
        write_json(choices.out / "verdict.json", verdict)
        if choices.page:
            write_page(choices.out / "report.html", verdict)
    if choices.prometheus is not None:
        write_prometheus(choices.prometheus, verdict)
    return verdict


def accept(choices: Choices, path: Path) -> Window:
    """Write the window as the new reference of its model.

    Raises:
        MonitoringError: the log cannot be read, or holds too few pictures for a reference.
    """
    window = _window(choices, model=None)
    if (size := len(window.observations)) < 10 * LEAST_PICTURES:
        raise MonitoringError(
            f"{choices.log}: {size} pictures, expected at least {10 * LEAST_PICTURES} for a reference"
        )
    origin = (
        f"{choices.log.name}, {size:,} pictures from {window.begin:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC"
    )
    write_observations(path, window.observations, model=window.model, origin=origin)
    return window


def raise_on_drift(verdict: Verdict) -> None:
    """Return if the window is like the reference.

    Raises:
        DriftError: it is not.
    """
    if findings := verdict.findings:
        raise DriftError("\n".join(["the window differs from the reference", *findings]))


def _window(choices: Choices, *, model: str | None) -> Window:
    now = datetime.now(UTC)
    begin = parse_time(choices.since, now=now)
    end = parse_time(choices.until, now=now) if choices.until else now
    return read_window(choices.log, begin=begin, end=end, last=choices.last, model=model)
