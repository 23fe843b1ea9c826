"""A two-stage model answers the same contract: its own names and probabilities, in every route."""

from pathlib import Path

import pytest

from tests.api.conftest import HAPPY_BOX, Serve
from tests.builders import SEVEN, two_stage_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return two_stage_model(tmp_path / "two-stage")


def test_seven_classes_are_named_and_answered(serve: Serve, folder: Path, photo: bytes) -> None:
    client = serve(model=folder)
    card = client.get("/v1/model").json()
    assert card["classes"] == list(SEVEN)
    answer = client.post("/v1/detect", content=photo, headers={"content-type": "image/jpeg"}).json()
    assert {face["emotion"] for face in answer["detections"]} == {"happy", "surprise"}
    for face in answer["detections"]:
        assert list(face["probabilities"]) == list(SEVEN)
        assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    happy = next(face for face in answer["detections"] if face["emotion"] == "happy")
    assert list(happy["box"].values()) == pytest.approx(HAPPY_BOX, abs=12)
    assert answer["model"] == {name: card[name] for name in ("name", "version", "digest")}
    assert set(answer["timing_ms"]) == {"decode", "preprocess", "inference", "postprocess", "total"}


def test_it_draws_too(serve: Serve, folder: Path, photo: bytes) -> None:
    answer = serve(model=folder).post("/v1/annotate", content=photo, headers={"content-type": "image/jpeg"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"


def test_faces_beyond_those_asked_for_are_not_answered(serve: Serve, folder: Path, photo: bytes) -> None:
    client = serve(model=folder)
    answer = client.post("/v1/detect?max_faces=1", content=photo, headers={"content-type": "image/jpeg"}).json()
    assert len(answer["detections"]) == 1
