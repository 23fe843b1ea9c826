"""The release behind the service, asked about a photograph that Ultralytics ships."""

from pathlib import Path

import numpy as np
import pytest
import ultralytics
from PIL import Image

from emotion_yolo.artefact import read_spec
from emotion_yolo.boxes import iou_matrix
from emotion_yolo.emotions import NAMES
from tests.api.conftest import Client, Serve

RELEASE = Path(__file__).parents[2] / "models" / "release"
PHOTO = Path(ultralytics.__file__).parent / "assets" / "zidane.jpg"

# By eye, in px of the photograph: the face that looks into the camera. The other, in profile, is found by chance only.
FRONTAL_FACE = (912.0, 90.0, 1056.0, 282.0)


@pytest.fixture
def released(serve: Serve) -> Client:
    return serve(model=RELEASE)


def test_the_release_finds_the_face_of_a_real_photograph(released: Client) -> None:
    answer = released.post("/v1/detect", files={"file": ("photo.jpg", PHOTO.read_bytes(), "image/jpeg")})
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"]["version"] == read_spec(RELEASE).version
    with Image.open(PHOTO) as photo:
        assert body["image"] == {"width": photo.width, "height": photo.height}
    best = body["detections"][0]
    box = np.asarray([[best["box"][side] for side in ("x1", "y1", "x2", "y2")]])
    assert iou_matrix(box, np.asarray([FRONTAL_FACE]))[0, 0] >= 0.6
    assert best["confidence"] >= 0.7
    assert best["emotion"] in NAMES


def test_only_the_sure_face_is_left_where_more_confidence_is_demanded(released: Client) -> None:
    answer = released.post("/v1/detect", files={"file": PHOTO.read_bytes()}, params={"conf": 0.6})
    assert len(answer.json()["detections"]) == 1
