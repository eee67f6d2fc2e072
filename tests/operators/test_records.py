"""Records say what operators are: everything else follows a new one by that alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from onnx import AttributeProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.frameworks.roles import Role, roles
from onnx_net2net.model import schemas
from onnx_net2net.model.attributes import check_attributes
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.hazards import node_hazard
from onnx_net2net.operators import facts, multiply_adds, registry
from onnx_net2net.operators.flops import product
from onnx_net2net.operators.language import Kind, Op
from onnx_net2net.operators.record import Extent, Operand, Operator
from onnx_net2net.verification.bounds import Use, input_uses

DOMAIN = "made.up"
PROJECT = Operator(
    "... m k, k n, _ -> ... m n",
    Kind.SCALE,
    weights={1: Operand.WEIGHT},
    flops=product,
    extents={2: Extent.COUNT},
    choices={"mode": ("fast", "slow")},
    types={"mode": AttributeProto.STRING},
    required=("mode",),
)


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    """An operator of another domain, known by its record alone."""
    registry()[DOMAIN, "Project"] = PROJECT
    yield
    del registry()[DOMAIN, "Project"]


def network() -> n2n.Model:
    """Two made-up layers from x (2, 5) to y (2, 3), nine units between them."""
    drawn = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    nodes = [
        helper.make_node("Project", ["x", "w", "n"], ["h"], "first", domain=DOMAIN, mode="fast"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", 1, [2, 5]), helper.make_tensor_value_info("n", 7, [])],
        [helper.make_tensor_value_info("y", 1, [2, 3])],
        [
            numpy_helper.from_array(drawn, "w"),
            numpy_helper.from_array(drawn.reshape(9, 5)[:, :3].copy(), "v"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return n2n.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_it_grows() -> None:
    model = network()
    wide = n2n.widen(model, {"first": 12}, seed=0)
    assert wide.weights["w"].shape == (5, 12) and wide.weights["v"].shape == (12, 3)
    x = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    before, after = (x @ m.weights["w"].array() @ m.weights["v"].array() for m in (model, wide))
    assert np.allclose(before, after, atol=1e-5)


def test_its_costs_roles_and_inputs_are_known() -> None:
    model = network()
    op = Op(model.proto.graph.node[0], 1, ((2, 5), (5, 9), ()), ((2, 9),), (None,) * 3)
    assert multiply_adds(op) == [2 * 9 * 5]
    assert roles(model)["w"] is Role.PARAMETER
    assert input_uses(model.proto.graph)["n"] == Use("extent")
    assert Graph(model).main[0].facts is PROJECT


@pytest.mark.parametrize(
    ("attributes", "said"), [({"mode": "other"}, "knows 'fast'"), ({}, "lacks its attribute")]
)
def test_its_attributes_are_checked(attributes: dict[str, str], said: str) -> None:
    proto = network().proto
    del proto.graph.node[0].attribute[:]
    proto.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    with pytest.raises(n2n.InvalidModel, match=said):
        check_attributes(proto, {"": 17, DOMAIN: 1})


def test_its_odd_operands_are_seen() -> None:
    node = network().proto.graph.node[0]
    assert node_hazard(node, lambda name: np.int64([4])) is None
    assert "a count of 0" in str(node_hazard(node, lambda name: np.int64([0])))


def test_without_its_record_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry(), (DOMAIN, "Project"), replace(PROJECT, rule=None))
    found = {d.name: d for d in n2n.inspect(network())}
    assert not any(d.growth == "any" for d in found.values())
    assert facts("Other", DOMAIN).rule is None and schemas.texts("Other", DOMAIN, "mode") is None
