"""Poolings: the largest, the mean or a norm of what lies in a window, or of all."""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import cast, dtype_of, sizes, tensor
from onnx_net2net.frameworks.keras.windows import (
    Window,
    channels_last,
    padded,
    taps,
    to_first,
    to_last,
    window,
)

__all__ = ["TABLES"]

FLOATS = ("float16", "bfloat16", "float32", "float64")


def max_pool(op: KerasOperation, x: Any) -> list[Any]:
    """Return the largest values and, where asked for, their places in the flat input."""
    x = tensor(x)
    frame = window(op, x, op.attribute("kernel_shape"), ceil=_ceil(op))
    lowest = -math.inf if dtype_of(x) in FLOATS else int(np.iinfo(dtype_of(x)).min)
    wide = padded(x, frame.pads, lowest)
    by_column = bool(op.attribute("storage_order", 0))
    if op.wants(1):
        return _places(op, x, wide, frame, by_column)
    apart = len(frame.kernel) == 3 and dtype_of(x) == "float64"  # which TensorFlow lacks
    if apart or set(frame.dilations) != {1} or dtype_of(x) not in FLOATS:
        return [_by_axis(ops.maximum, wide, frame)]
    return [_pooled(ops.max_pool, wide, frame)]


def _by_axis(function: Any, x: Any, frame: Window) -> Any:
    """Return what a function of two tensors makes of each window, along one axis after another."""
    for axis in range(len(frame.kernel)):
        kernel, strides, dilations = (
            tuple(n if other == axis else 1 for other, n in enumerate(numbers))
            for numbers in (frame.kernel, frame.strides, frame.dilations)
        )
        x = reduce(function, taps(x, Window(kernel, strides, dilations, frame.pads)))
    return x


def _ceil(op: KerasOperation) -> bool:
    return bool(op.attribute("ceil_mode", 0))


def _pooled(function: Any, x: Any, frame: Window) -> Any:
    """Pool by the backend's own kernel what is already padded."""
    last = channels_last()
    y = function(
        to_last(x) if last else x,
        frame.kernel,
        strides=frame.strides,
        padding="valid",
        data_format="channels_last" if last else "channels_first",
    )
    return to_first(y) if last else y


def _places(op: KerasOperation, x: Any, wide: Any, frame: Window, by_column: bool) -> list[Any]:
    """Return the first largest entry of each window, and where it stands."""
    shape = sizes(x)
    if not all(isinstance(size, int) for size in shape[2:]):
        op.refuse("the indices of its maxima need the size of the image, which is left open")
    plain = np.arange(math.prod(shape[2:])).reshape(shape[2:])
    if by_column:
        plain = np.arange(plain.size).reshape(shape[:1:-1]).transpose()
    grid = padded(ops.convert_to_tensor(plain)[None, None], frame.pads)
    views = ops.stack(taps(wide, frame), axis=-1)
    index = ops.stack(taps(grid, frame), axis=-1)
    best = ops.expand_dims(ops.argmax(views, axis=-1), -1)
    value = ops.squeeze(ops.take_along_axis(views, best, axis=-1), -1)
    spread = ops.broadcast_to(ops.cast(index, "int64"), ops.shape(views))
    inner = ops.squeeze(ops.take_along_axis(spread, best, axis=-1), -1)
    count = ops.cast(shape[0] * shape[1], "int64")
    first = ops.reshape(ops.arange(count, dtype="int64"), (shape[0], shape[1]))
    offset = ops.reshape(first * plain.size, (shape[0], shape[1], *[1] * (len(shape) - 2)))
    return [value, inner + offset]


