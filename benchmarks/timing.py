"""How long a call takes: the one way in which the benchmarks of single functions time them."""

import statistics
import time
from collections.abc import Callable


def median_ms(function: Callable[[], object], *, count: int = 60, warm_up: int = 5) -> float:
    """Return the median of `count` calls in milliseconds, after `warm_up` calls that do not count."""
    for _ in range(warm_up):
        function()
    timings = []
    for _ in range(count):
        started = time.perf_counter()
        function()
        timings.append(time.perf_counter() - started)
    return statistics.median(timings) * 1000
