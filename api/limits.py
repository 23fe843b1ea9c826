"""Limits on request bodies while they stream in, and the rate limit. All apply before any work is done."""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Code, Problem

# After an early refusal the rest of the body is read and thrown away for this long: closing at once would reset the
# connection, and the client would see that instead of the refusal.
LINGER_S = 2.0
_MAX_BUCKETS = 10_000
_NO_ROOM = "the server holds as many uploads as it can; try again"


class ByteBudget:
    """The bytes of request bodies held at once by all requests together, shared fairly between clients.

    A client that needs room takes it from the client that holds most, if that one holds more than itself: an upload
    that is still coming in is refused for it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held_by: Counter[str] = Counter()
        self._incoming: set[IncomingBody] = set()

    def take(self, upload: "IncomingBody", count: int) -> None:
        """Take `count` bytes for an upload that is coming in.

        Raises:
            Problem: there is no room for them.
        """
        while self.used + count > self.limit:
            others = [u for u in self._incoming if u.held and u.client != upload.client]
            largest = max(others, key=lambda u: (self._held_by[u.client], u.held), default=None)
            if largest is None or self._held_by[largest.client] <= self._held_by[upload.client] + count:
                raise Problem(Code.OVERLOADED, _NO_ROOM, retry_after_s=1)
            self.give_back(largest)
            largest.refuse()
        self._incoming.add(upload)
        upload.held += count
        self.used += count
        self._held_by[upload.client] += count

    def complete(self, upload: "IncomingBody") -> None:
        """Note that an upload is complete: the bytes it holds can no longer be taken from it."""
        self._incoming.discard(upload)

    def give_back(self, upload: "IncomingBody") -> None:
        """Give back all that an upload holds."""
        self._incoming.discard(upload)
        self.used -= upload.held
        self._held_by[upload.client] -= upload.held
        if not self._held_by[upload.client]:
            del self._held_by[upload.client]
        upload.held = 0


class IncomingBody:
    """A request's body as it comes in: its client, the bytes it holds, and a way to refuse it from outside."""

    def __init__(self, client: str = "unknown") -> None:
        self.client = client
        self.held = 0
        self.refused = False
        self.timeout: asyncio.Timeout | None = None

    def refuse(self) -> None:
        """Stop waiting for its next bytes, if it is."""
        self.refused = True
        if self.timeout is not None:
            self.timeout.reschedule(0)


@dataclass(frozen=True)
class BodyLimits:
    """ASGI middleware: counts a body's bytes as they arrive, whatever its Content-Length says, and times its sender.

    A limit that is passed raises `Problem` where the application reads the body.
    """

    app: ASGIApp
    limit_of: Callable[[str], int]
    budget: ByteBudget
    stall_s: float
    upload_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(self, scope, receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.budget.give_back(body.upload)


class _Body:
    def __init__(self, limits: BodyLimits, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        self._declared = int(declared) if declared.isdecimal() else 0
        self._complete = not self._declared and "transfer-encoding" not in headers
        self._limits = limits
        self._limit = limits.limit_of(scope["path"])
        self._state = scope.get("state", {})
        self._receive, self._send = receive, send
        self._until: float | None = None
        self._lingers = False
        self._size = 0
        self.upload = IncomingBody()

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._declared > self._limit:
            raise self._too_large(self._declared)
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._limits.upload_s
            self.upload.client = self._state.get("client", "unknown")
        message = await self._next(min(now + self._limits.stall_s, self._until))
        count = len(message.get("body", b""))
        if self._size + count > self._limit:
            raise self._too_large(self._size + count)
        self._size += count
        self._limits.budget.take(self.upload, count)
        self._complete = not message.get("more_body", False)
        if self._complete:
            self._limits.budget.complete(self.upload)
        return message

    async def _next(self, until: float) -> Message:
        message: Message = {}
        try:
            async with asyncio.timeout_at(until) as self.upload.timeout:
                if not self.upload.refused:
                    message = await self._receive()
        except TimeoutError:
            if not self.upload.refused:
                raise Problem(Code.UPLOAD_TIMEOUT, "the body arrived too slowly; send it again") from None
        finally:
            self.upload.timeout = None
        if self.upload.refused:
            raise Problem(Code.OVERLOADED, _NO_ROOM, retry_after_s=1)
        if (refusal := self._state.get("refusal")) is not None:  # the protocol can make no sense of what comes
            raise refusal
        if message["type"] == "http.disconnect":
            raise Problem(Code.CLIENT_GONE, "the client left before its body was complete")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._complete:
            self._lingers = True
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (self._lingers and last):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})  # Content-Length tells the client that this is all
        await self._throw_away_rest()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _throw_away_rest(self) -> None:
        self._limits.budget.give_back(self.upload)
        try:
            async with asyncio.timeout(LINGER_S):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _too_large(self, size: int) -> Problem:
        return Problem(Code.TOO_LARGE, f"the body has {size} bytes or more, expected at most {self._limit}")


class RateLimiter:
    """A token bucket for each client: `per_minute` tokens flow in, up to `burst`. Tracks the latest 10,000 clients."""

    def __init__(self, *, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when they were counted

    def take(self, client: str, count: int = 1) -> None:
        """Take `count` tokens of a client, all or none.

        Raises:
            Problem: there are too few; the refusal says when there will be enough.
        """
        if not self._per_s:
            return
        now = self._clock()
        tokens, then = self._buckets.pop(client, (float(self._burst), now))
        tokens = min(tokens + (now - then) * self._per_s, float(self._burst))
        enough = tokens >= count
        self._buckets[client] = (tokens - count if enough else tokens, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not enough:
            wait_s = math.ceil((count - tokens) / self._per_s)
            rate = f"{self._per_s * 60:g} pictures a minute"
            raise Problem(Code.RATE_LIMITED, f"more than {rate}; wait {wait_s} s", retry_after_s=wait_s)
