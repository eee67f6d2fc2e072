"""Operators that read, write or pick elements by position."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.movement import broadcast
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import (
    axis_of,
    cast,
    dtype_of,
    gathered,
    known,
    number,
    product,
    sizes,
    tensor,
)

__all__ = ["TABLES"]


def gather(op: KerasOperation, x: Any, indices: Any) -> Any:
    """Take rows of a table."""
    x = tensor(x)
    return gathered(x, indices, axis_of(op.attribute("axis", 0), x))


def whole_places(indices: Any, size: Any) -> Any:
    """Count negative indices from the end, as int32."""
    indices = cast(tensor(indices), "int32")
    return ops.where(indices < 0, indices + ops.cast(size, "int32"), indices)


def element_places(x: Any, indices: Any, axis: int) -> Any:
    """Return places in the flat tensor: ``indices`` along one axis, their own in others."""
    own, shape = sizes(x), sizes(indices)
    places = whole_places(indices, own[axis]) * _stride(own, axis)
    for other in range(len(own)):
        if other != axis:
            span = [1] * len(own)
            span[other] = -1
            steps = ops.arange(shape[other], dtype="int32") * _stride(own, other)
            places = places + ops.reshape(steps, span)
    return places


def _stride(shape: list[Any], axis: int) -> Any:
    return ops.cast(product(shape[axis + 1 :]), "int32")


def gather_elements(op: KerasOperation, x: Any, indices: Any) -> Any:
    """Take entries, each with an index of its own."""
    x = tensor(x)
    axis = axis_of(op.attribute("axis", 0), x)
    places = element_places(x, indices, axis)
    return ops.take(ops.reshape(x, (-1,)), places, axis=0)


def flat_places(shape: list[Any], indices: Any) -> Any:
    """Return places of tuples (last axis of ``indices``) in the leading axes of a shape."""
    depth = indices.shape[-1]
    total: Any = 0
    for axis in range(depth):
        part = whole_places(indices[..., axis], shape[axis])
        total = total + part * ops.cast(product(shape[axis + 1 : depth]), "int32")
    return total


def gather_nd(op: KerasOperation, x: Any, indices: Any) -> Any:
    """Take slices at tuples of places, behind ``batch_dims`` axes that both have."""
    x, indices = tensor(x), tensor(indices)
    batch = op.attribute("batch_dims", 0)
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        op.refuse("the length of its index tuples is not known ahead")
    own, asked = sizes(x), sizes(indices)
    places = flat_places(own[batch:], indices)
    inner = product(own[batch : batch + depth])
    if batch:
        count = product(own[:batch])
        first = ops.arange(count, dtype="int32") * ops.cast(inner, "int32")
        shape = [*asked[:batch], *[1] * (len(asked) - 1 - batch)]
        places = places + ops.reshape(first, shape)
    flat = ops.reshape(x, [product(own[: batch + depth]), *own[batch + depth :]])
    return ops.take(flat, places, axis=0)


def one_hot(op: KerasOperation, indices: Any, depth: Any, values: Any) -> Any:
    """Mark indices; ``values`` are off and on, and an index beyond the depth is off everywhere."""
    indices, values = tensor(indices), tensor(values)
    axis = op.attribute("axis", -1)
    count = number(depth)
    size = ops.cast(count, dtype_of(indices))
    wrapped = ops.where(indices < 0, indices + size, indices)
    axis = axis + len(indices.shape) + 1 if axis < 0 else axis
    span = [1] * (len(indices.shape) + 1)
    span[axis] = -1
    steps = ops.reshape(ops.cast(ops.arange(count), dtype_of(indices)), span)
    return ops.where(ops.equal(ops.expand_dims(wrapped, axis), steps), values[1], values[0])


def compress(op: KerasOperation, x: Any, condition: Any) -> Any:
    """Take the entries where a condition holds."""
    x = tensor(x)
    axis = op.attribute("axis")
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    holds = known(condition)
    if holds is not None:
        return gathered(x, np.flatnonzero(holds), axis_of(axis, x))
    return ops.take(x, ops.nonzero(tensor(condition))[0], axis=axis_of(axis, x))


def nonzero(op: KerasOperation, x: Any) -> Any:
    """Return the places of the entries that are not zero, a column each."""
    array = known(x)
    if array is not None:
        return np.stack(np.nonzero(array)).astype(np.int64)
    return ops.cast(ops.stack(ops.nonzero(tensor(x))), "int64")


def top_k(op: KerasOperation, x: Any, k: Any = None) -> list[Any]:
    """Return the largest or smallest entries, the first of equal ones first."""
    x = tensor(x)
    axis = axis_of(op.attribute("axis", -1), x)
    count = number(k, op.attribute("k"))
    x = ops.moveaxis(x, axis, -1)
    if op.attribute("largest", 1):
        values, places = ops.top_k(x, count)
    else:
        places = ops.argsort(x, axis=-1)[..., :count]
        values = ops.take_along_axis(x, places, axis=-1)
    return [ops.moveaxis(values, -1, axis), ops.moveaxis(ops.cast(places, "int64"), -1, axis)]


def unique(op: KerasOperation, x: Any) -> list[Any]:
    """Return the distinct entries, where they are known when the graph is built."""
    array = known(x)
    if array is None:
        op.refuse("only the data tell how many distinct elements there are")
    axis = op.attribute("axis")
    values, first, inverse, counts = np.unique(array, True, True, True, axis=axis)
    if not op.attribute("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, axis=axis or 0)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return [values, first, inverse.reshape(-1), counts]


REDUCTIONS = {"none": None, "add": "add", "max": "max", "min": "min", "mul": "mul"}


def _written(op: KerasOperation, flat: Any, places: Any, updates: Any) -> Any:
    """Replace rows of ``flat``, or combine them with what stands there."""
    way = REDUCTIONS[op.attribute("reduction", "none")]
    places = ops.reshape(places, (-1, 1))
    if way is not None and dtype_of(flat) == "bool":
        way = {"add": "max", "mul": "min"}.get(way, way)
        flat, updates = ops.cast(flat, "int32"), ops.cast(updates, "int32")
        return ops.cast(ops.scatter_update(flat, places, updates, reduction=way), "bool")
    return ops.scatter_update(flat, places, updates, reduction=way)


def scatter_elements(op: KerasOperation, x: Any, indices: Any, updates: Any) -> Any:
    """Write entries, each at an index of its own."""
    x = tensor(x)
    axis = axis_of(op.attribute("axis", 0), x)
    places = element_places(x, indices, axis)
    flat = ops.reshape(x, (-1,))
    return ops.reshape(_written(op, flat, places, ops.reshape(tensor(updates), (-1,))), sizes(x))


def scatter_nd(op: KerasOperation, x: Any, indices: Any, updates: Any) -> Any:
    """Write slices at tuples of places."""
    x, indices, updates = tensor(x), tensor(indices), tensor(updates)
    if 0 in x.shape:
        return x  # no entry that TensorFlow could be told to replace
    own, depth = sizes(x), indices.shape[-1]
    rows = product(own[depth:])
    flat = ops.reshape(x, (product(own[:depth]), rows))
    places = flat_places(own, indices)
    flat = _written(op, flat, places, ops.reshape(updates, (-1, rows)))
    return ops.reshape(flat, own)


def tensor_scatter(op: KerasOperation, past: Any, update: Any, starts: Any = None) -> Any:
    """Write new entries into a cache, from a place on for each image of the batch."""
    past, update = tensor(past), tensor(update)
    axis = axis_of(op.attribute("axis", -2), past)
    own, news = sizes(past), sizes(update)
    steps = ops.arange(news[axis], dtype="int32")
    first = ops.zeros((1,), "int32") if starts is None else cast(tensor(starts), "int32")
    at = ops.expand_dims(first, -1) + steps
    if op.attribute("mode", "linear") == "circular":
        at = ops.mod(at, ops.cast(own[axis], "int32"))
    at = broadcast(at, [own[0], news[axis]])
    batch = ops.expand_dims(ops.arange(own[0], dtype="int32"), -1) * ops.cast(own[axis], "int32")
    turned = ops.moveaxis(past, axis, 1)
    shape = sizes(turned)
    rows = product(shape[2:])
    flat = ops.reshape(turned, (product(shape[:2]), rows))
    values = ops.reshape(ops.moveaxis(update, axis, 1), (-1, rows))
    flat = ops.scatter_update(flat, ops.reshape(batch + at, (-1, 1)), values)
    return ops.moveaxis(ops.reshape(flat, shape), 1, axis)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Compress": compress,
        "Gather": gather,
        "GatherElements": gather_elements,
        "GatherND": gather_nd,
        "NonZero": nonzero,
        "OneHot": one_hot,
        "Scatter": scatter_elements,
        "ScatterElements": scatter_elements,
        "ScatterND": scatter_nd,
        "TensorScatter": tensor_scatter,
        "TopK": top_k,
        "Unique": unique,
    },
}
