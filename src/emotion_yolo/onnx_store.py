"""ONNX files made small without loss, and the same on each run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Below this many numbers halving saves nothing worth a cast.
_LEAST_SIZE = 256
# What fusing in another order than PyTorch's leaves; rounding to fp16 leaves up to 5e-4.
_EXACT = 1e-6

Scales = Mapping[str, NDArray[np.float32]]


def store_in_half(path: Path, *, scales: Scales | None = None, exact: bool = True) -> tuple[int, int]:
    """Rewrite the ONNX file at `path` with its large weights in fp16; arithmetic stays fp32.

    With `exact`, only where that loses nothing.

    Weights of an fp16 checkpoint are fp16 numbers until batch norms are fused into them: the products are not, and
    rounding them changes class scores by up to 0.05 where variances are small. So a fused weight is stored as what the
    checkpoint holds, followed by a cast and a multiplication by `scales` [O] of its output channels; runtimes fold both
    when they load. A weight that is no such product stays in fp32.

    Metadata, where Ultralytics notes the date, go, so that one network always gives the same bytes. Returns how many of
    the large weights are stored in fp16, and how many there are.
    """
    model = onnx.load(path)
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    nodes, constants = [], []
    halved = large = 0
    for tensor in graph.initializer:
        # Biases are small, and sums that no fp16 number is equal to.
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < _LEAST_SIZE:
            continue
        large += 1
        weight = numpy_helper.to_array(tensor)
        scale = scales.get(tensor.name) if scales and exact else None
        half = _halved(weight, scale) if exact else weight.astype(np.float16)
        if half is None:
            continue
        halved += 1
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        if scale is None:
            nodes.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
            continue
        shape = [-1, *[1] * (weight.ndim - 1)]
        constants.append(numpy_helper.from_array(scale.reshape(shape), f"{name}.scale"))
        nodes.append(helper.make_node("Cast", [stored], [f"{name}.wide"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]))
    graph.initializer.extend(constants)
    nodes = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return halved, large


def _halved(weight: NDArray[np.float32], scale: NDArray[np.float32] | None) -> NDArray[np.float16] | None:
    """Return `weight`, divided by `scale`, in fp16; None if that is not the same number to fp32's precision."""
    factor = np.ones(1, np.float32) if scale is None else scale
    factor = factor.reshape(-1, *[1] * (weight.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        half = np.where(factor == 0, 0, weight / factor).astype(np.float16)
        again = half.astype(np.float32) * factor
    close = np.abs(again - weight) <= _EXACT * np.abs(weight)
    return half if np.isfinite(again).all() and close.all() else None
