"""`/v1/stream`, over real sockets and with a real client."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api.access import is_welcome
from api.problems import Code, Problem
from api.protocol import FREE_CHUNKS, MIN_CHUNK_BYTES
from api.seats import StreamSeats
from api.streams import MAX_BAD_FRAMES
from tests.api.conftest import encoded
from tests.api.process import ROOT, Process, Start, connection, read_to_the_end, wait_until
from tests.api.test_ends import HANG
from tests.builders import exported_model, painted

HAPPY, SAD = 4, 6
KEY, OTHER_KEY = "a-key-of-24-characters-x", "another-key-of-24-characters"


def frame(emotion: int = HAPPY, kind: str = "PNG") -> bytes:
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return encoded(Image.fromarray(painted({(1, 1): emotion})), kind, **options)


def url(process: Process, query: str = "") -> str:
    return f"ws://127.0.0.1:{process.port}/v1/stream{query}"


def received(ws: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(ws.recv(timeout=60))
    return message


def opened(stack: ExitStack, process: Process, query: str = "", **options: Any) -> ClientConnection:
    """Return a stream that is ready for frames."""
    ws = stack.enter_context(connect(url(process, query), **options))
    assert received(ws)["type"] == "ready"
    return ws


def ask(ws: ClientConnection, data: bytes | str) -> dict[str, Any]:
    ws.send(data)
    return received(ws)


def end_of(ws: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """Return the messages until the server closes, the close code and the reason."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(received(ws))
    return messages, ws.close_code or 0, ws.close_reason or ""


def metric(process: Process, line: str) -> float:
    (found,) = [
        text for text in httpx.get(f"{process.url}/metrics").text.splitlines() if text.startswith(f"{line} ")
    ] or [f"{line} 0"]
    return float(found.split()[-1])


