"""Sums, means and extremes over axes, or of all elements so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.open_axes import axes_behind, axis_last
from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import axis_of, dtype_of, known, product, sizes
from onnx_net2net.frameworks.keras.values import tensor as lifted

__all__ = ["TABLES"]


def reduced(function: Callable[..., Any]) -> Entry:
    """Return the translation of a reduction; axes are an attribute or (opset 13, 18) an input."""

    def entry(op: KerasOperation, x: Any, axes: Any = None) -> Any:
        x = lifted(x)
        given, keep = op.attribute("axes"), bool(op.attribute("keepdims", 1))
        none = op.attribute("noop_with_empty_axes", 0)
        if function is log_sum_exp and "int" in dtype_of(x):
            op.refuse("logarithms of whole numbers are not translated: their last bit decides")
        if axes is not None:
            numbers = known(axes) if 0 not in axes.shape else np.zeros(0, np.int64)
            if numbers is None:
                flat, restored = axes_behind(op, x, axes)
                return restored(function(flat, axis=(1,), keepdims=False), keep)
            given = numbers.reshape(-1).tolist()
        if none and not given:
            return x if function not in POINTWISE else POINTWISE[function](x)
        if min(given or [0]) < 0 and 0 in x.shape:
            op.refuse("onnxruntime does not reduce negative axes of an empty tensor")
        over = tuple(axis_of(a, x) for a in given) if given else tuple(range(len(x.shape)))
        return function(x, axis=over, keepdims=keep)

    return entry


def summed(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Sum entries."""
    return ops.sum(x, axis=axis, keepdims=keepdims)


def absolute_sum(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Sum absolute values."""
    return summed(ops.abs(x), axis, keepdims)


def square_sum(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Sum squares."""
    return summed(ops.square(x), axis, keepdims)


def real(x: Any) -> Any:
    """Return whole numbers as floats that hold them."""
    return ops.cast(x, "float64") if "int" in dtype_of(x) else x


def length(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the Euclidean norm."""
    return ops.sqrt(square_sum(real(x), axis, keepdims))


def log_sum(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the logarithm of the sum."""
    return ops.log(summed(real(x), axis, keepdims))


def averaged(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the mean; of whole numbers cut towards zero."""
    if "int" not in dtype_of(x):
        return ops.mean(x, axis=axis, keepdims=keepdims)
    total = ops.sum(x, axis=axis, keepdims=keepdims)
    count = ops.cast(product(sizes(x)[a] for a in axis), dtype_of(total))
    return ops.sign(total) * ops.floor_divide(ops.abs(total), ops.maximum(count, 1))


def greatest(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the largest entry; of truth values whether any is true."""
    if dtype_of(x) == "bool":
        return ops.any(x, axis=axis, keepdims=keepdims)
    return ops.max(x, axis=axis, keepdims=keepdims, initial=_extreme(x, axis, lowest=True))


def least(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the smallest entry; of truth values whether all are true."""
    if dtype_of(x) == "bool":
        return ops.all(x, axis=axis, keepdims=keepdims)
    return ops.min(x, axis=axis, keepdims=keepdims, initial=_extreme(x, axis, lowest=False))


def _extreme(x: Any, axis: tuple[int, ...], lowest: bool) -> Any:
    """Return the largest or smallest of no entries; None where there are some."""
    lengths = [sizes(x)[place] for place in axis]
    if all(isinstance(size, int) and size for size in lengths):
        return None
    if "float" in dtype_of(x):
        return ops.cast(-math.inf if lowest else math.inf, dtype_of(x))
    limits = np.iinfo(dtype_of(x))
    return ops.cast(limits.min if lowest else limits.max, dtype_of(x))


def multiplied(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the product."""
    for place in sorted(axis, reverse=True):
        x = ops.prod(x, axis=place, keepdims=keepdims)
    return x


def log_sum_exp(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the logarithm of the sum of exponentials."""
    return ops.logsumexp(real(x), axis=axis, keepdims=keepdims)


# What a reduction over no axis still does to each entry.
POINTWISE: dict[Callable[..., Any], Callable[[Any], Any]] = {
    absolute_sum: ops.abs,
    length: ops.abs,
    log_sum: lambda x: ops.log(real(x)),
    square_sum: ops.square,
}


def place_of(function: Callable[..., Any]) -> Entry:
    """Return the translation of ArgMax or ArgMin: the first, or by attribute the last."""

    def entry(op: KerasOperation, x: Any) -> Any:
        x = lifted(x)
        axis = axis_of(op.attribute("axis", 0), x)
        last = op.attribute("select_last_index", 0)
        places = ops.cast(function(ops.flip(x, axis) if last else x, axis=axis), "int64")
        if last:
            places = ops.cast(sizes(x)[axis], "int64") - 1 - places
        return ops.expand_dims(places, axis) if op.attribute("keepdims", 1) else places

    return entry


def running(function: Callable[..., Any], neutral: int) -> Entry:
    """Return the translation of sums or products of all entries so far."""

    def entry(op: KerasOperation, x: Any, axis: Any) -> Any:
        x = lifted(x)
        number, back = known(axis), None
        if number is None:
            x, back = axis_last(op, x, axis)
        place = axis_of(-1 if number is None else int(number.reshape(-1)[0]), x)
        backward = bool(op.attribute("reverse", 0))
        x = ops.flip(x, place) if backward else x
        if op.attribute("exclusive", 0):
            first = ops.take(x, [0], axis=place) * 0 + neutral
            shorter = sizes(x)
            shorter[place] = shorter[place] - 1
            rest = ops.slice(x, [0] * len(x.shape), shorter)
            x = ops.concatenate([first, rest], axis=place)
        y = function(x, axis=place)
        y = ops.flip(y, place) if backward else y
        return y if back is None else back(y)

    return entry


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ArgMax": place_of(ops.argmax),
        "ArgMin": place_of(ops.argmin),
        "CumProd": running(ops.cumprod, 1),
        "CumSum": running(ops.cumsum, 0),
        "ReduceL1": reduced(absolute_sum),
        "ReduceL2": reduced(length),
        "ReduceLogSum": reduced(log_sum),
        "ReduceLogSumExp": reduced(log_sum_exp),
        "ReduceMax": reduced(greatest),
        "ReduceMean": reduced(averaged),
        "ReduceMin": reduced(least),
        "ReduceProd": reduced(multiplied),
        "ReduceSum": reduced(summed),
        "ReduceSumSquare": reduced(square_sum),
    }
}
