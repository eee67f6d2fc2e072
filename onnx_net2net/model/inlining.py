"""Local functions, inlined: afterwards every node is a call of a standard or contributed operator.

PyTorch's exporters write some modules and operators as model-local functions. A function call is
an operator that no rule knows, so the calls are replaced by their bodies when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import onnx.inliner
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.schemas import MICROSOFT, domain_of
from onnx_net2net.model.tensors import MOST_NESTED, carried, nested_too_deep, nodes

__all__ = ["inline_functions"]

# A few functions that call each other twice each can stand for more than any memory holds.
MAX_NODES = 1_000_000
MAX_GROWTH = 128 << 20  # bytes that inlining may add; contents of weights are no part of functions
MAX_DEPTH = 200

Key = tuple[str, str, str]


def inline_functions(proto: ModelProto) -> ModelProto:
    """Replace calls of local functions by their bodies; return the model itself if it has none.

    Works on a skeleton: initializers are carried along by name. Raises :class:`InvalidModel` for
    functions that call themselves, or that expand beyond any use.
    """
    if not proto.functions:
        return proto
    _check_names(proto)
    _check_expansion(proto)
    stated = deepcopy(proto)
    _state_defaults(stated)
    try:
        return onnx.inliner.inline_local_functions(stated)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidModel(
            f"its local functions cannot be inlined: {str(error).splitlines()[0]}",
            "export the model without local functions",
        ) from None


def _key(item: FunctionProto | NodeProto) -> Key:
    name = item.name if isinstance(item, FunctionProto) else item.op_type
    return item.domain, name, item.overload


def _check_names(proto: ModelProto) -> None:
    """Raise where a function that is called has the name of an operator.

    By the standard its body counts, and onnxruntime takes its own kernel.
    """
    names = {(function.domain, function.name) for function in proto.functions}
    for body in (proto.graph, *proto.functions):
        for node in nodes(body):
            domain = domain_of(node)
            own = domain == MICROSOFT or onnx.defs.has(node.op_type, domain)
            if own and (node.domain, node.op_type) in names:
                raise InvalidModel(
                    f"a local function has the name of the operator {node.op_type}, and who runs "
                    "the model may take either",
                    "export the model without local functions",
                )


def _state_defaults(proto: ModelProto) -> None:
    """Write down what calls leave to the defaults of their function, which the inliner drops."""
    bodies = {_key(function): function for function in proto.functions}
    for body in (proto.graph, *proto.functions):
        without_default = set(body.attribute) if isinstance(body, FunctionProto) else set()
        for node in nodes(body):
            defaults = bodies[_key(node)].attribute_proto if _key(node) in bodies else ()
            stated = {attribute.name: attribute for attribute in node.attribute}
            for default in defaults:
                if default.name not in stated:
                    node.attribute.append(default)
                elif stated[default.name].ref_attr_name in without_default:
                    raise InvalidModel(
                        f"local function {node.op_type} takes {default.name!r} from a caller that "
                        "need not have it, rather than its default",
                        "export the model without local functions",
                    )


@dataclass
class _Size:
    """What a body stands for once every call in it is replaced.

    ``references``: how often it would repeat the attributes that it is called with; ``depth``: how
    many graphs lie within one another.
    """

    depth: int = 0
    nodes: int = 0
    bytes: int = 0
    references: int = 0


def _check_expansion(proto: ModelProto) -> None:
    """Raise unless the functions are free of cycles and expand to a bounded size."""
    bodies = {_key(function): function for function in proto.functions}
    pending = {key: {_key(node) for node in nodes(body)} for key, body in bodies.items()}
    sizes: dict[Key, _Size] = {}
    for _ in range(MAX_DEPTH):
        # One floor of the call hierarchy a turn: the functions that call only finished ones.
        ready = [key for key, calls in pending.items() if not calls & pending.keys()]
        if not ready:
            break
        for key in ready:
            del pending[key]
            sizes[key] = _expanded(bodies[key], sizes)
    if pending:
        domain, name, _ = min(pending)
        raise InvalidModel(
            f"local function {domain}::{name} calls itself, or is nested over {MAX_DEPTH} deep",
            "export the model without local functions",
        )
    total = _expanded(proto.graph, sizes)
    if total.nodes > MAX_NODES or total.bytes > MAX_GROWTH + proto.ByteSize():
        raise InvalidModel(
            f"its local functions expand to {total.nodes} nodes and {total.bytes >> 20} MiB; at "
            f"most {MAX_NODES} and {MAX_GROWTH >> 20} are accepted",
            "export the model without local functions, and large constants as initializers",
        )


def _expanded(body: FunctionProto | GraphProto, sizes: dict[Key, _Size]) -> _Size:
    """Return the size of a body all of whose functions have known ``sizes``."""
    size = _Size(bytes=body.ByteSize())
    for depth, node in _nodes_by_depth(body):
        called = sizes.get(_key(node))
        size.depth = max(size.depth, depth + (called.depth if called else 0))
        references = sum(bool(attribute.ref_attr_name) for attribute in node.attribute)
        if called is None:
            size.nodes += 1
            size.references += references
        else:
            size.nodes += called.nodes
            size.bytes += called.bytes + node.ByteSize() * called.references
            size.references += references * called.references
    if size.depth > MOST_NESTED:
        raise nested_too_deep()
    return size


def _nodes_by_depth(
    body: FunctionProto | GraphProto, depth: int = 0
) -> Iterator[tuple[int, NodeProto]]:
    """Yield within how many graphs of its nodes each node of a body lies, and the node."""
    for node in body.node:
        yield depth, node
        for inner in carried(node):
            yield from _nodes_by_depth(inner, depth + 1)