@pytest.fixture(scope="module")
def running(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Return one service for the tests that leave it as it is."""
    log = tmp_path_factory.mktemp("log") / "predictions.db"
    process = Process(
        {"EMOTION_MODEL": str(model_folder), "EMOTION_PORT": "0", "EMOTION_THREADS": "1", "EMOTION_LOG_DB": str(log)}
    ).wait_ready()
    yield process
    process.stop()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened_here:
        yield opened_here


# What comes back


def test_faces_have_a_track_and_an_emotion_that_does_not_flicker(running: Process, stack: ExitStack) -> None:
    ws = opened(stack, running, "?half_life=30")
    answers = [ask(ws, frame(emotion)) for emotion in (HAPPY, HAPPY, SAD, HAPPY)]
    assert [answer["frame"] for answer in answers] == [0, 1, 2, 3]
    assert [answer["dropped"] for answer in answers] == [0] * 4
    times = [answer["time_s"] for answer in answers]
    assert times == sorted(times) and times[0] == 0
    faces = [answer["detections"][0] for answer in answers]
    assert [face["track"] for face in faces] == [None, 0, 0, 0]
    assert [face["raw"]["emotion"] for face in faces] == ["happy", "happy", "sad", "happy"]
    assert [face["emotion"] for face in faces] == ["happy"] * 4
    assert faces[2]["probabilities"]["sad"] < 0.5 < faces[2]["raw"]["probabilities"]["sad"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_frame_has_the_faces_of_detect(running: Process, stack: ExitStack, kind: str) -> None:
    data = frame(kind=kind)
    answer = ask(opened(stack, running), data)
    plain = httpx.post(f"{running.url}/v1/detect", files={"file": data}).json()
    assert answer["image"] == plain["image"]
    assert answer["model"] == plain["model"]
    assert set(answer["timing_ms"]) == set(plain["timing_ms"])
    (face,), (expected,) = answer["detections"], plain["detections"]
    assert {name: face[name] for name in expected} == expected


def test_the_options_of_detect_hold(running: Process, stack: ExitStack) -> None:
    two = encoded(Image.fromarray(painted({(0, 0): HAPPY, (2, 2): SAD})))
    assert len(ask(opened(stack, running), two)["detections"]) == 2
    assert len(ask(opened(stack, running, "?max_faces=1"), two)["detections"]) == 1
    assert len(ask(opened(stack, running, "?min_face=40"), two)["detections"]) == 0
    ws = opened(stack, running, "?conf=0.999")  # beginning a track takes that, continuing one 0.1
    assert len(ask(ws, two)["detections"]) == 0


def test_a_client_that_is_too_fast_gets_the_newest_frame_answered(running: Process, stack: ExitStack) -> None:
    ws = opened(stack, running)
    data, count = frame(), 60
    before = metric(running, 'emotion_stream_frames_total{outcome="dropped"}')
    for _ in range(count):
        ws.send(data)
    answers = [received(ws)]
    while answers[-1]["frame"] < count - 1:
        answers.append(received(ws))
    numbers = [answer["frame"] for answer in answers]
    assert numbers == sorted(set(numbers))
    assert len(answers) + answers[-1]["dropped"] == count
    assert answers[-1]["dropped"] > 0
    assert metric(running, 'emotion_stream_frames_total{outcome="dropped"}') - before == answers[-1]["dropped"]


def rows_missing(process: Process) -> float:
    """Return how many answered pictures have no row in the prediction log yet."""
    answered = metric(process, 'emotion_http_requests_total{method="POST",route="/v1/detect",status="200"}')
    return answered - metric(process, "emotion_prediction_log_rows_total")


def test_frames_are_in_no_prediction_log_and_streams_leave_nothing(running: Process) -> None:
    with ExitStack() as stack:
        ask(opened(stack, running), frame())
        assert metric(running, "emotion_streams") >= 1
    wait_until(lambda: metric(running, "emotion_streams") == 0)
    # Rows are written in order, later than their answers: that of this picture would follow one of the frame.
    assert httpx.post(f"{running.url}/v1/detect", files={"file": frame()}).status_code == 200
    wait_until(lambda: rows_missing(running) <= 0)
    assert rows_missing(running) == 0
    wait_until(lambda: any(record["event"] == "stream" for record in running.records))
    record = next(record for record in reversed(running.records) if record["event"] == "stream")
    assert (record["end"], record["frames"], record["answered"]) == ("client", 1, 1)
    assert "127.0.0.1" not in "".join(line for line in running.lines if "running on" not in line)


# Frames that cannot be used


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"no picture", "unsupported_format"),
        (frame(kind="JPEG")[:-40], "undecodable"),
        (encoded(Image.new("L", (6000, 6000)), "PNG"), "too_many_pixels"),
        (encoded(Image.new("L", (4, 40)), "PNG"), "bad_dimensions"),
        ("a text", "malformed_body"),
    ],
)
def test_a_bad_frame_is_refused_and_the_next_one_answered(
    running: Process, stack: ExitStack, data: bytes | str, code: str
) -> None:
    ws = opened(stack, running)
    refusal = ask(ws, data)
    assert (refusal["type"], refusal["frame"], refusal["error"]["code"]) == ("error", 0, code)
    assert refusal["retry_after_s"] is None
    assert ask(ws, frame())["type"] == "faces"


def test_so_many_bad_frames_in_a_row_end_the_stream(running: Process, stack: ExitStack) -> None:
    ws = opened(stack, running)
    for _ in range(MAX_BAD_FRAMES - 1):
        assert ask(ws, b"x")["error"]["code"] == "unsupported_format"
    assert ask(ws, frame())["type"] == "faces"
    for _ in range(MAX_BAD_FRAMES):
        assert ask(ws, b"x")["error"]["code"] == "unsupported_format"
    messages, code, reason = end_of(ws)
    assert (messages, code) == ([], 1008)
    assert reason == "10 frames in a row were refused, the last one as unsupported_format"


@pytest.mark.parametrize("query", ["?conf=2", "?conf=x", "?max_faces=0", "?max_faces=99999", "?half_life=-1"])
def test_options_out_of_range_end_it_before_it_begins(running: Process, query: str) -> None:
    with connect(url(running, query)) as ws:
        (refusal,), code, reason = end_of(ws)
    assert refusal["error"]["code"] == "invalid_parameter"
    assert refusal["frame"] is None
    assert code == 1008
    assert reason.startswith("invalid_parameter: query.")


def test_a_frame_of_too_many_bytes_ends_the_stream(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_STREAM_BYTES="20000").wait_ready()
    ws = opened(stack, process)
    assert ask(ws, bytes(20_000))["error"]["code"] == "unsupported_format"
    ws.send(bytes(20_001))
    assert end_of(ws)[1] == 1009


def test_a_message_in_tiny_pieces_ends_the_stream(running: Process, stack: ExitStack) -> None:
    ws = opened(stack, running)
    # No more than it takes: what a client goes on sending can cost it the close, and so the reason.
    pieces = FREE_CHUNKS * MIN_CHUNK_BYTES // (MIN_CHUNK_BYTES - 1) + 1
    with suppress(ConnectionClosed):
        ws.send(b"x" for _ in range(pieces))
    assert end_of(ws) == ([], 1008, "too_many_chunks")


def test_a_flood_of_tiny_pieces_ends_the_stream(running: Process, stack: ExitStack) -> None:
    ws = opened(stack, running)
    with pytest.raises(ConnectionClosed):
        ws.send(b"x" for _ in range(500_000))
    assert ask(opened(stack, running), frame())["type"] == "faces"


# Who may


def test_a_key_comes_in_the_header_or_in_the_first_message(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_API_KEYS=f"{KEY},{OTHER_KEY}", EMOTION_HEAD_S="1").wait_ready()
    ws = opened(stack, process, additional_headers={"X-API-Key": KEY})
    assert ask(ws, frame())["type"] == "faces"
    ws = stack.enter_context(connect(url(process)))
    assert ask(ws, json.dumps({"api_key": OTHER_KEY}))["type"] == "ready"
    assert ask(ws, frame())["type"] == "faces"
    ws.close()
    wait_until(lambda: any(record.get("client") == "key-2" for record in process.records))
    for first in (json.dumps({"api_key": "wrong"}), json.dumps(["api_key"]), "{", b"\xff\xd8"):
        with connect(url(process)) as refused:
            refused.send(first)
            (refusal,), code, reason = end_of(refused)
        assert (refusal["error"]["code"], code) == ("unauthorized", 1008)
        assert reason.startswith("unauthorized: ")
    with connect(url(process)) as silent:
        (refusal,), code, _ = end_of(silent)
        assert (refusal["error"]["code"], code) == ("upload_timeout", 1008)
    with connect(url(process)) as large:  # nothing large is held for a client that is not known
        large.send(bytes(5_000))
        assert end_of(large)[1] == 1009
    assert KEY not in process.text


def test_a_key_that_nobody_asks_for_is_ignored(running: Process, stack: ExitStack) -> None:
    ws = opened(stack, running)
    ws.send(json.dumps({"api_key": KEY}))
    assert ask(ws, frame())["frame"] == 0


def test_pages_of_other_origins_are_kept_out(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_CORS_ORIGINS="https://friend.example").wait_ready()
    for origin in (process.url, "https://friend.example", None):
        opened(stack, process, origin=origin)
    for origin in ("https://evil.example", "http://friend.example", "null", f"http://localhost:{process.port}"):
        with pytest.raises(InvalidStatus) as refused:
            connect(url(process), origin=origin)
        response = refused.value.response
        assert response.status_code == 403
        assert response.headers["content-type"] == "application/problem+json"
        assert response.body is not None
        assert json.loads(response.body)["code"] == "origin_refused"


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        ("https://a.example", "A.example", True),
        ("https://a.example:8443", "a.example", False),
        ("", "", False),
        ("file://", "", False),
        ("https://a.example", None, False),
    ],
)
def test_an_origin_is_compared_with_the_host(origin: str, host: str | None, welcome: bool) -> None:
    assert is_welcome(origin, host, ()) is welcome


def test_other_paths_take_no_websocket(start: Start, running: Process) -> None:
    none = start(EMOTION_STREAMS="0").wait_ready()
    for address in (url(none), f"ws://127.0.0.1:{running.port}/v1/detect"):
        with pytest.raises(InvalidStatus) as refused:
            connect(address)
        assert refused.value.response.status_code in {403, 404}


# What does not fit


def test_frames_above_the_rate_are_refused_and_the_stream_goes_on(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_RATE_PER_MINUTE="60", EMOTION_RATE_BURST="16").wait_ready()
    ws = opened(stack, process)
    answers = [ask(ws, frame()) for _ in range(60)]
    refused = [answer for answer in answers if answer["type"] == "error"]
    assert {answer["error"]["code"] for answer in refused} == {"rate_limited"}
    assert all(answer["retry_after_s"] >= 1 for answer in refused)
    assert len(refused) < 30  # it waits with the next one, instead of refusing each
    assert answers[-1]["type"] == "faces" or answers[-2]["type"] == "faces"


def test_seats_are_shared_between_clients(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_STREAMS="2").wait_ready()
    first, second = (opened(stack, process) for _ in range(2))
    with connect(url(process)) as third:
        (refusal,), code, reason = end_of(third)
    assert (refusal["error"]["code"], code) == ("overloaded", 1013)
    assert refusal["retry_after_s"] == 5
    assert reason.startswith("overloaded: ")
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.2", 0))
    sock.connect(("127.0.0.1", process.port))
    other = opened(stack, process, sock=sock)
    assert end_of(second)[1] == 1013  # its client has two
    assert ask(first, frame())["type"] == ask(other, frame())["type"] == "faces"
    assert metric(process, "emotion_streams") == 2
    assert metric(process, 'emotion_stream_ends_total{reason="overloaded"}') == 2


class Guest:
    def __init__(self) -> None:
        self.left = False

    def give_way(self) -> None:
        self.left = True


def test_nobody_loses_a_seat_to_a_client_with_as_many() -> None:
    seats = StreamSeats(2)
    guests = [Guest(), Guest(), Guest()]
    seats.take(guests[0], "a")
    seats.take(guests[1], "b")
    with pytest.raises(Problem) as refused:
        seats.take(guests[2], "c")
    assert refused.value.code is Code.OVERLOADED
    seats.leave(guests[0])
    seats.leave(guests[2])
    seats.take(guests[2], "c")
    assert len(seats) == 2
    assert not any(guest.left for guest in guests)


def test_streams_count_in_the_bytes_that_may_be_held(start: Start, stack: ExitStack) -> None:
    held = {"EMOTION_STREAM_BYTES": "10000000", "EMOTION_BUFFER_BYTES": "40000000"}
    process = start(**held).wait_ready()
    opened(stack, process).close()  # gives its share back
    opened(stack, process)
    with connect(url(process)) as second:
        (refusal,), code, _ = end_of(second)
    assert (refusal["error"]["code"], code) == ("overloaded", 1013)


def test_a_stream_without_frames_ends(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_STREAM_IDLE_S="1").wait_ready()
    (refusal,), code, reason = end_of(opened(stack, process))
    assert (refusal["error"]["code"], code) == ("upload_timeout", 1008)
    assert reason == "upload_timeout: no frame for 1 s; connect again"


def test_a_client_that_does_not_read_is_disconnected(start: Start) -> None:
    process = start(EMOTION_STALL_S="1").wait_ready()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", process.port))
        frames = repeat(frame(), 10_000_000)  # an idle machine sends a hundred thousand in less than the second
        with connect(url(process), sock=sock, max_queue=1) as ws, pytest.raises((ConnectionClosed, OSError)):
            all(ws.send(data) is None for data in frames)
    wait_until(lambda: metric(process, "emotion_streams") == 0)


# How it ends


def test_without_the_extra_it_says_what_is_missing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['trackers'] = None")
    process = start(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'src'}").wait_ready()
    with connect(url(process)) as ws:
        (refusal,), code, reason = end_of(ws)
    assert (refusal["error"]["code"], refusal["error"]["status"], code) == ("not_installed", 501, 1011)
    assert "pip install 'emotion-yolo[api,track]'" in reason


def test_sigterm_ends_streams_once_what_is_in_flight_is_answered(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANG)
    flag = tmp_path / "hang"
    process = start(HANG=str(flag), PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'src'}").wait_ready()
    with ExitStack() as stack:
        busy, idle = opened(stack, process), opened(stack, process)
        flag.touch()
        busy.send(frame())
        wait_until(lambda: metric(process, "emotion_queue_running") == 1)
        process.popen.terminate()
        assert end_of(idle)[:2] == ([], 1012)
        flag.unlink()
        (answer,), code, reason = end_of(busy)
        assert (answer["type"], code) == ("faces", 1012)
        assert reason == "the server is going down; connect again"
    assert process.end() == 0


def test_a_server_that_drains_takes_no_new_stream_and_goes_on_with_others(start: Start, stack: ExitStack) -> None:
    process = start(EMOTION_DRAIN_S="600").wait_ready()
    ws = opened(stack, process)
    process.popen.terminate()
    wait_until(lambda: httpx.get(f"{process.url}/readyz").status_code == 503)
    assert ask(ws, frame())["type"] == "faces"
    with connect(url(process)) as late:
        assert end_of(late)[:2] == ([], 1012)


def test_a_stream_outlives_a_reload(start: Start, stack: ExitStack, tmp_path: Path) -> None:
    model = exported_model(tmp_path / "model")
    process = start(EMOTION_MODEL=str(model), EMOTION_ADMIN_KEY=KEY).wait_ready()
    ws = opened(stack, process)
    assert [ask(ws, frame())["detections"][0]["track"] for _ in range(2)] == [None, 0]
    exported_model(model, box_side=30)
    done = httpx.post(f"{process.url}/admin/reload", headers={"X-API-Key": KEY}, timeout=60)
    assert done.json()["status"] == "loaded"
    answers = [ask(ws, frame()) for _ in range(2)]
    assert answers[0]["model"] == done.json()["model"]
    assert [answer["detections"][0]["track"] for answer in answers] == [None, 0]


# The handshake


UPGRADE = (
    b"%b /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: %b\r\n%b\r\n"
)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (UPGRADE % (b"POST", b"13", b""), b"400"),
        (UPGRADE % (b"GET", b"13", b"") + b"\x82\x80", b"400"),  # frames before the handshake
        (UPGRADE % (b"GET", b"8", b""), b"400"),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0") % (b"GET", b"13", b""), b"400"),
        (UPGRADE.replace(b"stream", b"str\xc3\xa9am") % (b"GET", b"13", b""), b"400"),
        (UPGRADE % (b"GET", b"13", b"X-Long: " + b"a" * 20_000 + b"\r\n"), None),
    ],
)
def test_a_handshake_that_is_none_is_refused(running: Process, request_: bytes, status: bytes | None) -> None:
    with connection(running.port) as sock:
        sock.sendall(request_)
        answer = read_to_the_end(sock)
    assert answer.split()[1:2] == ([status] if status else [])
    assert "Traceback" not in running.text


def test_frames_that_break_the_protocol_end_the_connection(running: Process) -> None:
    with connection(running.port) as sock:
        sock.sendall(UPGRADE % (b"GET", b"13", b""))
        received_so_far = b""
        while b"ready" not in received_so_far:
            received_so_far += sock.recv(65536)
        sock.sendall(b"\x82\x01x")  # a frame without a mask
        closing = read_to_the_end(sock)
    assert closing[:1] == b"\x88"
    assert int.from_bytes(closing[2:4], "big") == 1002
    assert "Traceback" not in running.text
