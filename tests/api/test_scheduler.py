import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from api.metrics import Metrics
from api.problems import Code, Problem
from api.scheduler import Scheduler, Ticket
from tests.api.conftest import Serve, code_of, wait_until

Results = list[Any]


class Bench:
    """A scheduler whose jobs wait until they are let go; notes in which order they began."""

    def __init__(self, *, workers: int = 1, queue: int = 8, deadline_s: float = 30) -> None:
        self.scheduler = Scheduler(Metrics(), workers=workers, queue=queue, deadline_s=deadline_s)
        self.go = threading.Event()
        self.begun: list[str] = []

    def job(self, name: str) -> Callable[[Ticket], str]:
        def work(_: Ticket) -> str:
            self.begun.append(name)
            assert self.go.wait(20)
            return name

        return work

    def ask(self, client: str, *names: str) -> asyncio.Task[Results]:
        """Hand in jobs of a client."""
        return asyncio.ensure_future(self.scheduler.run([self.job(name) for name in names], client=client))

    async def taken(self, count: int) -> None:
        while self.scheduler.taken != count:
            await asyncio.sleep(0.005)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_clients_take_turns_whatever_they_have_waiting() -> None:
    async def main() -> list[str]:
        bench = Bench()
        tasks = [bench.ask("greedy", *"abcd")]
        await bench.taken(4)
        tasks += [bench.ask("modest", "x"), bench.ask("third", "y", "z")]
        await bench.taken(7)
        bench.go.set()
        assert [await task for task in tasks] == [list("abcd"), ["x"], ["y", "z"]]
        return bench.begun

    assert run(main()) == list("abxyczd")


def test_a_full_queue_takes_a_client_with_less_at_the_cost_of_the_one_with_most() -> None:
    async def main() -> None:
        bench = Bench(workers=1, queue=4)
        greedy = [bench.ask("greedy", name) for name in "abcde"]
        await bench.taken(5)
        with pytest.raises(Problem) as refused:
            await bench.ask("greedy", "f")
        assert refused.value.code is Code.OVERLOADED
        modest = bench.ask("modest", "x")
        (pushed_out,) = await greedy[4]  # the last one in
        assert isinstance(pushed_out, Problem)
        assert (pushed_out.code, pushed_out.retry_after_s) == (Code.OVERLOADED, 1)
        with pytest.raises(Problem):  # two and three: the share is equal
            await bench.ask("modest", "y", "z")
        bench.go.set()
        assert await modest == ["x"]
        assert [await task for task in greedy[:4]] == [["a"], ["b"], ["c"], ["d"]]

    run(main())


def test_refuses_at_once_what_would_wait_beyond_its_deadline() -> None:
    async def main() -> None:
        bench = Bench(workers=1, queue=100, deadline_s=0.5)
        bench.go.set()

        def slow(_: Ticket) -> None:
            threading.Event().wait(0.4)

        for _ in range(3):  # it learns how long pictures take
            await bench.scheduler.run([slow])
        bench.go.clear()
        tasks = []
        refused = None
        while refused is None:
            try:
                bench.scheduler.check_room("a")
            except Problem as problem:
                refused = problem
            else:
                tasks.append(bench.ask("a", "picture"))
                await asyncio.sleep(0)
        assert refused.code is Code.OVERLOADED
        assert (refused.retry_after_s or 0) >= 1
        assert 1 <= len(tasks) < 20
        bench.scheduler.check_room("b")  # its turn comes sooner
        bench.go.set()
        await asyncio.gather(*tasks)

    run(main())


def test_an_idle_scheduler_takes_a_picture_however_long_the_last_ones_took() -> None:
    async def main() -> None:
        bench = Bench(workers=1, queue=4, deadline_s=0.02)
        for _ in range(3):
            await bench.scheduler.run([lambda _: threading.Event().wait(0.3)])
            await bench.taken(0)
        bench.go.set()
        bench.scheduler.check_room("a")

    run(main())


def test_each_picture_of_a_batch_has_its_own_end() -> None:
    async def main() -> None:
        bench = Bench(workers=2, queue=8, deadline_s=0.5)

        def quick(_: Ticket) -> str:
            return "quick"

        results = await bench.scheduler.run([quick, bench.job("slow"), quick])
        assert [result if isinstance(result, str) else result.code for result in results] == [
            "quick",
            Code.DEADLINE_EXCEEDED,
            "quick",
        ]
        assert bench.scheduler.taken == 1  # a thread is held until its work ends
        bench.go.set()
        await bench.taken(0)

    run(main())


def test_a_request_that_is_dropped_leaves_the_queue_at_once() -> None:
    async def main() -> None:
        bench = Bench(workers=1, queue=4)
        first = bench.ask("a", "1")
        await bench.taken(1)
        dropped = bench.ask("b", "2", "3")
        await bench.taken(3)
        dropped.cancel()
        await bench.taken(1)
        bench.go.set()
        await first
        assert bench.begun == ["1"]

    run(main())


def test_errors_of_jobs_become_problems() -> None:
    def broken(_: Ticket) -> None:
        raise RuntimeError

    def short_of_memory(_: Ticket) -> None:
        raise MemoryError

    def refused(_: Ticket) -> None:
        raise Problem(Code.UNDECODABLE, "damaged")

    results = run(Bench().scheduler.run([broken, short_of_memory, refused]))
    assert [result.code for result in results] == [Code.INTERNAL_ERROR, Code.OVERLOADED, Code.UNDECODABLE]


def test_no_jobs_no_results() -> None:
    assert run(Bench().scheduler.run([])) == []


def test_a_slow_picture_does_not_spoil_its_batch(serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(workers=2, deadline_s=1)
    parts = client.app.state.parts  # type: ignore[attr-defined]
    detector, first, go = parts.engine.detector, threading.Event(), threading.Event()
    infer = detector.infer

    def held_once(tensor: object) -> object:
        if not first.is_set():
            first.set()
            go.wait(20)
        return infer(tensor)

    monkeypatch.setattr(detector, "infer", held_once)
    answer = client.post("/v1/detect/batch", files=[("files", ("x", photo))] * 2)
    go.set()
    wait_until(lambda: parts.scheduler.taken == 0)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert sorted(entry.get("error", {}).get("code", "") for entry in results) == ["", "deadline_exceeded"]


def test_a_key_that_floods_does_not_lock_out_another(
    serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, modest = "greedy-" * 4, "modest-" * 4
    client = serve(workers=1, queue=2, batch_files=2, api_keys=f"{greedy},{modest}")
    parts = client.app.state.parts  # type: ignore[attr-defined]
    go, answers = threading.Event(), []
    infer = parts.engine.detector.infer
    monkeypatch.setattr(parts.engine.detector, "infer", lambda tensor: go.wait(20) and infer(tensor))

    def ask(key: str) -> None:
        answers.append((key, client.post("/v1/detect", files={"file": photo}, headers={"x-api-key": key})))

    threads = [threading.Thread(target=ask, args=(greedy,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: parts.scheduler.taken == 3)
    threads.append(threading.Thread(target=ask, args=(modest,)))
    threads[-1].start()
    wait_until(lambda: len(answers) == 1)
    assert answers[0][0] == greedy
    assert (answers[0][1].status_code, code_of(answers[0][1])) == (503, "overloaded")
    go.set()
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for key, answer in answers if key == modest] == [200]
