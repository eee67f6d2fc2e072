"""Operators that a translator does not know, as functions of those that it knows.

expanded(model, translations().keys())       # SoftmaxCrossEntropyLoss: LogSoftmax, Gather, ...
lowered(model)                         # BiasGelu: Add, Gelu

Fused operators have a text here (see `operators/functions.py`), others a body that onnx defines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper
from onnx.inliner import inline_selected_functions

from onnx_net2net.analysis.shapes import Shapes, infer
from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import Model
from onnx_net2net.model.tensors import carried, subgraphs
from onnx_net2net.model.unique_names import with_unique_names
from onnx_net2net.operators.functions import body, functions
from onnx_net2net.operators.language import Unsupported

_KINDS = ("function", "context_dependent_function")
MOST_ROUNDS = 4  # functions made of functions


def expanded(model: Model, known: Collection[tuple[str, str]]) -> Model:
    """Inline operators outside ``known`` that have a text here, or that onnx defines by others.

    Return ``model`` itself where there is none; what onnx defines by itself alone stays. Raise
    Refused, with every node that its operator's text does not cover.
    """
    lowering = _Lowering(model, functions().keys() - known)
    model = lowering.model()
    if lowering.problems:
        remedy = "export the network without this fusion"
        nodes = "; ".join(f"{label}: {reason}" for label, reason in lowering.problems.items())
        raise Refused(None, nodes, remedy)
    for _ in range(MOST_ROUNDS):
        unknown = sorted(set(_unknown(model, known)))
        if not unknown:
            break
        proto = _typed(model)
        for node in _nodes(proto.graph.node):
            if (node.domain, node.op_type) in unknown:
                _state_defaults(node, model.opset)
        try:
            proto = inline_selected_functions(proto, unknown, inline_schema_functions=True)
        except RuntimeError:  # its types are not known well enough
            break
        model = model.with_changes(proto, {})
    return with_unique_names(model)


def lowered(model: Model) -> Model:
    """Inline every operator that has a text, where the text covers what the node states."""
    return _Lowering(model, functions().keys()).model()


class _Lowering:
    """Replaces nodes by the bodies of their texts; ``problems`` are reasons by node."""

    def __init__(self, model: Model, operators: Collection[tuple[str, str]]) -> None:
        self.source = model
        self.operators = operators
        self.problems: dict[str, str] = {}

    def model(self) -> Model:
        """Return the model with bodies in place of nodes; itself where no node has a text."""
        if not any(map(self._has_text, _nodes(self.source.proto.graph.node))):
            return self.source
        self.source = with_unique_names(self.source)
        proto = ModelProto()
        proto.CopyFrom(self.source.proto)
        graphs = [proto.graph, *subgraphs(proto.graph)]
        nodes = [node for graph in graphs for node in graph.node]
        self._names = {name for node in nodes for name in (*node.input, *node.output)}
        self._read = {name for node in nodes for name in node.input}
        self._read |= {value.name for graph in graphs for value in graph.output}
        for graph in graphs:
            self._replace(graph)
        return self.source.with_changes(proto, {})

    def _replace(self, graph: GraphProto) -> None:
        nodes: list[NodeProto] = []
        for node in graph.node:
            nodes += self._body(node) if self._has_text(node) else [node]
        del graph.node[:]
        graph.node.extend(nodes)

    def _body(self, node: NodeProto) -> list[NodeProto]:
        def rank(index: int) -> int | None:
            shape = self._shapes.of(node.input[index])
            return None if shape is None else len(shape)

        try:
            return body(node, rank, self._names.__contains__, self._read.__contains__)
        except Unsupported as problem:
            label = node.name or next(filter(None, node.output), "")
            self.problems[f"{node.op_type} '{label}'"] = str(problem)
            return [node]

    @cached_property
    def _shapes(self) -> Shapes:
        return infer(Graph(self.source))

    def _has_text(self, node: NodeProto) -> bool:
        return ("" if node.domain == "ai.onnx" else node.domain, node.op_type) in self.operators


def _typed(model: Model) -> ModelProto:
    """Write down the types of the weights, where functions ask for types."""
    proto = model.editable()
    stated = {value.name for value in (*proto.graph.value_info, *proto.graph.input)}
    for name, weight in model.weights.items():
        if name not in stated:
            value = helper.make_tensor_value_info(name, weight.dtype, weight.shape)
            proto.graph.value_info.append(value)
    # The inliner asks for the type of operands that are left out, too.
    proto.graph.value_info.append(helper.make_tensor_value_info("", TensorProto.FLOAT, None))
    return proto


def _state_defaults(node: NodeProto, opset: Mapping[str, int]) -> None:
    """Write down the attributes that a node leaves out, which a function's body refers to."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    schema = defs.get_schema(node.op_type, opset.get(domain, 1), domain)
    stated = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in stated and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _unknown(model: Model, known: Collection[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for node in _nodes(model.proto.graph.node):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) in known or node.op_type == "Constant":
            continue
        try:
            schema = defs.get_schema(node.op_type, model.opset.get(domain, 1), domain)
        except defs.SchemaError:
            continue
        if any(getattr(schema, f"has_{kind}") for kind in _KINDS):
            yield node.domain, node.op_type


def _nodes(protos: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in protos:
        yield node
        for graph in carried(node):
            yield from _nodes(graph.node)
