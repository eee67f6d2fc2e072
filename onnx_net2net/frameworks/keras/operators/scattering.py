"""Operators that write entries by their place."""

from __future__ import annotations

from typing import Any

from keras import ops

from onnx_net2net.frameworks.keras.operators.indexing import element_places, flat_places
from onnx_net2net.frameworks.keras.operators.movement import broadcast
from onnx_net2net.frameworks.keras.trace import Call, Entry
from onnx_net2net.frameworks.keras.values import axis_of, cast, dtype_of, product, sizes, tensor

__all__ = ["TABLES"]

REDUCTIONS = {"none": None, "add": "add", "max": "max", "min": "min", "mul": "mul"}


def _written(call: Call, flat: Any, places: Any, updates: Any) -> Any:
    """Rows of ``flat`` replaced, or combined with what stands there."""
    way = REDUCTIONS[call.attribute("reduction", "none")]
    places = ops.reshape(places, (-1, 1))
    if way is not None and dtype_of(flat) == "bool":
        way = {"add": "max", "mul": "min"}.get(way, way)
        flat, updates = ops.cast(flat, "int32"), ops.cast(updates, "int32")
        return ops.cast(ops.scatter_update(flat, places, updates, reduction=way), "bool")
    return ops.scatter_update(flat, places, updates, reduction=way)


def scatter_elements(call: Call, x: Any, indices: Any, updates: Any) -> Any:
    """An index of its own for each entry."""
    x = tensor(x)
    axis = axis_of(call.attribute("axis", 0), x)
    places = element_places(x, indices, axis)
    flat = ops.reshape(x, (-1,))
    return ops.reshape(_written(call, flat, places, ops.reshape(tensor(updates), (-1,))), sizes(x))


def scatter_nd(call: Call, x: Any, indices: Any, updates: Any) -> Any:
    """Slices at tuples of places."""
    x, indices, updates = tensor(x), tensor(indices), tensor(updates)
    if 0 in x.shape:
        return x  # no entry that TensorFlow could be told to replace
    own, depth = sizes(x), indices.shape[-1]
    rows = product(own[depth:])
    flat = ops.reshape(x, (product(own[:depth]), rows))
    places = flat_places(own, indices)
    flat = _written(call, flat, places, ops.reshape(updates, (-1, rows)))
    return ops.reshape(flat, own)


def tensor_scatter(call: Call, past: Any, update: Any, starts: Any = None) -> Any:
    """A cache with new entries from a place on, one for each image of the batch."""
    past, update = tensor(past), tensor(update)
    axis = axis_of(call.attribute("axis", -2), past)
    own, news = sizes(past), sizes(update)
    steps = ops.arange(news[axis], dtype="int32")
    first = ops.zeros((1,), "int32") if starts is None else cast(tensor(starts), "int32")
    at = ops.expand_dims(first, -1) + steps
    if call.attribute("mode", "linear") == "circular":
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
        "Scatter": scatter_elements,
        "ScatterElements": scatter_elements,
        "ScatterND": scatter_nd,
        "TensorScatter": tensor_scatter,
    }
}
