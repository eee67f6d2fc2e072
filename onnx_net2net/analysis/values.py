"""Small constants that a graph computes about itself: Shape -> Gather -> Concat -> Reshape.

    Shape(x)  ->  [batch, 3, height]     Gather, Mul, Concat  ->  [3*batch, -1]

Every exporter writes these integer chains differently. They are evaluated by what the records of
their operators say, with numbers and with symbols for sizes that vary, so that sizes are known
before growth and can be compared with what they become after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from onnx_net2net.algebra.sizes import AnySize, Size, Undecided, opaque, trial
from onnx_net2net.operators import facts
from onnx_net2net.operators.language import Op
from onnx_net2net.operators.values import ILL_FORMED, MOST, Array

MOST_IN_MATRIX = 64
MOST_FLOATS = 16


def small(array: Array) -> bool:
    """Return whether an array is like a shape: integers (a vector, a small matrix), or a number."""
    if array.dtype.kind not in "iubO":
        return array.size == 1
    return array.size <= (MOST if array.ndim <= 1 else MOST_IN_MATRIX)


def is_symbolic(array: Array | None) -> bool:
    """Return whether an array holds a symbol."""
    return array is not None and array.dtype == object


def constant(node: NodeProto) -> Array | None:
    """Return the value of a Constant node, or None where it has no dense one."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(attribute), np.int64)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(attribute), np.float32)
    return None


def shape_value(node: NodeProto, sizes: Sequence[AnySize]) -> Array:
    """Return what Shape or Size gives for a tensor of these sizes."""
    value = facts(node.op_type, node.domain).value
    assert value is not None, node.op_type
    return np.asarray(value(Op(node, 1, (tuple(sizes),), (), ())))


def evaluate(node: NodeProto, inputs: Iterable[Array | None], opset: int) -> list[Array] | None:
    """Return what ``node`` gives for ``inputs`` (None: an absent one), or None if it is no size."""
    value = facts(node.op_type, node.domain).value
    if value is None:
        return None
    try:
        result = value(Op(node, opset, (), (), tuple(inputs)))
    except ILL_FORMED:
        return None  # an ill-formed chain is left to shape inference and, after that, refused
    arrays = [np.asarray(a) for a in (result if isinstance(result, list) else [result])]
    # Sizes pass through floats as well: the padding that TensorFlow calls SAME.
    sizes = all(small(a) or (a.ndim <= 1 and a.size <= MOST_FLOATS) for a in arrays)
    return arrays if sizes else None


def evaluate_symbols(
    node: NodeProto, inputs: Sequence[Array | None], outputs: Sequence[Array], opset: int
) -> list[Array] | None:
    """Return ``outputs``, which are numbers at the trial values, with symbols where they vary.

    ``inputs`` are arrays of numbers, or of objects where they hold symbols. None where the length
    of an output, or what is moved, depends on these.
    """
    try:
        if facts(node.op_type, node.domain).formula is not None:
            return [_elementwise(Op(node, opset, (), (), tuple(inputs)), outputs[0])]
        moved = evaluate(node, inputs, opset)
    except Undecided:
        return None
    if moved is None or any(a.shape != b.shape for a, b in zip(moved, outputs, strict=True)):
        return None
    return [_agreeing(a.ravel().tolist(), b) for a, b in zip(moved, outputs, strict=True)]


def _elementwise(op: Op, output: Array) -> Array:
    """Return ``output`` with the formula of each element that is computed from symbols."""
    formula = facts(op.node.op_type, op.node.domain).formula
    assert formula is not None, op.node.op_type
    absent = [None] * output.size
    columns = [
        absent if array is None else np.broadcast_to(array, output.shape).ravel().tolist()
        for array in op.values
    ]
    attributes = {a.name: helper.get_attribute_value(a) for a in op.node.attribute}
    elements: list[Any] = []
    for items, number in zip(zip(*columns, strict=True), output.ravel().tolist(), strict=True):
        if not any(isinstance(item, Size) for item in items):
            elements.append(number)
            continue
        whole = [
            int(i) if isinstance(i, int) or (isinstance(i, float) and i.is_integer()) else i
            for i in items
        ]
        fractions = any(isinstance(item, float) for item in whole)
        try:
            element = None if fractions else formula(op, whole, output.dtype)
        except Undecided:
            element = None
        if element is None or trial(element) != number:
            limits = (0, 1) if output.dtype.kind == "b" else ()
            element = opaque(f"{op.node.op_type}{attributes or ''}", items, number, *limits)
        elements.append(element)
    return _agreeing(elements, output)


def _agreeing(elements: Iterable[Any], output: Array) -> Array:
    """Return ``output`` with those ``elements`` that are symbols for its numbers."""
    flat = [
        item if isinstance(item, Size) and item.trial == number else number
        for item, number in zip(elements, output.ravel().tolist(), strict=True)
    ]
    if not any(isinstance(item, Size) for item in flat):
        return output
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(output.shape)
