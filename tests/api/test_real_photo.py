"""The release behind the service, asked about a photograph that Ultralytics ships."""

from pathlib import Path

import numpy as np
import pytest
import ultralytics
from PIL import Image

from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.structures.boxes import iou_matrix
from emotion_yolo.structures.emotions import NAMES
from tests.api.conftest import Client, Serve

RELEASE = Path(__file__).parents[2] / "models" / "release"
PHOTO = Path(ultralytics.__file__).parent / "assets" / "zidane.jpg"

# By eye, in px of the photograph: the face that looks into the camera, and the shouting one in profile.
FACES = ((912.0, 90.0, 1056.0, 282.0), (545.0, 240.0, 658.0, 420.0))


@pytest.fixture
def released(serve: Serve) -> Client:
    return serve(model=RELEASE)


def test_the_release_finds_the_faces_of_a_real_photograph(released: Client) -> None:
    answer = released.post("/v1/detect", files={"file": ("photo.jpg", PHOTO.read_bytes(), "image/jpeg")})
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"]["version"] == read_spec(RELEASE).version
    with Image.open(PHOTO) as photo:
        assert body["image"] == {"width": photo.width, "height": photo.height}
    found = body["detections"]
    boxes = np.asarray([[face["box"][side] for side in ("x1", "y1", "x2", "y2")] for face in found])
    overlaps = iou_matrix(boxes, np.asarray(FACES))
    assert (overlaps.max(axis=0) >= 0.6).all()  # both men
    assert len(found) <= 3  # and a second face on the head in profile, see tests/model/test_release.py
    assert found[0]["confidence"] >= 0.7
    assert {face["emotion"] for face in found} <= set(NAMES)


def test_only_the_sure_face_is_left_where_more_confidence_is_demanded(released: Client) -> None:
    answer = released.post("/v1/detect", files={"file": PHOTO.read_bytes()}, params={"conf": 0.6})
    assert len(answer.json()["detections"]) == 1
