"""Logs: one JSON object a line on stdout, with what is passed as `extra={"fields": {...}}`; never a picture.

A separate thread writes them from a bounded queue: if the reader of stdout stops, lines are dropped and counted, and
the service continues.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from types import TracebackType

LOGGER = logging.getLogger("emotion_yolo.api")

_CAPACITY = 10_000
_MAX_EVENT = 2_000  # characters of a message; clients and libraries can make them long
_FLUSH_S = 1.0


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        members = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:_MAX_EVENT],
            **({} if record.name.startswith((LOGGER.name, "uvicorn")) else {"logger": record.name}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, ensure_ascii=False, default=str)


class LineWriter(QueueHandler):
    """Hands formatted lines to a thread that writes them to a file descriptor; drops them when it cannot keep up."""

    dropped = 0

    def __init__(self, descriptor: int, *, capacity: int = _CAPACITY) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue(capacity)
        super().__init__(self._lines)
        self.setFormatter(JsonFormatter())
        self._descriptor = descriptor
        self._reported = 0
        # A daemon: the process must be able to end while a write to a full pipe blocks.
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> bytes:
        """Return the record's line."""
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def enqueue(self, record: bytes) -> None:  # type: ignore[override]
        """Queue a line, or drop and count it."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def stop(self, seconds: float = _FLUSH_S) -> None:
        """Flush the queue within a few seconds, as far as possible."""
        end = time.monotonic() + seconds
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(max(end - time.monotonic(), 0))

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if self.dropped > self._reported:
                count, self._reported = self.dropped - self._reported, self.dropped
                fields = {"dropped": count}
                line += self.prepare(_record("log lines were dropped: their reader is too slow", fields))
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:  # its reader is gone
                self.dropped += 1


@contextmanager
def json_lines(level: str = "info") -> Iterator[LineWriter]:
    """Redirect all logs, warnings and stderr output of this process to stdout, as JSON."""
    writer = LineWriter(1)
    root = logging.getLogger()
    before = root.handlers, root.level
    root.handlers = [writer]
    set_level(level)
    logging.captureWarnings(True)
    excepthooks = sys.excepthook, threading.excepthook
    sys.excepthook = _log_exception
    threading.excepthook = lambda hooked: _log_exception(hooked.exc_type, hooked.exc_value, hooked.exc_traceback)
    try:
        with _captured_stderr():
            yield writer
    finally:
        sys.excepthook, threading.excepthook = excepthooks
        logging.captureWarnings(False)
        root.handlers, root.level = before
        writer.stop()


def flush(seconds: float) -> None:
    """Flush the queue within a few seconds, as far as possible; the last thing a process does."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineWriter):
            handler.stop(seconds)


def dropped() -> int:
    """Return how many lines were dropped."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, LineWriter))


def set_level(level: str) -> None:
    """Set the minimum log level."""
    logging.getLogger().setLevel("WARNING")  # of other libraries: only what may need attention
    for name in (LOGGER.name, "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())


@contextmanager
def _captured_stderr() -> Iterator[None]:
    """Log each line written to file descriptor 2, the only place libjpeg, libtiff and the like report to."""
    sys.stderr.flush()
    saved = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def read() -> None:
        with open(reading, errors="backslashreplace") as lines:
            while line := lines.readline(_MAX_EVENT):
                if line.strip():
                    LOGGER.warning("stderr: %s", line.rstrip())

    thread = threading.Thread(target=read, name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)  # closes the pipe's last end for writing, unless a child process holds one
        os.close(saved)
        thread.join(_FLUSH_S)


def _record(event: str, fields: Mapping[str, object]) -> logging.LogRecord:
    record = logging.LogRecord(LOGGER.name, logging.WARNING, __file__, 0, event, None, None)
    record.fields = fields
    return record


def _log_exception(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    LOGGER.critical("unexpected error", exc_info=(kind, error, traceback) if error else None)
