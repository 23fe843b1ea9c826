"""The process around the application: uvicorn, told to drain on SIGTERM and to cut connections that only idle."""

import asyncio
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from api import logs
from api.engine import State
from api.main import create_app
from api.settings import Settings, load_settings, unknown_variables
from emotion_yolo.errors import EmotionYoloError


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit on how long a request's head and an answer's reading may take.

    uvicorn 0.54 has neither: a client that sends half a head, or never reads its answer, would keep its connection.
    """

    head_s = 10.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a head have to end in one before long."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._unwatch_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; an application that is reading that body learns that its client is gone.

        uvicorn 0.54 lets it answer a second time, which ends in a traceback.
        """
        super().send_400_response(msg)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, at once where its client does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _watch_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self.head_s, self.transport.abort)
        else:
            self._unwatch_head()

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """uvicorn's server; on SIGTERM or Ctrl-C it turns unready, waits `drain_s`, ends what is in flight, and exits 0."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self.engine = self.app.state.parts.engine
        self._drain_s = settings.drain_s
        self._stop_at: float | None = None
        protocol = type("Protocol", (GuardedProtocol,), {"head_s": settings.head_s})
        options: dict[str, Any] = {"forwarded_allow_ips": settings.trusted_proxies} if settings.trusted_proxies else {}
        super().__init__(
            uvicorn.Config(
                self.app,
                host=settings.host,
                port=settings.port,
                loop="asyncio",
                http=protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                timeout_graceful_shutdown=int(settings.shutdown_s),
                **options,
            )
        )

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """Drain on the first signal; on a second one, leave what is in flight.

        uvicorn's own keeps the signal and raises it again at the end, so that the process would not exit with 0.
        """
        # A signal may come anywhere, in a lock's middle too: only note it here.
        if self._stop_at is not None:
            self.should_exit = self.force_exit = True
        else:
            self._stop_at = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether to drain, to stop, or to give up on a model that cannot be loaded."""
        if self._stop_at is not None:
            if self.engine.state is not State.DRAINING:
                self.engine.drain()
            self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or self.engine.failure is not None


def main() -> int:
    """Serve until told to stop; return the process's exit code."""
    try:
        settings = load_settings()
        logs.configure(settings.log_level)
        for sentence in unknown_variables():
            logs.LOGGER.warning(sentence)
        server = Server(settings)
        server.run()
        if server.engine.failure is not None:
            raise server.engine.failure
    except EmotionYoloError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
