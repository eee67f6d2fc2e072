"""What is said to be above zero is, whatever is put in: divisors are judged by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

import onnx_net2net as n2n
from onnx_net2net.analysis.signs import Signs
from onnx_net2net.widening.dimensions import analyse
from tests.networks import Net

EXTREME = np.array([0, -0.0, 1, -1, 1e-30, -1e-30, 3e-5, 0.3, 2, 200, -200, 9e4, -9e4], np.float32)
Build = Callable[[Net, str], str]


def number(net: Net, value: float) -> str:
    return net.put(np.float32(value))


def shifted(net: Net, x: str, by: float = 0.5) -> str:
    """Above zero for certain."""
    return net("Add", net("Abs", x), number(net, by))


def as_type(net: Net, x: str, to: int) -> str:
    return net("Cast", net("Cast", x, to=to), to=TensorProto.FLOAT)


POSITIVE: dict[str, Build] = {
    "shifted": shifted,
    "deviation": lambda n, x: n("Sqrt", shifted(n, n("Mul", x, x), 1e-5)),
    "power": lambda n, x: n("Pow", shifted(n, x, 1e-5), number(n, 0.5)),
    "clipped": lambda n, x: n("Clip", x, number(n, 0.1)),
    "at least": lambda n, x: n("Max", x, number(n, 1e-12)),
    "twice": lambda n, x: n("Mul", shifted(n, x), number(n, 2)),
    "swish": lambda n, x: n("Add", n("Exp", n("Neg", x)), number(n, 1)),
}
NOT_PROVED: dict[str, Build] = {
    "underflow of Exp": lambda n, x: n("Exp", x),
    "underflow of Sigmoid": lambda n, x: n("Sigmoid", x),
    "underflow of Softplus": lambda n, x: n("Softplus", x),
    "integers": lambda n, x: as_type(n, shifted(n, x), TensorProto.INT64),
    "half": lambda n, x: as_type(n, shifted(n, x, 1e-12), TensorProto.FLOAT16),
    "squared": lambda n, x: n("Pow", shifted(n, x, 1e-30), number(n, 2)),
    "product": lambda n, x: n("Mul", *[shifted(n, x, 1e-30)] * 2),
    "quotient": lambda n, x: n("Div", number(n, 1e-20), shifted(n, n("Exp", x), 0.1)),
    "reciprocal": lambda n, x: n("Reciprocal", shifted(n, n("Exp", x))),
    "not real": lambda n, x: n("Sqrt", x),
    "relu": lambda n, x: n("Relu", x),
    "bounds the other way round": lambda n, x: n("Clip", x, number(n, 1), number(n, -1)),
    "in between": lambda n, x: n("ReduceSum", n("Relu", x), keepdims=1),
}


def said(build: Build) -> tuple[bool, bool, np.ndarray]:
    """Whether a tensor is said to be above zero, or not below it, and what it is."""
    net = Net(opset=17)
    tensor = build(net, net.input("n"))
    proto = net.model(tensor)
    graph, shapes = (solution := analyse(n2n.load(proto)).solution).graph, solution.shapes
    signs = Signs(graph, shapes.known)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(None, {"x": EXTREME})[0]
    alone = [session.run(None, {"x": EXTREME[i : i + 1]})[0] for i in range(len(EXTREME))]
    return signs.positive(tensor), signs.nonnegative(tensor), np.concatenate([values, *alone])


@pytest.mark.parametrize("name", POSITIVE)
def test_what_is_above_zero_is_known(name: str) -> None:
    positive, nonnegative, values = said(POSITIVE[name])
    assert positive and nonnegative and (values > 0).all()


@pytest.mark.parametrize("name", NOT_PROVED)
def test_what_might_be_zero_is_not_above_it(name: str) -> None:
    positive, nonnegative, values = said(NOT_PROVED[name])
    assert not (values > 0).all(), "this network would judge nothing"
    assert not positive
    assert not nonnegative or (values >= 0).all()
