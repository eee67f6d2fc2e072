"""Operands that native code may not survive: absurd sizes, counts of 0, shapes without an end.

    odd(node, value)           # the reason, or None

Neither a promise nor a judgement: what is odd is computed in a process of its own, and comes out
right or fails there (see :mod:`onnx_net2net.model.isolation`). So this may see too much, where
ordinary networks are not concerned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto

from onnx_net2net.model.tensors import carried

__all__ = ["absurd_shape", "odd", "odd_graph", "read_from_nowhere", "told_by_inputs"]

Array = np.ndarray[Any, Any]
Value = Callable[[str], Array | None]

FAR = 2**31 - 1  # more than any size, count or axis
MOST = 1 << 27  # elements that an operator may be told to make, in place
LONG = 1 << 20  # elements of a vector, of which onnx spells out each
TRIPS = 1 << 20
BACK = -(1 << 20)  # a Slice that ends so far before the end is one of a negative step
# Attributes and operands of which 0 or less makes no sense, and divides.
_COUNTS = frozenset({
    "block_size", "blocksize", "dft_length", "dilations", "frame_length", "frame_step", "group",
    "hidden_size", "k", "kernel_shape", "kv_num_heads", "num_groups", "num_heads", "num_outputs",
    "output_height", "output_width", "q_num_heads", "size", "strides",
})  # fmt: skip
_NEVER_NEGATIVE = frozenset({"batch_dims"})
# Operands that are counts: 0 or less divides, or never ends.
_COUNT_OPERANDS = {
    "BlackmanWindow": (0,), "DFT": (1,), "HammingWindow": (0,), "HannWindow": (0,),
    "MelWeightMatrix": (0, 1, 2), "STFT": (1, 3), "SplitToSequence": (1,),
}  # fmt: skip
# Operators that take numbers of any size: the largest there is stands for "no limit".
_ANY = frozenset({
    "Cast", "CastLike", "Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
    "Min", "Where",
})  # fmt: skip
# Operands whose elements, multiplied, are how much is made, of each element of the first.
_SHAPE_OPERANDS = {
    "CenterCropPad": (1,), "ConstantOfShape": (0,), "Expand": (1,), "Resize": (2, 3), "Tile": (1,),
    "Upsample": (1,), "BlackmanWindow": (0,), "HammingWindow": (0,), "HannWindow": (0,),
    "DFT": (1,), "MelWeightMatrix": (0, 1), "OneHot": (1,),
}  # fmt: skip

_MADE_OPERANDS = {
    "Loop": (0,), "Pad": (1,), "Range": (0, 1, 2), "STFT": (1, 3),
}  # fmt: skip


def odd_graph(graph: GraphProto, value: Value) -> str | None:
    """The first reason among the inputs and nodes of a graph and of those within it."""
    for entry in graph.input:
        shape = [d.dim_value for d in entry.type.tensor_type.shape.dim if d.HasField("dim_value")]
        # Some old exporters wrote -1 for "not known yet".
        if absurd_shape([0 if size == -1 else size for size in shape]):
            return f"input '{entry.name}' of absurd size"
    return next(filter(None, (odd(node, value) for node in graph.node)), None)


def told_by_inputs(graph: GraphProto, outer: Collection[str] = ()) -> str | None:
    """The first operator that makes as much as numbers among the inputs say: anything.

    ``outer``: what depends on the inputs around ``graph``.
    """
    told = {*outer, *(entry.name for entry in graph.input)}
    told -= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        sized = (*_SHAPE_OPERANDS.get(node.op_type, ()), *_MADE_OPERANDS.get(node.op_type, ()))
        if not told.isdisjoint(node.input[at] for at in sized if at < len(node.input)):
            return f"{node.op_type} '{node.name}': a size that the inputs tell"
        if node.op_type not in ("Shape", "Size") and not told.isdisjoint(node.input):
            told.update(name for name in node.output if name)
        for inner in carried(node):
            if reason := told_by_inputs(inner, told):
                return reason
    return None


def read_from_nowhere(graph: GraphProto, outer: frozenset[str] = frozenset()) -> str | None:
    """The first tensor that a node reads and nothing writes: some kernels read it all the same."""
    names = {entry.name for entry in (*graph.input, *graph.initializer)}
    known = outer.union(names, *(node.output for node in graph.node))
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                return f"{node.op_type} '{node.name}' reads '{name}', which nothing writes"
        for inner in carried(node):
            if reason := read_from_nowhere(inner, known):
                return reason
    return None


def absurd_shape(shape: Iterable[int]) -> bool:
    """Whether no tensor has such sizes."""
    sizes = list(shape)
    return any(not 0 <= size <= FAR for size in sizes) or math.prod(sizes) > 2**42


def odd(node: NodeProto, value: Value) -> str | None:
    """Why native code had better not see ``node``, or None. ``value`` gives small constants."""
    reason = _odd_attributes(node) or _odd_operands(node, value)
    for inner in () if reason else carried(node):
        reason = reason or odd_graph(inner, value)
    return None if reason is None else f"{node.op_type} '{node.name}': {reason}"


def _odd_attributes(node: NodeProto) -> str | None:
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
        if node.op_type != "Slice" and not -FAR < low <= high < FAR:
            return f"attribute '{name}' of absurd size"
    return None


def _odd_operands(node: NodeProto, value: Value) -> str | None:
    op = node.op_type
    for index, name in enumerate(node.input):
        array = value(name) if name else None
        if array is None or not array.size or array.dtype.kind not in "iuf":
            continue
        if array.dtype.kind == "f":
            if op in ("Resize", "Upsample") and not ((array > 0) & (array < MOST)).all():
                return "scales that are no such"
            continue
        low, high = array.min(), array.max()
        if op == "Slice":
            # A start is brought into its axis whatever it is, an end too far back is not.
            if low < BACK and index != 1 and not _backwards(node, value):
                return f"a bound of {low}"
            if index == 4 and not -FAR < low <= high < FAR:
                return "a step of absurd size"  # cut down to 32 bits it may be 0, and never arrive
        elif op in ("Add", "Mul") and array.dtype.kind in "iu" and array.size == 1 and high > MOST:
            return f"a factor of {high}"
        elif op not in _ANY and not -FAR <= low <= high <= FAR:
            return f"an operand of {low if low < -FAR else high}"
        if index in _COUNT_OPERANDS.get(op, ()) and low < 1:
            return f"a count of {low}"
        if index in _SHAPE_OPERANDS.get(op, ()):
            most = MOST if array.size > 1 else LONG
            if math.prod(map(abs, array.ravel().tolist())) > most:
                return f"more than {most} elements"
    if op == "STFT" and (len(node.input) < 2 or value(node.input[1]) is None):
        return "a step that is known at run time only"
    return _SPECIAL[op](node, value) if op in _SPECIAL else None


def _backwards(node: NodeProto, value: Value) -> bool:
    """Whether a Slice has negative steps, and so its ends lie before the beginning."""
    steps = value(node.input[4]) if len(node.input) > 4 and node.input[4] else None
    return steps is not None and bool((steps < 0).all())


def _odd_split(node: NodeProto, value: Value) -> str | None:
    """Split into another number of parts than it has outputs."""
    stated = [a.i for a in node.attribute if a.name == "num_outputs"]
    sizes = value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if sizes is not None:
        stated.append(sizes.size)
    return "parts that are not its outputs" if set(stated) - {len(node.output)} else None


def _odd_range(node: NodeProto, value: Value) -> str | None:
    """Range of a step of 0, or of too many."""
    known = [value(name) for name in node.input]
    if len(known) != 3 or any(array is None or array.size != 1 for array in known):
        return None
    start, limit, step = (float(array.reshape(-1)[0]) for array in known if array is not None)
    if step == 0 or not abs(limit - start) <= MOST * abs(step):
        return f"a range from {start} to {limit} in steps of {step}"
    return None


def _odd_loop(node: NodeProto, value: Value) -> str | None:
    """Loop that runs very often, or without an end."""
    most = value(node.input[0]) if node.input and node.input[0] else None
    if most is not None and most.size and int(most.reshape(-1)[0]) > TRIPS:
        return "very many iterations"
    if node.input and not node.input[0]:
        return "no bound of its iterations"
    return None


def _odd_pad(node: NodeProto, value: Value) -> str | None:
    """Pad by very much."""
    pads = value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    numbers = [n for a in node.attribute if a.name in ("pads", "paddings") for n in a.ints]
    if pads is not None and pads.dtype.kind in "iu":
        numbers += pads.reshape(-1).tolist()
    return "very large pads" if sum(map(abs, numbers)) > 1 << 20 else None


_SPECIAL: dict[str, Callable[[NodeProto, Value], str | None]] = {
    "Loop": _odd_loop, "Pad": _odd_pad, "Range": _odd_range, "Split": _odd_split,
}  # fmt: skip
