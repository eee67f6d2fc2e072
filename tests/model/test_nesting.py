"""If within If, to any depth: read up to a stated bound, refused with one error beyond it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

import onnx_net2net as n2n
from onnx_net2net.model.tensors import MOST_NESTED
from tests.networks import Net


def branch(graph: GraphProto, source: str, result: str) -> GraphProto:
    """Add an If on ``flag`` to a graph, that negates ``source``; gives its branch to be filled."""
    node = graph.node.add(op_type="If", input=["flag"], output=[result])
    other = node.attribute.add(name="else_branch", type=AttributeProto.GRAPH).g
    other.name, inner = f"{result}.else", f"{result}.negated"
    other.node.append(helper.make_node("Neg", [source], [inner]))
    other.output.append(onnx.ValueInfoProto(name=inner))
    return node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g


def fill(graph: GraphProto, depth: int, last: NodeProto) -> None:
    """Put ``depth`` Ifs within one another into a graph, and ``last`` into the innermost."""
    for level in range(depth):
        inner = f"level{level}"
        graph = branch(graph, last.input[0], f"level{level - 1}" if level else "deep")
        graph.name = f"branch{level}"
        graph.output.append(onnx.ValueInfoProto(name=inner))
    graph.node.add(op_type=last.op_type, input=last.input, domain=last.domain,
                   output=[inner if depth else "deep"])  # fmt: skip


def framed(add: Callable[[GraphProto], None]) -> ModelProto:
    """A network of two layers; between them what ``add`` makes of "hidden", named "deep"."""
    net = Net(opset=18)
    hidden = net("Identity", net("MatMul", net.input("batch", 3), net.weight(3, 4)))
    flag = net.input(dtype=np.bool_)
    proto = net.model(net("MatMul", net("Neg", hidden), net.weight(4, 2)))
    for node in proto.graph.node:
        names = {hidden: "hidden", flag: "flag"}
        node.output[:] = [names.get(name, name) for name in node.output]
        if node.op_type == "Neg":
            middle = node
    for value in proto.graph.input:
        value.name = "flag" if value.name == flag else value.name
    nodes = list(proto.graph.node)
    at = nodes.index(middle)
    del proto.graph.node[at:]
    add(proto.graph)
    middle.input[:] = ["deep"]
    proto.graph.node.extend([middle, *nodes[at + 1 :]])
    return proto


def nested(depth: int) -> ModelProto:
    """Ifs within one another in the graph itself."""
    last = helper.make_node("Relu", ["hidden"], ["unused"])
    return framed(lambda graph: fill(graph, depth, last))


def by_functions(depth: int) -> ModelProto:
    """Functions that each hold one If, and call the next in its branch."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(depth):
        call = helper.make_node(f"f{level + 1}", ["flag", "x"], ["r"], domain="own")
        end = helper.make_node("Relu", ["x"], ["r"])
        graphs = {
            "then_branch": [call if level < depth - 1 else end],
            "else_branch": [helper.make_node("Neg", ["x"], ["r"])],
        }
        value = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        held = {name: helper.make_graph(n, name, [], [value]) for name, n in graphs.items()}
        body = helper.make_node("If", ["flag"], ["y"], **held)
        functions.append(
            helper.make_function("own", f"f{level}", ["flag", "x"], ["y"], [body], opsets)
        )
    call = helper.make_node("f0", ["flag", "hidden"], ["deep"], domain="own")
    proto = framed(lambda graph: graph.node.append(call))
    proto.functions.extend(functions)
    proto.opset_import.append(opsets[1])
    return proto


MADE = {"graphs": nested, "functions": by_functions}


@pytest.mark.parametrize("kind", MADE)
def test_what_the_bound_allows_is_read(kind: str) -> None:
    model = n2n.load(MADE[kind](MOST_NESTED))
    (grown,) = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    n2n.costs(model), n2n.blocks(model)
    wider = n2n.widen(model, {grown.name: 8})
    assert n2n.verify(model, wider, seeds=1, provider="cpu")


@pytest.mark.parametrize("depth", [MOST_NESTED + 1, MOST_NESTED + 3, 64, 190])
@pytest.mark.parametrize("kind", MADE)
def test_what_it_forbids_is_refused_once(kind: str, depth: int) -> None:
    with pytest.raises(n2n.InvalidModel, match=f"nested over {MOST_NESTED} deep"):
        n2n.load(MADE[kind](depth))


@pytest.mark.parametrize("depth", [250, 1200, 5000])
def test_no_depth_is_too_much_for_the_refusal(depth: int) -> None:
    with pytest.raises(n2n.InvalidModel, match="nested"):
        n2n.load(nested(depth))
    with pytest.raises(n2n.InvalidModel, match="nested over"):
        n2n.load(by_functions(depth))
