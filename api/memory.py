"""The memory budget of pictures and drawn answers, shared by all requests; and its return to the system."""

import ctypes
import gc
import sys
import threading
import weakref
from types import TracebackType
from typing import Self

from .problems import Code, Problem

_WAIT_S = 2.0
# glibc (malloc.h): larger blocks than the threshold are returned to the system as soon as they are freed. Setting it
# keeps glibc from raising it to the size of the pictures it has seen.
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD = 4_000_000
# By default up to eight heaps a core, each of which keeps what its threads have freed; with two, answers are as fast.
_M_ARENA_MAX = -8
_ARENAS = 2


class MemoryBudget:
    """Counts bytes of decoded pictures and encoded answers against `limit`.

    A request for more than is left waits up to two seconds. Answers on their way to clients leave `reserved` bytes
    to pictures, so that clients that do not read cannot keep others from being served.
    """

    def __init__(self, limit: int, *, reserved: int) -> None:
        self._limit, self._reserved = limit, reserved
        self._pictures = self._answers = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Return the bytes that are held now."""
        return self._pictures + self._answers

    def hold(self, count: int, *, timeout_s: float) -> "Hold":
        """Take `count` bytes for a picture.

        Raises:
            Problem: no room became free in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.used + count <= self._limit, min(timeout_s, _WAIT_S)):
                raise _full()
            self._pictures += count
        return Hold(self, count)

    def _resize(self, change: int) -> None:
        with self._changed:
            self._pictures += change
            self._changed.notify_all()

    def _move_to_answers(self, picture: int, answer: int) -> None:
        with self._changed:
            if self._answers + answer > self._limit - self._reserved:
                raise _full()
            self._pictures -= picture
            self._answers += answer
            self._changed.notify_all()

    def _release_answer(self, count: int) -> None:
        with self._changed:
            self._answers -= count
            self._changed.notify_all()


def _full() -> Problem:
    message = "the server's memory for pictures is full; try again"
    return Problem(Code.OVERLOADED, message, retry_after_s=2)


class Hold:
    """Bytes taken from a `MemoryBudget` for a picture, until the end of its `with` block."""

    def __init__(self, budget: MemoryBudget, count: int) -> None:
        self._budget, self._count = budget, count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shrink(0)

    def shrink(self, count: int) -> None:
        """Keep `count` of the bytes only."""
        if count < self._count:
            self._budget._resize(count - self._count)
            self._count = count

    def answer(self, data: memoryview) -> "Answer":
        """Turn the bytes held into those of an encoded answer.

        Raises:
            Problem: too many answers wait for their clients.
        """
        self._budget._move_to_answers(self._count, len(data))
        self._count = 0
        return Answer(data, self._budget)


class Answer:
    """An encoded answer; its bytes count until it is released or forgotten."""

    def __init__(self, data: memoryview, budget: MemoryBudget) -> None:
        self.data = data
        # A finalizer: the answer to a client that has left is dropped wherever it is.
        self.release = weakref.finalize(self, budget._release_answer, len(data))


def share_heaps() -> None:
    """Make glibc serve all threads that start from now on from two heaps."""
    if libc := _glibc():
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def return_freed_memory() -> None:
    """Make glibc return freed memory to the system from now on, including what it holds now."""
    gc.collect()
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None
