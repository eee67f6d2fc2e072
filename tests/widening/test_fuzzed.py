"""Small models of the kinds on which the fuzzer found something, each ending as it should."""

from __future__ import annotations

import onnx
import pytest

import onnx_net2net as n2n
from tests.samples import samples
from tests.samples.network import network


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def test_equal_parts_before_opset_18_are_written_down_when_they_differ() -> None:
    """Only ``num_outputs`` lets the last part be smaller."""
    halves = model("""<ir_version: 8, opset_import: ["" : 13]>
    net (float[1, 3] x) => (float[1, 2] y)
    <float[3, 6] into = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
     float[3, 2] a = {3, 1, 4, 1, 5, 9}, float[3, 2] b = {2, 7, 1, 8, 2, 8}> {
        h = MatMul(x, into)
        left, right = Split<axis = 1>(h)
        one = MatMul(left, a)
        other = MatMul(right, b)
        y = Sub(one, other)
    }""")
    names = [d.name for d in n2n.inspect(halves) if d.width == 3 and d.growth != "fixed"]
    assert len(names) == 2
    for name in names:
        assert n2n.verify(halves, n2n.widen(halves, {name: 4}))


def test_a_list_that_nobody_reads_is_no_obstacle() -> None:
    unread = model("""<ir_version: 8, opset_import: ["" : 13]>
    net (float[1, 3] x) => (float[1, 2] y)
    <float[3, 4] into = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6},
     float[4, 2] out = {3, 1, 4, 1, 5, 9, 2, 6}, int64 size = {2}> {
        h = MatMul(x, into)
        parts = SplitToSequence<axis = 1>(h, size)
        y = MatMul(h, out)
    }""")
    (width,) = [d.name for d in n2n.inspect(unread) if d.width == 4]
    assert n2n.verify(unread, n2n.widen(unread, {width: 6}))


def test_an_input_without_an_element_type_is_refused() -> None:
    untyped = model("""<ir_version: 8, opset_import: ["" : 13]>
    net (float[1, 3] x) => (float[1, 3] y) { y = Relu(x) }""")
    untyped.graph.input[0].type.tensor_type.elem_type = 0
    with pytest.raises(n2n.Net2NetError, match="element type"):
        n2n.verify(untyped, untyped)


def test_integers_are_pinned_where_they_would_be_rescaled() -> None:
    """The scale that makes activations of the weights has another type: so have the products."""
    attention = network(next(s for s in samples()["attention"] if s.id == "merged-one-each"))
    attention.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT64
    for dimension in n2n.inspect(attention):
        if dimension.growth != "fixed":
            n2n.widen(attention, {dimension.name: dimension.width + 2})


def test_a_shape_that_is_no_vector_is_no_shape() -> None:
    """Expand is none of opset 7, so that only its rule tells a shape."""
    table = model("""<ir_version: 8, opset_import: ["" : 7]>
    net (float[1] x) => (float[2, 1] y) <int64[2, 1] shape = {2, 1}> {
        h = Expand(x, shape)
        y = Relu(h)
    }""")
    assert all(d.growth == "fixed" for d in n2n.inspect(table))
