"""Operators that read entries by their place."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from onnx_net2net.frameworks.keras.trace import Call, Entry
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

__all__ = ["TABLES", "flat_places", "whole_places"]


def gather(call: Call, x: Any, indices: Any) -> Any:
    """Rows of a table."""
    x = tensor(x)
    return gathered(x, indices, axis_of(call.attribute("axis", 0), x))


def whole_places(indices: Any, size: Any) -> Any:
    """Negative indices counted from the end, as int32."""
    indices = cast(tensor(indices), "int32")
    return ops.where(indices < 0, indices + ops.cast(size, "int32"), indices)


def element_places(x: Any, indices: Any, axis: int) -> Any:
    """Places of entries in the flat tensor: ``indices`` along one axis, their own in others."""
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


def gather_elements(call: Call, x: Any, indices: Any) -> Any:
    """An index of its own for each entry."""
    x = tensor(x)
    axis = axis_of(call.attribute("axis", 0), x)
    places = element_places(x, indices, axis)
    return ops.take(ops.reshape(x, (-1,)), places, axis=0)


def flat_places(shape: list[Any], indices: Any) -> Any:
    """Places of tuples (the last axis of ``indices``) in the leading axes of a shape."""
    depth = indices.shape[-1]
    total: Any = 0
    for axis in range(depth):
        part = whole_places(indices[..., axis], shape[axis])
        total = total + part * ops.cast(product(shape[axis + 1 : depth]), "int32")
    return total


def gather_nd(call: Call, x: Any, indices: Any) -> Any:
    """Slices at tuples of places, behind ``batch_dims`` axes that both have."""
    x, indices = tensor(x), tensor(indices)
    batch = call.attribute("batch_dims", 0)
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        call.refuse("the length of its index tuples is not known ahead")
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


def one_hot(call: Call, indices: Any, depth: Any, values: Any) -> Any:
    """``values`` are off and on; an index beyond the depth is off everywhere."""
    indices, values = tensor(indices), tensor(values)
    axis = call.attribute("axis", -1)
    count = number(depth)
    size = ops.cast(count, dtype_of(indices))
    wrapped = ops.where(indices < 0, indices + size, indices)
    axis = axis + len(indices.shape) + 1 if axis < 0 else axis
    span = [1] * (len(indices.shape) + 1)
    span[axis] = -1
    steps = ops.reshape(ops.cast(ops.arange(count), dtype_of(indices)), span)
    return ops.where(ops.equal(ops.expand_dims(wrapped, axis), steps), values[1], values[0])


def compress(call: Call, x: Any, condition: Any) -> Any:
    """Entries where a condition holds."""
    x = tensor(x)
    axis = call.attribute("axis")
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    found = known(condition)
    if found is not None:
        return gathered(x, np.flatnonzero(found), axis_of(axis, x))
    return ops.take(x, ops.nonzero(tensor(condition))[0], axis=axis_of(axis, x))


def nonzero(call: Call, x: Any) -> Any:
    """Places of the entries that are not zero, a column each."""
    found = known(x)
    if found is not None:
        return np.stack(np.nonzero(found)).astype(np.int64)
    return ops.cast(ops.stack(ops.nonzero(tensor(x))), "int64")


def top_k(call: Call, x: Any, k: Any = None) -> list[Any]:
    """The largest or smallest entries, the first of equal ones first."""
    x = tensor(x)
    axis = axis_of(call.attribute("axis", -1), x)
    count = number(k, call.attribute("k"))
    x = ops.moveaxis(x, axis, -1)
    if call.attribute("largest", 1):
        values, places = ops.top_k(x, count)
    else:
        places = ops.argsort(x, axis=-1)[..., :count]
        values = ops.take_along_axis(x, places, axis=-1)
    return [ops.moveaxis(values, -1, axis), ops.moveaxis(ops.cast(places, "int64"), -1, axis)]


def array_feature_extractor(call: Call, x: Any, indices: Any) -> Any:
    """Columns of the last axis."""
    x = tensor(x)
    if len(x.shape) == 1:
        x = ops.expand_dims(x, 0)
    if isinstance(indices, np.ndarray):
        indices = indices.reshape(-1)
    else:
        indices = ops.reshape(tensor(indices), (-1,))
    return gathered(x, indices, len(x.shape) - 1)


def unique(call: Call, x: Any) -> list[Any]:
    """Distinct entries, where they are known when the graph is built."""
    found = known(x)
    if found is None:
        call.refuse("only the data tell how many distinct elements there are")
    axis = call.attribute("axis")
    values, first, inverse, counts = np.unique(found, True, True, True, axis=axis)
    if not call.attribute("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, axis=axis or 0)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return [values, first, inverse.reshape(-1), counts]


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Compress": compress,
        "Gather": gather,
        "GatherElements": gather_elements,
        "GatherND": gather_nd,
        "NonZero": nonzero,
        "OneHot": one_hot,
        "TopK": top_k,
        "Unique": unique,
    },
    "ai.onnx.ml": {"ArrayFeatureExtractor": array_feature_extractor},
}
