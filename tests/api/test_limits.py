import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.testclient import TestClient

from api import limits
from api.limits import BodyLimits, ByteBudget, IncomingBody, RateLimiter
from api.problems import Code, Problem
from api.uploads import _SPARE_PARTS
from tests.api.conftest import Serve, code_of

BOUNDARY = "b0undary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, content: bytes, *, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n{more}\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def test_a_body_is_stopped_at_its_limit_without_a_content_length(serve: Serve) -> None:
    client = serve(max_bytes=100_000, batch_bytes=100_000)
    sent = 0

    def endless() -> "AsyncIterator[bytes]":
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield bytes(10_000)

    answer = client.post("/v1/detect", content=endless(), headers={"content-type": "image/jpeg"})
    assert (answer.status_code, code_of(answer)) == (413, "too_large")
    assert answer.headers["connection"] == "close"


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(serve: Serve) -> None:
    client = serve(max_bytes=100_000, batch_bytes=100_000)
    answer = client.post(
        "/v1/detect", content=b"x", headers={"content-type": "image/jpeg", "content-length": "999999999"}
    )
    assert (answer.status_code, code_of(answer)) == (413, "too_large")


def test_a_raw_picture_over_its_limit_but_within_the_form_s_overhead_is_refused(serve: Serve) -> None:
    answer = serve(max_bytes=100_000).post("/v1/detect", content=bytes(100_001), headers={"content-type": "image/jpeg"})
    assert (answer.status_code, code_of(answer)) == (413, "too_large")
    assert "100001" in answer.json()["detail"]


def test_refuses_thousands_of_fields(client: TestClient) -> None:
    body = b"".join(part(f"f{number}", b"x") for number in range(5000)) + END
    answer = client.post("/v1/detect", content=body, headers=FORM)
    assert (answer.status_code, code_of(answer)) == (413, "too_many_parts")


def test_ignores_a_few_fields_beside_the_file(client: TestClient, photo: bytes) -> None:
    spare = b"".join(part(f"f{number}", b"x") for number in range(_SPARE_PARTS))
    answer = client.post("/v1/detect", content=spare + part("file", photo) + END, headers=FORM)
    assert len(answer.json()["detections"]) == 2


def test_takes_a_form_in_pieces_of_any_size(client: TestClient, photo: bytes) -> None:
    body = part("note", b"\r\n--b0undar") + part("file", photo) + END
    for size in (1, 7, 4096):
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        assert client.post("/v1/detect", content=pieces, headers=FORM).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_body"),
        (b"no form", "malformed_body"),
        (END, "missing_file"),
        (part("other", b"x") + END, "missing_file"),
        (part("file", b"x"), "malformed_body"),
        (part("file", b"x") + part("file", b"y") + END, "too_many_files"),
        (part("file", b"") + END, "empty_file"),
        (part("file", b"x", more=f"X-Long: {'a' * 100_000}\r\n") + END, "malformed_body"),
        (part("file", b"x", more="".join(f"X-{n}: a\r\n" for n in range(500))) + END, "malformed_body"),
        (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, "missing_file"),
    ],
)
def test_refuses_forms_that_are_none(client: TestClient, body: bytes, code: str) -> None:
    answer = client.post("/v1/detect", content=body, headers=FORM)
    assert code_of(answer) == code


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'b' * 5000}"])
def test_refuses_a_form_without_a_usable_boundary(client: TestClient, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data{boundary}"}
    answer = client.post("/v1/detect", content=part("file", b"x") + END, headers=headers)
    assert (answer.status_code, code_of(answer)) == (400, "malformed_body")


Receive = Callable[[], object]


async def _run(app_limits: dict, receive: Receive, *, read: int = 10**9) -> tuple[list[dict], Problem | None]:
    """Drive the middleware around an application that reads its body and answers with 200, or with the refusal."""
    sent: list[dict] = []
    raised: list[Problem] = []

    async def app(_scope: object, receive: Receive, send: Callable[[dict], object]) -> None:
        status = 200
        try:
            for _ in range(read):
                message = await receive()  # type: ignore[misc]
                if not message.get("more_body"):
                    break
        except Problem as problem:
            raised.append(problem)
            status = problem.status
        await send({"type": "http.response.start", "status": status, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b"answer"})  # type: ignore[misc]

    async def send(message: dict) -> None:
        sent.append(message)

    budget = app_limits.pop("budget", ByteBudget(10**9))
    options = {"limit_of": lambda _: 1000, "budget": budget, "stall_s": 0.05, "upload_s": 0.2} | app_limits
    scope = {"type": "http", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    await BodyLimits(app, **options)(scope, receive, send)
    assert budget.used == 0  # whatever happened, the room is free again
    return sent, raised[0] if raised else None


def stream(*chunks: bytes, pause_s: float = 0, ending: str = "end") -> Receive:
    """Return an ASGI `receive` of these chunks; then the body ends, the client leaves, or nothing more comes."""
    rest = list(chunks)

    async def receive() -> dict:
        await asyncio.sleep(pause_s)
        if rest:
            return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest) or ending != "end"}
        if ending == "leave":
            return {"type": "http.disconnect"}
        await asyncio.sleep(3600)
        raise AssertionError

    return receive


