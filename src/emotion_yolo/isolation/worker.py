"""The process behind a seat of `DecoderPool`: reads jobs from stdin, writes answers to stdout.

A picture is decoded in a forked child under limits of the system on CPU time and memory; where there is no `fork`,
in this process, which the pool ends if it takes too long.
"""

import json
import os
import pickle
import signal
import sys
from typing import BinaryIO

import cv2

from emotion_yolo.imaging.decoding import decode_plan
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, out_of_memory
from emotion_yolo.isolation.pool import HEAD, Job

# Room beside what inspection expects: stacks, the allocator's arenas, tables.
_SPARE_BYTES = 48_000_000


def main() -> None:
    """Serve until stdin ends."""
    cv2.setNumThreads(1)  # threads would not survive the fork
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(b"+")
    sink.flush()
    while head := source.read(HEAD.size):
        job: Job = pickle.loads(source.read(HEAD.unpack(head)[0]))  # noqa: S301  from the process that started this one
        if hasattr(os, "fork"):
            _decode_in_child(job, sink)
        else:
            answer(job, sink)


def _decode_in_child(job: Job, sink: BinaryIO) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            limit_resources(job)
            answer(job, sink)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        _write(sink, {"signal": os.WTERMSIG(status)})
    elif status:
        _write(sink, {"code": Refusal.OUT_OF_MEMORY, "message": str(out_of_memory(job.plan.format))})


def limit_resources(job: Job) -> None:
    """Limit this process to `cpu_s` seconds of CPU time and to the plan's memory."""
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, job.cpu_s)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        most = held + job.plan.memory + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def answer(job: Job, sink: BinaryIO) -> None:
    """Decode and write the answer."""
    try:
        picture = decode_plan(job.plan, job.limits)
    except RefusedImageError as error:
        code, message = error.code, str(error)
        if code is Refusal.OUT_OF_MEMORY and hasattr(os, "fork"):
            # The limit here is the plan's: a sound picture stays within it.
            code = Refusal.TOO_COMPLEX
            message = f"this {job.plan.format} takes more memory to decode than a picture of its size; save it again"
        _stop_timer()
        _write(sink, {"code": code, "message": message})
        return
    _stop_timer()
    height, width = picture.pixels.shape[:2]
    _write(sink, {"sizes": [height, width, *picture.image_wh], "factor": picture.factor}, picture.pixels.data)


def _stop_timer() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)  # not in the middle of an answer


def _write(sink: BinaryIO, head: dict[str, object], pixels: memoryview | bytes = b"") -> None:
    text = json.dumps(head).encode()
    sink.write(HEAD.pack(len(text)) + text)
    sink.write(pixels)
    sink.flush()


if __name__ == "__main__":
    main()
