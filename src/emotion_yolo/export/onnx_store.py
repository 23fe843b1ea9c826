"""ONNX files made small and the same on each run."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Below this many numbers halving saves nothing worth a cast.
_LEAST_SIZE = 256


def store_in_half(path: Path) -> None:
    """Rewrite the ONNX file at `path` with its large weights in fp16, each followed by a cast: arithmetic stays fp32.

    Halves the file. The weights come from an fp16 checkpoint; what is lost is the rounding of the batch norms folded
    into them. Metadata, where Ultralytics notes the date, go, so that one network always gives the same bytes.
    """
    model = onnx.load(path)
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST_SIZE:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.half")
        casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
