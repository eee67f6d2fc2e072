"""Weights with several readers or roles: shared by layers, tied, cut into pieces, or computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnx_net2net.errors import Refused
from onnx_net2net.model.model import load
from onnx_net2net.widening.dimensions import inspect
from onnx_net2net.widening.widen import widen
from tests.judging import Subject, everything, wider
from tests.networks import Net, arrays


def assert_grows(proto: ModelProto, expected: dict[str, str], extra: int = 3) -> Subject:
    """The dimensions are as expected (fixed ones left out), and grow alone and together."""
    subject = Subject(load(proto))
    found = {d.name: d.growth for d in subject.growable}
    assert found == expected
    for dimension in subject.growable:
        for turn in range(3):
            for split in ("project", "even"):
                widths = {dimension.name: wider(dimension, turn)}
                report = subject.judge(widen(subject.model, widths, seed=turn, split=split))
                assert report, (widths, split, report.verdict)
    if subject.growable:
        report = subject.judge(widen(subject.model, everything(subject.dimensions), seed=extra))
        assert report, report.verdict
    return subject


def test_a_weight_shared_by_two_layers() -> None:
    """The same square matrix twice: its rows and columns are one dimension, read and written."""
    net = Net()
    first = net("Gemm", net.input(4, 5), net.weight(5, 7, name="in.weight"))
    square, bias = net.weight(7, 7, name="shared.weight"), net.weight(7, name="shared.bias")
    for _ in range(2):
        first = net("Tanh", net("Gemm", first, square, bias))
    assert_grows(net.model(net("MatMul", first, net.weight(7, 3))), {"in": "any"})


def test_one_matrix_reads_two_dimensions() -> None:
    """Two branches under one head: they must grow alike, and do as one dimension."""
    net = Net()
    x, head = net.input(4, 5), net.weight(7, 3, name="head.weight")
    left = net("MatMul", net("Relu", net("MatMul", x, net.weight(5, 7, name="l.weight"))), head)
    right = net("MatMul", net("Tanh", net("MatMul", x, net.weight(5, 7, name="r.weight"))), head)
    assert_grows(net.model(left, right), {"l": "any"})


def test_a_matrix_that_one_node_sums_over_and_another_does_not() -> None:
    """Contracted here, added there: it cannot be split, so the sum's other side is scaled."""
    net = Net()
    x, weight = net.input(4, 5), net.weight(7, 7, name="w.weight")
    hidden = net("Relu", net("MatMul", x, net.weight(5, 7, name="up.weight")))
    first = net("MatMul", hidden, weight)
    second = net("Add", hidden, net("ReduceMax", weight, axes=[1], keepdims=0))
    total = net("Add", first, second)
    assert_grows(net.model(net("MatMul", total, net.weight(7, 3))), {"up": "any"})


def test_pieces_of_one_weight() -> None:
    """Queries, keys and values cut from one matrix, each with a reader of its own kind."""
    net = Net()
    hidden = net("Relu", net("MatMul", net.input(4, 5), net.weight(5, 7, name="up.weight")))
    packed = net.weight(7, 9, name="packed.weight")
    a, b = net("Split", packed, net.put([4, 5]), results=2, axis=1)
    first = net("MatMul", hidden, a)
    second = net("Mul", hidden, net("ReduceMax", b, axes=[1], keepdims=0))
    last = net("Concat", first, net("MatMul", second, net.weight(7, 2)), axis=1)
    assert_grows(net.model(last), {"up": "any", "packed.weight[1]": "any"})


def test_pieces_of_one_activation() -> None:
    """Shares wanted by queries must not reach the values that come out of the same Split."""
    net = Net()
    x = net("MatMul", net.input(2, 6, 5), net.weight(5, 12, name="qkv.weight"))
    x = net("Add", x, net.weight(12, name="qkv.bias"))
    x = net("Transpose", net("Reshape", x, net.put([2, 6, 3, 4])), perm=[2, 0, 1, 3])
    parts = net("Split", x, net.put([1, 1, 1]), results=3, axis=0)
    q, k, v = (net("Squeeze", part, net.put([0])) for part in parts)
    scores = net("MatMul", q, net("Transpose", k, perm=[0, 2, 1]))
    mixed = net("MatMul", net("Softmax", scores, axis=-1), v)
    assert_grows(net.model(net("MatMul", mixed, net.weight(4, 3))), {"qkv:head_size": "any"})


@pytest.mark.parametrize("transposed", [True, False])
def test_tied_embedding(transposed: bool) -> None:
    """Embedding and head are one matrix: written by rows here, summed over there."""
    net = Net()
    table = net.weight(11, 6, name="embed.weight")
    hidden = net("Gather", table, net.input(2, 5, dtype=np.int64), axis=0)
    hidden = net("Tanh", net("Add", hidden, net.weight(6)))
    if transposed:
        logits = net("MatMul", hidden, net("Transpose", table, perm=[1, 0]))
    else:
        logits = net("Einsum", hidden, table, equation="bth,vh->btv")
    subject = assert_grows(net.model(logits), {"embed": "any"})
    assert [d.name for d in subject.dimensions if d.growth == "fixed"]  # the vocabulary


