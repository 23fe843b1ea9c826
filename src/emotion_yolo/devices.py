"""Devices and precision of this machine. The only root module that imports torch, and only when called."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_yolo.errors import ParamsError

if TYPE_CHECKING:
    import torch

_FEATURES = (
    "avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp",
    "bf16", "i8mm",
)  # fmt: skip
"""CPU features that decide which kernels PyTorch and oneDNN take, and with them how sums are rounded."""


def cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16; without them, PyTorch is 200 times slower in it."""
    import torch

    # PyTorch has no public query for it (2.15); its own tests and Inductor use both of these.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def torch_device(name: str, *, param: str) -> "torch.device":
    """Return the device named by a param: `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ParamsError: a device that this machine does not have, or no name of one.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{name}" if name.isdecimal() else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ParamsError(
            f"{param} is {name!r}, which cannot be used here ({reason}); set it to auto or cpu"
        ) from error
    return device


def has_bf16(device: "torch.device") -> bool:
    """Return whether a device supports bf16 natively."""
    import torch

    if device.type == "cpu":
        return cpu_has_bf16()
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def describe_cpu() -> tuple[str, list[str]]:
    """Return the CPU's name, and which of its features choose kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine(), []
    fields = dict(reversed([(key.strip(), value.strip()) for key, _, value in (x.partition(":") for x in lines)]))
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    return fields.get("model name", platform.machine()), [name for name in _FEATURES if name in flags]


def environment(*, device: str, precision: str, threads: int, workers: int, libraries: Sequence[str]) -> dict[str, Any]:
    """Return what weights depend on besides data, params and code: hardware, precision, threads and libraries."""
    cpu, features = describe_cpu()
    return {
        "device": device,
        "precision": precision,
        "threads": threads,
        "workers": workers,
        "cpu": cpu,
        "cpu_features": features,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {library: version(library) for library in libraries},
    }