def test_a_sender_who_stalls_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_S", 0.01)
    sent, problem = asyncio.run(_run({}, stream(b"x", ending="stall")))
    assert problem is not None
    assert problem.code is Code.UPLOAD_TIMEOUT
    assert (b"connection", b"close") in sent[0]["headers"]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_a_sender_who_drips_is_cut_off_at_the_end_of_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_S", 0.01)
    _, problem = asyncio.run(_run({"stall_s": 1.0}, stream(*[b"x"] * 500, pause_s=0.02)))
    assert problem is not None
    assert problem.code is Code.UPLOAD_TIMEOUT


def test_a_sender_who_leaves_is_noticed() -> None:
    _, problem = asyncio.run(_run({}, stream(b"x", ending="leave")))
    assert problem is not None
    assert problem.code is Code.CLIENT_GONE


def upload(client: str) -> IncomingBody:
    return IncomingBody(client)


def test_all_bodies_together_stay_within_the_budget() -> None:
    budget = ByteBudget(100)
    first, second = upload("a"), upload("a")
    budget.take(first, 60)
    with pytest.raises(Problem) as refused:
        budget.take(second, 41)
    assert refused.value.code is Code.OVERLOADED
    budget.take(second, 40)
    budget.give_back(first)
    budget.give_back(second)
    assert budget.used == 0


def test_whoever_holds_most_of_the_budget_loses_an_upload_to_one_who_holds_less() -> None:
    budget = ByteBudget(100)
    greedy = [upload("greedy") for _ in range(4)]
    for one in greedy:
        budget.take(one, 25)
    budget.take(upload("modest"), 30)
    assert [one.refused for one in greedy].count(True) == 2
    assert budget.used == 80
    with pytest.raises(Problem):  # as much as the other has: an equal share is all there is
        budget.take(upload("modest"), 40)


def test_what_is_complete_is_not_taken_away() -> None:
    budget = ByteBudget(100)
    complete = upload("greedy")
    budget.take(complete, 100)
    budget.complete(complete)
    with pytest.raises(Problem):
        budget.take(upload("modest"), 10)
    assert not complete.refused


def test_an_upload_that_has_to_go_is_refused_at_once_wherever_it_is() -> None:
    async def run() -> tuple[Problem | None, float]:
        budget = ByteBudget(100)
        task = asyncio.create_task(
            _run({"budget": budget, "stall_s": 20.0, "upload_s": 20.0}, stream(b"x" * 90, ending="stall"))
        )
        while budget.used < 90:
            await asyncio.sleep(0.01)
        other = IncomingBody("other")
        budget.take(other, 20)
        begin = asyncio.get_running_loop().time()
        budget.give_back(other)
        _, problem = await task
        return problem, asyncio.get_running_loop().time() - begin

    problem, _ = asyncio.run(run())
    assert problem is not None
    assert problem.code is Code.OVERLOADED


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    # Answer first, then throw the rest away, then close: closing at once would reset the connection.
    sent, problem = asyncio.run(_run({}, stream(*[b"x" * 600] * 5)))
    assert problem is not None
    assert problem.code is Code.TOO_LARGE
    assert [message.get("more_body") for message in sent[1:]] == [True, False]
    assert sent[1]["body"] == b"answer"


def test_a_whole_body_passes_untouched() -> None:
    sent, problem = asyncio.run(_run({}, stream(b"x" * 500, b"x" * 500)))
    assert problem is None
    assert sent[0]["headers"] == []
    assert len(sent) == 2


def test_passes_what_is_no_http() -> None:
    seen: list[str] = []

    async def app(scope: dict, *_: object) -> None:
        seen.append(scope["type"])

    middleware = BodyLimits(app, limit_of=len, budget=ByteBudget(1), stall_s=1, upload_s=1)
    asyncio.run(middleware({"type": "lifespan"}, stream(), None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_client_may_burst_and_then_has_to_wait_for_its_rate() -> None:
    clock = Clock()
    rates = RateLimiter(per_minute=60, burst=3, clock=clock)
    rates.take("a", 3)
    with pytest.raises(Problem) as refused:
        rates.take("a")
    assert (refused.value.code, refused.value.retry_after_s) == (Code.RATE_LIMITED, 1)
    rates.take("b")
    clock.now = 1.0
    rates.take("a")
    with pytest.raises(Problem):
        rates.take("a")
    clock.now = 1000.0
    rates.take("a", 3)
    with pytest.raises(Problem):
        rates.take("a")


def test_a_refused_batch_costs_nothing() -> None:
    rates = RateLimiter(per_minute=60, burst=3, clock=Clock())
    with pytest.raises(Problem):
        rates.take("a", 4)
    rates.take("a", 3)


def test_no_rate_means_no_limit() -> None:
    rates = RateLimiter(per_minute=0, burst=1)
    for _ in range(100):
        rates.take("a", 100)


def test_remembers_a_bounded_number_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_BUCKETS", 10)
    rates = RateLimiter(per_minute=1, burst=1, clock=Clock())
    for number in range(100):
        rates.take(str(number))
    assert len(rates._buckets) == 10
    with pytest.raises(Problem):
        rates.take("99")


def test_the_rate_of_a_server_is_per_picture(serve: Serve, photo: bytes) -> None:
    client = serve(rate_per_minute=1, rate_burst=20)
    batch = [("files", ("x", photo))] * 16
    assert client.post("/v1/detect/batch", files=batch).status_code == 200
    answer = client.post("/v1/detect/batch", files=batch)
    assert (answer.status_code, code_of(answer)) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) > 60
