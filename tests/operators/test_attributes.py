"""What a node states and no translation looks at is refused; defaults may be stated."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper

from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.frameworks.attributes import Attributes, unread
from onnx_net2net.model import schemas
from onnx_net2net.model.model import load
from onnx_net2net.operators import registry
from onnx_net2net.operators.functions import functions
from tests.operators.test_rules import BY_ID
from tests.samples import Sample
from tests.samples.network import network

FIRST: dict[tuple[str, str], Sample] = {}  # a sample of each operator
for sample in BY_ID.values():
    FIRST.setdefault(sample.operator, sample)
FRAMEWORKS = ("torch", "keras")


def translated(framework: str, proto: onnx.ModelProto) -> Any:
    """The model in a framework, if that is installed."""
    if framework == "torch":
        pytest.importorskip("torch")
        from onnx_net2net.frameworks.torch import to_torch

        return to_torch(load(proto))
    from tests.keras_models import to_keras

    return to_keras(load(proto))


def known(framework: str) -> set[tuple[str, str]]:
    """Operators that have a translation and a sample."""
    if framework == "torch":
        pytest.importorskip("torch")
        from onnx_net2net.frameworks.torch.operators import translations

        return (translations().keys() | functions().keys()) & FIRST.keys()
    import tests.keras_models  # noqa: F401
    from onnx_net2net.frameworks.keras.operators import translations

    return (translations().keys() | functions().keys()) & FIRST.keys()


def stated(proto: onnx.ModelProto, **attributes: object) -> onnx.ModelProto:
    """``proto`` whose sampled node states more."""
    node = next(n for n in proto.graph.node if n.name == "node")
    have = {attribute.name for attribute in node.attribute}
    node.attribute.extend(
        helper.make_attribute(k, v) for k, v in attributes.items() if k not in have
    )
    return proto


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_attribute_that_nobody_reads_is_refused_for_every_operator(framework: str) -> None:
    accepted = []
    for operator in sorted(known(framework)):
        try:
            translated(framework, stated(network(FIRST[operator]), planted=3))
        except (InvalidModel, Refused) as problem:
            assert "planted" in str(problem), f"{operator}: {problem}"
        else:
            accepted.append(operator)
    assert accepted == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_defaults_may_be_stated(framework: str) -> None:
    """Every default that the schema of an operator has."""
    for operator in sorted(known(framework)):
        proto = network(FIRST[operator])
        opset = opset_of(proto)
        if operator[0] or not defs.has(operator[1], opset):
            continue
        defaults = {
            name: helper.get_attribute_value(attribute.default_value)
            for name, attribute in defs.get_schema(operator[1], opset).attributes.items()
            if attribute.default_value.name
        }
        try:
            translated(framework, network(FIRST[operator]))
        except Refused:
            continue  # a form that is refused anyway
        translated(framework, stated(proto, **defaults))


# What no translation does, though operators may state it.
REFUSED = {("LayerNormalization", "stash_type"), ("GroupNormalization", "stash_type"),
           ("RMSNormalization", "stash_type")}  # fmt: skip


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_operators_may_state_is_looked_at(framework: str) -> None:
    """Numbers other than the default: translated, or refused by who knows what they mean."""
    unseen = set()
    for operator in sorted(known(framework)):
        opset = opset_of(network(FIRST[operator]))
        if operator[0] or not defs.has(operator[1], opset):
            continue
        for name, attribute in defs.get_schema(operator[1], opset).attributes.items():
            other = another(attribute.default_value)
            if other is None:
                continue
            try:
                translated(framework, stated(network(FIRST[operator]), **{name: other}))
            except Refused as problem:
                if "no translation looks at" in str(problem):
                    unseen.add((operator[1], name))
            except (ArithmeticError, IndexError, InvalidModel, KeyError, TypeError, ValueError):
                continue  # such a node cannot be
    assert unseen <= REFUSED


def opset_of(proto: onnx.ModelProto) -> int:
    return next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))


def another(default: onnx.AttributeProto) -> int | float | None:
    """A number that is not the default."""
    if default.type == onnx.AttributeProto.INT:
        return 1 - default.i if default.i in (0, 1) else default.i + 1
    if default.type == onnx.AttributeProto.FLOAT:
        return default.f * 1.5 + 0.01
    return None


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_all_nodes_are_named_at_once(framework: str) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first", planted=1),
        helper.make_node("Concat", ["c", "c"], ["d"], name="second", axis=0, planted=1, other=2),
        helper.make_node("Add", ["a", "d"], ["y"], name="third"),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(Refused) as caught:
        translated(framework, proto)
    text = str(caught.value)
    assert "Relu 'first'" in text and "Concat 'second'" in text and "other" in text
    assert "third" not in text


def test_what_is_implied_is_an_attribute_or_operand_of_the_operator() -> None:
    for (domain, op), record in registry().items():
        for what in record.implied:
            if isinstance(what, int):
                assert what < len(defs.get_schema(op).inputs), op
            else:
                assert schemas.types(op, domain, 23, what), f"{op} has no {what}"


def test_looking_up_is_noted() -> None:
    found = Attributes(axis=1, keepdims=0, planted=np.ones(2))
    assert found.ignored("ReduceSum", "", 11) == ["axis", "keepdims", "planted"]
    assert found.get("keepdims", 1) == 0
    assert "planted" in found
    assert found["axis"] == 1
    assert found.ignored("ReduceSum", "", 11) == []
    found.begin()
    assert found.ignored("ReduceSum", "", 11) == ["axis", "keepdims", "planted"]
    assert found.foreign("ReduceSum", "", 11) == ["axis", "planted"]
    assert Attributes(keepdims=1).ignored("ReduceSum", "", 11) == []
    assert unread(["a", "b"]) == "no translation looks at its attributes a, b"
