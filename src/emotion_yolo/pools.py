"""Work on many files in several processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from emotion_yolo.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")

_PAYS_FROM = 300  # jobs; below, starting processes takes longer than the work
_CHUNK = 32  # jobs handed to a process at a time


def map_in_processes(function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int) -> Iterator[Result]:
    """Yield `function` of every job, in order; in `workers` processes (0: one a core) where that pays.

    Raises:
        DataError: a process was killed.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(jobs) < _PAYS_FROM:
        yield from map(function, jobs)
        return
    # Spawned, not forked: the parent may hold threads (OpenVINO, OpenCV) whose locks a fork would copy locked.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, jobs, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise DataError(
                "a process that works on pictures was killed, most likely out of memory; "
                "set prepare.workers to 1, or free memory"
            ) from error
