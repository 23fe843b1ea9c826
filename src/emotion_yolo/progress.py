"""Progress of long-running work: a bar on a terminal, a line per quarter in a log.

Stages run under DVC and in the background: their log stays short, and still shows progress.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm


def say(stage: str, text: str) -> None:
    """Print a line about a stage on stderr, at once: its start, a step of it, its summary or a warning."""
    print(f"{stage}: {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return a duration for people: `14 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Bar(Protocol):
    """One running task; a context manager."""

    def update(self, n: float | None = 1, /) -> object:
        """Count `n` further units as done."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class Progress(Protocol):
    """Begin a task of `total` units (None: unknown), `initial` of which are done already."""

    def __call__(self, title: str, *, total: int | None, unit: str, initial: int = 0) -> Bar:
        """Return the bar of the task."""


def show_progress(title: str, *, total: int | None, unit: str, initial: int = 0) -> Bar:
    """Report a task's progress on stderr; `unit` is "B" for bytes, or what is counted."""
    if not sys.stderr.isatty():
        return _Lines(title, total=total, unit=unit, initial=initial)
    bar: Bar = tqdm(desc=title, total=total, initial=initial, unit=unit, unit_scale=unit == "B", unit_divisor=1024)
    return bar


@contextmanager
def counting(title: str, *, unit: str = "pictures") -> Iterator[Callable[[int, int], None]]:
    """Yield a function to be called with (done, total), for work that knows its total only once it has begun."""
    with ExitStack() as stack:
        bar: Bar | None = None
        before = 0

        def show(done: int, total: int) -> None:
            nonlocal bar, before
            if bar is None:
                bar = stack.enter_context(show_progress(title, total=total, unit=unit))
            bar.update(done - before)
            before = done

        yield show


class _Lines:
    """The bar of a log: a line whenever another quarter is done, none where the total is unknown."""

    def __init__(self, title: str, *, total: int | None, unit: str, initial: int) -> None:
        self._title, self._total, self._unit, self._done = title, total, unit, initial

    def update(self, n: float | None = 1, /) -> None:
        before, self._done = self._done, self._done + int(n or 0)
        if self._total and self._done * 4 // self._total > before * 4 // self._total:
            print(f"{self._title}: {self._text(self._done)} of {self._text(self._total)}", file=sys.stderr, flush=True)

    def _text(self, count: int) -> str:
        return f"{count / 2**20:,.1f} MiB" if self._unit == "B" else f"{count:,}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        return None
