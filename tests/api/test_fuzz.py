import pytest
from starlette.testclient import TestClient

from benchmarks.corpus import corpus, hand_made
from tests.api.conftest import code_of

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]

# `benchmarks/fuzz.py` sends thousands of these to a service of its own and watches its memory.
SLICE = 250 + len(hand_made())


def test_no_bad_file_is_a_server_error(client: TestClient, photo: bytes) -> None:
    refused = 0
    for name, data in corpus(seed=4, count=SLICE):
        answer = client.post("/v1/detect", content=data, headers={"content-type": "application/octet-stream"})
        assert answer.status_code < 500, name
        if answer.status_code != 200:
            refused += 1
            assert code_of(answer), name
    assert SLICE > refused > SLICE / 4
    assert client.post("/v1/detect", files={"file": photo}).status_code == 200


def test_hand_made_monsters_are_all_refused_or_harmless(client: TestClient) -> None:
    harmless = {"bmp-negative", "png-bomb", "png-extra-data", "largest-black", "png-icc-bomb", "gif-tiny-screen"}
    harmless |= {"jpeg-below-limit", "jpeg-progressive-below-limit", "png-text-bomb"}
    accepted = set()
    for name, data in hand_made():
        answer = client.post("/v1/detect", content=data, headers={"content-type": "application/octet-stream"})
        if answer.status_code == 200:
            accepted.add(name)
    assert accepted <= harmless
