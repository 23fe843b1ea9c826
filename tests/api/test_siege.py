"""The attack of `make attack-service`, for seconds instead of minutes."""

import asyncio
import io
from pathlib import Path

from PIL import Image

from benchmarks.attacks import ATTACKS
from benchmarks.client import our_service
from benchmarks.siege import Outcome, siege
from tests.builders import painted

COSTLY = ("jpeg: EXIF segments", "png: chunks", "tiff: strips", "webp: 5,000² with alpha", "gif: blocks of a byte")


def test_an_attack_of_every_kind_brings_no_wrong_answer_and_no_fault(model_folder: Path) -> None:
    photo = io.BytesIO()
    Image.fromarray(painted({(1, 1): 4})).save(photo, "PNG")
    hostile = [ATTACKS[name](200_000) for name in COSTLY]
    with our_service(model_folder) as service:
        outcome = asyncio.run(siege(service, photo.getvalue(), hostile, 4))
        assert service.get("/healthz")[0] == 200
    assert outcome.answers
    assert set(outcome.answers) <= {"right", "503"}
    assert not {status for status in outcome.attackers if status.startswith("5")} - {"503"}
    assert outcome.peak_mb > 0


def test_it_is_held_when_nearly_all_answers_are_right_and_soon_and_memory_is_bounded() -> None:
    def outcome(right: int, other: int, latency_ms: float, peak_mb: float) -> Outcome:
        found = Outcome(latencies_ms=[latency_ms] * (right + other), peak_mb=peak_mb)
        found.answers.update({"right": right, "503": other})
        return found

    assert outcome(99, 1, 900, 600).held
    assert not outcome(98, 2, 900, 600).held
    assert not outcome(99, 1, 1100, 600).held
    assert not outcome(99, 1, 900, 700).held
