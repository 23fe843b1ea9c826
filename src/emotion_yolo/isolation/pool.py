"""Decoding in processes that can be stopped: a limit on CPU time and memory for pictures that inspection cannot bound.

Each seat is a process (`worker.py`) that has imported the decoders and, where the system has `fork`, decodes each
picture in a separate child: the system ends a child that overruns, and reclaims all of its memory.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np

from emotion_yolo.imaging.decoding import decode_plan
from emotion_yolo.imaging.plans import ImageLimits, Picture, Plan, check_size
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, out_of_memory, undecodable

HEAD = struct.Struct("<Q")
"""Length of the JSON head of an answer, or of a pickled job."""

# Where the system has no timer of CPU time (Windows), the clock decides; other work may slow a decoder down.
_HAS_CPU_TIMER = hasattr(signal, "setitimer")
_CLOCK_PER_CPU = 4.0


@dataclass(frozen=True)
class Job:
    """A job of a decoder process."""

    plan: Plan
    limits: ImageLimits
    cpu_s: float


class DecoderPool:
    """Decodes plans: in this process where inspection bounds the work, else in one of `seats` processes.

    Processes start when they are first needed. A picture that takes more than `cpu_s` seconds of CPU time is refused;
    its seat is free at once.
    """

    def __init__(self, limits: ImageLimits, *, seats: int, cpu_s: float) -> None:
        self._limits = limits
        self._cpu_s = cpu_s
        self._seats: queue.LifoQueue[_Seat] = queue.LifoQueue()
        self._all = [_Seat() for _ in range(seats)]
        for seat in self._all:
            self._seats.put(seat)
        self._closed = False

    def decode(self, plan: Plan, *, timeout_s: float) -> Picture:
        """Decode an inspected picture; `timeout_s` bounds the wait for a seat and the decoding.

        Raises:
            RefusedImageError: damaged, it took too long, or there is no memory.
            TimeoutError: `timeout_s` passed, which says nothing of the picture; or the pool is closed.
        """
        if not plan.isolated:
            return decode_plan(plan, self._limits)
        end = time.monotonic() + timeout_s
        try:
            seat = self._seats.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            raise TimeoutError("no decoder process was free in time") from None
        try:
            if self._closed:
                raise TimeoutError("the decoders are closed")
            return seat.decode(Job(plan, self._limits, self._cpu_s), timeout_s=end - time.monotonic())
        finally:
            self._seats.put(seat)

    @property
    def processes(self) -> list[int]:
        """Return the ids of the decoder processes that run now."""
        return [seat.process_id for seat in self._all if seat.process_id is not None]

    def close(self) -> None:
        """End all processes, and what they are decoding with them; never waits for a decoder."""
        self._closed = True
        for seat in self._all:
            seat.close()


class _Seat:
    """A process that decodes one picture at a time, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def process_id(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def decode(self, job: Job, *, timeout_s: float) -> Picture:
        process = self._started()
        limit_s = timeout_s if _HAS_CPU_TIMER else min(timeout_s, _CLOCK_PER_CPU * job.cpu_s)
        overrun = threading.Event()

        def stop() -> None:
            overrun.set()
            self.end()

        timer = threading.Timer(max(limit_s, 0), stop)
        timer.start()
        try:
            return _exchange(process, job)
        except (OSError, EOFError, ValueError) as error:
            self.end()
            if self._closed:
                raise TimeoutError("the decoders are closed") from error
            if not overrun.is_set():
                raise out_of_memory(job.plan.format) from error  # killed by the system, for memory
            if limit_s < timeout_s:
                raise _too_slow(job) from error
            raise TimeoutError("the decoder was not ready in time") from error
        finally:
            timer.cancel()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self.end()
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "emotion_yolo.isolation.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # where libraries in C write
                    start_new_session=True,  # its own group: signals to the service do not reach it
                )
                if self._process.stdout is None or not self._process.stdout.read(1):
                    raise out_of_memory("picture")
            return self._process

    def close(self) -> None:
        self._closed = True
        self.end()

    def end(self) -> None:
        """Kill the process and its child."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _exchange(process: "subprocess.Popen[bytes]", job: Job) -> Picture:
    assert process.stdin is not None and process.stdout is not None
    message = pickle.dumps(job, protocol=5)
    process.stdin.write(HEAD.pack(len(message)))
    process.stdin.write(message)
    process.stdin.flush()
    # JSON and bytes, not pickles: a decoder that a picture has taken over must not be able to run code here.
    (length,) = HEAD.unpack(_read(process, HEAD.size))
    if length > 10_000:
        raise ValueError(f"a head of {length} bytes")
    head = json.loads(_read(process, length))
    if "signal" in head:
        raise _stopped(job, head["signal"])
    if "code" in head:
        raise RefusedImageError(Refusal(head["code"]), str(head["message"]))
    height, width, *image_wh = (int(number) for number in head["sizes"])
    check_size((image_wh[0], image_wh[1]), job.limits)
    if not (0 < height <= image_wh[1] and 0 < width <= image_wh[0]):
        raise ValueError(f"a result of {width}×{height} px")
    pixels = np.empty((height, width, 3), np.uint8)
    view = pixels.data.cast("B")
    read = 0
    while read < len(view):
        count = process.stdout.readinto(view[read:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        read += count
    return Picture(pixels, (image_wh[0], image_wh[1]), int(head["factor"]), job.plan.format)


def _read(process: "subprocess.Popen[bytes]", count: int) -> bytes:
    assert process.stdout is not None
    data = process.stdout.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _too_slow(job: Job) -> RefusedImageError:
    message = f"decoding this {job.plan.format} took more than {job.cpu_s:g} s of CPU time"
    return RefusedImageError(Refusal.DECODE_TIMEOUT, f"{message}; scale it down, or save it as JPEG")


def _stopped(job: Job, number: int) -> RefusedImageError:
    """Return the refusal that a child's end by a signal stands for."""
    if number in {getattr(signal, "SIGPROF", -1), getattr(signal, "SIGXCPU", -1)}:
        return _too_slow(job)
    return out_of_memory(job.plan.format) if number == getattr(signal, "SIGKILL", -1) else undecodable(job.plan.format)
