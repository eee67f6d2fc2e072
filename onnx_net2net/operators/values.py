"""What an operator computes from small constants: sizes on their way from Shape to Reshape.

    Shape -> Gather -> Mul -> Concat -> Reshape

Each function gets a node with the values of its operands. Operators that only move elements do so
with symbols too. Raises any error of :data:`ILL_FORMED` where there is no value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from onnx_net2net.algebra.sizes import Size, maximum, minimum
from onnx_net2net.operators.language import Op, Unsupported

Array = np.ndarray[Any, Any]
Value = Callable[[Op], Any]  # of an array, or of a list with one for each output
MOST = 4096  # elements; larger tensors are data, not sizes
ILL_FORMED = (
    ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError, Unsupported,
    ValueError,
)  # fmt: skip


def mapped(function: Callable[[Array], Any]) -> Value:
    """Return the value of an operator that applies a function of NumPy to its operand."""
    return lambda op: function(op.known(0))


def folded(function: Callable[[Array, Array], Any]) -> Value:
    """Return the value of an operator that joins its operands two at a time."""
    return lambda op: reduce(function, map(op.known, range(len(op.values))))


def shape(op: Op) -> Array:
    """Return some or all sizes of the operand."""
    sizes = op.shape(0)[op.attr("start", 0) : op.attr("end")]
    return np.asarray(sizes, object if any(isinstance(s, Size) for s in sizes) else np.int64)


def size(op: Op) -> Array:
    """Return how many elements the operand has."""
    elements = prod(op.shape(0))
    return np.asarray(elements, object if isinstance(elements, Size) else np.int64)


# ---- arithmetic --------------------------------------------------------------------------------


def cast(op: Op) -> Array:
    """Return the operand in the type that an attribute states."""
    return op.known(0).astype(helper.tensor_dtype_to_np_dtype(op.attr("to")))


def cast_like(op: Op) -> Array:
    """Return the first operand in the type of the second."""
    return op.known(0).astype(op.known(1).dtype)


def quotient(op: Op) -> Array:
    """Return the quotient, which ONNX truncates towards zero if it is of integers."""
    left, right = op.known(0), op.known(1)
    if left.dtype.kind not in "iu":
        return np.asarray(left / right)
    return np.asarray(np.sign(left) * np.sign(right) * (abs(left) // abs(right)), left.dtype)


def remainder(op: Op) -> Array:
    """Return the remainder, with the sign that ``fmod`` says."""
    function = np.fmod if op.attr("fmod") else np.mod
    return np.asarray(function(op.known(0), op.known(1)))


def power(op: Op) -> Array:
    """Return the power, in the type of its base."""
    return np.asarray(np.power(op.known(0), op.known(1)), op.known(0).dtype)


def reciprocal(op: Op) -> Array:
    """Return one over the operand."""
    return np.asarray(1 / op.known(0), op.known(0).dtype)


def clip(op: Op) -> Array:
    """Return the first operand between bounds, attributes or operands."""
    data = op.known(0)
    low, high = op.attr("min", op.value(1)), op.attr("max", op.value(2))
    return data if low is None and high is None else np.clip(data, low, high).astype(data.dtype)


def where(op: Op) -> Array:
    """Return elements of the second operand where the first is true, else of the third."""
    return np.where(op.known(0), op.known(1), op.known(2))


def reduction(function: Callable[..., Any], symbolic: Callable[..., Any] | None = None) -> Value:
    """Return the value of a reduction; ``symbolic`` does it where NumPy cannot compare symbols."""

    def value(op: Op) -> Array:
        data, axes = op.known(0), _axes(op) or None  # none given: all, or (noop) none
        if (axes is None and op.attr("noop_with_empty_axes")) or not data.ndim:
            return data
        # An array even of what numbers cannot hold: a size that is known at run time.
        chosen = symbolic if data.dtype == object and symbolic else function
        result = np.asarray(chosen(data, axis=axes, keepdims=True)).astype(data.dtype)
        return result if op.attr("keepdims", 1) else np.squeeze(result, axes)

    return value


largest = reduction(np.max, np.frompyfunc(maximum, 2, 1).reduce)
smallest = reduction(np.min, np.frompyfunc(minimum, 2, 1).reduce)


# ---- moves -------------------------------------------------------------------------------------


def _axes(op: Op) -> tuple[int, ...] | None:
    """Return the axes that an attribute or the second operand states, if either does."""
    axes = op.attr("axes", op.value(1))
    return None if axes is None else tuple(int(axis) for axis in np.ravel(axes))


def unsqueeze(op: Op) -> Array:
    """Return the first operand with axes of size 1 put in."""
    return np.expand_dims(op.known(0), _axes(op) or ())


def squeeze(op: Op) -> Array:
    """Return the first operand without axes of size 1."""
    return np.squeeze(op.known(0), _axes(op))


def reshape(op: Op) -> Array:
    """Return the first operand in the shape that the second holds."""
    data, sizes = op.known(0), op.known(1).tolist()
    if not op.attr("allowzero"):
        sizes = [data.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return data.reshape(sizes)


def transpose(op: Op) -> Array:
    """Return the operand with its axes in another order."""
    return np.transpose(op.known(0), op.attr("perm"))


def concat(op: Op) -> Array:
    """Return the operands joined along an axis."""
    return np.concatenate([op.known(i) for i in range(len(op.values))], axis=op.attr("axis"))


def split(op: Op) -> list[Array]:
    """Return the parts of the first operand, whose sizes must be stated."""
    sizes = op.attr("split")
    if sizes is None:
        sizes = op.known(1).tolist()
    return list(np.split(op.known(0), np.cumsum(sizes)[:-1], axis=op.attr("axis", 0)))


def slices(op: Op) -> Array:
    """Return the elements between bounds, attributes or operands."""
    data = op.known(0)
    if op.opset < 10:
        starts, ends, axes, steps = op.attr("starts"), op.attr("ends"), op.attr("axes"), None
    else:
        starts, ends = op.known(1).tolist(), op.known(2).tolist()
        axes, steps = (None if v is None else v.tolist() for v in (op.value(3), op.value(4)))
    axes, steps = axes or range(len(starts)), steps or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -data.shape[axis] else end
        index: list[Any] = [slice(None)] * data.ndim
        index[axis] = slice(start, stop, step)
        data = data[tuple(index)]
    return data


def gather(op: Op) -> Array:
    """Return the elements at indices along an axis."""
    return np.take(op.known(0), op.known(1), axis=op.attr("axis", 0))


def scatter(op: Op) -> Array:
    """Return the first operand with updates written at indices."""
    if op.attr("reduction", "none") != "none":
        raise ValueError("elements are added up")
    data, indices, updates = map(op.known, range(3))
    result = data.astype(object if updates.dtype == object else data.dtype)
    for place in np.ndindex(indices.shape[:-1]):
        result[tuple(indices[place])] = updates[place]
    return result


# ---- what is made larger -----------------------------------------------------------------------


def _check_count(elements: float) -> None:
    """Raise ValueError for masks and the like, before they take memory."""
    if elements > MOST:
        raise ValueError("data, not sizes")


def expand(op: Op) -> Array:
    """Return the first operand repeated along its axes of size 1."""
    sizes = np.broadcast_shapes(op.known(0).shape, tuple(op.known(1).tolist()))
    _check_count(np.prod(sizes, dtype=np.float64))
    return np.broadcast_to(op.known(0), sizes).copy()


def tile(op: Op) -> Array:
    """Return the first operand repeated as a whole."""
    data, repeats = op.known(0), op.known(1)
    _check_count(data.size * np.prod(repeats, dtype=np.float64))
    return np.tile(data, repeats.tolist())


def constant_of_shape(op: Op) -> Array:
    """Return a vector of one number."""
    stated = op.attr("value")
    fill = np.zeros(1, np.float32) if stated is None else numpy_helper.to_array(stated)
    sizes = tuple(op.known(0).tolist())
    _check_count(np.inf if len(sizes) > 1 else np.prod(sizes))
    return np.full(sizes, fill.reshape(()), fill.dtype)


def counting(op: Op) -> Array:
    """Return the numbers from the first operand to the second in steps of the third."""
    start, limit, step = (op.known(i).reshape(()).item() for i in range(3))
    _check_count((limit - start) / step)
    return np.arange(start, limit, step, dtype=op.known(0).dtype)
