"""Number types: computed in float32, float64, float16 and bfloat16, or stored in fewer bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnx_net2net.errors import Refused
from onnx_net2net.model.model import load
from onnx_net2net.verification.comparison import epsilon
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening.widen import widen
from tests.algebra.test_expansion import split_copies
from tests.judging import Subject, everything, wider
from tests.networks import BFLOAT16, Net

FLOATS = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16]


def assert_everything_grows(proto: ModelProto, count: int) -> None:
    """``count`` dimensions, each to three widths, and all of them at once."""
    subject = Subject(load(proto))
    assert [d.growth for d in subject.growable] == ["any"] * count
    wanted = [{d.name: wider(d, turn)} for d in subject.growable for turn in range(3)]
    for turn, widths in enumerate([*wanted, everything(subject.dimensions)]):
        for split in ("project", "even"):
            grown = widen(subject.model, widths, seed=turn, split=split)
            assert types(grown.proto) == types(subject.model.proto)
            report = subject.judge(grown)
            assert report, (widths, split, report.verdict)


def types(proto: ModelProto) -> dict[str, int]:
    """The type of every weight that is not a size."""
    return {t.name: t.data_type for t in proto.graph.initializer if not t.name.endswith("_shares")}


def convolutional(net: Net) -> str:
    """Convolutions and a residual sum: 6 x 2 x 2 features of two images."""

    def conv(x: str, inside: int, outside: int) -> str:
        weights = net.weight(outside, inside, 3, 3, low=-0.5, high=0.5), net.weight(outside)
        return net("Relu", net("Conv", x, *weights, pads=[1, 1, 1, 1]))

    x = conv(net.input(2, 3, 5, 4), 3, 6)
    x = net("Add", x, conv(conv(x, 6, 7), 7, 6))
    return net("Flatten", net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))


def dense(net: Net) -> str:
    """A residual sum of dense layers: 24 features of two vectors."""
    x = net("Relu", net("Gemm", net.input(2, 9), net.weight(9, 24), net.weight(24)))
    inner = net("Relu", net("Gemm", x, net.weight(24, 7, low=-0.4, high=0.4), net.weight(7)))
    return net("Add", x, net("Gemm", inner, net.weight(7, 24), net.weight(24)))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
def test_network_of_one_float_type(dtype: np.dtype) -> None:
    """bfloat16 is judged in float32; onnxruntime has no convolution in float64."""
    net = Net(dtype=dtype)
    x = dense(net) if dtype == np.float64 else convolutional(net)
    x = net("Tanh", net("Gemm", x, net.weight(24, 9, low=-0.4, high=0.4), net.weight(9)))
    assert_everything_grows(net.model(net("MatMul", x, net.weight(9, 4))), 3)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
def test_parts_add_up_after_rounding(dtype: np.dtype) -> None:
    """Copies are corrected after they were rounded, so that their sum is off by one rounding."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(5, 40)).astype(dtype)
    source = np.array([0, 1, 2, 3, 4, 1, 3, 1])
    parts = split_copies(weight, 0, source, seed=1)
    assert parts.dtype == dtype
    sums = np.zeros((5, 40))
    np.add.at(sums, source, parts.astype(np.float64))
    largest = np.abs(parts.astype(np.float64)).max()
    assert np.abs(sums - weight.astype(np.float64)).max() <= 2 * epsilon(dtype) * largest
    np.testing.assert_array_equal(parts[[0, 2, 4]], weight[[0, 2, 4]])


def test_mixed_precision() -> None:
    """Stored in half precision, cast to float32 in the graph, as mixed-precision exports do."""
    net = Net()
    shapes = {"a.weight": (5, 9), "b.weight": (9, 7), "c.weight": (7, 3)}
    half = [net.put(net.rng.normal(size=s).astype(np.float16), n) for n, s in shapes.items()]
    x = net.input(4, 5)
    for weight in half[:-1]:
        x = net("Relu", net("MatMul", x, net("Cast", weight, to=1)))
    assert_everything_grows(net.model(net("MatMul", x, net("Cast", half[-1], to=1))), 2)


def quantised(net: Net, shape: tuple[int, int], axis: int | None, dtype: Any, name: str) -> str:
    """An integer weight behind DequantizeLinear, per tensor (``axis`` None) or per channel."""
    info = np.iinfo(dtype)
    weight = net.put(net.rng.integers(info.min, info.max, shape, dtype, endpoint=True), name)
    size = () if axis is None else (shape[axis],)
    scale = net.put(net.rng.uniform(0.005, 0.02, size).astype(np.float32), f"{name}_scale")
    low, high = (0, 1) if dtype == np.int8 else (100, 150)
    zero = net.put(net.rng.integers(low, high, size).astype(dtype), f"{name}_zero")
    return net("DequantizeLinear", weight, scale, zero, axis=1 if axis is None else axis)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 0, 1], ids=["tensor", "rows", "columns"])
