"""Clients that send, or read, as no honest client does; over real sockets."""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from api.access import client_group
from api.protocol import MAX_PIPELINED, ConnectionLimits, _Reading
from tests.api.conftest import encoded
from tests.api.process import Process, Start, connection, read_to_the_end, wait_until

CHUNKED = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def running(model_folder: Path) -> Iterator[Process]:
    """Return one service for the tests that leave it as it is."""
    process = Process({"EMOTION_MODEL": str(model_folder), "EMOTION_PORT": "0"}).wait_ready()
    yield process
    process.stop()


def chunks(data: bytes, size: int) -> bytes:
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def problem_of(answer: bytes) -> tuple[int, str]:
    """Return status and code of a raw refusal after checking that it is one, whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    document = json.loads(body)
    assert document["request_id"] == headers["x-request-id"]
    return int(lines[0].split()[1]), document["code"]


def answer_to(process: Process, raw: bytes) -> bytes:
    with connection(process.port) as sock:
        with suppress(OSError):  # it may have answered and closed before it got everything
            sock.sendall(raw)
        return read_to_the_end(sock)


def test_a_body_in_chunks_of_a_byte_is_refused(running: Process) -> None:
    assert problem_of(answer_to(running, CHUNKED + chunks(bytes(100_000), 1))) == (413, "too_many_chunks")


def test_a_body_in_chunks_of_a_usual_size_is_taken(running: Process, photo: bytes) -> None:
    body = chunks(photo[:900], 1) + chunks(photo[900:], 100) + b"0\r\n\r\n"
    with connection(running.port) as sock:
        sock.sendall(CHUNKED + body)
        assert b"200 OK" in sock.recv(65536)


def test_trailers_are_dropped_and_counted(running: Process, photo: bytes) -> None:
    with connection(running.port) as sock:
        sock.sendall(CHUNKED + chunks(photo, 4096) + b"0\r\nX-Api-Key: late\r\n\r\n")
        assert b"200 OK" in sock.recv(65536)
    many = b"".join(b"X-%d: a\r\n" % number for number in range(5000))
    assert problem_of(answer_to(running, CHUNKED + b"0\r\n" + many + b"\r\n"))[1] == "head_too_large"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed_request"),
        (b"BREW /coffee HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
        (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 2_000_000, 431, "head_too_large"),
        (CHUNKED + b"zz\r\n", 400, "malformed_request"),
    ],
)
def test_what_is_no_request_gets_a_problem_document(running: Process, raw: bytes, status: int, code: str) -> None:
    assert problem_of(answer_to(running, raw)) == (status, code)
    assert "Traceback" not in running.text


def test_takes_the_target_in_absolute_form(running: Process) -> None:
    for target in (b"http://other.example/healthz", b"http://other.example", b"HTTP://other.example?x=1"):
        with connection(running.port) as sock:
            sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200"), target


def test_a_wish_to_upgrade_is_answered_as_http_1_1(running: Process) -> None:
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    assert answer_to(running, upgrade).startswith(b"HTTP/1.1 200")


def test_answers_a_few_requests_in_a_row_and_no_flood_of_them(running: Process) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connection(running.port) as sock:
        sock.sendall(request * MAX_PIPELINED)
        received = b""
        while received.count(b"HTTP/1.1 200") < MAX_PIPELINED:
            received += sock.recv(65536)
    answers = answer_to(running, request * 5000)
    assert 1 <= answers.count(b"HTTP/1.1 200") <= MAX_PIPELINED + 1
    assert answers.endswith(b"}")


def test_garbage_after_a_request_does_not_spoil_its_answer(running: Process, photo: bytes) -> None:
    head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    answer = answer_to(running, head % len(photo) + photo + b"garbage\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 200")
    json.loads(answer.partition(b"\r\n\r\n")[2])


def was_cut(sock: socket.socket, *, seconds: float = 20) -> bool:
    """Tell whether the server closes or resets a connection, without reading from it."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(seconds * 1000))


