"""Operators that move elements by blocks, from one end to the other, or beyond the ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.movement import broadcast, cut
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import (
    axis_of,
    dtype_of,
    gathered,
    ints,
    number,
    sizes,
    tensor,
)
from onnx_net2net.frameworks.keras.windows import extended, positive

__all__ = ["TABLES"]


def depth_to_space(op: KerasOperation, x: Any) -> Any:
    """Turn blocks of channels into blocks of pixels."""
    x = tensor(x)
    _, c, h, w = sizes(x)
    b = op.attribute("blocksize")
    if op.attribute("mode", "DCR") == "DCR":
        y = ops.transpose(ops.reshape(x, (-1, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = ops.transpose(ops.reshape(x, (-1, c // (b * b), b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return ops.reshape(y, (-1, c // (b * b), h * b, w * b))


def space_to_depth(op: KerasOperation, x: Any) -> Any:
    """Turn blocks of pixels into blocks of channels."""
    x = tensor(x)
    _, c, h, w = sizes(x)
    b = op.attribute("blocksize")
    y = ops.reshape(x, (-1, c, h // b, b, w // b, b))
    return ops.reshape(ops.transpose(y, (0, 3, 5, 1, 2, 4)), (-1, c * b * b, h // b, w // b))


def reverse_sequence(op: KerasOperation, x: Any, lengths: Any) -> Any:
    """Reverse each entry of the batch as far as its length goes."""
    x = tensor(x)
    time, batch = op.attribute("time_axis", 0), op.attribute("batch_axis", 1)
    steps = ops.arange(sizes(x)[time], dtype="int32")
    ends = ops.expand_dims(ops.cast(tensor(lengths), "int32"), -1)
    index = ops.where(steps < ends, ends - 1 - steps, steps)  # batch, time
    index = index if batch < time else ops.transpose(index)
    while len(index.shape) < len(x.shape):
        index = ops.expand_dims(index, -1)
    return ops.take_along_axis(x, broadcast(index, sizes(x)), axis=time)


def center_crop_pad(op: KerasOperation, x: Any, shape: Any) -> Any:
    """Keep the middle of each axis, or put zeros around it."""
    x = tensor(x)
    axes = op.attribute("axes", list(range(len(x.shape))))
    for axis, wanted in zip(axes, ints(shape), strict=True):
        axis = axis_of(axis, x)
        size = sizes(x)[axis]
        less, more = positive(size - wanted), positive(wanted - size)
        x = cut(x, axis, less // 2, size - (less - less // 2))
        x = extended(x, axis, more // 2, more - more // 2)
    return x


def pad(op: KerasOperation, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    """Pad with a constant, mirrored, repeated or wrapped entries; a negative pad cuts."""
    x = tensor(x)
    given = ints(pads) if pads is not None else op.attribute("pads", op.attribute("paddings"))
    own = range(len(x.shape)) if axes is None else [axis_of(a, x) for a in ints(axes)]
    count = len(given) // 2
    mode = op.attribute("mode", "constant")
    fill = number(value, op.attribute("value", 0))
    for axis, before, after in zip(own, given[:count], given[count:], strict=True):
        fixed = isinstance(before, int) and isinstance(after, int)
        if fixed and before == after == 0:
            continue
        if mode == "constant":
            x = (
                _filled(x, axis, before, after, fill)
                if fixed
                else _open(x, axis, before, after, fill)
            )
        else:
            x = _reflected(op, x, axis, before, after, mode)
    return x


def _filled(x: Any, axis: int, before: int, after: int, fill: Any) -> Any:
    stop = None if after >= 0 else after
    if before < 0 or after < 0:
        x = cut(x, axis, max(-before, 0), stop)
    pads = [(0, 0)] * len(x.shape)
    pads[axis] = (max(before, 0), max(after, 0))
    if not any(pads[axis]):
        return x
    if isinstance(fill, bool | int | float) and dtype_of(x) != "bool":
        return ops.pad(x, pads, constant_values=fill or None)
    return _open(x, axis, *pads[axis], fill)


def _open(x: Any, axis: int, before: Any, after: Any, fill: Any) -> Any:
    """Join pieces, whose lengths need not be known."""
    parts = [x]
    for place, count in ((0, before), (1, after)):
        shape = sizes(x)
        shape[axis] = count
        piece = ops.broadcast_to(ops.cast(fill, dtype_of(x)), shape)
        parts.insert(place * len(parts), piece)
    return ops.concatenate(parts, axis=axis)


def _reflected(op: KerasOperation, x: Any, axis: int, before: Any, after: Any, mode: str) -> Any:
    """Pad with entries of the tensor itself, by their places."""
    size = sizes(x)[axis]
    if mode not in ("edge", "reflect", "wrap"):
        op.refuse(f"padding of mode {mode} is not translated")
    if all(isinstance(n, int) for n in (size, before, after)):
        xp: Any = np
        steps: Any = np.arange(-before, size + after)
    else:
        xp = ops
        steps = ops.arange(-ops.cast(before, "int32"), size + after, dtype="int32")
    if mode == "edge":
        places = xp.minimum(xp.maximum(steps, 0), size - 1)
    elif mode == "wrap":
        places = xp.mod(steps, size)
    else:
        period = xp.maximum(2 * (size - 1), 1)
        places = xp.mod(steps, period)
        places = xp.minimum(places, period - places)
    return gathered(x, places, axis)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "CenterCropPad": center_crop_pad,
        "DepthToSpace": depth_to_space,
        "Pad": pad,
        "ReverseSequence": reverse_sequence,
        "SpaceToDepth": space_to_depth,
    }
}
