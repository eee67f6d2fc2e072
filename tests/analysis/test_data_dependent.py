"""How much an operator finds depends on the data: what follows grows all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto

import onnx_net2net as n2n
from onnx_net2net.analysis.shapes import infer
from onnx_net2net.model.graph import Graph
from tests.golden_dimensions import FIXTURES
from tests.networks import Net

WIDTH = 6


def constant(net: Net, *values: int) -> str:
    return net.put(np.array(values, np.int64))


def positive(net: Net, x: str) -> str:
    """Which rows have a first entry above zero."""
    first = net("Gather", x, net.put(np.int64(0)), axis=1)
    return net("Greater", first, net.put(np.float32(0)))


def non_zero(net: Net, x: str) -> str:
    found = net("Squeeze", net("NonZero", positive(net, x)), constant(net, 0))
    return net("Gather", x, found, axis=0)


def transposed(net: Net, x: str) -> str:
    return net("GatherND", x, net("Transpose", net("NonZero", positive(net, x))))


def compressed(net: Net, x: str) -> str:
    return net("Compress", x, positive(net, x), axis=0)


def count(net: Net, x: str) -> str:
    """How many rows there are whose first entry is above zero."""
    ones = net("Cast", positive(net, x), to=7)
    return net("ReduceSum", ones, constant(net, 0), keepdims=1)


def largest(net: Net, x: str) -> str:
    scores = net("Gather", x, net.put(np.int64(0)), axis=1)
    return net("Gather", x, net("TopK", scores, count(net, x), results=2)[1], axis=0)


def first(net: Net, x: str) -> str:
    return net("Slice", x, constant(net, 0), count(net, x), constant(net, 0))


def numbered(net: Net, x: str) -> str:
    limit = net("Squeeze", count(net, x), constant(net, 0))
    return net("Gather", x, net("Range", net.put(np.int64(0)), limit, net.put(np.int64(1))))


def unlike(net: Net, x: str) -> str:
    return net("Unique", net("Round", x), axis=0)


def suppressed(net: Net, x: str) -> str:
    boxes = net("Unsqueeze", net("Slice", x, *[constant(net, n) for n in (0, 4, 1)]),
                constant(net, 0))  # fmt: skip
    scores = net("Gather", x, constant(net, 4), axis=1)
    scores = net("Unsqueeze", net("Transpose", scores), constant(net, 0))
    most, overlap = constant(net, 3), net.put(np.array([0.5], np.float32))
    kept = net("NonMaxSuppression", boxes, scores, most, overlap)
    return net("Gather", x, net("Gather", kept, net.put(np.int64(2)), axis=1), axis=0)


FOUND = [
    non_zero, transposed, compressed, largest, first, numbered, unlike, suppressed,
]  # fmt: skip


def plain(net: Net, rows: str) -> str:
    return net("MatMul", rows, net.weight(WIDTH, 8), name="up")


def flattened(net: Net, rows: str) -> str:
    images = net("Reshape", rows, constant(net, -1, 2, 3, 1))
    hidden = net("Relu", net("Conv", images, net.weight(8, 2, 1, 1), name="up"))
    return net("MatMul", net("Flatten", hidden), net.weight(24, 8))


def in_heads(net: Net, rows: str) -> str:
    """The number of rows is read off the shape."""
    hidden = net("MatMul", rows, net.weight(WIDTH, 8), name="up")
    length = net("Gather", net("Shape", hidden), constant(net, 0))
    heads = net("Reshape", hidden, net("Concat", length, constant(net, 2, 4), axis=0))
    merged = net("Transpose", heads, perm=[1, 0, 2])
    back = net("Transpose", merged, perm=[1, 0, 2])
    return net("Reshape", back, net("Concat", length, constant(net, 8), axis=0))


def network(find: Callable[[Net, str], str], behind: Callable[[Net, str], str]) -> ModelProto:
    net = Net(opset=17)
    hidden = net("Relu", behind(net, find(net, net.input("rows", WIDTH))))
    last = net("MatMul", hidden, net.weight(8, 5))
    return net.model(net("ReduceSum", last, constant(net, 0), keepdims=1))


@pytest.mark.parametrize("behind", [plain, flattened, in_heads])
@pytest.mark.parametrize("find", FOUND)
def test_what_follows_grows(
    tmp_path: Path, find: Callable[[Net, str], str], behind: Callable[[Net, str], str]
) -> None:
    small = n2n.load(network(find, behind))
    growing = [d for d in n2n.inspect(small) if d.growth != "fixed"]
    assert any(d.name.startswith("up") for d in growing)
    large = n2n.widen(small, {d.name: d.width + 2 for d in growing})
    for name, model in (("small", small), ("large", large)):
        model.save(tmp_path / f"{name}.onnx")
    sessions = [onnxruntime.InferenceSession(tmp_path / f"{n}.onnx") for n in ("small", "large")]
    for rows in (1, 4, 9):
        x = np.random.default_rng(rows).normal(size=(rows, WIDTH)).astype(np.float32)
        for fed in (x, -np.abs(x)):  # the last: nothing is found by most
            outputs = [s.run(None, {s.get_inputs()[0].name: fed})[0] for s in sessions]
            np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_what_is_found_is_no_number() -> None:
    """What is reshaped to as many rows as were found at the trial is cut anywhere else."""
    net = Net(opset=17)
    x = net.input("rows", WIDTH)
    found = compressed(net, x)
    hidden = net("MatMul", found, net.weight(WIDTH, 8), name="up")
    turned = net("Reshape", hidden, net("Concat", constant(net, 8, -1), axis=0))
    model = n2n.load(net.model(net("ReduceMax", turned, axes=[1], keepdims=0)))
    assert all(d.growth == "fixed" for d in n2n.inspect(model))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_formulas_are_what_is_inferred(path: Path) -> None:
    """Every formula has the value at the trial sizes that onnx infers there."""
    assert infer(Graph(n2n.load(path))).misfits == []
