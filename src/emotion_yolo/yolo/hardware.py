"""The hardware of a training: device, precision, threads, shared memory, and a record of all that affects results."""

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from emotion_yolo import devices
from emotion_yolo.devices import cpu_has_bf16
from emotion_yolo.errors import ModelError, ParamsError
from emotion_yolo.yolo import CPU_THREADS

# mallopt(3): M_MMAP_MAX no separate mappings, M_TRIM_THRESHOLD nothing given back, M_TOP_PAD half a GiB at once.
_KEEP = ((-4, 0), (-1, 2**31 - 1), (-2, 2**29))
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_LIBRARIES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")


def resolve_device(device: str) -> str:
    """Return Ultralytics' name for the `device` of params: `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ParamsError: a device that this machine does not have, or no name of one.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "0" if gpus else "cpu"
    if device == "cpu" or (device == "mps" and torch.backends.mps.is_available()):
        return device
    indices = device.removeprefix("cuda").removeprefix(":") or "0"
    numbers = [part.strip() for part in indices.split(",")]
    if all(number.isdecimal() and int(number) < gpus for number in numbers):
        return ",".join(numbers)
    names = ["auto", "cpu", *(["mps"] if torch.backends.mps.is_available() else []), *map(str, range(gpus))]
    seen = f"{gpus} GPU{'' if gpus == 1 else 's'}"
    raise ParamsError(f"train.device is {device!r}, but PyTorch sees {seen} here; set it to {' or '.join(names)}")


def resolve_amp(amp: str, *, device: str) -> str:
    """Return Ultralytics' `amp` for that of params; bf16 on a CPU pays only where the instructions are there."""
    if amp == "auto":
        amp = "fp16" if device != "cpu" else ("bf16" if cpu_has_bf16() else "fp32")
    if amp == "fp16" and device == "cpu":
        raise ModelError("train.amp is fp16, which Ultralytics trains in on GPUs only; set auto, bf16 or fp32")
    return amp


def several_gpus(device: str) -> bool:
    """Return whether Ultralytics trains on `device` in separate processes."""
    return "," in device


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step; elsewhere do nothing.

    By default it maps each large tensor again and gives it back, and the kernel clears the same pages at every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in _KEEP:
        mallopt(option, value)


def workers_that_fit(workers: int, *, batch: int, imgsz: int, folder: Path = _SHARED_MEMORY) -> int:
    """Return how many of `workers` data-loading processes the free shared memory in `folder` has room for.

    A worker hands its batches over in shared memory; where that is full, the kernel kills it with SIGBUS.
    """
    if not folder.is_dir():  # not Linux
        return workers
    free = shutil.disk_usage(folder).free
    picture = 3 * imgsz * imgsz * 1.25  # bytes; labels and the padding of valid pictures come on top

    def needed(count: int) -> float:
        # Ultralytics 8.4.190: 4 batches ahead a worker in training; in validation twice the workers, each 2 batches of
        # twice the size ahead. One batch more is in use.
        train, valid = 4 * count + 1, 2 * (2 * min(2 * count, os.cpu_count() or 1) + 1)
        return picture * batch * (train + valid)

    return next((count for count in range(workers, 0, -1) if needed(count) <= free), 0)


def environment(*, device: str, amp: str, workers: int) -> dict[str, Any]:
    """Return the record of a training on Ultralytics' `device`; see `devices.environment`."""
    if device in {"cpu", "mps"}:
        name = device
    else:
        name = ", ".join(torch.cuda.get_device_name(int(number)) for number in device.split(","))
    return devices.environment(device=name, precision=amp, threads=CPU_THREADS, workers=workers, libraries=_LIBRARIES)
