"""What onnxruntime does not take is not run, whatever framework it is for, verified or not."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import Computed, Model, load
from onnx_net2net.verification import acceptance
from onnx_net2net.verification.acceptance import require_accepted
from tests.backend.cases import by_name


def proto_of(*nodes: NodeProto, width: int = 4, opset: int = 17, ir: int = 10) -> onnx.ModelProto:
    """y from x; ``w`` is a square weight."""
    weight = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"])
# Types that do not fit: found by onnxruntime alone.
WRONG = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])


def test_models_are_accepted() -> None:
    require_accepted(load(proto_of(PRODUCT)))
    require_accepted(load(proto_of(PRODUCT, width=300)))  # a weight that is not in the skeleton


def test_a_newer_file_is_no_wrong_one() -> None:
    """IR version and operator set beyond onnxruntime's: onnx's own checker is asked."""
    require_accepted(load(proto_of(PRODUCT, ir=onnx.IR_VERSION)))
    require_accepted(load(proto_of(PRODUCT, opset=onnx.defs.onnx_opset_version())))
    wrong = helper.make_node("MatMul", ["x", "w", "w", "w"], ["y"])
    with pytest.raises(InvalidModel, match="onnxruntime does not take the model"):
        require_accepted(load(proto_of(wrong, opset=onnx.defs.onnx_opset_version())))


def test_what_has_no_kernel_is_no_wrong_model() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.UINT16),
        helper.make_node("Mul", ["a", "a"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    require_accepted(load(proto_of(*nodes)))


@pytest.mark.parametrize(
    "name", ["test_flexattention", "test_attention_local_window", "test_lstm_batchwise"]
)
def test_what_onnxruntime_does_not_know_yet_is_no_wrong_model(name: str) -> None:
    model = by_name()[name].model
    require_accepted(load(model))
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.node[0].attribute.add(name="planted", type=onnx.AttributeProto.INT, i=1)
    with pytest.raises(InvalidModel) as caught:
        require_accepted(load(model))
    assert "model.onnx" not in str(caught.value)


def test_wrong_models_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidModel, match="onnxruntime does not take the model") as caught:
        require_accepted(load(proto_of(WRONG)))
    assert caught.value.remedy


def test_nothing_is_run_that_was_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from onnx_net2net.frameworks.torch import module, to_torch, write_package

    monkeypatch.setattr(module, "exec", lambda *_: pytest.fail("something ran"), raising=False)
    monkeypatch.setattr(acceptance, "_problem", lambda path, process: "planted")
    for act in (to_torch, lambda model: write_package(model, "package")):
        with pytest.raises(InvalidModel, match="planted"):
            act(load(proto_of(PRODUCT)))


def test_no_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 40 GB is asked about in no time."""
    small = load(proto_of(PRODUCT))
    proto = onnx.ModelProto()
    proto.CopyFrom(small.proto)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 100_000

    def read() -> np.ndarray:
        raise AssertionError("a weight was read")

    huge = Computed("w", TensorProto.FLOAT, (100_000, 100_000), read)
    model: Model = small.with_changes(proto, {"w": huge})
    started = time.monotonic()
    require_accepted(model)
    assert time.monotonic() - started < 5
