"""Shares of Q.K^T: taken by the weights where they can be, by a Mul where they cannot."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import onnx_net2net as n2n
from onnx_net2net.algebra.axes import atom
from onnx_net2net.operators.notation import term
from onnx_net2net.widening.absorption import Stuck, compose, decompose
from onnx_net2net.widening.growth import Growth
from tests.console import ROOT
from tests.networks import Net

FIXTURES = ROOT / "fixtures"


def operators(model: n2n.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


@pytest.mark.parametrize("name", ["gptj.dynamo", "gpt-neox.dynamo"])
def test_rotary_attention_grows_without_new_operators(name: str) -> None:
    model = n2n.load(FIXTURES / f"{name}.onnx")
    products = {n.name for n in model.proto.graph.node if n.op_type == "MatMul"}
    grown = n2n.widen(
        model,
        {
            d.name: d.width + 1
            for d in n2n.inspect(model)
            if d.growth == "any" and products & set(d.readers)
        },
        seed=5,
    )
    # Sizes may have to be put together anew; no operator takes shares.
    assert (operators(grown) - operators(model)).keys() <= {"Concat"}
    assert n2n.verify(model, grown, seeds=1)


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_query_that_is_scaled_by_a_weight(op: str) -> None:
    """The weight of a product may take the shares. A divisor may not: it would undo them."""
    net = Net()
    query, key = (net("MatMul", net.input("batch", "time", 4), net.weight(4, 6)) for _ in "qk")
    scaled = net(op, query, net.put(np.linspace(0.5, 2, 6, dtype=np.float32)))
    model = n2n.load(net.model(net("MatMul", scaled, net("Transpose", key, perm=[0, 2, 1]))))
    (dimension,) = (d for d in n2n.inspect(model) if d.growth != "fixed")
    grown = n2n.widen(model, {dimension.name: 9})
    assert operators(grown) == operators(model)
    assert n2n.verify(model, grown, seeds=1)


def test_a_fused_projection_keeps_keys_and_values_unscaled() -> None:
    """One weight axis holds q, k and v: scaling q there would scale all three."""
    model = n2n.load(FIXTURES / "vit.dynamo.onnx")
    head = next(d for d in n2n.inspect(model) if d.name == "blocks.0.attn.qkv:head_size")
    grown = n2n.widen(model, {head.name: head.width + 2})
    assert operators(grown)["Mul"] == operators(model)["Mul"] + 1
    assert n2n.verify(model, grown, seeds=1)


def test_every_other_entry_of_a_query_takes_its_shares() -> None:
    """A rotary embedding of neighbours: both entries of a pair are scaled, or neither."""
    net = Net()
    bounds = [net.put(np.array([n])) for n in (0, 1, 6, 2)]
    query, key = (net("MatMul", net.input("batch", "time", 4), net.weight(4, n)) for n in (6, 3))
    even, odd = (net("Slice", query, bounds[i], bounds[2], bounds[3], bounds[3]) for i in (0, 1))
    pair = net("Sub", even, odd)
    model = n2n.load(net.model(net("MatMul", pair, net("Transpose", key, perm=[0, 2, 1]))))
    (dimension,) = (d for d in n2n.inspect(model) if d.growth != "fixed")
    grown = n2n.widen(model, {dimension.name: 5})
    assert operators(grown) == operators(model)
    assert n2n.verify(model, grown, seeds=1)


def test_vectors_travel_through_merged_and_joined_axes() -> None:
    env = {"h": atom(3), "d": atom(2), "e": atom(4)}
    growth = Growth({})
    shares = np.array([0.25, 0.75])
    merged = compose(term("(h d)"), {"d": shares}, env, growth)
    assert merged.tolist() == [0.25, 0.75] * 3
    assert decompose(term("(h d)"), merged, env, growth)["d"].tolist() == shares.tolist()
    joined = compose(term("(d + e)"), {"d": shares}, env, growth)
    assert joined.tolist() == [0.25, 0.75, 1, 1, 1, 1]


def test_what_is_no_product_of_factors_is_not_taken_apart() -> None:
    env = {"h": atom(2), "d": atom(2)}
    with pytest.raises(Stuck):
        decompose(term("(h d)"), np.array([1.0, 2.0, 2.0, 1.0]), env, Growth({}))
