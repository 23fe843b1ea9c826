import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.engine import Engine
from api.problems import STATUS, Code, Problem
from api.scheduler import Scheduler, Ticket
from emotion_yolo.structures.emotions import NAMES, Emotion
from tests.api.conftest import HAPPY_BOX, SURPRISE_BOX, Serve, code_of, encoded, painted, wait_until
from tests.builders import COLOURS


def box_of(detection: dict) -> list[int]:
    return [round(detection["box"][name] / 10) * 10 for name in ("x1", "y1", "x2", "y2")]


def test_finds_the_faces_of_a_form(client: TestClient, photo: bytes) -> None:
    answer = client.post("/v1/detect", files={"file": ("IMG_1.JPG", photo, "image/jpeg")})
    assert answer.status_code == 200
    body = answer.json()
    assert body["image"] == {"width": 960, "height": 960}
    found = {detection["emotion"]: box_of(detection) for detection in body["detections"]}
    assert found == {"happy": list(HAPPY_BOX), "surprise": list(SURPRISE_BOX)}


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/png", "image/x-unknown", "application/octet-stream"])
def test_finds_the_faces_of_a_raw_body_whatever_its_type_claims(
    client: TestClient, photo: bytes, content_type: str
) -> None:
    answer = client.post("/v1/detect", content=photo, headers={"content-type": content_type})
    assert [detection["emotion"] for detection in answer.json()["detections"]] in (
        ["happy", "surprise"],
        ["surprise", "happy"],
    )


