"""Small constants that a graph computes about itself: Shape -> Gather -> Concat -> Reshape.

Every exporter writes these integer chains differently. This table evaluates them, so that
sizes are known before growth and can be compared with what they become after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from onnx_net2net.algebra.sizes import least, most

Array = np.ndarray[Any, Any]
Value = Any  # an Array, or None for an input that is absent
MOST = 4096  # elements; larger tensors are data, not sizes
MOST_IN_MATRIX = 64
MOST_FLOATS = 16
_ILL_FORMED = (
    ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError,
)  # fmt: skip


# Operators whose every element is computed from the elements at its place.
ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow",
    "Reciprocal", "Round", "Sqrt", "Sub", "Where",
}  # fmt: skip


def small(array: Array) -> bool:
    """Whether ``array`` is shape-like: integers (a vector, a small matrix) or a single number."""
    if array.dtype.kind not in "iubO":
        return array.size == 1
    return array.size <= (MOST if array.ndim <= 1 else MOST_IN_MATRIX)


def evaluate(node: NodeProto, inputs: Sequence[Value], opset: int) -> list[Array] | None:
    """The outputs of ``node`` for known ``inputs`` (None: an absent one), or None if not a size."""
    entry = OPERATORS.get(node.op_type)
    if entry is None or node.domain not in ("", "ai.onnx"):
        return None
    try:
        given = {a.name: attribute_value(a) for a in node.attribute}
        result = entry(given, list(inputs), opset)
    except _ILL_FORMED:
        return None  # an ill-formed chain is left to shape inference and, after that, refused
    arrays = result if isinstance(result, list) else [result]
    return [np.asarray(a) for a in arrays] if all(map(_is_size, arrays)) else None


def _is_size(array: Array) -> bool:
    """Sizes on their way through floats as well: the padding that TensorFlow calls SAME."""
    found = np.asarray(array)
    return small(found) or (found.ndim <= 1 and found.size <= MOST_FLOATS)


def attribute_value(attribute: AttributeProto) -> Any:
    """As ``helper.get_attribute_value``, faster for the usual types."""
    if attribute.type == AttributeProto.INT:
        return attribute.i
    if attribute.type == AttributeProto.INTS:
        return list(attribute.ints)
    return helper.get_attribute_value(attribute)


def constant(node: NodeProto) -> Array | None:
    """The value of a Constant node, or None where it has no dense one."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(attribute), np.int64)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(attribute), np.float32)
    return None


Given = dict[str, Any]


def _axes(a: Given, x: list[Value], index: int) -> tuple[int, ...] | None:
    if "axes" in a:
        return tuple(a["axes"])
    axes = x[index] if len(x) > index else None
    return None if axes is None else tuple(int(i) for i in axes.reshape(-1))


def _unsqueeze(a: Given, x: list[Value], opset: int) -> Array:
    data, axes = _need(x[0]), _axes(a, x, 1)
    return np.expand_dims(data, axes or ())


def _squeeze(a: Given, x: list[Value], opset: int) -> Array:
    return np.squeeze(_need(x[0]), _axes(a, x, 1))


def _need(value: Value) -> Array:
    if value is None:
        raise ValueError("not known")
    return value


def _cast(a: Given, x: list[Value], opset: int) -> Array:
    return _need(x[0]).astype(helper.tensor_dtype_to_np_dtype(a["to"]))


