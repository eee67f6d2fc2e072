"""Local functions mean what onnxruntime takes them to mean, or are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import AttributeProto, TensorProto, helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import load

A = AttributeProto
OPSETS = [helper.make_opsetid(*pair) for pair in (("", 17), ("own", 1), ("com.microsoft", 1))]


def function(
    name: str, body: onnx.NodeProto, domain: str = "own", **options: object
) -> onnx.FunctionProto:
    return helper.make_function(domain, name, ["a"], ["b"], [body], OPSETS, **options)


def leaky(slope: str = "slope") -> onnx.NodeProto:
    node = helper.make_node("LeakyRelu", ["a"], ["b"])
    node.attribute.add(name="alpha", type=A.FLOAT, ref_attr_name=slope)
    return node


def model(call: onnx.NodeProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy"]
    graph = helper.make_graph([call], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=OPSETS, functions=list(functions), ir_version=10)


def outer(**stated: object) -> onnx.FunctionProto:
    """A function that calls another, with or without its attribute."""
    return function("Outer", helper.make_node("Leaky", ["a"], ["b"], domain="own", **stated))


INNER = function("Leaky", leaky(), attribute_protos=[helper.make_attribute("slope", 0.25)])
CALLS = {
    "default": (helper.make_node("Leaky", ["x"], ["y"], domain="own"), ()),
    "stated": (helper.make_node("Leaky", ["x"], ["y"], domain="own", slope=0.75), ()),
    "default within": (helper.make_node("Outer", ["x"], ["y"], domain="own"), (outer(),)),
    "stated within": (helper.make_node("Outer", ["x"], ["y"], domain="own"), (outer(slope=0.75),)),
}


@pytest.mark.parametrize("case", CALLS)
def test_defaults_of_functions_count(case: str) -> None:
    call, others = CALLS[case]
    proto = model(call, INNER, *others)
    before = proto.SerializeToString()
    read = load(proto)
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    wanted, given = (
        ort.InferenceSession(contents, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for contents in (before, read.to_bytes())
    )
    assert wanted.min() < -0.2
    np.testing.assert_array_equal(given, wanted)
    assert proto.SerializeToString() == before


def test_a_default_of_another_type_is_no_code() -> None:
    bad = function("Leaky", leaky(), attribute_protos=[helper.make_attribute("slope", "0 if x")])
    with pytest.raises(InvalidModel, match="alpha"):
        load(model(CALLS["default"][0], bad))


def test_a_default_behind_an_open_reference_is_refused() -> None:
    call = helper.make_node("Leaky", ["a"], ["b"], domain="own")
    call.attribute.add(name="slope", type=A.FLOAT, ref_attr_name="given")
    passing = function("Outer", call, attributes=["given"])
    with pytest.raises(InvalidModel, match="rather than its default"):
        load(model(CALLS["default within"][0], INNER, passing))


@pytest.mark.parametrize(
    ("domain", "name"), [("", "Relu"), ("ai.onnx", "Relu"), ("com.microsoft", "Gelu")]
)
def test_a_function_named_like_an_operator_is_refused(domain: str, name: str) -> None:
    """onnxruntime runs its own kernel and not the body; unused, it is nobody's concern."""
    named = function(name, helper.make_node("Neg", ["a"], ["b"]), domain)
    with pytest.raises(InvalidModel, match=f"name of the operator {name}"):
        load(model(helper.make_node(name, ["x"], ["y"], domain=domain), named))
    assert load(model(helper.make_node("Tanh", ["x"], ["y"]), named))
