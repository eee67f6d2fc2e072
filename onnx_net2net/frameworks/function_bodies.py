"""Operators that a translator does not know, as the operators that onnx defines them by.

expanded(model, translations().keys())       # SoftmaxCrossEntropyLoss: LogSoftmax, Gather, ...
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from onnx import ModelProto, NodeProto, TensorProto, defs, helper
from onnx.inliner import inline_selected_functions

from onnx_net2net.model.model import Model
from onnx_net2net.model.tensors import carried
from onnx_net2net.model.unique_names import with_unique_names

_KINDS = ("function", "context_dependent_function")
MOST_ROUNDS = 4  # functions made of functions


def expanded(model: Model, known: Collection[tuple[str, str]]) -> Model:
    """``model`` with operators outside ``known`` inlined where onnx defines them by others.

    ``model`` itself where there is none; what onnx defines by itself alone stays.
    """
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


def _typed(model: Model) -> ModelProto:
    """The model with the types of its weights written down where functions ask for types."""
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
        for body in carried(node):
            yield from _nodes(body.node)
