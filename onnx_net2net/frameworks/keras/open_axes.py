"""Axes that only a run tells: the tensor is turned so that they lie behind, in TensorFlow.

    flat, restored = axes_behind(x, axes)      # (what stays, what is reduced)
    restored(reduced, keep=True)

Other backends need every shape when they trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from onnx_net2net.frameworks.keras.operation import KerasOperation
from onnx_net2net.frameworks.keras.values import rank, tensor

__all__ = ["axes_behind", "axis_last", "sliced_at", "with_axes", "without_axes"]


def axes_behind(op: KerasOperation, x: Any, axes: Any) -> tuple[Any, Callable[[Any, bool], Any]]:
    """Return ``x`` as a matrix with columns along ``axes``, and what gives rows their shape."""
    import tensorflow as tf

    over = _chosen(op, axes, rank(x))
    shape = tf.shape(x)
    kept, reduced = tf.where(over, 1, shape), tf.where(over, shape, 1)
    turned = tf.transpose(x, tf.argsort(tf.cast(over, "int32"), stable=True))
    flat = tf.reshape(turned, [tf.reduce_prod(kept), tf.reduce_prod(reduced)])

    def restored(rows: Any, keep: bool) -> Any:
        return tf.reshape(rows, kept if keep else _left(shape, over, axes))

    return flat, restored


def axis_last(
    op: KerasOperation, x: Any, axis: Any, before: int = 0
) -> tuple[Any, Callable[[Any], Any]]:
    """Move an axis of ``x`` behind the others but for some; return also what moves it back."""
    import tensorflow as tf

    chosen = tf.cast(_chosen(op, axis, rank(x)), "int32")
    last = tf.range(rank(x)) >= rank(x) - before
    order = tf.argsort(tf.where(last, 2, chosen), stable=True)
    back = tf.argsort(order)
    return tf.transpose(x, order), lambda y: tf.transpose(y, back)


def without_axes(op: KerasOperation, x: Any, axes: Any) -> Any:
    """Squeeze axes that the graph computes."""
    import tensorflow as tf

    return tf.reshape(x, _left(tf.shape(x), _chosen(op, axes, rank(x)), axes))


def with_axes(op: KerasOperation, x: Any, axes: Any) -> Any:
    """Unsqueeze axes that the graph computes, counted in the result."""
    import tensorflow as tf

    new = _chosen(op, axes, rank(x) + axes.shape[0])
    source = tf.cumsum(tf.cast(~new, "int32")) - 1
    old = tf.gather(tf.concat([tf.shape(x), [1]], 0), tf.maximum(source, 0))
    return tf.reshape(x, tf.where(new, 1, old))


def sliced_at(op: KerasOperation, x: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    """Slice whose axes or steps the graph computes."""
    import tensorflow as tf

    starts, ends, axes, steps = (tf.cast(tensor(v), "int64") for v in (starts, ends, axes, steps))
    _chosen(op, axes, rank(x))  # which refuses what cannot be told
    none = (ends == 2**31 - 1) | (ends == 2**63 - 1)  # no end: backwards, to the first entry
    ends = tf.where(none & (steps < 0), tf.cast(-(2**31), "int64"), ends)
    shape = tf.shape(x, "int64")
    places = tf.where(axes < 0, axes + rank(x), axes)
    sizes = tf.gather(shape, places)
    backward = steps < 0
    less = tf.cast(backward, "int64")

    def bounded(place: Any, low: Any) -> Any:
        place = tf.minimum(tf.where(place < 0, place + sizes, place), sizes - less)
        place = tf.maximum(place, low)
        return tf.where(place < 0, -sizes - 1, place)  # before the first, in TensorFlow's words

    def spread(values: Any, others: Any) -> Any:
        return tf.tensor_scatter_nd_update(others, places[:, None], values)

    one = tf.ones_like(shape)
    begin, end = spread(bounded(starts, 0 * less), one * 0), spread(bounded(ends, -less), shape)
    y = tf.strided_slice(x, begin, end, spread(steps, one))
    return tf.ensure_shape(y, [None] * rank(x))


def _chosen(op: KerasOperation, axes: Any, count: int) -> Any:
    """Return which of ``count`` axes are meant, negative ones counted from the end."""
    if keras.backend.backend() != "tensorflow":
        op.refuse("its axes are computed by the graph, and have to be known ahead")
    import tensorflow as tf

    axes = tf.reshape(tensor(axes, "int32"), [-1, 1])
    if axes.shape[0] is None:
        op.refuse("the number of its axes is computed by the graph, and has to be known ahead")
    axes = tf.where(axes < 0, axes + count, axes)
    return tf.reduce_any(axes == tf.range(count), 0)


def _left(shape: Any, over: Any, axes: Any) -> Any:
    """Return the sizes of the other axes."""
    import tensorflow as tf

    left = tf.boolean_mask(shape, ~over)
    return tf.ensure_shape(left, [shape.shape[0] - (axes.shape[0] if rank(axes) else 1)])
