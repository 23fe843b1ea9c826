"""The engine of one machine: worker processes that take a shard at a time."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process

from emotion_yolo.errors import SourceError
from emotion_yolo.scoring.shards import Done, Job, Scorer

_scorer: Scorer | None = None  # of a worker process


def score_here(job: Job, shards: Iterable[int], *, workers: int) -> Iterator[Done]:
    """Yield each shard as it is committed, in any order.

    Raises:
        SourceError: a store that does not answer, or a worker that was killed.
        StorageError: a shard that cannot be written.
        ModelError: the model cannot be loaded.
    """
    if workers == 1:
        with Scorer(job) as scorer:
            yield from map(scorer, shards)
        return
    # Spawned, not forked: the parent may hold threads (fsspec, Arrow) whose locks a fork would copy locked.
    others = active_children()
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (job,)) as pool:
        running: set[Future[Done]] = set()
        try:
            for shard in shards:
                running.add(pool.submit(_score, shard))
                if len(running) > workers:  # one waits for whichever worker is done first
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException as error:
            for process in set(active_children()) - set(others):
                process.terminate()  # at once, and not when its shard is done
            if isinstance(error, BrokenProcessPool):
                message = "a worker was killed, most likely for want of memory"
                raise SourceError(f"{message}; repeat the command, with fewer --workers") from error
            raise


def _begin(job: Job) -> None:
    global _scorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the command decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _scorer = Scorer(job)


def _end_with_parent() -> None:
    """End when the command has been killed: a pool's workers would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(shard: int) -> Done:
    assert _scorer is not None
    return _scorer(shard)
