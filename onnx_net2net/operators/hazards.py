"""Hazards to native code: operands that it may not survive, where a record cannot say which.

    loop_trips(node, value)     # why a Loop may not end, or None

``value`` gives the small constants. See :mod:`onnx_net2net.model.hazards`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto

Array = np.ndarray[Any, Any]
Value = Callable[[str], Array | None]
Hazard = Callable[[NodeProto, Value], str | None]

FAR = 2**31 - 1  # more than any size, count or axis
MOST = 1 << 27  # elements that an operator may be told to make, in place
TRIPS = 1 << 20
BACK = -(1 << 20)  # a Slice that ends so far before the end is one of a negative step


def _operand(node: NodeProto, index: int, value: Value) -> Array | None:
    """Return the small constant that an operand is; None where absent, empty or not known."""
    name = node.input[index] if index < len(node.input) else ""
    array = value(name) if name else None
    return array if array is not None and array.size else None


def slice_bounds(node: NodeProto, value: Value) -> str | None:
    """Find a Slice far before the beginning, or by a step that is no number of 32 bits."""
    steps = _operand(node, 4, value)
    backwards = steps is not None and bool((steps < 0).all())
    for index in (1, 2, 3, 4):
        array = _operand(node, index, value)
        if array is None:
            continue
        # A start is brought into its axis whatever it is, an end too far back is not.
        if array.min() < BACK and index != 1 and not backwards:
            return f"a bound of {array.min()}"
        if index == 4 and not -FAR < array.min() <= array.max() < FAR:
            return "a step of absurd size"  # cut down to 32 bits it may be 0, and never arrive
    return None


def large_factor(node: NodeProto, value: Value) -> str | None:
    """Find a single whole number, added or multiplied, that is too large for a size."""
    for index in range(len(node.input)):
        array = _operand(node, index, value)
        if array is not None and array.dtype.kind in "iu" and array.size == 1 and array > MOST:
            return f"a factor of {array.item()}"
    return None


def split_parts(node: NodeProto, value: Value) -> str | None:
    """Find a Split into another number of parts than it has outputs."""
    stated = [a.i for a in node.attribute if a.name == "num_outputs"]
    sizes = value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if sizes is not None:
        stated.append(sizes.size)
    return "parts that are not its outputs" if set(stated) - {len(node.output)} else None


def endless_range(node: NodeProto, value: Value) -> str | None:
    """Find a Range of a step of 0, or of too many."""
    known = [value(name) for name in node.input]
    if len(known) != 3 or any(array is None or array.size != 1 for array in known):
        return None
    start, limit, step = (float(array.reshape(-1)[0]) for array in known if array is not None)
    if step == 0 or not abs(limit - start) <= MOST * abs(step):
        return f"a range from {start} to {limit} in steps of {step}"
    return None


def loop_trips(node: NodeProto, value: Value) -> str | None:
    """Find a Loop that runs very often, or without an end."""
    most = _operand(node, 0, value)
    if most is not None and int(most.reshape(-1)[0]) > TRIPS:
        return "very many iterations"
    return "no bound of its iterations" if node.input and not node.input[0] else None


def large_pads(node: NodeProto, value: Value) -> str | None:
    """Find a Pad by very much."""
    given = _operand(node, 1, value)
    numbers = [n for a in node.attribute if a.name in ("pads", "paddings") for n in a.ints]
    if given is not None and given.dtype.kind in "iu":
        numbers += given.reshape(-1).tolist()
    return "very large pads" if sum(map(abs, numbers)) > 1 << 20 else None


def unknown_step(node: NodeProto, value: Value) -> str | None:
    """Find an STFT of a step that nobody knows."""
    known = len(node.input) > 1 and value(node.input[1]) is not None
    return None if known else "a step that is known at run time only"