def test_answers_by_falling_confidence_with_probabilities_that_sum_to_1(client: TestClient, photo: bytes) -> None:
    detections = client.post("/v1/detect", files={"file": photo}).json()["detections"]
    confidences = [detection["confidence"] for detection in detections]
    assert confidences == sorted(confidences, reverse=True)
    for detection in detections:
        assert tuple(detection["probabilities"]) == NAMES
        assert sum(detection["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(detection["probabilities"], key=detection["probabilities"].get) == detection["emotion"]


def test_names_the_model_and_where_the_time_went(client: TestClient, photo: bytes) -> None:
    body = client.post("/v1/detect", files={"file": photo}).json()
    card = client.get("/v1/model").json()
    assert body["model"] == {name: card[name] for name in ("name", "version", "digest")}
    timing = body["timing_ms"]
    assert list(timing) == ["decode", "preprocess", "inference", "postprocess", "total"]
    phases = sum(timing.values()) - timing["total"]
    assert 0 < phases <= timing["total"] + 0.01


def test_a_picture_without_a_face_has_an_empty_list(client: TestClient) -> None:
    answer = client.post("/v1/detect", files={"file": encoded(Image.new("RGB", (300, 200), (114, 114, 114)))})
    assert (answer.status_code, answer.json()["detections"]) == (200, [])


def test_boxes_are_those_of_the_upright_picture(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = painted().crop((0, 0, 960, 640)).transpose(Image.Transpose.ROTATE_90)
    body = client.post("/v1/detect", files={"file": encoded(lying, "JPEG", exif=exif, quality=95)}).json()
    assert body["image"] == {"width": 960, "height": 640}


def test_options_choose_what_comes_back(client: TestClient, photo: bytes) -> None:
    def count(**options: float) -> int:
        return len(client.post("/v1/detect", files={"file": photo}, params=options).json()["detections"])

    assert count() == 2
    assert count(max_faces=1) == 1
    assert count(conf=0.999) == 0
    assert count(min_face=310) == 2
    assert count(min_face=330) == 0


@pytest.mark.parametrize(
    "options",
    [{"conf": 2}, {"conf": 0}, {"conf": "nan"}, {"max_faces": 0}, {"max_faces": 301}, {"min_face": -1}, {"conf": "x"}],
)
def test_refuses_options_out_of_range(client: TestClient, photo: bytes, options: dict) -> None:
    answer = client.post("/v1/detect", files={"file": photo}, params=options)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_parameter")
    assert next(iter(options)) in answer.json()["detail"]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_file"),
        (b"no picture", 415, "unsupported_format"),
        (encoded(Image.new("RGB", (1, 1))), 422, "bad_dimensions"),
        (encoded(painted(), "JPEG")[:3000], 422, "undecodable"),
        (encoded(Image.new("1", (6000, 6000))), 413, "too_many_pixels"),
    ],
)
def test_refuses_bad_pictures_with_a_code(client: TestClient, data: bytes, status: int, code: str) -> None:
    for request in ({"files": {"file": ("x.jpg", data)}}, {"content": data, "headers": {"content-type": "image/png"}}):
        answer = client.post("/v1/detect", **request)
        assert (answer.status_code, code_of(answer)) == (status, code)


def test_refuses_other_content_types(client: TestClient, photo: bytes) -> None:
    for headers in ({"content-type": "application/x-www-form-urlencoded"}, {}):
        answer = client.post("/v1/detect", content=photo, headers=headers)
        assert (answer.status_code, code_of(answer)) == (415, "unsupported_content_type")


@pytest.mark.parametrize("cores", [0, 1])
def test_the_same_picture_gets_the_same_answer_from_1_and_from_16_threads(
    serve: Serve, photo: bytes, cores: int
) -> None:
    client = serve(workers=4, threads=cores)

    def ask(_: int) -> list:
        return client.post("/v1/detect", files={"file": photo}).json()["detections"]

    alone = ask(0)
    with ThreadPoolExecutor(16) as pool:
        assert all(answer == alone for answer in pool.map(ask, range(64)))


class Holding:
    """Blocks the workers of an application until let go, from inside a real picture's way."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.entered = 0
        infer = engine.detector.infer

        def held(tensor: object) -> object:
            self.entered += 1
            assert self.go.wait(20)
            return infer(tensor)  # type: ignore[arg-type]

        monkeypatch.setattr(engine.detector, "infer", held)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as executor:
        yield executor


def engine_of(client: TestClient) -> Engine:
    return client.app.state.parts.engine  # type: ignore[attr-defined]


def scheduler_of(client: TestClient) -> Scheduler:
    return client.app.state.parts.scheduler  # type: ignore[attr-defined]


def test_refuses_at_once_what_does_not_fit_into_the_queue(
    serve: Serve, photo: bytes, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(workers=1, queue=1, batch_files=2)
    holding = Holding(engine_of(client), monkeypatch)
    held = [pool.submit(client.post, "/v1/detect", files={"file": photo}) for _ in range(2)]
    wait_until(lambda: holding.entered == 1 and scheduler_of(client).taken == 2)
    refused = client.post("/v1/detect", files={"file": photo})
    assert (refused.status_code, code_of(refused)) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["connection"] == "close"
    holding.go.set()
    assert [future.result().status_code for future in held] == [200, 200]
    assert client.post("/v1/detect", files={"file": photo}).status_code == 200


def test_gives_up_at_the_deadline_and_frees_its_seat(
    serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(workers=1, deadline_s=0.2)
    holding = Holding(engine_of(client), monkeypatch)
    answer = client.post("/v1/detect", files={"file": photo})
    assert (answer.status_code, code_of(answer)) == (503, "deadline_exceeded")
    assert "retry-after" in answer.headers
    assert scheduler_of(client).taken == 1  # its thread is still held
    holding.go.set()
    wait_until(lambda: scheduler_of(client).taken == 0)


def test_a_ticket_ends_with_its_request_and_with_its_time() -> None:
    abandoned = Ticket(10)
    abandoned.check()
    abandoned.abandon()
    with pytest.raises(Problem) as gone:
        abandoned.check()
    assert gone.value.code is Code.CLIENT_GONE
    with pytest.raises(Problem) as late:
        Ticket(-1).check()
    assert late.value.code is Code.DEADLINE_EXCEEDED


def test_a_client_that_leaves_is_not_computed_for(
    serve: Serve, photo: bytes, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(workers=1)
    engine = engine_of(client)
    holding = Holding(engine, monkeypatch)
    first = pool.submit(client.post, "/v1/detect", files={"file": photo})
    wait_until(lambda: holding.entered == 1)

    async def leave() -> list[dict]:
        sent: list[dict] = []
        messages = iter([{"type": "http.request", "body": photo, "more_body": False}, {"type": "http.disconnect"}])

        async def receive() -> dict:
            await asyncio.sleep(0.05)
            return next(messages)

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/detect",
            "raw_path": b"/v1/detect",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"image/jpeg"), (b"content-length", str(len(photo)).encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await client.app(scope, receive, send)
        return sent

    sent = asyncio.run(leave())
    assert sent[0]["status"] == STATUS[Code.CLIENT_GONE]
    holding.go.set()
    assert first.result().status_code == 200
    wait_until(lambda: scheduler_of(client).taken == 0)
    assert holding.entered == 1  # the one who left never reached the network


def test_an_unexpected_error_is_a_500_with_a_code_and_leaves_the_service_alive(
    serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()

    def broken(_: object) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(engine_of(client).detector, "preprocess", broken)
        answer = client.post("/v1/detect", files={"file": photo})
        assert (answer.status_code, code_of(answer)) == (500, "internal_error")
        assert "on purpose" not in answer.text
    assert client.post("/v1/detect", files={"file": photo}).status_code == 200


def test_answers_with_as_many_faces_as_the_setting_allows(serve: Serve) -> None:
    crowd = np.full((20, 20, 3), COLOURS[Emotion.HAPPY], np.uint8)
    picture = encoded(Image.fromarray(crowd).resize((640, 640), Image.Resampling.NEAREST))
    client = serve(imgsz=640, max_faces=1000)
    assert len(client.post("/v1/detect", files={"file": picture}).json()["detections"]) == 400
    assert len(client.post("/v1/detect?max_faces=350", files={"file": picture}).json()["detections"]) == 350


def test_pictures_of_any_shape_get_boxes_within_them(client: TestClient) -> None:
    rng = random.Random(0)
    for _ in range(20):
        size = rng.randint(8, 900), rng.randint(8, 900)
        body = client.post("/v1/detect", files={"file": encoded(painted().resize(size), "JPEG")}).json()
        assert body["image"] == {"width": size[0], "height": size[1]}
        for detection in body["detections"]:
            box = detection["box"]
            assert 0 <= box["x1"] <= box["x2"] <= size[0]
            assert 0 <= box["y1"] <= box["y2"] <= size[1]
