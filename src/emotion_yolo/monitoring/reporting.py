"""Reports of a comparison: a verdict in JSON, a page, a file for Prometheus."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from emotion_yolo.monitoring.drift import CATEGORICAL, COLUMNS, Comparison, Labelled, compared, labelled
from emotion_yolo.monitoring.window import Window
from emotion_yolo.prediction_log.observations import PICTURE_COLUMNS, Column, Reference
from emotion_yolo.structures.emotions import NAMES

LEAST_PICTURES = 30
"""Fewer are no window: their distances are mostly chance."""

METRICS = {
    "distance": "Distance of the window from the reference.",
    "threshold": "Distance above which a column has drifted.",
    "drifted": "1 where a column has drifted.",
    "findings": "Ways in which the window differs from the reference.",
    "pictures": "Pictures in the window.",
    "feedback": "Faces in the window whose right emotion came back.",
    "timestamp_seconds": "When the window was compared.",
    "accuracy": "Accuracy on the faces with feedback, 0-1.",
    "calibration_error": "Calibration error on the faces with feedback, 0-1.",
}
"""Of Prometheus, by name after `emotion_monitor_`; the first three are by column."""

_LEAST_LABELLED = 50  # faces with feedback below which no accuracy is judged


@dataclass(frozen=True, eq=False)
class Verdict:
    """A window against its reference."""

    window: Window
    reference: Reference
    comparison: Comparison
    rate: float
    """Requested false alarm rate, 0-1."""

    @property
    def accuracy(self) -> tuple[Labelled | None, Labelled | None]:
        """Return the answers' accuracy in the window and in the reference, as far as known."""
        return labelled(self.window.observations), labelled(self.reference.observations)

    @property
    def findings(self) -> list[str]:
        """Return a sentence for each way in which the window differs from the reference; none is good."""
        sentences = []
        for name in self.comparison.drifted:
            distance, limit = self.comparison.distances[name], self.comparison.thresholds[name]
            sentences.append(f"{name}: distance {distance:.3f}, expected at most {limit:.3f}{self._means(name)}")
        ours, theirs = self.accuracy
        if ours and theirs and ours.faces >= _LEAST_LABELLED and ours.interval[1] < theirs.accuracy:
            sentences.append(
                f"accuracy: {ours.accuracy:.3f} ({ours.interval[0]:.3f}–{ours.interval[1]:.3f}) on {ours.faces:,} "
                f"faces with feedback, {theirs.accuracy:.3f} in the reference"
            )
        return sentences

    def _means(self, name: str) -> str:
        if name == CATEGORICAL:
            return ""
        sides = (self.reference.observations, self.window.observations)
        columns = [side.pictures[name] if name in PICTURE_COLUMNS else side.faces[name] for side in sides]
        return f" (mean {columns[0].mean():.3g} → {columns[1].mean():.3g})" if all(map(len, columns)) else ""

    def document(self) -> dict[str, Any]:
        """Return the verdict as JSON has it."""
        ours, theirs = self.accuracy
        window = self.window
        return {
            "verdict": "drift" if self.findings else "ok",
            "findings": self.findings,
            "columns": {
                name: {
                    "distance": round(self.comparison.distances[name], 6),
                    "threshold": round(self.comparison.thresholds[name], 6),
                    "drifted": name in self.comparison.drifted,
                }
                for name in COLUMNS
            },
            "labelled": {"window": ours and asdict(ours), "reference": theirs and asdict(theirs)},
            "window": {
                "begin": window.begin.isoformat(),
                "end": window.end.isoformat(),
                "pictures": len(window.observations),
                "faces": len(window.observations.truth),
                "feedback": window.feedback,
                "other_models": window.other_models,
            },
            "reference": {"pictures": len(self.reference.observations), "origin": self.reference.origin},
            "model": window.model,
            "false_alarm_rate": self.rate,
        }


def write_json(path: Path, verdict: Verdict) -> None:
    """Write the verdict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(verdict.document(), indent=2) + "\n", "utf-8")


def write_prometheus(path: Path, verdict: Verdict) -> None:
    """Write the verdict for the textfile collector of Prometheus' node exporter, whole or not at all."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    model = verdict.window.model[:12]

    def by_column(name: str, values: Mapping[str, float]) -> None:
        metric = Gauge(f"emotion_monitor_{name}", METRICS[name], ["model", "column"], registry=registry)
        for column, value in values.items():
            metric.labels(model, column).set(value)

    def single(name: str, value: float) -> None:
        Gauge(f"emotion_monitor_{name}", METRICS[name], ["model"], registry=registry).labels(model).set(value)

    by_column("distance", verdict.comparison.distances)
    by_column("threshold", verdict.comparison.thresholds)
    by_column("drifted", {name: name in verdict.comparison.drifted for name in COLUMNS})
    single("findings", len(verdict.findings))
    single("pictures", len(verdict.window.observations))
    single("feedback", verdict.window.feedback)
    single("timestamp_seconds", datetime.now(UTC).timestamp())
    if (ours := verdict.accuracy[0]) is not None:
        single("accuracy", ours.accuracy)
        single("calibration_error", ours.calibration_error)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def write_page(path: Path, verdict: Verdict) -> None:
    """Write Evidently's page: the distributions of each column side by side. Sends nothing."""
    os.environ["DO_NOT_TRACK"] = "1"  # read when Evidently is imported
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    columns = compared(verdict.reference.observations, verdict.window.observations)
    datasets: list[Dataset] = []
    for side in (1, 0):  # the window, its reference
        # A column of faces is shorter or longer than one of pictures; Evidently leaves missing values out.
        frame = pd.DataFrame({name: pd.Series(columns[name][side]) for name in COLUMNS})
        frame[CATEGORICAL] = _names(columns[CATEGORICAL][side]).reindex(frame.index)
        definition = DataDefinition(
            numerical_columns=[name for name in COLUMNS if name != CATEGORICAL], categorical_columns=[CATEGORICAL]
        )
        datasets.append(Dataset.from_pandas(frame, data_definition=definition))
    metrics = [
        ValueDrift(
            column=name,
            method="jensenshannon" if name == CATEGORICAL else "wasserstein",
            threshold=verdict.comparison.thresholds[name],
        )
        for name in COLUMNS
        if all(map(len, columns[name]))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Report(metrics).run(*datasets).save_html(str(path))


def _names(ids: Column) -> Any:
    import pandas as pd

    return pd.Series(np.asarray(NAMES)[ids.astype(np.int64)], dtype=object)
