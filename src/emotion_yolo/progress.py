"""How long-running work tells a person how far it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm


class Bar(Protocol):
    """One running task; a context manager."""

    def update(self, n: float | None = 1, /) -> object:
        """Count `n` further units as done."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


class Progress(Protocol):
    """Begin a task of `total` units (None: unknown), `initial` of which are done already."""

    def __call__(self, title: str, *, total: int | None, unit: str, initial: int = 0) -> Bar:
        """Return the bar of the task."""


def terminal_progress(title: str, *, total: int | None, unit: str, initial: int = 0) -> Bar:
    """Draw a bar on stderr, or nothing where stderr is no terminal."""
    bar: Bar = tqdm(
        desc=title, total=total, initial=initial, unit=unit, unit_scale=unit == "B", unit_divisor=1024, disable=None
    )
    return bar


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to be called with (done, total); where there is no terminal it prints a line a quarter.

    Stages run under DVC and in the background: a log stays short this way, and still shows that there is life.
    """
    if sys.stderr.isatty():
        with tqdm(desc=title) as shown:

            def show(done: int, total: int) -> None:
                shown.total = total
                shown.update(done - shown.n)

            yield show
        return

    def say(done: int, total: int) -> None:
        if done * 4 // total > (done - 1) * 4 // total:
            print(f"{title}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    yield say
