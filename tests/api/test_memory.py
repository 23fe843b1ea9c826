import gc
import os
import platform
import subprocess
import sys
import threading

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.memory import Answer, MemoryBudget
from api.problems import Code, Problem
from benchmarks.attacks import bmp_rle, webp
from tests.api.conftest import Serve, code_of, encoded, painted


def test_a_picture_waits_for_memory_that_another_gives_back() -> None:
    budget = MemoryBudget(100, reserved=60)
    held = budget.hold(80, timeout_s=1)
    timer = threading.Timer(0.05, held.shrink, [10])
    timer.start()
    with budget.hold(60, timeout_s=30):
        assert budget.used == 70
    timer.join()
    held.shrink(0)
    assert budget.used == 0


def test_a_picture_that_finds_no_memory_in_time_is_told_to_try_again() -> None:
    budget = MemoryBudget(100, reserved=60)
    with budget.hold(80, timeout_s=1), pytest.raises(Problem) as raised:
        budget.hold(30, timeout_s=0.01)
    assert (raised.value.code, raised.value.retry_after_s) == (Code.OVERLOADED, 2)
    assert budget.used == 0


def test_answers_leave_room_for_pictures() -> None:
    budget = MemoryBudget(100, reserved=60)
    with budget.hold(50, timeout_s=1) as held:
        answer = held.answer(memoryview(bytes(30)))
    assert budget.used == 30
    with budget.hold(50, timeout_s=1) as held, pytest.raises(Problem) as raised:
        held.answer(memoryview(bytes(20)))
    assert raised.value.code is Code.OVERLOADED
    answer.release()
    answer.release()
    assert budget.used == 0


def test_the_memory_of_a_forgotten_answer_is_given_back() -> None:
    budget = MemoryBudget(100, reserved=60)
    answer: Answer | None = budget.hold(30, timeout_s=1).answer(memoryview(bytes(30)))
    assert answer is not None
    answer = None
    gc.collect()
    assert budget.used == 0


def test_nothing_is_held_after_the_answers(serve: Serve) -> None:
    client = serve()
    budget = client.app.state.parts.engine.pictures.budget
    for path, data in (
        ("/v1/detect", encoded(painted())),
        ("/v1/annotate", encoded(painted())),
        ("/v1/annotate", b"no picture"),
        ("/v1/detect", webp(5_000, 5_000)),
    ):
        client.post(path, files={"file": data})
        assert budget.used == 0


def test_a_batch_of_tiny_files_that_decode_to_much_is_refused_file_by_file(serve: Serve) -> None:
    client = serve()
    files = [("files", webp(5_000, 5_000))] * 15 + [("files", encoded(painted(), "JPEG"))]
    results = client.post("/v1/detect/batch", files=files).json()["results"]
    assert [entry["error"]["code"] for entry in results[:-1]] == ["too_many_pixels"] * 15
    assert len(results[-1]["result"]["detections"]) == 2


def test_a_picture_that_takes_too_long_to_decode_is_refused_and_the_next_is_answered(serve: Serve) -> None:
    client = serve(decode_s=0.02)
    answer = client.post("/v1/detect", files={"file": webp(4_000, 4_000)})
    assert (answer.status_code, code_of(answer)) == (422, "decode_timeout")
    assert client.post("/v1/detect", files={"file": bmp_rle(16, 16)}).status_code == 200


def test_drawing_needs_memory_for_the_answer_too(serve: Serve) -> None:
    client = serve(memory_bytes=8_000_000)
    photo = encoded(painted(), "JPEG")
    refused = client.post("/v1/annotate", files={"file": photo}, headers={"accept": "image/png"})
    assert (refused.status_code, code_of(refused)) == (413, "too_many_pixels")
    assert client.post("/v1/annotate", files={"file": photo}, headers={"accept": "image/jpeg"}).status_code == 200


def test_the_settings_limit_of_pixels_holds_and_not_pillows(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert serve().post("/v1/detect", files={"file": encoded(painted(), "PNG")}).status_code == 200


def test_a_drawn_picture_shows_what_detect_finds_in_a_large_one(client: TestClient) -> None:
    photo = encoded(painted(), "JPEG", quality=95)
    found = client.post("/v1/detect", files={"file": photo}).json()
    drawn = client.post("/v1/annotate", files={"file": photo}, headers={"accept": "image/png"})
    assert drawn.headers["content-length"] == str(len(drawn.content))
    assert len(found["detections"]) == 2


_HEAPS = """
import ctypes, threading
from api.memory import share_heaps
share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(16)
def allocate():
    together.wait()
    for _ in range(1000):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these are glibc's heaps")
def test_threads_share_few_heaps() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run([sys.executable, "-c", _HEAPS], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.count("<heap nr=") == 2
