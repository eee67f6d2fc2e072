"""Places where a layer of the usual kind would be wrong: it fits, or is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from tests.networks import Net


def dense(length: int) -> tuple[n2n.Model, str]:
    """(n, length, 4) -> (n, length, 6) -> (n, length, 2), channels last."""
    net = Net()
    hidden = net("Relu", net("MatMul", net.input("n", length, 4), net.weight(4, 6)))
    return n2n.load(net.model(net("MatMul", hidden, net.weight(6, 2)))), hidden


@pytest.mark.parametrize("length", [5, 6])
@pytest.mark.parametrize("measured", [True, False])
def test_no_batch_norm_where_channels_stand_last(length: int, measured: bool) -> None:
    """It would norm the axis behind the batch, which may even be as long."""
    model, hidden = dense(length)
    data = [{"x": np.random.default_rng(0).normal(size=(3, length, 4)).astype(np.float32)}]
    with pytest.raises(n2n.Refused, match="norms axis 1") as caught:
        n2n.deepen(model, hidden, norm=True, calibration=data if measured else None)
    assert caught.value.remedy == "leave the norm out (--no-norm)"
    assert n2n.verify(model, n2n.deepen(model, hidden, calibration=data))


def test_a_norm_before_a_transpose_is_not_repeated_behind_it() -> None:
    """As in networks of TensorFlow, whose channels stand last between the convolutions."""
    net = Net()
    convolved = net("Conv", net.input("n", 3, 8, 5), net.weight(6, 3, 3, 3), pads=[1] * 4)
    scales = [net.weight(6), net.weight(6), net.weight(6), net.weight(6, low=0.5)]
    turned = net("Transpose", net("BatchNormalization", convolved, *scales), perm=[0, 2, 3, 1])
    hidden = net("Relu", turned)
    model = n2n.load(net.model(net("MatMul", hidden, net.weight(6, 2))))
    deeper = n2n.deepen(model, hidden)
    assert deeper.changes[0].init == "identity"
    assert n2n.verify(model, deeper)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 3e4])
def test_statistics_that_the_type_does_not_hold_are_refused(odd: float) -> None:
    """A variance of 1e8 is infinite in half precision, and divided by itself no number."""
    net = Net(dtype=np.float16)
    hidden = net("Relu", net("MatMul", net.input("n", 4), net.put(np.eye(4, 6, dtype=np.float16))))
    model = n2n.load(net.model(net("MatMul", hidden, net.weight(6, 2))))
    data = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float16)
    assert n2n.verify(model, n2n.deepen(model, hidden, norm=True, calibration=[{"x": data}]))
    data[0, 0] = odd
    with pytest.raises(n2n.Refused, match="no number that float16 holds") as caught:
        n2n.deepen(model, hidden, norm=True, calibration=[{"x": data}])
    assert caught.value.remedy


def test_an_activation_in_a_body_is_not_repeated_outside() -> None:
    """Its bound is known in the body alone."""
    net = Net()
    hidden = net("MatMul", net.input("n", 4), net.weight(4, 6))
    branches = [
        helper.make_graph(
            [helper.make_node("Clip", [hidden, f"{name}_low"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.float32(low), f"{name}_low")],
        )
        for name, low in (("yes", 0.1), ("no", -0.1))
    ]
    condition = net("Cast", net("ReduceSum", hidden, keepdims=0), to=TensorProto.BOOL)
    chosen = net("If", condition, then_branch=branches[0], else_branch=branches[1])
    model = n2n.load(net.model(net("MatMul", chosen, net.weight(6, 2))))
    deeper = n2n.deepen(model, hidden)
    assert deeper.changes[0].init == "residual"
    assert n2n.verify(model, deeper)


def test_an_activation_of_integers_is_not_repeated_among_floats() -> None:
    net = Net()
    hidden = net("MatMul", net.input("n", 4), net.weight(4, 6))
    clipped = net("Clip", net("Cast", hidden, to=TensorProto.INT64), net.put(np.int64(0)))
    powers = net("Pow", net.weight(6, low=0.5), net("Cast", clipped, to=TensorProto.FLOAT))
    model = n2n.load(net.model(net("MatMul", net("Mul", hidden, powers), net.weight(6, 2))))
    assert n2n.verify(model, n2n.deepen(model, hidden))


@pytest.mark.parametrize("hidden", [-np.inf, np.finfo(np.float32).min])
def test_no_layer_reads_what_a_mask_has_put_out_of_range(hidden: float) -> None:
    """Zero weights would make NaN of it. Behind the Softmax there is room."""
    net = Net()
    x = net.input("n", 5, 6)
    scores = net("MatMul", x, net.weight(6, 5))
    mask = net.put(np.where(np.tri(5, 5) > 0, 0, hidden).astype(np.float32))
    masked = net("Add", scores, net("Mul", mask, net.put(np.ones(1, np.float32))))
    weights = net("Softmax", masked, axis=-1)
    model = n2n.load(net.model(net("MatMul", weights, net.weight(5, 2))))
    with pytest.raises(n2n.Refused, match="out of range") as caught:
        n2n.deepen(model, masked, init="residual")
    assert "Softmax" in (caught.value.remedy or "")
    for place in (scores, weights):
        assert n2n.verify(model, n2n.deepen(model, place, init="residual"))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_a_norm_belongs_to_the_layer_before_it(fused: bool, shared: bool) -> None:
    """In one node or several: a layer comes behind its activation, unless others read the sum."""
    net = Net(opset=13)
    x = net("MatMul", net.input("n", 4), net.weight(4, 6))
    scale, bias = net.weight(6), net.weight(6)
    if fused:
        net.opset = 17
        normed = net("LayerNormalization", x, scale, bias)
    else:
        centred = net("Sub", x, net("ReduceMean", x, axes=[-1]))
        variance = net("ReduceMean", net("Mul", centred, centred), axes=[-1])
        root = net("Sqrt", net("Add", variance, net.put(np.float32(1e-5))))
        normed = net("Add", net("Mul", net("Div", centred, root), scale), bias)
    y = net("MatMul", net("Relu", normed), net.weight(6, 2))
    model = n2n.load(net.model(net("Add", y, net("MatMul", x, net.weight(6, 2))) if shared else y))
    deeper = n2n.deepen(model, after="matmul0")
    assert deeper.changes[0].init == ("residual" if shared else "identity")
    assert n2n.verify(model, deeper)