def test_quantised_weights_grow_by_copying(dtype: Any, axis: int | None) -> None:
    """They cannot be split exactly: what they read is shared by a Mul in front."""
    net = Net()
    x = net.input(4, 5)
    for inside, outside in ((5, 9), (9, 7)):
        weight = quantised(net, (inside, outside), axis, dtype, f"q{inside}")
        x = net("Relu", net("Add", net("MatMul", x, weight), net.weight(outside)))
    proto = net.model(net("MatMul", x, quantised(net, (7, 3), axis, dtype, "head")))
    assert_everything_grows(proto, 2)
    model = load(proto)
    grown = widen(model, {"q9": 11})
    before, after = model.weights["q9"].array(), grown.weights["q9"].array()
    columns = {tuple(c) for c in before.T}
    assert after.shape == (9, 11) and all(tuple(c) for c in after.T if tuple(c) in columns)
    np.testing.assert_array_equal(after[:, :7], before)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantised_convolutions(dtype: Any) -> None:
    net = Net()

    def kernel(outside: int, inside: int, name: str) -> str:
        info = np.iinfo(dtype)
        shape = (outside, inside, 3, 3)
        weight = net.put(net.rng.integers(info.min, info.max, shape, dtype, endpoint=True), name)
        scale = net.put(net.rng.uniform(0.001, 0.01, outside).astype(np.float32), f"{name}_scale")
        zero = net.put(net.rng.integers(3, 9, outside).astype(dtype), f"{name}_zero")
        return net("DequantizeLinear", weight, scale, zero, axis=0)

    x = net("Relu", net("Conv", net.input(1, 2, 6, 6), kernel(5, 2, "a"), net.weight(5)))
    x = net("Relu", net("Conv", x, kernel(7, 5, "b"), net.weight(7)))
    assert_everything_grows(net.model(net("Conv", x, net.weight(3, 7, 1, 1))), 2)


def test_quantised_activations() -> None:
    """QuantizeLinear and DequantizeLinear around an activation (QDQ): shares go behind them."""
    net = Net()
    x = net("Relu", net("MatMul", net.input(4, 5), net.weight(5, 7, name="up.weight")))
    step, zero = net.put(np.float32(0.02)), net.put(np.uint8(3))
    x = net("DequantizeLinear", net("QuantizeLinear", x, step, zero), step, zero)
    assert_everything_grows(net.model(net("MatMul", x, net.weight(7, 3))), 1)


def test_sums_of_integers_are_refused() -> None:
    """Copies of an integer cannot share: there is no half of 3."""
    net = Net()
    factors = net.put(np.arange(1, 8, dtype=np.int32), "w")
    x = net("Mul", net("Cast", net.input(4, 1), to=6), factors)
    total = net("ReduceSum", x, net.put([1]), keepdims=1)
    model = load(net.model(net("Cast", total, to=1)))
    with pytest.raises(Refused, match="it sums integers, which copies cannot share"):
        widen(model, {"w": 9})


def network_with(value: float) -> ModelProto:
    net = Net()
    x = net("Relu", net("MatMul", net.input(4, 5), net.weight(5, 7, name="up.weight")))
    net.weights["up.weight"][2, 3] = value
    return net.model(net("MatMul", x, net.weight(7, 3)))


def test_types_without_growth_stay_byte_for_byte() -> None:
    """Fewer-bit weights that do not grow are not even read."""
    net = Net(opset=21)
    table = net.put(np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "table")
    lookup = net("Gather", table, net.input(3, dtype=np.int64), axis=0)
    x = net("MatMul", net("Cast", lookup, to=1), net.weight(4, 7, name="up.weight"))
    proto = net.model(net("MatMul", net("Relu", x), net.weight(7, 3)))
    grown = onnx.load_from_string(widen(load(proto), {"up": 9}).to_bytes())
    before = {t.name: t for t in proto.graph.initializer}
    after = {t.name: t for t in grown.graph.initializer}
    np.testing.assert_array_equal(
        numpy_helper.to_array(after["table"]), numpy_helper.to_array(before["table"])
    )
    assert verify(proto, grown, seeds=1)
