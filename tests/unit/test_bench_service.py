"""The service's benchmark: what it concludes from figures."""

from typing import Any

import pytest

from benchmarks.service import DEFAULTS, Load, aims, table
from emotion_yolo.inference.artefact import read_spec


def side(*, pictures_s: float, rss_mb: float, ready_s: float, server_ms: float) -> dict[str, Any]:
    row = {"p50": 20.0, "p99": 30.0, "pictures_s": pictures_s, "cpu_ms": 50.0, "refused": 0, "server_p50": server_ms}
    cases = {f"{size}, {clients}": row for size in ("640x480", "12 MP") for clients in (1, 16)}
    return {"ready_s": ready_s, "rss_idle_mb": 1.0, "rss_mb": rss_mb, "rss_peak_mb": rss_mb, **cases}


@pytest.fixture
def results() -> dict[str, Any]:
    alone = {"decode": 2.0, "network": 5.0, "close_ups": 3.0}
    return {
        "alone": {"640x480": alone, "12 MP": alone},
        "ours": side(pictures_s=60, rss_mb=300, ready_s=1.5, server_ms=11.4),
        "naive": side(pictures_s=20, rss_mb=1000, ready_s=9, server_ms=0),
    }


def missed(results: dict[str, Any]) -> set[str]:
    return {aim.name.split(",")[0] for aim in aims(results) if not aim.met}


def test_all_aims_are_met_by_figures_within_them(results: dict[str, Any]) -> None:
    assert not missed(results)
    assert len(aims(results)) == 2 + 4 + 3


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"640x480, 1": {"server_p50": 11.6}}, {"server time at 1 client / (decode + network with close-ups)"}),
        ({"12 MP, 16": {"pictures_s": 59}}, {"pictures/s at 16 clients / naive"}),
        ({"rss_mb": 340}, {"RSS / naive"}),
        ({"rss_mb": 351}, {"RSS", "RSS / naive"}),
        ({"ready_s": 2.1}, {"start to ready"}),
    ],
)
def test_a_figure_beyond_its_aim_is_missed(results: dict[str, Any], change: dict[str, Any], names: set[str]) -> None:
    for name, value in change.items():
        old = results["ours"][name]
        results["ours"][name] = old | value if isinstance(value, dict) else value
    assert missed(results) == names
    assert table(results).count("**missed**") == len(names)


def test_without_the_naive_service_only_its_aims_are_left_out(results: dict[str, Any]) -> None:
    del results["naive"]
    assert len(aims(results)) == 4
    assert "naive" not in table(results)


def test_figures_count_answers_in_the_time_of_all_rounds() -> None:
    load = Load(latencies_ms=[10.0, 30.0, 20.0, 40.0], server_ms=[9.0], refused=2, seconds=0.5, cpu_s=0.2)
    figures = load.figures()
    assert (figures["pictures_s"], figures["cpu_ms"], figures["p50"], figures["refused"]) == (8, 50, 30, 2)


def test_the_table_tells_the_load_of_the_machine(results: dict[str, Any]) -> None:
    assert "load of the machine, 1, 5, 15 minutes: 3.0, 2.0, 1.0" in table(results | {"load": (3.0, 2.0, 1.0)})


def test_what_is_measured_unless_told_otherwise_is_a_model() -> None:
    assert read_spec(DEFAULTS["model"]).files["onnx"].bytes
