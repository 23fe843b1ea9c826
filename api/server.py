"""The server process: uvicorn that drains, disconnects idle and slow clients, and ends in time."""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from emotion_yolo.errors import EmotionYoloError, SettingsError

from . import logs
from .engine import State
from .main import create_app
from .memory import share_heaps
from .problems import Problem
from .protocol import ConnectionLimits, GuardedProtocol
from .settings import PREFIX, Settings, load_settings, unknown_variables
from .websocket import GuardedWebSocket

if sys.platform != "win32":
    import resource

FORCED_EXIT_CODE = 1
_HAS_SIGHUP = hasattr(signal, "SIGHUP")  # Windows has none
# Of `shutdown_s`, what is left for ending the process after the requests in flight have been cut.
_LAST_S = 0.5
_BACKLOG = 2048
_OPENED_LATER = 8


class Server(uvicorn.Server):
    """uvicorn's server; on SIGTERM or Ctrl-C it turns unready, waits `drain_s`, ends what is in flight, and exits 0."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self.engine = self.app.state.parts.engine
        self._settings = settings
        self._stop_at: float | None = None
        self._told_again = False
        self._reload_wanted = False
        self._reload: asyncio.Task[None] | None = None
        self._accepts, connections = _room_for_connections(settings.connections)
        limits = ConnectionLimits(
            connections,
            settings.head_s,
            read_s=settings.stall_s,
            read_grace_s=settings.upload_s,
            by_address=not settings.trusted_proxies,
        )
        options: dict[str, Any] = {"forwarded_allow_ips": settings.trusted_proxies} if settings.trusted_proxies else {}
        super().__init__(
            uvicorn.Config(
                self.app,
                host=settings.host,
                port=settings.port,
                loop="asyncio",
                http=type("Protocol", (GuardedProtocol,), {"limits": limits}),
                ws=type("WebSocket", (GuardedWebSocket,), {"limits": limits}),
                ws_per_message_deflate=False,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                backlog=self._accepts,
                timeout_graceful_shutdown=max(settings.shutdown_s - _LAST_S, settings.shutdown_s / 2),  # type: ignore[arg-type]
                **options,
            )
        )

    def run(self, sockets: Any = None) -> None:
        """Serve until told to stop."""
        self._ended = threading.Event()
        threading.Thread(target=self._end_in_time, name="end", daemon=True).start()
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGHUP, self.handle_reload) if _HAS_SIGHUP and in_main_thread else None
        try:
            super().run(sockets)
        finally:
            if before is not None:
                signal.signal(signal.SIGHUP, before)
            self._ended.set()

    async def startup(self, sockets: Any = None) -> None:
        """Open the port.

        Raises:
            SettingsError: it cannot be opened.
        """
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn has logged why
            host, port = self._settings.host, self._settings.port
            raise SettingsError(f"cannot listen on {host} port {port}; choose another with {PREFIX}PORT") from None
        # asyncio accepts as many connections in a row as may wait in the kernel. Only the former have to be few.
        for server in self.servers:
            for listener in server.sockets:
                with listener.dup() as duplicate:
                    duplicate.listen(_BACKLOG)

    def handle_reload(self, _sig: int, _frame: FrameType | None) -> None:
        """Reload the model, on SIGHUP."""
        self._reload_wanted = True

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """Drain on the first signal; on a second one, end at once.

        uvicorn's own keeps the signal and raises it again at the end, so that the process would not exit with 0.
        """
        # A signal may come anywhere, in a lock's middle too: only note it here.
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._settings.drain_s
        else:
            self._told_again = True

    async def on_tick(self, counter: int) -> bool:
        """Check ten times a second which clients to disconnect, and whether to drain or to stop."""
        now = asyncio.get_running_loop().time()
        for connection in tuple(self.server_state.connections):
            connection.watch(now)  # type: ignore[union-attr]
        if self._reload_wanted and self.engine.state is State.READY and not self._reloading():
            self._reload_wanted = False
            self._reload = asyncio.create_task(asyncio.to_thread(self._try_reload))
        if self._stop_at is not None:
            if self.engine.state is not State.DRAINING:
                self.engine.drain()
            self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or self.engine.failure is not None

    def _reloading(self) -> bool:
        return self._reload is not None and not self._reload.done()

    def _try_reload(self) -> None:
        with suppress(Problem):  # the log has it
            self.engine.reload()

    def _end_in_time(self) -> None:
        """End the process if it was told to stop and has not, whatever its other threads do."""
        while not self._ended.wait(0.02 if self._stop_at else 0.1):
            if self._stop_at is None:
                continue
            if self._told_again or time.monotonic() >= self._stop_at + self._settings.shutdown_s:
                why = "a second signal came" if self._told_again else "what was in flight did not end in time"
                logs.LOGGER.error("ending at once", extra={"fields": {"why": why, "exit_code": FORCED_EXIT_CODE}})
                logs.flush(0.2)
                os._exit(FORCED_EXIT_CODE)


def _room_for_connections(wanted: int) -> tuple[int, int]:
    """Return how many connections may be accepted at once, and held, within the limit of file descriptors.

    Raises:
        SettingsError: there are too few descriptors to serve at all.
    """
    if sys.platform == "win32":
        return 64, wanted
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    free = 2**20 if limit == resource.RLIM_INFINITY else limit - _OPENED_LATER - _open_descriptors()
    # A connection that is closed to make room for another gives its descriptor back a few rounds of accepting later.
    accepts = min(max(free // 16, 1), 64)
    room = free - 4 * accepts
    if room < 1:
        raise SettingsError(f"at most {limit} files may be open, which leaves none for connections; raise `ulimit -n`")
    if room < wanted:
        fields = {"connections": room, "open_files": limit}
        logs.LOGGER.warning("fewer connections than EMOTION_CONNECTIONS: too few open files", extra={"fields": fields})
    return accepts, min(wanted, room)


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 16


def argument_parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser with an option for each setting, but for keys: other users see the command lines of processes."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s [--setting VALUE ...]",
        description="Serve the model over HTTP. Each option can be given as an environment variable instead.",
        epilog=f"API keys, by commas, are given in {PREFIX}API_KEYS only, or in a file.",
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        if name == "api_keys":
            continue
        default = field.get_default()
        note = f"{PREFIX}{name.upper()}" + (f", default {default}" if default not in {None, "", ()} else "")
        text = f"{field.description} [{note}]".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m api") -> int:
    """Serve until told to stop; return the process's exit code."""
    parsed = vars(argument_parser(prog).parse_args(arguments))
    given = {name: value for name, value in parsed.items() if value is not None}  # they win over variables
    share_heaps()
    with logs.json_lines():
        try:
            settings = load_settings(given)
            logs.set_level(settings.log_level)
            for sentence in unknown_variables():
                logs.LOGGER.warning(sentence)
            server = Server(settings)
            server.run()
            if server.engine.failure is not None:
                raise server.engine.failure
        except EmotionYoloError as error:
            logs.LOGGER.error("cannot serve", extra={"fields": {"error": str(error), "exit_code": error.exit_code}})
            return error.exit_code
    return 0
