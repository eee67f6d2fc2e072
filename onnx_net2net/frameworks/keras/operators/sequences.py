"""Sequences of tensors, which are lists while the graph is traced."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.movement import cut
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import axis_of, ints, known, number, sizes, tensor

__all__ = ["TABLES"]


def construct(op: KerasOperation, *values: Any) -> list[Any]:
    """Return a sequence of the operands."""
    return list(values)


def empty(op: KerasOperation) -> list[Any]:
    """Return a sequence of nothing."""
    return []


def _place(op: KerasOperation, position: Any) -> int:
    place = number(position)
    if not isinstance(place, int):
        op.refuse("its position is computed by the graph, and has to be known ahead")
    return place


def at(op: KerasOperation, sequence: list[Any], position: Any) -> Any:
    """Return one of them."""
    return sequence[_place(op, position)]


def insert(op: KerasOperation, sequence: list[Any], value: Any, position: Any = None) -> list[Any]:
    """Insert behind the last, or before the one at a position."""
    where = len(sequence) if position is None else _place(op, position)
    where = where + len(sequence) if where < 0 else where
    return [*sequence[:where], value, *sequence[where:]]


def erase(op: KerasOperation, sequence: list[Any], position: Any = None) -> list[Any]:
    """Leave out the last, or the one at a position."""
    where = -1 if position is None else _place(op, position)
    where = where + len(sequence) if where < 0 else where
    return [*sequence[:where], *sequence[where + 1 :]]


def length(op: KerasOperation, sequence: list[Any]) -> Any:
    """Return how many there are."""
    return np.array(len(sequence), np.int64)


def concatenated(op: KerasOperation, sequence: list[Any]) -> Any:
    """Join all of them along an axis, an old or a new one."""
    parts = [tensor(value) for value in sequence]
    axis = op.attribute("axis")
    return ops.stack(parts, axis) if op.attribute("new_axis", 0) else ops.concatenate(parts, axis)


def split(op: KerasOperation, x: Any, lengths: Any = None) -> list[Any]:
    """Split into parts of given lengths, or of one each."""
    x, keep = tensor(x), op.attribute("keepdims", 1)
    axis = axis_of(op.attribute("axis", 0), x)
    size = sizes(x)[axis]
    if not isinstance(size, int):
        op.refuse("the number of its parts is the size of an axis, which is left open")
    given = [1] if lengths is None else ints(lengths)
    if lengths is None or ((array := known(lengths)) is not None and array.ndim == 0):
        step = given[0]
        given = [min(step, size - start) for start in range(0, size, step)]
    parts, start = [], 0
    for count in given:
        parts.append(cut(x, axis, start, start + count))
        start += count
    if lengths is None and not keep:
        parts = [ops.squeeze(part, axis) for part in parts]
    return parts


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ConcatFromSequence": concatenated,
        "SequenceAt": at,
        "SequenceConstruct": construct,
        "SequenceEmpty": empty,
        "SequenceErase": erase,
        "SequenceInsert": insert,
        "SequenceLength": length,
        "SplitToSequence": split,
    }
}
