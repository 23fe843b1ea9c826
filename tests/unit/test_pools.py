import os
import signal

import pytest

from emotion_yolo.errors import DataError
from emotion_yolo.pools import map_in_processes

MANY = range(400)
"""Jobs for which processes are started."""


def process_and_square(job: int) -> tuple[int, int]:
    return os.getpid(), job * job


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    results = [square for _, square in map_in_processes(process_and_square, MANY, workers=workers)]
    assert results == [job * job for job in MANY]


def test_many_jobs_are_shared_by_processes_and_few_are_not() -> None:
    assert os.getpid() not in {process for process, _ in map_in_processes(process_and_square, MANY, workers=2)}
    assert {process for process, _ in map_in_processes(process_and_square, range(10), workers=2)} == {os.getpid()}


def test_without_a_number_there_is_a_process_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert {process for process, _ in map_in_processes(process_and_square, MANY, workers=0)} == {os.getpid()}


def be_killed(_job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_says_what_to_do_when_a_process_is_killed() -> None:
    with pytest.raises(DataError, match=r"killed.*set prepare\.workers to 1"):
        list(map_in_processes(be_killed, MANY, workers=2))
