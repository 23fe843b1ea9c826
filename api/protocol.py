"""HTTP/1.1 connections: uvicorn's httptools protocol, with bounds on what a client may send, hold and leave unread.

uvicorn 0.54 does not limit the size of a head, the number of chunks, pipelined requests and connections, the time a
head may take, or the time an answer waits for its reader.
"""

import asyncio
import re
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .access import client_group
from .problems import Code, Problem

if sys.platform == "linux":
    import fcntl
    import termios

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
MAX_PIPELINED = 16
# A chunk costs a call, however small it is. Clients write chunks of kilobytes; a few small ones are harmless.
FREE_CHUNKS = 1_000
MIN_CHUNK_BYTES = 32

# The beginning of a target in absolute form that has no path, which stands for `/` (RFC 9110, 4.2.3).
_NO_PATH = re.compile(rb"^([A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)(?=[?#]|$)")


@dataclass(frozen=True)
class ConnectionLimits:
    """What the protocol enforces.

    `read_s` is the longest pause of a client that reads an answer; after `read_grace_s` it must also have read
    `min_read_rate` bytes a second on average. `by_address` tells whether a peer's address identifies a client.
    """

    connections: int = 512
    head_s: float = 10.0
    read_s: float = 5.0
    read_grace_s: float = 30.0
    min_read_rate: float = 10_000.0
    by_address: bool = True


