"""Networks of any number of equal parts: long chains, wide fans, one dimension shared by all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto

from tests.networks import Net


def _ints(net: Net, *values: int) -> str:
    return net.put(np.array(values, np.int64))


def chain(parts: int) -> ModelProto:
    """Layer behind layer."""
    net = Net()
    x = net.input("batch", 7)
    for _ in range(parts):
        x = net("Relu", net("MatMul", x, net.weight(7, 7)))
    return net.model(x)


def residual(parts: int) -> ModelProto:
    """Branches around one stream."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 9))
    for _ in range(parts):
        inner = net("Relu", net("MatMul", x, net.weight(9, 5)))
        x = net("Add", x, net("MatMul", inner, net.weight(5, 9)))
    return net.model(x)


def numbered(parts: int) -> ModelProto:
    """The same, with the names that PyTorch's exporters write."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 9, name="stem.weight"))
    for i in range(parts):
        up = net.weight(9, 5, name=f"h.{i}.mlp.up.weight")
        down = net.weight(5, 9, low=-0.01, high=0.01, name=f"h.{i}.mlp.down.weight")
        inner = net("MatMul", x, up, name=f"/h.{i}/mlp/up/MatMul")
        inner = net("Relu", inner, name=f"/h.{i}/mlp/Relu")
        inner = net("MatMul", inner, down, name=f"/h.{i}/mlp/down/MatMul")
        x = net("Add", x, inner, name=f"/h.{i}/Add")
    return net.model(x)


def shared(parts: int) -> ModelProto:
    """One weight that every layer reads."""
    net = Net()
    x, weight = net.input("batch", 7), net.weight(7, 7)
    for _ in range(parts):
        x = net("Relu", net("MatMul", x, weight))
    return net.model(x)


def readers(parts: int) -> ModelProto:
    """One tensor that many layers read, their results added up."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 9))
    return net.model(net("Sum", *[net("MatMul", x, net.weight(9, 2)) for _ in range(parts)]))


def joined(parts: int) -> ModelProto:
    """One tensor that many layers read, their results put side by side."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 9))
    found = [net("MatMul", x, net.weight(9, 2)) for _ in range(parts)]
    return net.model(net("Concat", *found, axis=1))


def split_and_joined(parts: int) -> ModelProto:
    """A Split into single units, put together in another order."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, parts))
    pieces = net("Split", x, _ints(net, *[1] * parts), axis=1, results=parts)
    joined = net("Concat", *pieces[::-1], axis=1)
    return net.model(net("MatMul", joined, net.weight(parts, 3)))


def split_and_added(parts: int) -> ModelProto:
    """A Split whose pieces one Sum reads."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 2 * parts))
    pieces = net("Split", x, _ints(net, *[2] * parts), axis=1, results=parts)
    return net.model(net("MatMul", net("Sum", *pieces), net.weight(2, 3)))


def frames(parts: int) -> ModelProto:
    """Overlapping frames of a wave: two shifted Slices, cut into rows and put side by side."""
    net, hop = Net(), 4
    x = net.input("batch", hop * (parts + 1))
    rows = _ints(net, -1, parts, hop)
    ends = (0, hop * parts), (hop, hop * (parts + 1))
    cut = [
        net("Reshape", net("Slice", x, _ints(net, a), _ints(net, b), _ints(net, 1)), rows)
        for a, b in ends
    ]
    hidden = net("Relu", net("MatMul", net("Concat", *cut, axis=2), net.weight(2 * hop, 8)))
    return net.model(net("MatMul", hidden, net.weight(8, 3)))


def halves(parts: int) -> ModelProto:
    """Halves that change places, again and again."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 8))
    sizes = _ints(net, 4, 4)
    for _ in range(parts):
        a, b = net("Split", x, sizes, axis=1, results=2)
        x = net("Concat", net("Neg", b), a, axis=1)
    return net.model(net("MatMul", x, net.weight(8, 2)))


def shapes(parts: int) -> ModelProto:
    """A size that is read off, and stated, before every layer."""
    net = Net()
    x = net.input("batch", 4, 7)
    first, rest = _ints(net, 0), _ints(net, 4, 7)
    for _ in range(parts):
        batch = net("Gather", net("Shape", x), first, axis=0)
        shape = net("Concat", batch, rest, axis=0)
        x = net("Reshape", net("MatMul", x, net.weight(7, 7)), shape)
    return net.model(x)


def _slice(net: Net, x: str, start: int, stop: int) -> str:
    return net("Slice", x, _ints(net, start), _ints(net, stop), _ints(net, 1))


def _shuffled(parts: int) -> list[int]:
    return random.Random(0).sample(range(parts), parts)


def slices(parts: int, order: Sequence[int] = ()) -> ModelProto:
    """Pieces of one tensor, each cut by a Slice of its own, added up."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 3 * parts))
    pieces = [_slice(net, x, 3 * i, 3 * i + 3) for i in order or range(parts)]
    return net.model(net("MatMul", net("Sum", *pieces), net.weight(3, 2)))


def slices_in_any_order(parts: int) -> ModelProto:
    """The same, cut here and there."""
    return slices(parts, _shuffled(parts))


def slices_of_products(parts: int) -> ModelProto:
    """Pieces of an axis that was merged of two."""
    net = Net()
    x = net("MatMul", net.input("batch", 3 * parts, 4), net.weight(4, 4))
    x = net("Reshape", x, _ints(net, 0, 12 * parts))
    pieces = [_slice(net, x, 12 * i, 12 * i + 12) for i in _shuffled(parts)]
    return net.model(net("MatMul", net("Sum", *pieces), net.weight(12, 2)))


def slices_of_slices(parts: int) -> ModelProto:
    """One tensor, halved by Slices until pieces of three are left."""
    net = Net()
    pieces = [(net("MatMul", net.input("batch", 7), net.weight(7, 3 * parts)), parts)]
    for x, size in pieces:  # grows as it is walked
        if size > 1:
            ends = (0, size // 2), (size // 2, size)
            pieces += [(_slice(net, x, 3 * a, 3 * b), b - a) for a, b in ends]
    least = [x for x, size in pieces if size == 1]
    return net.model(net("MatMul", net("Sum", *least), net.weight(3, 2)))


def windows(parts: int, length: int = 3, hop: int = 1, order: Sequence[int] = ()) -> ModelProto:
    """Overlapping windows of one tensor, each with a layer of its own."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, hop * (parts - 1) + length))
    found = [
        net("MatMul", _slice(net, x, hop * i, hop * i + length), net.weight(length, 2))
        for i in order or range(parts)
    ]
    return net.model(net("Sum", *found))


def windows_in_any_order(parts: int) -> ModelProto:
    """Windows whose overlaps are dimensions of their own."""
    return windows(parts, 10, 5, _shuffled(parts))


NETWORKS: dict[str, Callable[[int], ModelProto]] = {
    network.__name__: network
    for network in (
        chain, frames, halves, joined, numbered, readers, residual, shapes, shared, slices,
        slices_in_any_order, slices_of_products, slices_of_slices, split_and_added,
        split_and_joined, windows, windows_in_any_order,
    )
}  # fmt: skip
