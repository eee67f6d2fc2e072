"""Layers of dense blocks: copies beside them, which others read with zeros."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

import onnx_net2net as n2n
from onnx_net2net.deepening import dense_blocks
from onnx_net2net.frameworks.lineage import Lineage
from tests.networks import Net

WIDTH, RATE = 4, 3


def layer(net: Net, entry: str, name: str, width: int, inner: int = 5) -> str:
    """A norm, two matrices and what they are called."""
    norm = [net.weight(width, low=0.5, high=1.5, name=f"{name}.norm.{p}") for p in "gbmv"]
    hidden = net("Relu", net("BatchNormalization", entry, *norm))
    hidden = net("MatMul", hidden, net.weight(width, inner, name=f"{name}.first.weight"))
    return net("MatMul", net("Relu", hidden), net.weight(inner, RATE, name=f"{name}.last.weight"))


def dense(net: Net, count: int) -> list[str]:
    parts = [net("MatMul", net.input("n", 6), net.weight(6, WIDTH))]
    for number in range(count):
        entry = net("Concat", *parts, axis=-1)
        parts.append(layer(net, entry, f"d.layer{number + 1}", WIDTH + RATE * number))
    return parts


def headed(count: int = 3, *, net: Net | None = None) -> ModelProto:
    net = net or Net()
    last = net("Concat", *dense(net, count), axis=1)
    return net.model(net("MatMul", last, net.weight(WIDTH + RATE * count, 2, name="head.weight")))


@pytest.mark.parametrize(
    "copies",
    [
        {"d.layer3": 2},
        {"d.layer1": 1},
        {"d.layer1": 2, "d.layer2": 1, "d.layer3": 1},
    ],
    ids=str,
)
def test_copies_stand_beside_their_block(copies: dict[str, int]) -> None:
    model = n2n.load(headed())
    assert [block.name for block in n2n.blocks(model) if block.beside] == [
        f"d.layer{number}" for number in (1, 2, 3)
    ]
    deeper = n2n.deepen(model, block=copies, seed=3)
    assert n2n.verify(model, deeper)
    longer = n2n.load(headed(3 + sum(copies.values())))
    assert {n: w.shape for n, w in deeper.weights.items()} == {
        n: w.shape for n, w in longer.weights.items()
    }
    assert n2n.replay(model, deeper.history).to_bytes() == deeper.to_bytes()
    wider = n2n.widen(deeper, factor=2, all=True)
    assert n2n.verify(model, wider)


def test_copies_differ_from_each_other() -> None:
    """Two that compute the same would be trained alike for ever."""
    deeper = n2n.deepen(n2n.load(headed()), block="d.layer3", copies=2)
    first, second = (deeper.weights[f"d.layer{i}.first.weight"].array() for i in (4, 5))
    assert first.shape[0] + RATE == second.shape[0]
    assert not np.isclose(first[-RATE:], second[-2 * RATE : -RATE]).any()
    np.testing.assert_array_equal(
        deeper.weights["d.layer5.last.weight"].array(),
        deeper.weights["d.layer3.last.weight"].array(),
    )


def test_the_history_tells_how_readers_grew() -> None:
    model = n2n.load(headed())
    deeper = n2n.deepen(model, block={"d.layer1": 1, "d.layer2": 1})
    lineage = Lineage(json.loads(json.dumps(deeper.history)))
    name, growths = lineage.follow("d.layer3.first.weight")
    assert name == "d.layer5.first.weight"
    array = model.weights["d.layer3.first.weight"].array()
    for growth in growths:
        (along,) = growth.axes
        array = np.where(along.source[:, None] < 0, 0, array[along.source])
    np.testing.assert_array_equal(array, deeper.weights[name].array())
    assert lineage.former("d.layer5.first.weight") == "d.layer3.first.weight"
    assert lineage.former("d.layer2.first.weight") is None
    assert lineage.former("d.layer3.first.weight") == "d.layer2.first.weight"


def read_aside() -> ModelProto:
    """One layer's units are added to others as well, which no zero keeps copies out of."""
    net = Net()
    parts = dense(net, 3)
    last = net("Add", parts[2], parts[3])
    return net.model(net("MatMul", last, net.weight(RATE, 2)))


def branches() -> ModelProto:
    """Two branches beside each other, of which none reads the other."""
    net = Net()
    entry = net.input("n", WIDTH)
    last = net("Concat", *(layer(net, entry, f"d.layer{i}", WIDTH) for i in (1, 2)), axis=1)
    return net.model(net("MatMul", last, net.weight(2 * RATE, 2)))


@pytest.mark.parametrize("made", [read_aside, branches])
def test_what_is_not_dense_is_refused(made: Callable[[], ModelProto]) -> None:
    with pytest.raises(n2n.Refused, match="cannot be copied exactly"):
        n2n.deepen(n2n.load(made()), block="d.layer2")


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMean"])
def test_what_reads_units_without_weights_is_refused(op: str) -> None:
    net = Net()
    last = net(op, net("Concat", *dense(net, 2), axis=1), axes=[1], keepdims=1)
    model = n2n.load(net.model(net("MatMul", last, net.weight(1, 2))))
    with pytest.raises(n2n.Refused, match=r"(?s)d\.layer2.*copy another block"):
        n2n.deepen(model, block="d.layer2")


# ---- planted faults ------------------------------------------------------------------------------


def test_readers_without_zeros_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        dense_blocks, "fill_pads", lambda array, axis, source, _: np.nan_to_num(array) + 0.1
    )
    model = n2n.load(headed())
    assert not n2n.verify(model, n2n.deepen(model, block="d.layer3"))
