"""Operands that native code may not survive: absurd sizes, counts of 0, shapes without an end.

    node_hazard(node, value)   # the reason, or None

Neither a promise nor a judgement: what is hazardous runs in a process of its own, and comes out
right or fails there (see :mod:`onnx_net2net.model.isolation`). So this may see too much, where
ordinary networks are not concerned.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto

from onnx_net2net.model.tensors import carried
from onnx_net2net.operators import facts
from onnx_net2net.operators.hazards import FAR, MOST, Value
from onnx_net2net.operators.record import Extent

__all__ = ["absurd_shape", "graph_hazard", "node_hazard", "sized_by_inputs", "unwritten_input"]

Array = np.ndarray[Any, Any]
LONG = 1 << 20  # elements of a vector, of which onnx spells out each
# Attributes and operands of which 0 or less makes no sense, and divides.
_COUNTS = frozenset({
    "block_size", "blocksize", "dft_length", "dilations", "frame_length", "frame_step", "group",
    "hidden_size", "k", "kernel_shape", "kv_num_heads", "num_groups", "num_heads", "num_outputs",
    "output_height", "output_width", "q_num_heads", "size", "strides",
})  # fmt: skip
_MADE = Extent.SHAPE | Extent.AMOUNT  # operands that say how much is made
_NEVER_NEGATIVE = frozenset({"batch_dims"})


def graph_hazard(graph: GraphProto, value: Value) -> str | None:
    """Return the first reason among the inputs and nodes of a graph and of those within it."""
    for entry in graph.input:
        shape = [d.dim_value for d in entry.type.tensor_type.shape.dim if d.HasField("dim_value")]
        # Some old exporters wrote -1 for "not known yet".
        if absurd_shape([0 if size == -1 else size for size in shape]):
            return f"input '{entry.name}' of absurd size"
    return next(filter(None, (node_hazard(node, value) for node in graph.node)), None)


def sized_by_inputs(graph: GraphProto, outer: Collection[str] = ()) -> str | None:
    """Return the first operator that makes as much as numbers among the inputs say: anything.

    ``outer``: what depends on the inputs around ``graph``.
    """
    dependent = {*outer, *(entry.name for entry in graph.input)}
    dependent -= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        operator = facts(node.op_type, node.domain)
        sized = [at for at, extent in operator.extents.items() if extent & _MADE]
        if not dependent.isdisjoint(node.input[at] for at in sized if at < len(node.input)):
            return f"{node.op_type} '{node.name}': a size that the inputs tell"
        if not operator.measures and not dependent.isdisjoint(node.input):
            dependent.update(name for name in node.output if name)
        for inner in carried(node):
            if reason := sized_by_inputs(inner, dependent):
                return reason
    return None


def unwritten_input(graph: GraphProto, outer: frozenset[str] = frozenset()) -> str | None:
    """Return the first tensor that a node reads and nothing writes: some kernels still read it."""
    names = {entry.name for entry in (*graph.input, *graph.initializer)}
    known = outer.union(names, *(node.output for node in graph.node))
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                return f"{node.op_type} '{node.name}' reads '{name}', which nothing writes"
        for inner in carried(node):
            if reason := unwritten_input(inner, known):
                return reason
    return None


def absurd_shape(shape: Iterable[int]) -> bool:
    """Return whether no tensor has such sizes."""
    sizes = list(shape)
    return any(not 0 <= size <= FAR for size in sizes) or math.prod(sizes) > 2**42


def node_hazard(node: NodeProto, value: Value) -> str | None:
    """Return why native code had better not see ``node``, or None; ``value``: small constants."""
    reason = _attribute_hazard(node) or _operand_hazard(node, value)
    for inner in () if reason else carried(node):
        reason = reason or graph_hazard(inner, value)
    return None if reason is None else f"{node.op_type} '{node.name}': {reason}"


def _attribute_hazard(node: NodeProto) -> str | None:
    if node.op_type == "Constant":
        return None  # numbers, not sizes
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        return "an attribute that is given twice"
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            return f"attribute '{attribute.name}' refers to none"
        numbers = [*attribute.ints]
        if attribute.type == AttributeProto.INT:
            numbers.append(attribute.i)
        if not numbers:
            continue
        low, high, name = min(numbers), max(numbers), attribute.name
        if (name in _COUNTS and low < 1) or (name in _NEVER_NEGATIVE and low < 0):
            return f"attribute '{name}' is {low}"
        if not facts(node.op_type, node.domain).unlimited and not -FAR < low <= high < FAR:
            return f"attribute '{name}' of absurd size"
    return None


def _operand_hazard(node: NodeProto, value: Value) -> str | None:
    operator = facts(node.op_type, node.domain)
    for index, name in enumerate(node.input):
        array = value(name) if name else None
        if array is None or not array.size or array.dtype.kind not in "iuf":
            continue
        extent = operator.extents.get(index, Extent(0))
        if array.dtype.kind == "f":
            if Extent.SHAPE in extent and not ((array > 0) & (array < MOST)).all():
                return "scales that are no such"
            continue
        low, high = array.min(), array.max()
        if not operator.unlimited and not -FAR <= low <= high <= FAR:
            return f"an operand of {low if low < -FAR else high}"
        if Extent.COUNT in extent and low < 1:
            return f"a count of {low}"
        if Extent.SHAPE in extent:
            most = MOST if array.size > 1 else LONG
            if math.prod(map(abs, array.ravel().tolist())) > most:
                return f"more than {most} elements"
    return operator.hazard(node, value) if operator.hazard else None