def average_pool(op: KerasOperation, x: Any) -> Any:
    """Average; padding counts or not, and what ceil_mode adds behind it never does."""
    x = tensor(x)
    kernel = op.attribute("kernel_shape")
    frame = window(op, x, kernel, ceil=_ceil(op))
    skips = any(s > k for s, k in zip(frame.strides, kernel, strict=True))
    if op.attribute("auto_pad", "NOTSET").startswith("SAME") and _ceil(op) and skips:
        op.refuse("its last windows begin behind its pads")
    own = window(op, x, kernel, ceil=False)
    wide = padded(x, frame.pads)
    total = _summed(wide, frame)
    ones = ops.ones_like(x[:1, :1])
    if op.attribute("count_include_pad", 0):
        ones = padded(ones, own.pads, 1)
        behind = [(0, b - a) for (_, b), (_, a) in zip(frame.pads, own.pads, strict=True)]
        ones = padded(ones, behind)
    else:
        ones = padded(ones, frame.pads)
    if all(isinstance(n, int) and n == 0 for pair in frame.pads for n in pair):
        return ops.divide(total, ops.cast(math.prod(kernel), dtype_of(x)))
    return ops.divide(total, _summed(ones, frame))


def _summed(wide: Any, frame: Window) -> Any:
    """Return the sum over each window."""
    if set(frame.dilations) != {1}:
        return _by_axis(operator.add, wide, frame)
    mean = _pooled(ops.average_pool, wide, frame)
    return ops.multiply(mean, ops.cast(math.prod(frame.kernel), dtype_of(wide)))


def lp_pool(op: KerasOperation, x: Any) -> Any:
    """Return the p-norm of each window."""
    x = tensor(x)
    frame = window(op, x, op.attribute("kernel_shape"), ceil=_ceil(op))
    p = op.attribute("p", 2)
    total = _summed(padded(ops.power(ops.abs(x), p), frame.pads), frame)
    return ops.power(ops.maximum(total, 0), 1 / p)


def _spatial(x: Any) -> tuple[int, ...]:
    return tuple(range(2, len(x.shape)))


def global_average(op: KerasOperation, x: Any) -> Any:
    """Return the mean over all spatial axes."""
    x = tensor(x)
    return ops.mean(x, axis=_spatial(x), keepdims=True)


def global_max(op: KerasOperation, x: Any) -> Any:
    """Return the largest entry of each channel."""
    x = tensor(x)
    return ops.max(x, axis=_spatial(x), keepdims=True)


def global_lp(op: KerasOperation, x: Any) -> Any:
    """Return the p-norm of each channel."""
    x = tensor(x)
    p = op.attribute("p", 2)
    total = ops.sum(ops.power(ops.abs(x), p), axis=_spatial(x), keepdims=True)
    return cast(ops.power(total, 1 / p), dtype_of(x))


def max_unpool(op: KerasOperation, x: Any, places: Any, shape: Any = None) -> Any:
    """Put values back to the places that MaxPool gave, zeros elsewhere."""
    from onnx_net2net.frameworks.keras.values import ints

    x, places = tensor(x), tensor(places)
    frame = window(op, x, op.attribute("kernel_shape"))
    if shape is not None:
        target = ints(shape)
    else:
        inner = [
            (size - 1) * s - sum(pad) + k
            for size, s, pad, k in zip(
                sizes(x)[2:], frame.strides, frame.pads, frame.kernel, strict=True
            )
        ]
        target = [*sizes(x)[:2], *inner]
    count = math.prod(target) if all(isinstance(n, int) for n in target) else None
    if count is None:
        op.refuse("the size of its output is not known ahead")
    flat = ops.zeros((count,), dtype_of(x))
    index = ops.reshape(ops.cast(places, "int32"), (-1, 1))
    return ops.reshape(ops.scatter_update(flat, index, ops.reshape(x, (-1,))), target)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "AveragePool": average_pool,
        "GlobalAveragePool": global_average,
        "GlobalLpPool": global_lp,
        "GlobalMaxPool": global_max,
        "LpPool": lp_pool,
        "MaxPool": max_pool,
        "MaxUnpool": max_unpool,
    }
}
