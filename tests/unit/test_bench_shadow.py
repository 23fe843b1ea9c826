"""The benchmark of the shadow: real services, whose candidate scores what it should, and the table of its figures."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.client import our_service
from benchmarks.shadow import CLIENTS, SHARES, measure, settings_of, table, wait_loaded
from tests.api.conftest import encoded, painted
from tests.builders import exported_model


def test_the_candidate_scores_every_picture_it_can_or_none(tmp_path: Path) -> None:
    model = exported_model(tmp_path / "model")
    body = encoded(painted(), "JPEG")
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(our_service(model, **settings_of(SHARES[name], model)))
            for name in ("off", "100 %")
        }
        wait_loaded(services["100 %"])
        results = measure(services, body, seconds=0.5)
    assert results["off"]["shadow"] == {"scored": 0, "left_out": 0}
    assert results["100 %"]["shadow"]["scored"] > 0
    for found in results.values():
        for clients in CLIENTS:
            assert found[f"{clients}"]["pictures_s"] > 0
            assert found[f"{clients}"]["refused"] == 0
    assert "| 1 | off | " in table(results)


def test_ratios_are_to_the_service_without_a_shadow() -> None:
    def row(p50: float) -> dict[str, float]:
        return {"p50": p50, "p99": 2 * p50, "pictures_s": 1000 / p50, "cpu_ms": 10.0}

    counts = {"scored": 5.0, "left_out": 7.0}
    results = {name: {"1": row(ms), "4": row(ms), "shadow": counts} for name, ms in (("off", 20.0), ("100 %", 25.0))}
    lines = table(results).splitlines()
    assert lines[3] == "| 1 | 100 % | 25.0 (1.25) | 50.0 (1.25) | 40.0 (0.80) | 10.0 (1.00) |"
    assert lines[-1] == "100 %: 5 scored, 7 left out"


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_share_is_a_setting_of_the_service(share: float) -> None:
    assert settings_of(share, Path("m")) == {"EMOTION_SHADOW_MODEL": "m", "EMOTION_SHADOW_SHARE": str(share)}
