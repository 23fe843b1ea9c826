"""Writes the records of the service's threads in a separate thread; records that cannot be written are counted."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from emotion_yolo.prediction_log.rows import Record
from emotion_yolo.prediction_log.store import LogLimits, Store

_LOGGER = logging.getLogger("emotion_yolo.api")  # in the service's own log
_BATCH = 500
_WAIT_S = 0.25  # from the first record of a batch until it is written, however fast others follow
_IDLE_S = 1.0  # without records until limits and closing are looked at
_UPKEEP_S = 30.0
_REPORT_S = 60.0
_REASONS = {
    ("SQLITE_BUSY", "SQLITE_LOCKED"): "locked",
    ("SQLITE_CORRUPT", "SQLITE_NOTADB"): "corrupt",
    ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"): "disk",
}

LOST = ("queue", "disk", "locked", "corrupt", "closing", "error")
"""Why records are lost: the writer is too slow, the disk is full or cannot be written, and so on."""


class PredictionLog:
    """The log of one service. `put` never waits and never raises."""

    def __init__(
        self,
        store: Store,
        limits: LogLimits,
        *,
        on_written: Callable[[int], None],
        on_lost: Callable[[str, int], None],
        on_size: Callable[[int], None],
        capacity: int = 2_000,
    ) -> None:
        """Start the writer. The functions get the records written, those lost and why, and the bytes of the log."""
        self._store = store
        self._upkeep_rows = max(min(limits.rows // 20, 1_000), 1)
        self._on_written, self._on_lost, self._on_size = on_written, on_lost, on_size
        self._queue: queue.Queue[Record] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._upkeep_at = 0.0
        self._since_upkeep = 0
        self._reported_at = 0.0
        # A daemon: the process must be able to end while a disk does not answer.
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> bool:
        """Hand a record to the writer; returns False, and counts it, if there is no room for it."""
        if self._closing.is_set():
            self._on_lost("closing", 1)
            return False
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._on_lost("queue", 1)
            return False
        return True

    def close(self, seconds: float = 2.0) -> None:
        """Flush the queue within a few seconds, as far as possible."""
        self._closing.set()
        self._thread.join(seconds)
        if left := self._queue.qsize():
            self._on_lost("closing", left)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._write(batch)
            now = time.monotonic()
            if now >= self._upkeep_at or self._since_upkeep >= self._upkeep_rows:
                self._upkeep_at, self._since_upkeep = now + _UPKEEP_S, 0
                self._keep_limits()
                self._on_size(self._store.size())
        self._store.close()

    def _next_batch(self) -> list[Record] | None:
        """Return up to 500 records, none if there are none yet, or None at the end."""
        batch: list[Record] = []
        due = time.monotonic() + _IDLE_S
        while len(batch) < _BATCH:
            closing = self._closing.is_set()
            try:
                batch.append(self._queue.get(timeout=0 if closing else max(due - time.monotonic(), 0)))
            except queue.Empty:
                return None if closing and not batch else batch
            if len(batch) == 1:
                due = time.monotonic() + _WAIT_S
        return batch

    def _write(self, batch: list[Record]) -> None:
        reason = self._attempt(lambda: self._store.append(batch))
        if reason is None:
            self._since_upkeep += len(batch)
            self._on_written(len(batch))
            return
        self._on_lost(reason, len(batch))
        if reason == "corrupt":
            self._attempt(self._store.set_aside)
        elif reason == "disk":  # perhaps only full by its own limits
            self._keep_limits()

    def _keep_limits(self) -> None:
        if self._attempt(self._store.keep_limits) == "corrupt":
            self._attempt(self._store.set_aside)

    def _attempt(self, action: Callable[[], None]) -> str | None:
        """Run an action on the store; returns why it failed."""
        try:
            action()
        except Exception as error:  # the thread survives any error
            reason = _reason(error)
            if reason != "locked":
                self._store.close()
            now = time.monotonic()
            if now >= self._reported_at:
                self._reported_at = now + _REPORT_S
                fields = {"reason": reason, "error": f"{type(error).__name__}: {error}"[:300]}
                _LOGGER.warning("the prediction log cannot be written; its rows are lost", extra={"fields": fields})
            return reason
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return "disk"
    name = getattr(error, "sqlite_errorname", "")
    return next((reason for starts, reason in _REASONS.items() if name.startswith(starts)), "error")
