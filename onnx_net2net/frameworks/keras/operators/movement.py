"""Operators that move, cut and repeat elements, or make tensors of a shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.open_axes import sliced_at, with_axes, without_axes
from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.run_time_sizes import read_sizes
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import (
    axis_of,
    dtype_of,
    gathered,
    ints,
    known,
    number,
    product,
    sizes,
    tensor,
)

__all__ = ["TABLES", "broadcast", "cut", "given_axes"]

NONE = (2**31 - 1, 2**63 - 1)  # as an end: to the last entry, or backwards to the first
FARTHEST = 2**30  # beyond the ends of every axis, in the int32 that sizes are counted in


def given_axes(op: KerasOperation, axes: Any) -> list[int] | None:
    """Return the axes, an attribute or (opset 13) an input; None for none, or if a run tells."""
    if axes is None:
        stated = op.attribute("axes")
        return None if stated is None else list(stated)
    array = known(axes)
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


def shape_of(op: KerasOperation, x: Any) -> Any:
    """Return the sizes, those between ``start`` and ``end`` (opset 15)."""
    part = sizes(x)[slice(op.attribute("start", 0), op.attribute("end"))]
    return read_sizes(part, (len(part),), op.translator.scalars)


def size_of(op: KerasOperation, x: Any) -> Any:
    """Return the number of entries."""
    return read_sizes([product(sizes(x))], (), op.translator.scalars)


def reshape(op: KerasOperation, x: Any, shape: Any = None) -> Any:
    """Reshape; 0 keeps a size, -1 is what is left."""
    x = tensor(x)
    wanted = list(op.attribute("shape", ())) if shape is None else ints(shape)
    if not op.attribute("allowzero", 0):
        own = sizes(x)
        wanted = [
            own[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(wanted)
        ]
    return ops.reshape(x, _deduced(x, wanted))


def _deduced(x: Any, wanted: list[Any]) -> list[Any]:
    """Return one size that is not known as -1, so that the backend keeps those that are.

    A -1 becomes a number where that can be told.
    """
    own = [size for size in sizes(x) if isinstance(size, int)]
    unknown = [i for i, size in enumerate(wanted) if not isinstance(size, int) or size < 0]
    rest = [size for size in wanted if isinstance(size, int) and size >= 0]
    if len(unknown) != 1 or 0 in rest:
        return wanted
    whole = len(own) == len(x.shape)
    wanted = list(wanted)
    wanted[unknown[0]] = math.prod(own) // math.prod(rest) if whole else -1
    return wanted


def transpose(op: KerasOperation, x: Any) -> Any:
    """Permute the axes; reverse them where no order is given."""
    x = tensor(x)
    return ops.transpose(x, op.attribute("perm", [*range(len(x.shape))][::-1]))


def flatten(op: KerasOperation, x: Any) -> Any:
    """Reshape to a matrix."""
    x = tensor(x)
    axis = op.attribute("axis", 1)
    axis = axis_of(axis, x) if axis < 0 else axis
    shape = sizes(x)
    left, right = shape[:axis], shape[axis:]
    if all(isinstance(size, int) for size in right) and 0 not in right:
        return ops.reshape(x, (-1 if axis else 1, product(right)))
    return ops.reshape(x, (product(left), product(right)))


def squeeze(op: KerasOperation, x: Any, axes: Any = None) -> Any:
    """Drop axes of size 1, all of them if none is named."""
    x = tensor(x)
    chosen = given_axes(op, axes)
    if chosen is None and axes is not None:
        return without_axes(op, x, axes)
    if chosen is None:
        chosen = [axis for axis, size in enumerate(sizes(x)) if isinstance(size, int) and size == 1]
        x = _without_ones(op, x)
    dropped = {axis_of(axis, x) for axis in chosen}
    # Reshaped, for a size that is 1 but not known to be must go as well.
    kept = [size for axis, size in enumerate(sizes(x)) if axis not in dropped]
    return ops.reshape(x, kept)


def _without_ones(op: KerasOperation, x: Any) -> Any:
    """Check in a run that no open size of ``x`` is 1: its rank would change."""
    unknown = [size for size in sizes(x) if not isinstance(size, int)]
    if not unknown:
        return x
    import tensorflow as tf

    message = f"{op.step.label}: a size that the file leaves open is 1; name the axes"
    checks = [tf.debugging.assert_none_equal(size, 1, message=message) for size in unknown]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(x)


def unsqueeze(op: KerasOperation, x: Any, axes: Any = None) -> Any:
    """Insert axes, counted in the result."""
    x = tensor(x)
    chosen = given_axes(op, axes)
    if chosen is None:
        return with_axes(op, x, axes)
    total = len(x.shape) + len(chosen)
    for axis in sorted(axis + total if axis < 0 else axis for axis in chosen):
        x = ops.expand_dims(x, axis)
    return x


def concat(op: KerasOperation, *values: Any) -> Any:
    """Join tensors along an axis."""
    parts = [tensor(value) for value in values]
    return ops.concatenate(parts, axis=op.attribute("axis", 1))


def split(op: KerasOperation, x: Any, lengths: Any = None) -> list[Any]:
    """Split into parts of given lengths, or equal ones of which the last may be shorter."""
    x = tensor(x)
    axis = axis_of(op.attribute("axis", 0), x)
    given = op.attribute("split") if lengths is None else ints(lengths)
    if given is None:
        count = op.attribute("num_outputs", len(op.step.outputs))
        size = sizes(x)[axis]
        each = -(-size // count)
        given = [each] * (count - 1)
        given.append(size - each * (count - 1))
    starts: list[Any] = [0]
    for length in given[:-1]:
        starts.append(starts[-1] + length)
    return [
        cut(x, axis, start, start + length) for start, length in zip(starts, given, strict=True)
    ]


def cut(x: Any, axis: int, start: Any, stop: Any, step: int = 1) -> Any:
    """Take entries from ``start`` to before ``stop`` along an axis, as Python counts them."""
    index: list[Any] = [slice(None)] * len(x.shape)
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def sliced(op: KerasOperation, x: Any, *operands: Any) -> Any:
    """Slice; starts and ends beyond the ends are cut, negative ones count from the end."""
    x = tensor(x)
    if op.opset < 10:
        op.padded(operands, 0)
        starts, ends = op.attribute("starts"), op.attribute("ends")
        axes, steps = op.attribute("axes"), None
    else:
        first, last, along, strides = op.padded(operands, 4)
        steps = None if strides is None else ints(strides)
        starts, ends, axes = ints(first), ints(last), given_axes(op, along)
        if (along is not None and axes is None) or not all(isinstance(n, int) for n in steps or []):
            along = np.arange(len(starts)) if along is None else along
            strides = np.ones(len(starts), np.int64) if strides is None else strides
            return sliced_at(op, x, first, last, along, strides)
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _slice_axis(x, axis_of(axis, x), start, end, step)
    return x


def _slice_axis(x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    size = sizes(x)[axis]
    if all(isinstance(n, int) for n in (start, end, size)):
        picked = _picked(start, end, step, size)
        if len(picked) == size and step > 0:
            return x
        if step > 0 and len(picked):
            return cut(x, axis, picked[0], picked[-1] + 1, step)
        return gathered(x, np.array(picked, np.int64), axis)
    if step < 0:
        end = -FARTHEST if isinstance(end, int) and end in NONE else end
        whole = isinstance(start, int) and isinstance(end, int) and start == -1 and end <= -FARTHEST
        if not whole:
            return _backward(x, axis, start, end, step)
        return cut(ops.flip(x, axis), axis, None, None, -step)
    start = None if isinstance(start, int) and start == 0 else start
    end = None if isinstance(end, int) and end >= 2**31 - 1 else end
    return cut(x, axis, _bounded(start, size), _bounded(end, size), step)


def _picked(start: int, end: int, step: int, size: int) -> range:
    """Return places; a walk back from before the first entry takes that one, unlike Python's."""
    end = -FARTHEST if step < 0 and end in NONE else end
    start, end = (place + size if place < 0 else place for place in (start, end))
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def _bounded(place: Any, size: Any) -> Any:
    """Keep a place within the axis: one beyond its ends is not one for every backend."""
    if place is None:
        return None
    if isinstance(place, int) and isinstance(size, int):
        return min(max(place, -size), size)
    if isinstance(place, int):
        place = min(max(place, -FARTHEST), FARTHEST)
    if isinstance(place, int):  # constant against an unknown size
        return ops.maximum(place + size, 0) if place < 0 else ops.minimum(place, size)
    place = ops.where(ops.less(place, 0), place + size, place)
    return ops.maximum(ops.minimum(place, size), 0)


