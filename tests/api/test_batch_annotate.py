import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.api.conftest import Serve, code_of, encoded, painted


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.jpg", content)) for number, content in enumerate(contents)]


def test_a_batch_answers_each_file_in_order_and_one_bad_picture_spoils_nothing(
    client: TestClient, photo: bytes
) -> None:
    empty = encoded(Image.new("RGB", (64, 64), (114, 114, 114)))
    answer = client.post("/v1/detect/batch", files=files(photo, b"no picture", empty, photo[:999], photo))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [entry["status"] for entry in results] == ["ok", "error", "ok", "error", "ok"]
    assert [entry["error"]["code"] for entry in results if "error" in entry] == ["unsupported_format", "undecodable"]
    assert [len(entry["result"]["detections"]) for entry in results if "result" in entry] == [2, 0, 2]


def test_a_batch_entry_equals_the_single_answer(client: TestClient, photo: bytes) -> None:
    single = client.post("/v1/detect", files={"file": photo}).json()
    entry = client.post("/v1/detect/batch", files=files(photo)).json()["results"][0]["result"]
    for body in (single, entry):
        body.pop("timing_ms")
    assert entry == single


def test_a_file_too_large_for_itself_is_one_entry_of_a_batch(serve: Serve, photo: bytes) -> None:
    client = serve(max_bytes=len(photo))
    results = client.post("/v1/detect/batch", files=files(photo, photo + b"\0", photo)).json()["results"]
    assert [entry.get("error", {}).get("code") for entry in results] == [None, "too_large", None]


def test_options_hold_for_every_picture_of_a_batch(client: TestClient, photo: bytes) -> None:
    results = client.post("/v1/detect/batch", files=files(photo, photo), params={"max_faces": 1}).json()["results"]
    assert [len(entry["result"]["detections"]) for entry in results] == [1, 1]


def test_refuses_a_batch_with_too_many_or_no_files(serve: Serve, photo: bytes) -> None:
    client = serve(batch_files=2)
    answer = client.post("/v1/detect/batch", files=files(photo, photo, photo))
    assert (answer.status_code, code_of(answer)) == (413, "too_many_files")
    answer = client.post("/v1/detect/batch", files={"file": photo})
    assert (answer.status_code, code_of(answer)) == (400, "missing_file")
    answer = client.post("/v1/detect/batch", content=photo, headers={"content-type": "image/jpeg"})
    assert (answer.status_code, code_of(answer)) == (415, "unsupported_content_type")


def test_the_body_limit_of_a_batch_is_its_own(serve: Serve, photo: bytes) -> None:
    padded = photo + bytes(150_000 - len(photo))
    client = serve(max_bytes=200_000, batch_bytes=400_000)
    assert client.post("/v1/detect/batch", files=files(padded, padded)).status_code == 200
    answer = client.post("/v1/detect/batch", files=files(padded, padded, padded, padded))
    assert (answer.status_code, code_of(answer)) == (413, "too_large")


def test_draws_the_faces_on_the_picture_in_its_own_size(client: TestClient, photo: bytes) -> None:
    answer = client.post("/v1/annotate", files={"file": photo}, headers={"accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    drawn = Image.open(io.BytesIO(answer.content))
    assert (drawn.format, drawn.size) == ("PNG", (960, 960))
    changed = np.abs(np.asarray(drawn).astype(int) - np.asarray(painted()).astype(int)).max(axis=2) > 60
    assert changed[:320, 320:640].any()
    assert changed[640:, 640:].any()
    assert not changed[400:600, :300].any()


def test_draws_nothing_where_there_is_no_face(client: TestClient) -> None:
    plain = Image.new("RGB", (90, 60), (114, 114, 114))
    answer = client.post(
        "/v1/annotate", content=encoded(plain), headers={"accept": "image/png", "content-type": "image/png"}
    )
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), np.asarray(plain))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/jpeg;q=0.5, image/png", "image/png"),
        ("image/webp, image/png;q=0.1", "image/png"),
        ("image/jpeg;q=0, */*", "image/png"),
        ("text/html, */*;q=0.1", "image/jpeg"),
        ("image/png;q=broken, image/jpeg;q=0.1", "image/jpeg"),
    ],
)
def test_draws_in_the_format_that_accept_prefers(
    client: TestClient, photo: bytes, accept: str, media_type: str
) -> None:
    answer = client.post("/v1/annotate", files={"file": photo}, headers={"accept": accept})
    assert answer.headers["content-type"] == media_type
    assert Image.open(io.BytesIO(answer.content)).get_format_mimetype() == media_type


def test_refuses_to_draw_in_another_format(client: TestClient, photo: bytes) -> None:
    answer = client.post("/v1/annotate", files={"file": photo}, headers={"accept": "text/html"})
    assert (answer.status_code, code_of(answer)) == (406, "not_acceptable")


def test_refuses_to_draw_on_what_is_no_picture(client: TestClient) -> None:
    answer = client.post("/v1/annotate", files={"file": b"no picture"})
    assert (answer.status_code, code_of(answer)) == (415, "unsupported_format")
