"""The benchmark of `score`: rates of real runs, and memory of a real process."""

from pathlib import Path

import pytest

from benchmarks import scoring
from benchmarks.scoring import WAYS, measure, memory, table
from tests.builders import exported_model, painted, save_picture


def test_each_way_has_a_rate_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SHARD", 2)
    model = exported_model(tmp_path / "model")
    picture = save_picture(tmp_path / "x.png", painted({(1, 1): 4}))
    rates = measure([picture] * 12, model, rounds=1)
    assert rates.keys() == set(WAYS)
    assert all(rate > 0 for found in rates.values() for rate in found)
    assert [size > 50 for _, size in memory(picture, model, [3])] == [True]


def test_the_table_has_medians_and_ratios_of_the_same_round() -> None:
    text = table({"plain loop": [10.0, 30.0, 20.0], "1 worker": [10.0, 20.0, 20.0], "2 workers": [20.0, 38.0, 38.0]})
    assert "| plain loop | 20.0 | 1.00 | 72,000 |" in text
    assert "| 2 workers | 38.0 | 1.90 | 68,400 |" in text
