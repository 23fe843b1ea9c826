"""Limits that hold while a body streams in, and the rate limit. All are decided before work is done."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Code, Problem

# After an early refusal the rest of the body is read and thrown away for this long: closing at once would reset the
# connection, and the client would see that instead of the refusal.
LINGER_S = 2.0
_MAX_BUCKETS = 10_000


@dataclass
class ByteBudget:
    """The bytes of request bodies that may be held at once, by all requests together."""

    limit: int
    used: int = 0

    def take(self, count: int) -> None:
        """Take `count` bytes.

        Raises:
            Problem: there is no room for them.
        """
        if self.used + count > self.limit:
            raise Problem(Code.OVERLOADED, "the server holds as many uploads as it can; try again", retry_after_s=1)
        self.used += count

    def give_back(self, count: int) -> None:
        """Give `count` bytes back."""
        self.used -= count


@dataclass(frozen=True)
class BodyLimits:
    """ASGI middleware: counts a body's bytes as they come, whatever its Content-Length claims, and times its sender.

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
            self.budget.give_back(body.held)


class _Body:
    def __init__(self, limits: BodyLimits, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        self._declared = int(declared) if declared.isdecimal() else 0
        self._complete = not self._declared and "transfer-encoding" not in headers
        self._limits = limits
        self._limit = limits.limit_of(scope["path"])
        self._receive, self._send = receive, send
        self._until: float | None = None
        self._lingers = False
        self.held = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._declared > self._limit:
            raise self._too_large(self._declared)
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._limits.upload_s
        try:
            async with asyncio.timeout_at(min(now + self._limits.stall_s, self._until)):
                message = await self._receive()
        except TimeoutError:
            raise Problem(Code.UPLOAD_TIMEOUT, "the body came too slowly; send it again") from None
        if message["type"] == "http.disconnect":
            raise Problem(Code.CLIENT_GONE, "the client left before its body was complete")
        count = len(message.get("body", b""))
        if self.held + count > self._limit:
            raise self._too_large(self.held + count)
        self._limits.budget.take(count)
        self.held += count
        self._complete = not message.get("more_body", False)
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
    """A token bucket for each client: `per_minute` tokens flow in, up to `burst`. Knows the latest 10,000 clients."""

    def __init__(self, *, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when they were counted

    def take(self, client: str, count: int = 1) -> None:
        """Take `count` tokens of a client, all or none.

        Raises:
            Problem: there are not enough; says when there will be.
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
