"""Small models for the tests of loading and saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import load

ROOT = Path(__file__).parent.parent
DTYPES = [
    number for name, number in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING")
]


def random_array(dtype: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Distinct values that every type can hold, never all alike."""
    values = np.random.default_rng(seed).integers(0, 4, shape).astype(np.float32)
    return values.astype(helper.tensor_dtype_to_np_dtype(dtype))


def proto_of(
    *initializers: TensorProto, nodes: list[onnx.NodeProto] | None = None
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "net",
        [value("x", TensorProto.FLOAT, ["batch", 40])],
        [value("y", TensorProto.FLOAT, ["batch", 30])],
        initializer=list(initializers),
        doc_string="a graph",
        value_info=[value("hidden", TensorProto.FLOAT, ["batch", 30])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    )
    helper.set_model_props(model, {"origin": "test", "history": "none"})
    return model


def dense(dtype: int = TensorProto.FLOAT, shape: tuple[int, ...] = (40, 30)) -> onnx.ModelProto:
    """One MatMul with a weight above the threshold, a bias below it, and a shape."""
    return proto_of(
        numpy_helper.from_array(random_array(dtype, shape), "w"),
        numpy_helper.from_array(np.arange(30, dtype=np.float32), "b"),
        numpy_helper.from_array(np.array([-1, 30]), "shape"),
    )


def assert_same_model(path: Path, expected: onnx.ModelProto) -> None:
    """onnx itself reads the same model, wherever the data lie."""
    found = onnx.load(path)
    for entry in found.graph.initializer:
        entry.ClearField("data_location")  # onnx.load leaves it, set to its default
    assert found == expected
    onnx.checker.check_model(path)


def wire_length(contents: bytes) -> bytes:
    """The length of a field as protobuf writes it."""
    size, out = len(contents), bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def small_model() -> onnx.ModelProto:
    """A model with every kind of thing in it, in about 2 KiB."""
    value = helper.make_tensor_value_info
    weights = [
        numpy_helper.from_array(np.linspace(-1, 1, 280, dtype=np.float32).reshape(20, 14), "w"),
        numpy_helper.from_array(np.arange(14, dtype=np.float16), "b"),
        helper.make_tensor("typed", TensorProto.INT64, [3], [1, -1, 1 << 40]),
        helper.make_tensor("packed", TensorProto.INT4, [3], [1, -2, 3]),
        helper.make_tensor("text", TensorProto.STRING, [2], ["a", "b"]),
    ]
    inner = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["o"])], "inner", [], [value("o", 1, None)],
        initializer=[helper.make_tensor("k", 1, [1], [3.0])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="dense"),
        helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(
        nodes, "net", [value("x", 1, ["n", 20])], [value("y", 1, ["n", 14])], initializer=weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"key": "value"})
    return model


def big_weight(array: np.ndarray | None = None) -> TensorProto:
    return numpy_helper.from_array(np.ones((40, 30), np.float32) if array is None else array, "w")


def with_initializer(*tensors: TensorProto) -> onnx.ModelProto:
    model = small_model()
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return model


def refusal(source: object) -> InvalidModel:
    """The error of loading ``source``: one line for the problem, one for the remedy."""
    with pytest.raises(InvalidModel) as caught:
        load(source)  # type: ignore[arg-type]
    error = caught.value
    assert error.remedy and "\n" not in error.problem and "\n" not in error.remedy
    assert error.__cause__ is None and error.__suppress_context__, "the traceback would show more"
    return error