class Watched:
    """The part of a connection that is watched whatever its protocol: how its peer reads."""

    limits = ConnectionLimits()
    transport: Any
    _reading: "_Reading | None" = None

    def reads_too_slowly(self, now: float) -> bool:
        """Return whether the peer has not read for too long; called a few times a second."""
        unread = self._unread_bytes()
        if not unread:
            self._reading = None
        elif self._reading is None:
            self._reading = _Reading(now, now, unread, unread)
        else:
            return self._reading.too_slow(now, unread, self.limits)
        return False

    def reset(self) -> None:
        """Disconnect at once; a mere close would leave what is unread in the kernel, and the peer without notice."""
        if (sock := self.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _unread_bytes(self) -> int:
        """Return the bytes that the peer has not acknowledged; those in the kernel only on Linux."""
        count: int = self.transport.get_write_buffer_size()
        if sys.platform == "linux" and (sock := self.transport.get_extra_info("socket")) is not None:
            try:
                count += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
            except OSError:  # closed meanwhile
                return 0
        return count


class GuardedProtocol(Watched, HttpToolsProtocol):
    """One connection. `Server` makes a subclass with its `limits` and calls `watch` a few times a second."""

    _broken = False  # what the client still sends is read and dropped
    _refusal: Problem | None = None
    _in_head = False
    _headers = _head_bytes = _chunks = _body_bytes = 0
    _head_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head. Above the limit of connections, another one is closed for this one."""
        super().connection_made(transport)
        self.group = client_group(self.client[0]) if self.client else "unknown"
        self.heard_at = self._head_since = self.loop.time()
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._refuse(Problem(Code.OVERLOADED, "too many connections; try again", retry_after_s=1))

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        if self._broken:
            return
        self.heard_at = self.loop.time()
        self._unset_keepalive_if_required()
        head_began_before = self._in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(is_last=upgrade.args[0] == len(data))
            else:
                # The request is answered as HTTP/1.1 (RFC 9110, 7.8), but the parser may have lost what follows it.
                self._refuse(None)
        except httptools.HttpParserError:
            self._refuse(self._refusal or Problem(Code.MALFORMED_REQUEST, "this is no valid HTTP/1.1 request"))
        else:
            if head_began_before and self._in_head:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._refuse(_head_too_large())
            elif self.idle and self._head_since is None:  # empty lines before a head count as its beginning
                self._head_since = self.heard_at

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _StopParsingError
        super().on_message_begin()
        self._in_head = True
        self._headers = self._head_bytes = self._chunks = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are counted and dropped."""
        self._headers += 1
        self._count_head(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._in_head = False
        self._head_since = None
        self.url = _NO_PATH.sub(rb"\1/", self.url)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count a chunk of a body."""
        self._chunks += 1
        if self._body_bytes < (self._chunks - FREE_CHUNKS) * MIN_CHUNK_BYTES:
            message = f"the body comes in chunks of less than {MIN_CHUNK_BYTES} bytes; send larger ones"
            self._refusal = Problem(Code.TOO_MANY_CHUNKS, message)
            raise _StopParsingError

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def watch(self, now: float) -> None:
        """Disconnect a client that does not finish its head, or does not read."""
        if self.reads_too_slowly(now):
            self.reset()
            return
        if not self.idle:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = now if self._in_head else None
        elif now - self._head_since > self.limits.head_s:
            self.transport.abort()

    @property
    def idle(self) -> bool:
        """Return whether no request of this connection is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES or self._headers > MAX_HEADERS:
            self._refusal = _head_too_large()
            raise _StopParsingError

    def _upgrade(self, *, is_last: bool) -> None:
        """Hand the connection over to WebSocket; `is_last`: nothing came behind the head, as nothing should yet."""
        is_get = self.scope["method"] == "GET" and self.scope["http_version"] == "1.1"
        if not (is_get and is_last and self.idle and self.url.isascii()):
            self._refuse(Problem(Code.MALFORMED_REQUEST, "this is no valid request for a WebSocket (RFC 6455, 4.1)"))
            return
        self.handle_websocket_upgrade()
        if not self.transport.get_protocol().handshake_initiated:
            self.transport.close()  # a head that the other protocol could not read

    def _refuse(self, problem: Problem | None) -> None:
        """Answer with `problem`, if an answer is due, and close; earlier requests are answered first."""
        self._broken = True
        if not self.idle:
            self.cycle.keep_alive = False
            if problem and self.cycle.more_body and not self.cycle.response_started:
                # The application is told where it reads the body, or before it starts.
                self.cycle.scope["state"]["refusal"] = problem
                self.cycle.message_event.set()
        elif problem is None:
            self.transport.close()
        else:
            HttpToolsProtocol.on_message_begin(self)
            scope = self.scope
            scope.update({"method": "", "path": "", "raw_path": b"", "query_string": b"", "headers": []})
            scope["state"]["refusal"] = problem
            self.cycle = RequestResponseCycle(
                scope=scope,
                transport=self.transport,
                flow=self.flow,
                logger=self.logger,
                access_logger=self.access_logger,
                access_log=self.access_log,
                default_headers=self.server_state.default_headers,
                message_event=asyncio.Event(),
                expect_100_continue=False,
                keep_alive=False,
                on_response=self.on_response_complete,
            )
            self._start_asgi_task(self.cycle, self.app)

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, else one of the client that has the most.

        Returns whether there was one: no client loses a request to one with as many connections.
        """
        others: list[Any] = [c for c in self.connections if c is not self and not c.transport.is_closing()]
        idle = [c for c in others if c.idle and not c.transport.get_write_buffer_size()]
        if not idle and self.limits.by_address:
            counts = Counter(c.group for c in others)
            group, most = counts.most_common(1)[0] if counts else ("", 0)
            if most > counts[self.group] + 1:
                idle = [c for c in others if c.group == group]
        if not idle:
            return False
        min(idle, key=lambda c: c.heard_at).transport.abort()
        return True


@dataclass
class _Reading:
    """How a client reads what was sent to it."""

    since: float
    progress_at: float
    at_first: int
    least: int

    def too_slow(self, now: float, unread: int, limits: ConnectionLimits) -> bool:
        """Record the bytes still unread; return whether the client reads too slowly, or not at all."""
        if unread > self.least:  # more was sent
            self.since, self.at_first = now, unread
        elif unread < self.least:
            self.progress_at = now
        self.least = unread
        if now - self.progress_at > limits.read_s:
            return True
        seconds = now - self.since
        return seconds > limits.read_grace_s and self.at_first - unread < limits.min_read_rate * seconds


class _StopParsingError(Exception):
    """Raised in a callback of the parser, which then stops."""


def _head_too_large() -> Problem:
    message = f"the head has more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers; send fewer"
    return Problem(Code.HEAD_TOO_LARGE, message)
