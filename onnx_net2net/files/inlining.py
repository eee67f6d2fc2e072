"""Local functions, inlined: afterwards every node is a call of a standard or contributed operator.

PyTorch's exporters write some modules and operators as model-local functions. A function call is
an operator that no rule knows, so the calls are replaced by their bodies when a model is loaded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx.inliner
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from onnx_net2net.errors import InvalidModel
from onnx_net2net.files.tensors import subgraphs

__all__ = ["inline_functions"]

# A few functions that call each other twice each can stand for more than any memory holds.
MAX_NODES = 1_000_000
MAX_GROWTH = 256 << 20  # bytes that inlining may add; contents of weights are no part of functions
MAX_DEPTH = 200

Key = tuple[str, str, str]


def inline_functions(proto: ModelProto) -> ModelProto:
    """The model with calls of its local functions replaced by their bodies; itself if it has none.

    Works on a skeleton: initializers are carried along by name. Raises :class:`InvalidModel` for
    functions that call themselves, or that expand beyond any use.
    """
    if not proto.functions:
        return proto
    _check_expansion(proto)
    try:
        return onnx.inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidModel(
            f"its local functions cannot be inlined: {str(error).splitlines()[0]}",
            "export the model without local functions",
        ) from None


def _key(item: FunctionProto | NodeProto) -> Key:
    name = item.name if isinstance(item, FunctionProto) else item.op_type
    return item.domain, name, item.overload


def _calls(body: FunctionProto | GraphProto) -> Counter[Key]:
    """How often each operator stands in a body, subgraphs included."""
    return Counter(_key(node) for graph in (body, *subgraphs(body)) for node in graph.node)


@dataclass
class _Size:
    """What a body stands for once every call in it is replaced: nodes, and bytes."""

    nodes: int
    bytes: int


def _check_expansion(proto: ModelProto) -> None:
    """Raise unless the functions are free of cycles and expand to a bounded size."""
    bodies = {_key(function): function for function in proto.functions}
    pending = {key: _calls(function) for key, function in bodies.items()}
    sizes: dict[Key, _Size] = {}
    for _ in range(MAX_DEPTH):
        # One floor of the call hierarchy a turn: the functions that call only finished ones.
        ready = [key for key, calls in pending.items() if not calls.keys() & pending.keys()]
        if not ready:
            break
        for key in ready:
            sizes[key] = _expanded(bodies[key].ByteSize(), pending.pop(key), sizes)
    if pending:
        domain, name, _ = min(pending)
        raise InvalidModel(
            f"local function {domain}::{name} calls itself, or is nested over {MAX_DEPTH} deep",
            "export the model without local functions",
        )
    total = _expanded(0, _calls(proto.graph), sizes)
    if total.nodes > MAX_NODES or total.bytes > MAX_GROWTH:
        raise InvalidModel(
            f"its local functions expand to {total.nodes} nodes and {total.bytes >> 20} MiB; at "
            f"most {MAX_NODES} and {MAX_GROWTH >> 20} are accepted",
            "export the model without local functions, and large constants as initializers",
        )


def _expanded(own: int, calls: Counter[Key], sizes: dict[Key, _Size]) -> _Size:
    """The size of a body of ``own`` bytes with these calls."""
    inner = [(times, sizes[key]) for key, times in calls.items() if key in sizes]
    plain = sum(times for key, times in calls.items() if key not in sizes)
    return _Size(
        plain + sum(times * size.nodes for times, size in inner),
        own + sum(times * size.bytes for times, size in inner),
    )
