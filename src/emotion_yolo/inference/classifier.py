"""A classifier of face crops' expressions, run from its ONNX file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.inference.backends import Backend, OpenVinoRequests, as_planes
from emotion_yolo.structures.images import Image

Probabilities = NDArray[np.float32]

_Run = Callable[[NDArray[np.float32]], Probabilities]
_Shape = list[int]  # 0 for a dimension that is free

_AT_ONCE = 16  # crops in one run of the network: a bound on memory
_ADVICE = "make it with `emotion-yolo train-classifier` or `make baselines`"


class CropClassifier:
    """An ONNX file of [B, 3, S, S] float RGB in 0-1 to [B, C] probabilities. Threads may share it."""

    def __init__(self, path: Path, *, classes: int, backend: Backend, streams: int = 1, threads: int = 0) -> None:
        """Load the network at `path` for `streams` calls at once, of `threads` threads each; 0 takes all cores.

        Raises:
            ModelError: no such file, or a network of other shapes.
        """
        if not path.is_file():
            raise ModelError(f"{path}: no such file; {_ADVICE}")
        if backend == "onnx":
            self._run, given, answered = _onnxruntime(path, threads=threads)
        else:
            self._run, given, answered = _openvino(path, streams=streams, threads=threads)
        if len(given) != 4 or given[1] != 3 or not given[2] == given[3] > 0 or answered[-1:] != [classes]:
            message = f"takes {_written(given)} and answers {_written(answered)}, expected [?,3,S,S] and [?,{classes}]"
            raise ModelError(f"{path}: {message}; {_ADVICE}")
        self.imgsz = given[2]

    def __call__(self, crops: Image) -> Probabilities:
        """Return the probabilities [B, C] for RGB crops [B, S, S, 3] uint8, S being `imgsz` and B at least 1."""
        parts = [crops[start : start + _AT_ONCE] for start in range(0, len(crops), _AT_ONCE)]
        return np.concatenate([self._run(as_planes(part)) for part in parts])


def _openvino(path: Path, *, streams: int, threads: int) -> tuple[_Run, _Shape, _Shape]:
    import openvino as ov

    try:
        network = ov.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot read it: {error}") from error
    shapes = (network.input(0).partial_shape, network.output(0).partial_shape)
    given, answered = ([d.get_length() if d.is_static else 0 for d in shape] for shape in shapes)
    return OpenVinoRequests(network, streams=streams, threads=threads, precision="f32"), given, answered


def _onnxruntime(path: Path, *, threads: int) -> tuple[_Run, _Shape, _Shape]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise ModelError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    (into, *_), (out, *_) = session.get_inputs(), session.get_outputs()

    def run(planes: NDArray[np.float32]) -> Probabilities:  # which takes as many calls at once as there are threads
        return np.asarray(session.run([out.name], {into.name: planes})[0], np.float32)

    given, answered = ([d if isinstance(d, int) else 0 for d in value.shape] for value in (into, out))
    return run, given, answered


def _written(shape: Sequence[int]) -> str:
    return f"[{','.join(str(side) if side else '?' for side in shape)}]"
