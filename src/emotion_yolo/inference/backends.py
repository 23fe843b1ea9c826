"""The runtimes that execute an exported network on the CPU: OpenVINO and ONNX Runtime."""

import math
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.inference.artefact import ModelSpec, checked_file
from emotion_yolo.structures.images import Image

Tensor = NDArray[np.float32]
Infer = Callable[[Image], Tensor]
Shape = tuple[int, int, int]
"""Of a network's input: pictures, width and height in px."""
Backend = Literal["auto", "openvino", "onnx"]
Precision = Literal["auto", "f32", "bf16"]


def available_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use: by its affinity, and by the quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return min(cores, max(math.ceil(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no cgroup v2, or `max`: no quota
        return cores


def _quota() -> int:
    """Return the available cores where they are fewer than the machine's; else 0, and the runtime chooses.

    OpenVINO and ONNX Runtime do not know a container's quota: they would start a thread for each core of its host.
    """
    cores = available_cores()
    return cores if cores < (cpu_count() or 1) else 0


class OpenVinoRequests:
    """A compiled OpenVINO model's infer requests, one a stream. Threads may share it: a call waits for a free one."""

    def __init__(self, model: Any, *, streams: int, threads: int, precision: Precision = "auto") -> None:
        """Compile `model` for the CPU with `streams` parallel inferences of `threads` threads (0: all cores) each."""
        import openvino as ov

        # A thread pinned to a core waits whenever other work takes that core, and the others wait for it.
        config: dict[str, object] = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads * streams,
            "ENABLE_CPU_PINNING": False,
        }
        if precision != "auto":
            config["INFERENCE_PRECISION_HINT"] = precision
        compiled = ov.compile_model(model, "CPU", config)
        # A request holds buffers, so that each works for one thread at a time; more than streams would only wait.
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._free.put(compiled.create_infer_request())

    def __call__(self, tensor: NDArray[Any]) -> Tensor:
        """Return a copy of the model's first output for its only input."""
        request = self._free.get()
        try:
            request.infer([tensor], share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            self._free.put(request)


def openvino_backend(
    folder: Path, spec: ModelSpec, shapes: Sequence[Shape], *, threads: int, precision: Precision
) -> Infer:
    """Compile the network of `folder` for each of `shapes`; the function takes [B, h, w, 3] uint8 of one of them.

    Raises:
        ModelError: a file that is missing, damaged, or no network.
    """
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    path = checked_file(folder, spec.files.get("openvino_xml", spec.files["onnx"]))
    if "openvino_bin" in spec.files:
        checked_file(folder, spec.files["openvino_bin"])  # OpenVINO reads it by its place beside the .xml
    threads = threads or _quota()
    streams = max(available_cores() // threads, 1) if threads else 1

    def compiled(shape: Shape) -> OpenVinoRequests:
        pictures, width, height = shape
        model = network.clone()
        model.reshape([pictures, 3, height, width])
        # Layout and type are changed within the network, where it takes a tenth of the time.
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        return OpenVinoRequests(steps.build(), streams=streams, threads=threads, precision=precision)

    try:
        network = ov.Core().read_model(path)
        with ThreadPoolExecutor(len(shapes)) as pool:
            requests_of = dict(zip(shapes, pool.map(compiled, shapes), strict=True))
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot read it: {error}") from error

    def infer(tensor: Image) -> Tensor:
        pictures, height, width, _ = tensor.shape
        return requests_of[pictures, width, height](tensor)

    return infer


def onnxruntime_backend(folder: Path, spec: ModelSpec, *, threads: int) -> Infer:
    """Load the ONNX network of `folder`; the function takes [B, h, w, 3] uint8 of any multiples of the stride.

    Raises:
        ModelError: a file that is missing, damaged, or no network.
    """
    import onnxruntime as ort

    path = checked_file(folder, spec.files["onnx"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or _quota()
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise ModelError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    name = session.get_inputs()[0].name

    def infer(tensor: Image) -> Tensor:
        return np.asarray(session.run(None, {name: as_planes(tensor)})[0], np.float32)

    return infer


def as_planes(tensor: Image) -> Tensor:
    """Bring [B, h, w, 3] uint8 to what the exported network itself takes: float32 [B, 3, h, w] in 0-1."""
    return np.ascontiguousarray(tensor.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
