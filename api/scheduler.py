"""The order in which pictures are processed: a bounded queue, in which clients take turns, in front of a few threads.

run(jobs) ── room and time left? ──▶ one queue a client ── in turn ──▶ worker ──▶ result
               └ no: 503 at once                            └ still wanted? still in time?
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from .logs import LOGGER
from .metrics import Metrics
from .problems import Code, Problem

T = TypeVar("T")
Job = Callable[["Ticket"], T]


class Ticket:
    """A request's time: it ends at the deadline, or when the client leaves."""

    def __init__(self, seconds: float, *, client: str = "unknown", request_id: str | None = None) -> None:
        self.handed_in = time.perf_counter()
        self.client = client
        self.request_id = request_id
        self._deadline = self.handed_in + seconds
        self._abandoned = False

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the deadline, at least 0."""
        return max(self._deadline - time.perf_counter(), 0.0)

    def abandon(self) -> None:
        """Stop the work at the next phase."""
        self._abandoned = True

    def check(self) -> None:
        """Return if the result is still wanted.

        Raises:
            Problem: it is not.
        """
        if self._abandoned:
            raise Problem(Code.CLIENT_GONE, "the request is over")
        if not self.seconds_left:
            raise _deadline_exceeded()


class _Task(Generic[T]):
    def __init__(self, job: Job[T], ticket: Ticket) -> None:
        self.job, self.ticket = job, ticket
        self.result: Future[T | Problem] = Future()


class Scheduler:
    """Runs the jobs of requests in a bounded number of threads, one client after the other."""

    def __init__(self, metrics: Metrics, *, workers: int, queue: int, deadline_s: float) -> None:
        self.workers = workers
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._seats = workers + queue
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[_Task[Any]]] = OrderedDict()  # by client; the first is served next
        self._running = 0
        self._job_s = 0.05  # moving average

    @property
    def taken(self) -> int:
        """Return the number of pictures that wait or are worked on."""
        with self._lock:
            return self._taken()

    def check_room(self, client: str, count: int = 1) -> None:
        """Return if `count` pictures of a client could be taken now; called before a body is read.

        Raises:
            Problem: the queue is full, or so long that the deadline would pass.
        """
        with self._lock:
            self._check_time(client, count)
            self._tasks_to_push_out(client, count)

    async def run(
        self, jobs: Sequence[Job[T]], *, client: str = "unknown", request_id: str | None = None
    ) -> list[T | Problem]:
        """Run the jobs of one request; one result or refusal each, in order. Each has until the deadline.

        Raises:
            Problem: there is no room for all of them.
        """
        ticket = Ticket(self._deadline_s, client=client, request_id=request_id)
        tasks = [_Task(job, ticket) for job in jobs]
        with self._lock:
            self._check_time(client, len(tasks))
            pushed_out = self._tasks_to_push_out(client, len(tasks))
            for task in pushed_out:
                self._waiting[task.ticket.client].remove(task)
            self._waiting.setdefault(client, deque()).extend(tasks)
            self._update_gauges()
        for task in pushed_out:
            task.result.set_result(Problem(Code.OVERLOADED, "the queue is full; try again", retry_after_s=1))
        for _ in tasks:
            self._pool.submit(self._work)
        futures = [asyncio.wrap_future(task.result) for task in tasks]
        try:
            if futures:
                await asyncio.wait(futures, timeout=ticket.seconds_left)
            return [future.result() if future.done() else _deadline_exceeded() for future in futures]
        finally:
            ticket.abandon()
            with self._lock:
                if queue := self._waiting.get(client):
                    self._waiting[client] = deque(task for task in queue if task.ticket is not ticket)
                self._update_gauges()
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Wait for the work in flight and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _taken(self) -> int:
        return self._running + sum(len(queue) for queue in self._waiting.values())

    def _work(self) -> None:
        with self._lock:
            task = self._next()
            if task is None or not task.result.set_running_or_notify_cancel():
                return
            self._running += 1
            self._update_gauges()
        begin = time.perf_counter()
        self._metrics.phase_seconds.labels("queue").observe(begin - task.ticket.handed_in)
        begun = False
        try:
            task.ticket.check()
            begun = True
            result = task.job(task.ticket)
        except Problem as problem:
            result = problem
        except MemoryError:
            result = Problem(Code.OVERLOADED, "the server is short of memory; try again", retry_after_s=1)
        except Exception:
            fields = {"request_id": task.ticket.request_id}
            LOGGER.exception("unexpected error with a picture", extra={"fields": fields})
            result = Problem(Code.INTERNAL_ERROR, "an error of this server; its log has it under this request id")
        with self._lock:
            self._running -= 1
            if begun:
                self._job_s += 0.1 * (time.perf_counter() - begin - self._job_s)
            self._update_gauges()
        task.result.set_result(result)

    def _next(self) -> _Task[Any] | None:
        """Take the first task of the client whose turn it is; that client then goes to the end of the line."""
        while self._waiting:
            client, queue = self._waiting.popitem(last=False)
            if queue:
                task = queue.popleft()
                if queue:
                    self._waiting[client] = queue
                return task
        return None

    def _check_time(self, client: str, count: int) -> None:
        """Raise if `count` more tasks of a client would wait beyond their deadline, as far as one can tell."""
        mine = len(self._waiting.get(client, ()))
        others = (len(queue) for name, queue in self._waiting.items() if name != client)
        before = self._running + mine + sum(min(length, mine + count) for length in others)
        if before * self._job_s / self.workers > self._deadline_s:
            self._refuse_for_now()

    def _tasks_to_push_out(self, client: str, count: int) -> list[_Task[Any]]:
        """Return the waiting tasks to refuse for `count` of a client, from the clients with the most waiting.

        Raises:
            Problem: the client would then have more than the others.
        """
        lengths = {name: len(queue) for name, queue in self._waiting.items() if queue}
        missing = self._running + sum(lengths.values()) + count - self._seats
        mine = lengths.get(client, 0) + count
        pushed_out = []
        for _ in range(missing):
            longest = max(lengths, key=lambda name: lengths[name], default=client)
            if longest == client or lengths[longest] <= mine:
                self._refuse_for_now()
            lengths[longest] -= 1
            pushed_out.append(self._waiting[longest][lengths[longest]])
        return pushed_out

    def _refuse_for_now(self) -> None:
        wait_s = min(max(math.ceil(self._taken() * self._job_s / self.workers), 1), 60)
        raise Problem(Code.OVERLOADED, "the queue is full; try again", retry_after_s=wait_s)

    def _update_gauges(self) -> None:
        self._metrics.waiting.set(sum(len(queue) for queue in self._waiting.values()))
        self._metrics.running.set(self._running)


def _deadline_exceeded() -> Problem:
    return Problem(Code.DEADLINE_EXCEEDED, "no answer in time; the server is busy, try again", retry_after_s=2)