def narrow(port: int) -> socket.socket:
    """Return a connection whose client's side holds little that is not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", port))
    return sock


def noise(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=90)


def annotate(picture: bytes) -> bytes:
    head = "POST /v1/annotate HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture


def test_cuts_clients_that_do_not_read(start: Start) -> None:
    process = start(EMOTION_STALL_S="0.5").wait_ready()
    picture = noise(1600, 1200)
    with ExitStack() as stack:
        for request in (annotate(picture), b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * MAX_PIPELINED):
            sock = stack.enter_context(narrow(process.port))
            sock.sendall(request)
            assert was_cut(sock)


def test_lets_a_slow_reader_read_to_the_end(start: Start) -> None:
    process = start(EMOTION_STALL_S="2").wait_ready()
    received = b""
    with narrow(process.port) as sock:
        sock.sendall(annotate(noise(1600, 1200)))
        end = time.monotonic() + 8  # longer than a kept connection may idle
        while time.monotonic() < end:
            received += sock.recv(20_000)
            time.sleep(0.05)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length")).split()[1])
        assert len(body) < length  # it is still under way
        while len(body) < length and (more := sock.recv(65536)):
            body += more
    assert len(body) == length
    assert body.endswith(b"IEND\xaeB`\x82")


def test_a_reader_is_too_slow_when_it_stands_still_or_crawls() -> None:
    limits = ConnectionLimits(read_s=5, read_grace_s=30, min_read_rate=10)
    still = _Reading(0, 0, 1000, 1000)
    assert not still.too_slow(5, 1000, limits)
    assert still.too_slow(5.1, 1000, limits)
    steady = _Reading(0, 0, 1000, 1000)
    assert not any(steady.too_slow(second, 1000 - 20 * second, limits) for second in range(50))
    crawling = _Reading(0, 0, 1000, 1000)
    assert [crawling.too_slow(second, 1000 - second, limits) for second in range(32)].index(True) == 31
    fed = _Reading(0, 0, 1000, 1000)
    assert not fed.too_slow(4, 3000, limits)  # more was sent: no sign of reading
    assert fed.too_slow(6, 3000, limits)


def test_ends_on_sigterm_although_nobody_reads(start: Start) -> None:
    process = start(EMOTION_STALL_S="30", EMOTION_SHUTDOWN_S="1").wait_ready()
    with narrow(process.port) as sock:
        sock.sendall(annotate(noise(1600, 1200)))
        wait_until(lambda: '"/v1/annotate"' in process.text)
        process.popen.terminate()
        assert process.end() in {0, 1}


def test_holds_no_more_connections_than_files_may_be_open_and_stays_reachable(start: Start, photo: bytes) -> None:
    process = start(open_files=64).wait_ready()
    with ExitStack() as stack:
        idle = [stack.enter_context(connection(process.port)) for _ in range(150)]
        for _ in range(20):
            assert httpx.get(f"{process.url}/healthz").status_code == 200
        assert httpx.post(f"{process.url}/v1/detect", files={"file": photo}).status_code == 200
        assert sum(was_cut(sock, seconds=0) for sock in idle) > 100
    process.popen.terminate()
    assert process.end() == 0
    assert not [record for record in process.records if record["level"] in {"error", "critical"}]
    assert any("EMOTION_CONNECTIONS" in record["event"] for record in process.records)


def test_the_connection_that_is_idle_for_longest_makes_room(start: Start) -> None:
    process = start(EMOTION_CONNECTIONS="3").wait_ready()
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(process.port)) for _ in range(3)]
        for sock in (*socks, socks[0]):
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                received += sock.recv(65536)
        stack.enter_context(connection(process.port))
        assert was_cut(socks[1])
        assert not was_cut(socks[0], seconds=0)


def test_a_client_with_many_uploads_loses_one_to_another_client(start: Start) -> None:
    process = start(EMOTION_CONNECTIONS="4").wait_ready()
    begin = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\nx"
    with ExitStack() as stack:
        greedy = [stack.enter_context(connection(process.port)) for _ in range(4)]
        for sock in greedy:
            sock.sendall(begin)
        wait_until(lambda: httpx.get(f"{process.url}/healthz").status_code == 503)  # its own address: no room
        other = stack.enter_context(socket.socket())
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", process.port))
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in other.recv(65536)


def test_connections_that_come_and_go_leave_nothing(running: Process) -> None:
    for _ in range(200):
        with connection(running.port) as sock:
            # Closing with this set resets the connection, in the middle of a request.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(CHUNKED + b"5\r\nab")
    descriptors = Path(f"/proc/{running.popen.pid}/fd")
    wait_until(lambda: len(list(descriptors.iterdir())) < 60)


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_network_of_ipv6_addresses_is_one_client(host: str, group: str) -> None:
    assert client_group(host) == group
