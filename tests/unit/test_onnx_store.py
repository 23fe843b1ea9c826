from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from emotion_yolo.onnx_store import store_in_half


def network(path: Path, *, metadata: str = "today") -> Path:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 32)).astype(np.float32)
    bias = rng.normal(size=64).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], transB=1)],
        "one layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"date": metadata})
    onnx.save(model, path)
    return path


def answer(path: Path) -> np.ndarray:
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    return np.asarray(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])


def test_large_weights_are_stored_in_half_precision_and_answers_stay(tmp_path: Path) -> None:
    path = network(tmp_path / "model.onnx")
    size, before = path.stat().st_size, answer(path)
    assert store_in_half(path, exact=False) == (1, 1)
    assert path.stat().st_size < 0.65 * size
    np.testing.assert_allclose(answer(path), before, atol=5e-3)
    types = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert types == {"weight.half": TensorProto.FLOAT16, "bias": TensorProto.FLOAT}


def test_two_exports_of_one_network_are_the_same_bytes_whenever_they_were_made(tmp_path: Path) -> None:
    paths = [network(tmp_path / f"{day}.onnx", metadata=day) for day in ("monday", "tuesday")]
    for path in paths:
        store_in_half(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_weights_that_fp16_would_round_stay_in_fp32(tmp_path: Path) -> None:
    path = network(tmp_path / "model.onnx")
    before = answer(path)
    assert store_in_half(path) == (0, 1)
    np.testing.assert_array_equal(answer(path), before)


def test_an_fp16_weight_times_a_scale_is_stored_in_half_without_loss(tmp_path: Path) -> None:
    path = network(tmp_path / "model.onnx")
    model = onnx.load(path)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    # As a batch norm with small variances leaves it: the product is no fp16 number, its factors are.
    scale = np.geomspace(0.01, 60, 64).astype(np.float32)
    half = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(half * scale[:, None], "weight"))
    onnx.save(model, path)
    size, before = path.stat().st_size, answer(path)
    assert store_in_half(path, scales={"weight": scale}) == (1, 1)
    assert path.stat().st_size < 0.65 * size
    np.testing.assert_allclose(answer(path), before, rtol=1e-5, atol=1e-5)
    assert store_in_half(network(tmp_path / "other.onnx"), scales={"weight": scale}) == (0, 1)  # another network's