def test_tie_with_a_norm_in_front_of_the_head() -> None:
    net = Net()
    table = net.weight(11, 6, name="embed.weight")
    hidden = net("Gather", table, net.input(2, 5, dtype=np.int64), axis=0)
    up = net("Relu", net("MatMul", hidden, net.weight(6, 9, name="up.weight")))
    hidden = net("Add", hidden, net("MatMul", up, net.weight(9, 6)))
    hidden = net("LayerNormalization", hidden, net.weight(6, low=0.5), net.weight(6))
    logits = net("MatMul", hidden, net("Transpose", table, perm=[1, 0]))
    subject = Subject(load(net.model(logits)))
    assert {d.name for d in subject.growable} == {"embed", "up"}
    for dimension in subject.growable:
        for turn in range(3):
            report = subject.judge(widen(subject.model, {dimension.name: wider(dimension, turn)}))
            assert report, report.verdict


COMPUTED = {
    "transpose": lambda net, w: net("Transpose", w, perm=[1, 0]),
    "cast": lambda net, w: net("Transpose", net("Cast", w, to=1), perm=[1, 0]),
    "reshape": lambda net, w: net("Transpose", net("Reshape", w, net.put([7, 6])), perm=[1, 0]),
    "slice": lambda net, w: net(
        "Transpose", net("Slice", w, net.put([0]), net.put([7]), net.put([0])), perm=[1, 0]
    ),
    "identity": lambda net, w: net("Identity", net("Transpose", w, perm=[1, 0])),
    "squeeze": lambda net, w: net(
        "Transpose", net("Squeeze", net("Unsqueeze", w, net.put([1])), net.put([1])), perm=[1, 0]
    ),
    "scaled": lambda net, w: net("Transpose", net("Mul", w, net.put(np.float32(0.7))), perm=[1, 0]),
    "summed": lambda net, w: net("Transpose", net("Add", w, net.weight(7, 6)), perm=[1, 0]),
}


@pytest.mark.parametrize("how", COMPUTED)
def test_weights_computed_in_the_graph(how: str) -> None:
    """Both what such a weight writes and what it reads can grow."""
    net = Net()
    x = net("Relu", net("MatMul", net.input(4, 5), net.weight(5, 6, name="before.weight")))
    weight = COMPUTED[how](net, net.weight(7, 6, name="odd.weight"))
    x = net("Relu", net("MatMul", x, weight))
    proto = net.model(net("MatMul", x, net.weight(7, 3)))
    names = [d.name for d in Subject(load(proto)).growable]
    assert len(names) == 2
    assert_grows(proto, dict.fromkeys(names, "any"))


def test_weight_standardisation_is_refused_with_the_remedy() -> None:
    net = Net()
    kernel = net.weight(6, 3, 3, 3, name="conv.weight")
    mean = net("ReduceMean", kernel, axes=[1, 2, 3])
    centred = net("Sub", kernel, mean)
    spread = net("Sqrt", net("ReduceMean", net("Mul", centred, centred), axes=[1, 2, 3]))
    first = net("Conv", net.input(1, 4, 8, 8), net.weight(3, 4, 1, 1, name="in.weight"))
    y = net("Conv", first, net("Div", centred, spread), net.weight(6))
    model = load(net.model(net("Conv", y, net.weight(2, 6, 1, 1))))
    dimension = next(d for d in inspect(model) if d.name == "in")
    assert dimension.growth == "fixed" and dimension.remedy == "fold the weights first (--fold)"
    with pytest.raises(Refused, match="statistic of the weights"):
        widen(model, {"in": 5})
    # What the standardised kernel writes is free: each filter is normalised by itself.
    subject = Subject(model)
    (free,) = subject.growable
    assert subject.judge(widen(model, {free.name: 9}))


def test_shared_initializers_are_cloned_only_where_values_part() -> None:
    """A bias that two layers share, of which one grows: the other keeps the old one."""
    net = Net()
    bias = net.weight(7, name="bias")
    x = net.input(4, 5)
    left = net("Gemm", x, net.weight(5, 7, name="l.weight"), bias)
    right = net("Gemm", x, net.weight(5, 7, name="r.weight"), bias)
    last = net("MatMul", net("Relu", left), net.weight(7, 3))
    proto = net.model(last, net("MatMul", net("Relu", right), net.weight(7, 2)))
    subject = assert_grows(proto, {"l": "any"})  # sharing ties them: both grow
    grown = widen(subject.model, {"l": 9})
    after = arrays(onnx.load_from_string(grown.to_bytes()))
    assert after["l.weight"].shape == after["r.weight"].shape == (5, 9)
