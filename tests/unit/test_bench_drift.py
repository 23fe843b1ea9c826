"""The benchmark of the drift monitor: alarms of known drift, and a simulation that was interrupted."""

from pathlib import Path

import pytest

from benchmarks import drift
from benchmarks.drift import CONSTANT, EVIDENTLY, simulate, tables
from tests.unit.test_monitoring import population

SETTINGS = {"sizes": [20], "splits": 2, "repeats": 10, "drifted": 5, "draws": 100}


def test_drift_that_is_there_is_noticed_and_an_interrupted_simulation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"none": population(120), "much darker": population(120, darker=0.3)}
    result = simulate(kinds, **SETTINGS, done=tmp_path / "alarms.jsonl")
    assert result["much darker"][20]["1 %"] == result[CONSTANT][20]["5 %"] == 1
    assert result["none"][20]["1 %"] < 0.5
    assert result["none"][20].keys() == {"1 %", "5 %", EVIDENTLY}

    lines = (tmp_path / "alarms.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 2
    (tmp_path / "alarms.jsonl").write_text(lines[0])
    seen: list[int] = []
    split = drift.simulate_split

    def record(*arguments: object, **named: object) -> drift.Alarms:
        seen.append(named["split"])  # type: ignore[arg-type]
        return split(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(drift, "simulate_split", record)
    assert simulate(kinds, **SETTINGS, done=tmp_path / "alarms.jsonl") == result
    assert seen == [1]
    assert "| much darker | 20 | 1.000 | 1.000 |" in tables(result)
