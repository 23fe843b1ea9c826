"""WebSocket connections: uvicorn's protocol, with bounds on what a client may send, hold and leave unread.

uvicorn 0.54 does not limit the number of frames that a message may come in, holds as much for a client that nobody has
admitted yet as for any other, and cuts connections on SIGTERM.
"""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from .access import client_group
from .problems import Code
from .protocol import FREE_CHUNKS, MIN_CHUNK_BYTES, Watched

MAX_FIRST_BYTES = 4_096
"""Bytes of a message before the client is admitted: room for a key, and for nothing else."""

POLICY_VIOLATION = 1008
SERVICE_RESTART = 1012
"""Close codes (RFC 6455, 7.4; IANA's registry)."""

_SLICE = 4_096  # bytes parsed at once: hundreds of tiny frames, before they are counted
_CLOSE_S = 2.0  # for the client's answer to a close

# uvicorn logs each connection with the client's address and query.
_LOGGER = logging.getLogger("uvicorn.error.websocket")
_LOGGER.setLevel(logging.WARNING)


class GuardedWebSocket(Watched, WebSocketsSansIOProtocol):
    """One connection, taken over from `GuardedProtocol`, with which it shares what `Server` looks at.

    The application finds it in the scope's state as `connection`, and calls `admit` once it knows the client.
    """

    _admitted = False
    _frames = _bytes = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _LOGGER
        self.close_timeout = _CLOSE_S
        self.conn.logger = _LOGGER
        self.conn.max_message_size = MAX_FIRST_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        super().connection_made(transport)
        self.group = client_group(self.client[0]) if self.client else "unknown"
        self.heard_at = self.loop.time()

    def admit(self, max_bytes: int) -> None:
        """Accept messages of up to `max_bytes` from now on, and do not count as idle any more."""
        self.conn.max_message_size = max_bytes
        self._admitted = True

    @property
    def idle(self) -> bool:
        """Return whether the connection may be closed to make room for another."""
        return not self._admitted

    def watch(self, now: float) -> None:
        """Disconnect a client that does not read."""
        if self.reads_too_slowly(now):
            self.reset()

    def shutdown(self) -> None:
        """Tell the application to end, once what is in flight is answered."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": None})
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        self.heard_at = self.loop.time()
        for start in range(0, len(data), _SLICE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _SLICE])

    def handle_connect(self, event: Any) -> None:
        """Start the application."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was valid
            self.scope["state"]["connection"] = self

    def handle_cont(self, event: Frame) -> None:
        """Take a later frame of a message."""
        self._count(event)
        super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        """Take the first frame of a text."""
        self._count(event)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take the first frame of a binary message."""
        self._count(event)
        super().handle_bytes(event)

    def handle_ping(self) -> None:
        """Answer a ping."""
        self._count(None)
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Take note of a pong."""
        self._count(None)
        super().handle_pong(event)

    def handle_parser_exception(self) -> None:
        """Close a connection that breaks the protocol, and tell the application."""
        if self.conn.close_sent is None:  # before the handshake was answered: there is nothing to close yet
            self.transport.abort()
        else:
            super().handle_parser_exception()

    def _count(self, frame: Frame | None) -> None:
        """Close a connection whose frames are tiny: each costs a call, as chunks of a body do."""
        self._frames += 1
        self._bytes += len(frame.data) if frame else 0
        if self._bytes < (self._frames - FREE_CHUNKS) * MIN_CHUNK_BYTES and not self.transport.is_closing():
            self.conn.fail(POLICY_VIOLATION, str(Code.TOO_MANY_CHUNKS))
            self.handle_parser_exception()  # sends the close, and tells the application