def _backward(x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    """Walk backwards between places of which one is not known."""
    size = ops.cast(sizes(x)[axis], "int32")
    first = ops.minimum(ops.maximum(_wrapped(start, size), 0), size - 1)
    last = ops.maximum(_wrapped(end, size), -1)
    if not isinstance(end, int):
        last = ops.where(ops.equal(end, NONE[0]), -1, last)
    return gathered(x, ops.arange(first, last, step, dtype="int32"), axis)


def _wrapped(place: Any, size: Any) -> Any:
    if isinstance(place, int):
        place = min(max(place, -FARTHEST), FARTHEST)
    place = ops.cast(place, "int32")
    return ops.where(ops.less(place, 0), place + size, place)


def expand(op: KerasOperation, x: Any, shape: Any) -> Any:
    """Broadcast against a shape, which may also be the smaller one."""
    x = tensor(x)
    return broadcast(x, ints(shape))


def broadcast(x: Any, shape: list[Any]) -> Any:
    """Repeat ``x`` along axes of size 1 as far as ``shape`` asks."""
    own = sizes(x)
    length = max(len(own), len(shape))
    own = [1] * (length - len(own)) + own
    wanted = [1] * (length - len(shape)) + list(shape)
    target = [_wider(a, b) for a, b in zip(own, wanted, strict=True)]
    if length > len(x.shape):
        x = ops.reshape(x, own)
    return ops.broadcast_to(x, target)


def _wider(a: Any, b: Any) -> Any:
    """Return the size that two broadcast sizes make."""
    if isinstance(a, int) and a != 1:
        return a
    if isinstance(b, int):
        return a if b == 1 else b
    if isinstance(a, int):
        return b
    return ops.where(ops.equal(a, 1), b, a)


def tile(op: KerasOperation, x: Any, repeats: Any, axis: Any = None) -> Any:
    """Repeat along each axis."""
    x = tensor(x)
    if axis is not None:  # opset 1
        places = [1] * len(x.shape)
        places[int(number(axis))] = number(repeats)
        return ops.tile(x, places)
    counts = ints(repeats)
    if all(isinstance(count, int) for count in counts):
        return ops.tile(x, counts)
    own = sizes(x)
    spread = [part for size in own for part in (1, size)]
    wide = [part for size, count in zip(own, counts, strict=True) for part in (count, size)]
    grown = [
        size * count if isinstance(size, int) or isinstance(count, int) else count * size
        for size, count in zip(own, counts, strict=True)
    ]
    return ops.reshape(ops.broadcast_to(ops.reshape(x, spread), wide), grown)


def filled(op: KerasOperation, shape: Any) -> Any:
    """Fill a tensor with a constant (ConstantOfShape)."""
    value = op.attribute("value", np.zeros(1, np.float32)).reshape(())
    wanted = ints(shape)
    if all(isinstance(size, int) for size in wanted):
        return np.full(wanted, value, value.dtype)
    return ops.broadcast_to(tensor(value), wanted)


def span(op: KerasOperation, start: Any, limit: Any, delta: Any) -> Any:
    """Count from a start to a limit (Range)."""
    dtype = dtype_of(start)
    given = [number(value) for value in (start, limit, delta)]
    if not any(ops.is_tensor(item) for item in given):
        return np.arange(*given, dtype=np.dtype(dtype))
    first, last, step = (ops.cast(item, dtype) for item in given)
    if "int" in dtype:
        return ops.arange(first, last, step, dtype=dtype)
    count = ops.maximum(ops.ceil((last - first) / step), 0)
    return first + step * ops.cast(ops.arange(ops.cast(count, "int32")), dtype)


def constant(op: KerasOperation) -> Any:
    """Refuse strings and sparse tensors, which a table of numbers does not hold."""
    op.refuse("it holds text or a sparse array, of which there are no Keras tensors")


def trilu(op: KerasOperation, x: Any, k: Any = None) -> Any:
    """Keep the upper or the lower triangle."""
    x = tensor(x)
    rows, columns = sizes(x)[-2:]
    offset = number(k, 0)
    row = ops.expand_dims(ops.arange(rows, dtype="int32"), -1)
    distance = ops.arange(columns, dtype="int32") - row
    offset = ops.cast(offset, "int32")
    kept = distance >= offset if op.attribute("upper", 1) else distance <= offset
    return ops.where(kept, x, ops.zeros_like(x))


def eye_like(op: KerasOperation, x: Any) -> Any:
    """Make ones on a diagonal."""
    rows, columns = sizes(x)
    row = ops.expand_dims(ops.arange(rows, dtype="int32"), -1)
    distance = ops.arange(columns, dtype="int32") - row
    kind = op.attribute("dtype")
    name = dtype_of(x) if kind is None else type_name(kind)
    return ops.cast(ops.equal(distance, op.attribute("k", 0)), name)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Concat": concat,
        "Constant": constant,
        "ConstantOfShape": filled,
        "Expand": expand,
        "EyeLike": eye_like,
        "Flatten": flatten,
        "Identity": lambda op, x: x,
        "Range": span,
        "Reshape": reshape,
        "Shape": shape_of,
        "Size": size_of,
        "Slice": sliced,
        "Split": split,
        "Squeeze": squeeze,
        "Tile": tile,
        "Transpose": transpose,
        "Trilu": trilu,
        "Unsqueeze": unsqueeze,
    },
}
