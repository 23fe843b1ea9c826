"""The example for Ray Serve keeps the contract of the service: its tests, against replicas of a cluster here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from benchmarks.client import free_port
from tests.api.conftest import encoded, painted
from tests.api.test_detect import (  # noqa: F401 - collected here, where `client` is another
    test_a_picture_without_a_face_has_an_empty_list,
    test_answers_by_falling_confidence_with_probabilities_that_sum_to_1,
    test_boxes_are_those_of_the_upright_picture,
    test_finds_the_faces_of_a_form,
    test_finds_the_faces_of_a_raw_body_whatever_its_type_claims,
    test_names_the_model_and_where_the_time_went,
    test_options_choose_what_comes_back,
    test_refuses_bad_pictures_with_a_code,
    test_refuses_options_out_of_range,
    test_refuses_other_content_types,
)
from tests.builders import exported_model

ROOT = Path(__file__).parents[2]
TRIES = 3  # Ray gives a node up whose agents take more than 15 s to start

pytestmark = pytest.mark.skipif(
    "EMOTION_TEST_RAY" not in os.environ, reason="starts a Ray cluster with Ray Serve; `make test-ray`"
)


@pytest.fixture(scope="module")
def photo() -> bytes:
    return encoded(painted(), "JPEG", quality=95)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of the example in a process of its own; the cluster ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # not tmp_path: sockets have short names
    model, port = exported_model(tmp_path_factory.mktemp("model")), free_port()
    environment = os.environ | {
        "EMOTION_MODEL": str(model),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-m", "examples.ray_serve", "--port", str(port)]
    log = folder / "example.log"
    try:
        for _ in range(TRIES):
            with log.open("wb") as file:
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
            while process.poll() is None and "running on" not in log.read_text("utf-8"):
                time.sleep(0.2)
            if process.poll() is None:
                break
        assert process.poll() is None, log.read_text("utf-8")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as running:
            while running.get("/readyz").status_code != 200:
                time.sleep(0.2)
            yield running
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_all_routes_are_there(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    document["info"]["version"] = "1"  # as in the committed one, which does not follow the package's
    assert document == json.loads((ROOT / "docs/openapi.json").read_text("utf-8"))