def _slice(a: Given, x: list[Value], opset: int) -> Array:
    data = _need(x[0])
    if opset < 10:
        starts, ends = a["starts"], a["ends"]
        axes, steps = a.get("axes", range(len(starts))), [1] * len(starts)
    else:
        starts, ends = _need(x[1]).tolist(), _need(x[2]).tolist()
        axes = _need(x[3]).tolist() if len(x) > 3 and x[3] is not None else range(len(starts))
        steps = _need(x[4]).tolist() if len(x) > 4 and x[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -data.shape[axis] else end
        index: list[Any] = [slice(None)] * data.ndim
        index[axis] = slice(start, stop, step)
        data = data[tuple(index)]
    return data


def _split(a: Given, x: list[Value], opset: int) -> list[Array]:
    data, sizes = _need(x[0]), a.get("split")
    if sizes is None and len(x) > 1 and x[1] is not None:
        sizes = x[1].tolist()
    if sizes is None:
        raise ValueError("split sizes are implicit")
    return list(np.split(data, np.cumsum(sizes)[:-1], axis=a.get("axis", 0)))


def _divide(a: Given, x: list[Value], opset: int) -> Array:
    left, right = _need(x[0]), _need(x[1])
    if left.dtype.kind in "iu":  # ONNX truncates towards zero
        return (np.sign(left) * np.sign(right) * (abs(left) // abs(right))).astype(left.dtype)
    return left / right


def _check_count(elements: float) -> None:
    """Masks and the like are recognised before they take memory."""
    if elements > MOST:
        raise ValueError("data, not sizes")


def _expand(a: Given, x: list[Value], opset: int) -> Array:
    data = _need(x[0])
    shape = np.broadcast_shapes(data.shape, tuple(_need(x[1]).tolist()))
    _check_count(np.prod(shape, dtype=np.float64))
    return np.broadcast_to(data, shape).copy()


def _tile(a: Given, x: list[Value], opset: int) -> Array:
    data, repeats = _need(x[0]), _need(x[1])
    _check_count(data.size * np.prod(repeats, dtype=np.float64))
    return np.tile(data, repeats.tolist())


def _constant_of_shape(a: Given, x: list[Value], opset: int) -> Array:
    fill = numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    shape = tuple(_need(x[0]).tolist())
    _check_count(np.inf if len(shape) > 1 else np.prod(shape))
    return np.full(shape, fill.reshape(()), fill.dtype)


def _range(a: Given, x: list[Value], opset: int) -> Array:
    start, limit, step = (_need(v).reshape(()).item() for v in x)
    _check_count((limit - start) / step)
    return np.arange(start, limit, step, dtype=_need(x[0]).dtype)


def _reshape(a: Given, x: list[Value], opset: int) -> Array:
    data, shape = _need(x[0]), _need(x[1]).tolist()
    if not a.get("allowzero"):
        shape = [data.shape[i] if s == 0 else s for i, s in enumerate(shape)]
    return data.reshape(shape)


def _reduce(
    function: Callable[..., Any], symbolic: Callable[..., Any] | None = None
) -> Callable[[Given, list[Value], int], Array]:
    def apply(a: Given, x: list[Value], opset: int) -> Array:
        axes = _axes(a, x, 1) or None  # none given: all, or (noop_with_empty_axes) none
        data = _need(x[0])
        if axes is None and a.get("noop_with_empty_axes"):
            return data
        if not data.ndim:
            return data
        # An array even of what numbers cannot hold: a size that is known at run time.
        reduced = symbolic if data.dtype == object and symbolic else function
        result = np.asarray(reduced(data, axis=axes, keepdims=True)).astype(data.dtype)
        return result if a.get("keepdims", 1) else np.squeeze(result, axes)

    return apply


def _fold(function: Callable[..., Any]) -> Callable[[Given, list[Value], int], Array]:
    def apply(a: Given, x: list[Value], opset: int) -> Array:
        result = _need(x[0])
        for other in x[1:]:
            result = function(result, _need(other))
        return np.asarray(result)

    return apply


def _unary(function: Callable[..., Any]) -> Callable[[Given, list[Value], int], Array]:
    return lambda a, x, v: function(_need(x[0]))


def _scatter_nd(a: Given, x: list[Value], opset: int) -> Array:
    if a.get("reduction", b"none") != b"none":
        raise ValueError("entries are added up")
    indices, updates = _need(x[1]), _need(x[2])
    result = _need(x[0]).astype(object if updates.dtype == object else x[0].dtype)
    for place in np.ndindex(indices.shape[:-1]):
        result[tuple(indices[place])] = updates[place]
    return result


def _clip(a: Given, x: list[Value], opset: int) -> Array:
    data = _need(x[0])
    low = a.get("min", x[1] if len(x) > 1 else None)
    high = a.get("max", x[2] if len(x) > 2 else None)
    return data if low is None and high is None else np.clip(data, low, high).astype(data.dtype)


def _gather(a: Given, x: list[Value], opset: int) -> Array:
    return np.take(_need(x[0]), _need(x[1]), axis=a.get("axis", 0))


def _concat(a: Given, x: list[Value], opset: int) -> Array:
    return np.concatenate([_need(v) for v in x], axis=a["axis"])


def _pow(a: Given, x: list[Value], opset: int) -> Array:
    left, right = _need(x[0]), _need(x[1])
    return np.power(left, right).astype(left.dtype)


# Of symbols, which no ordering of NumPy's knows.
_LARGEST, _SMALLEST = np.frompyfunc(most, 2, 1), np.frompyfunc(least, 2, 1)

OPERATORS: dict[str, Callable[[Given, list[Value], int], Any]] = {
    "Abs": _unary(np.abs),
    "Add": _fold(np.add),
    "And": _fold(np.logical_and),
    "Cast": _cast,
    "CastLike": lambda a, x, v: x[0].astype(x[1].dtype),
    "Ceil": _unary(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _fold(np.equal),
    "Expand": _expand,
    "Floor": _unary(np.floor),
    "Gather": _gather,
    "Greater": _fold(np.greater),
    "GreaterOrEqual": _fold(np.greater_equal),
    "Identity": lambda a, x, v: x[0],
    "Less": _fold(np.less),
    "LessOrEqual": _fold(np.less_equal),
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "Mod": lambda a, x, v: np.fmod(x[0], x[1]) if a.get("fmod") else np.mod(x[0], x[1]),
    "Mul": _fold(np.multiply),
    "Neg": _unary(np.negative),
    "Not": _unary(np.logical_not),
    "Or": _fold(np.logical_or),
    "Pow": _pow,
    "Range": _range,
    "Reciprocal": lambda a, x, v: (1 / x[0]).astype(x[0].dtype),
    "ReduceMax": _reduce(np.max, _LARGEST.reduce),
    "ReduceMin": _reduce(np.min, _SMALLEST.reduce),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Round": _unary(np.round),
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _fold(np.subtract),
    "Tile": _tile,
    "Transpose": lambda a, x, v: np.transpose(x[0], a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": lambda a, x, v: np.where(x[0], x[1], x[2]),
}
