"""Loops that the backend runs: as many steps as an input is long, or as the data want.

    states, columns = scanned(body, states, sequences)    # body(states, entries) -> states, rows
    states, columns = looped(body, states, limit, first)  # body(step, goes_on, states) -> ...

TensorFlow's own loop, for Keras' takes one sequence of unknown length and collects nothing where
the number of steps is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from onnx_net2net.frameworks.keras.traced import noted

__all__ = ["looped", "scanned"]

Looped = tuple[list[Any], list[Any]]  # the last states, and what was collected of each step

MOST_WIDENINGS = 4  # of the shapes of states, until none changes any more


@noted
def scanned(
    body: Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]],
    states: Sequence[Any],
    sequences: Sequence[Any],
) -> Looped:
    """Run one step for each entry along the first axis of the sequences."""
    if keras.backend.backend() != "tensorflow":
        return _by_keras(body, states, sequences)
    import tensorflow as tf

    count = tf.shape(sequences[0])[0]
    arrays = [
        tf.TensorArray(x.dtype, count, element_shape=x.shape[1:]).unstack(x) for x in sequences
    ]

    def step(index: Any, goes_on: Any, now: list[Any], entries: list[Any]) -> Any:
        return goes_on, *body(now, entries)

    last, columns = _loop(step, list(states), count, tf.constant(True), arrays, count)
    length = sequences[0].shape[0]
    return last, [tf.ensure_shape(c, [length, *c.shape[1:]]) for c in columns]


def _by_keras(body: Any, states: Sequence[Any], sequences: Sequence[Any]) -> Looped:
    """Run ``keras.ops.scan``, which collects as much as it carries: rows are carried too."""
    first = body(list(states), [x[0] for x in sequences])[1]
    blanks = [ops.zeros_like(row) for row in first]

    def step(carry: list[Any], entries: list[Any]) -> tuple[list[Any], list[Any]]:
        new, rows = body(list(carry[: len(states)]), list(entries))
        return [*new, *rows], [*new, *rows]

    last, columns = ops.scan(step, [*states, *blanks], list(sequences))
    return list(last[: len(states)]), list(columns[len(states) :])


@noted
def looped(
    body: Callable[[Any, Any, list[Any]], tuple[Any, list[Any], list[Any]]],
    states: Sequence[Any],
    limit: Any,
    first: Any,
) -> Looped:
    """Run at most ``limit`` steps, as long as the last one says so; ``first`` at the start."""
    if keras.backend.backend() == "tensorflow":

        def without(index: Any, goes_on: Any, now: list[Any], _: list[Any]) -> Any:
            return body(index, goes_on, now)

        limit, first = ops.cast(limit, "int32"), ops.cast(first, "bool")
        return _loop(without, list(states), limit, first, [], None)

    def step(index: Any, goes_on: Any, *now: Any) -> tuple[Any, ...]:
        goes_on, new, _ = body(index, goes_on, list(now))
        return (index + 1, goes_on, *new)

    start = (ops.convert_to_tensor(0, "int32"), ops.convert_to_tensor(first, "bool"), *states)
    done = ops.while_loop(
        lambda index, goes_on, *_: ops.logical_and(goes_on, index < ops.cast(limit, "int32")),
        step,
        start,
    )
    return list(done[2:]), []


def _loop(
    body: Any, states: list[Any], limit: Any, first: Any, inputs: list[Any], count: Any
) -> Looped:
    """Run a loop; rows are collected in arrays of ``count`` entries, or in ones that grow."""
    import tensorflow as tf

    entries = [tf.TensorSpec(array.element_shape, array.dtype) for array in inputs]
    shapes, rows = _specs(body, states, entries)
    arrays = [
        tf.TensorArray(
            row.dtype, 0 if count is None else count, count is None, element_shape=row.shape
        )
        for row in rows
    ]

    def step(index: Any, goes_on: Any, now: Any, arrays: Any) -> tuple[Any, ...]:
        goes_on, new, rows = body(index, goes_on, list(now), [a.read(index) for a in inputs])
        written = [a.write(index, row) for a, row in zip(arrays, rows, strict=True)]
        return index + 1, goes_on, new, written

    done = tf.while_loop(
        lambda index, goes_on, *_: tf.logical_and(goes_on, index < limit),
        step,
        (tf.constant(0), first, states, arrays),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([]),
            shapes,
            [tf.TensorShape(None) for _ in rows],
        ),
    )
    return list(done[2]), [array.stack() for array in done[3]]


def _specs(body: Any, states: list[Any], entries: list[Any]) -> Looped:
    """Return shapes that hold for the states after any number of steps, and what a row is."""
    import tensorflow as tf

    shapes = [_sizes(state.shape) for state in states]
    for _ in range(MOST_WIDENINGS):
        given = [tf.TensorSpec(s, x.dtype) for s, x in zip(shapes, states, strict=True)]

        def once(index: Any, goes_on: Any, now: list[Any], entries: list[Any]) -> Any:
            return body(index, goes_on, list(now), list(entries))[1:]

        counters = (tf.TensorSpec([], "int32"), tf.TensorSpec([], "bool"))
        traced = tf.function(once, autograph=False).get_concrete_function(*counters, given, entries)
        new, rows = traced.structured_outputs
        wider = [_common(old, _sizes(x.shape)) for old, x in zip(shapes, new, strict=True)]
        if wider == shapes:
            break
        shapes = wider
    return [tf.TensorShape(shape) for shape in shapes], list(rows)


def _sizes(shape: Any) -> list[int | None] | None:
    """Return sizes of axes, None for those that are open; None where even their number is."""
    return None if shape.rank is None else shape.as_list()


def _common(
    one: list[int | None] | None, other: list[int | None] | None
) -> list[int | None] | None:
    """Return what two shapes have in common."""
    if one is None or other is None or len(one) != len(other):
        return None
    return [a if a == b else None for a, b in zip(one, other, strict=True)]
