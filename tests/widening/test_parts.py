"""What the parts of merged axes are called: derived from what is computed, else numbered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import onnx_net2net as n2n
from tests.console import ROOT
from tests.networks import Net

T = 5  # positions


def _projected(net: Net, x: str, name: str, *sizes: int) -> str:
    """Project to heads and their entries: (batch, heads, position, entry)."""
    y = net("MatMul", x, net.weight(7, int(np.prod(sizes)), name=f"{name}.weight"))
    y = net("Reshape", y, net.put(np.array([2, T, *sizes])))
    return str(net("Transpose", y, perm=[0, *range(2, 1 + len(sizes)), 1, 1 + len(sizes)]))


def attention(kv: int = 3, rep: int = 1, *, softmax: bool = True, swap: bool = False) -> set[str]:
    """Attention of ``rep`` query heads for each of ``kv`` heads of keys and values."""
    net = Net()
    x = net.input(2, T, 7)
    q = _projected(net, x, "q", kv * rep, 6)
    k, v = _projected(net, x, "k", kv, 6), _projected(net, x, "v", kv, 4)
    if rep > 1:
        repeated = []
        for y, size in ((k, 6), (v, 4)):
            y = net("Unsqueeze", y, net.put(np.array([2])))
            y = net("Expand", y, net.put(np.array([2, kv, rep, T, size])))
            repeated.append(net("Reshape", y, net.put(np.array([2, kv * rep, T, size]))))
        k, v = repeated
    if swap:
        scores = net("Einsum", k, q, equation="bhtd,bhsd->bhst")
    else:
        scores = net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = net("MatMul", net("Softmax", scores, axis=-1) if softmax else scores, v)
    merged = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), net.put([2, T, -1]))
    out = net("MatMul", merged, net.weight(kv * rep * 4, 3, name="o.weight"))
    return _names(net, out)


def _names(net: Net, *outputs: str) -> set[str]:
    return {d.name for d in n2n.inspect(n2n.load(net.model(*outputs))) if ":" in d.name}


def grouped() -> set[str]:
    net = Net()
    x = net("Conv", net.input(2, 4, 6, 6), net.weight(6, 4, 1, 1, name="a.weight"))
    x = net("Conv", x, net.weight(15, 2, 3, 3, name="b.weight"), group=3)
    return _names(net, net("Conv", x, net.weight(2, 15, 1, 1, name="c.weight")))


def group_norm() -> set[str]:
    net = Net()
    x = net("Conv", net.input(2, 4, 6, 6), net.weight(6, 4, 1, 1, name="a.weight"))
    x = net("Reshape", x, net.put(np.array([2, 3, -1])))
    x = net("InstanceNormalization", x, net.put(np.ones(3, np.float32)), net.weight(3))
    x = net("Reshape", x, net.put(np.array([2, 6, 6, 6])))
    return _names(net, net("Conv", x, net.weight(2, 6, 1, 1, name="c.weight")))


def halves() -> set[str]:
    """Two halves of a layer that are read apart: nothing tells what they are."""
    net = Net()
    x = net("MatMul", net.input(2, 7), net.weight(7, 8, name="up.weight"))
    a, b = net("Split", x, net.put([3, 5]), results=2, axis=1)
    out = net("Add", net("MatMul", a, net.weight(3, 2)), net("MatMul", b, net.weight(5, 2)))
    return _names(net, out)


PLAIN = {"q:heads", "q:head_size", "v:v_head_size"}

CASES: dict[str, tuple[Callable[[], set[str]], set[str]]] = {
    "attention": (attention, PLAIN),
    "no softmax": (lambda: attention(softmax=False), PLAIN),
    "keys first": (lambda: attention(swap=True), {"q:heads", "q:head_size", "v:v_head_size"}),
    "grouped queries": (
        lambda: attention(2, 3),
        {"q:kv_heads", "q:heads_per_kv", "q:head_size", "v:v_head_size"},
    ),
    "grouped convolution": (grouped, {"a:groups", "a:channels", "b:channels"}),
    "group norm": (group_norm, {"a:groups", "a:channels"}),
    "unknown": (halves, {"up:0", "up:1"}),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_are_called_what_they_are(case: str) -> None:
    build, expected = CASES[case]
    assert build() == expected


@pytest.mark.parametrize(
    "name",
    ["gpt2.dynamo", "llama.dynamo", "gptj.dynamo", "bert.fused", "resnext.dynamo", "vit.ts17"],
)
def test_names_stay_when_the_parts_grow(name: str) -> None:
    model = n2n.load(ROOT / "fixtures" / f"{name}.onnx")
    before = n2n.inspect(model)
    widths = {d.name: d.width + 1 for d in before if ":" in d.name and d.growth == "any"}
    assert widths
    after = {d.name: d.width for d in n2n.inspect(n2n.widen(model, widths))}
    assert after == {d.name: widths.get(d.name, d.width) for d in before}
