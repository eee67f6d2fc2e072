"""Shapes of a layer's outputs where the backend cannot trace with open sizes.

TensorFlow traces with sizes left open. JAX and PyTorch do not: there the graph is walked twice
with sizes of its own choice, equal where the file gives two dimensions one name, and what differs
is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from onnx import ModelProto

from onnx_net2net.analysis.symbols import bind, bound

__all__ = ["TRIALS", "output_spec", "simple"]

# Pairs of sizes for the open dimensions: small ones that differ, then multiples.
TRIALS = (
    ((5, 7, 11, 13, 17), (3, 5, 7, 11, 13)),
    ((32, 96, 160, 224), (64, 128, 192, 256)),
    ((1,), (1,)),
)

Walk = Callable[[list[Any]], list[Any]]


def output_spec(
    walk: Walk, proto: ModelProto, inputs: Sequence[keras.KerasTensor], trial: int
) -> list[keras.KerasTensor]:
    """Return the outputs' shapes and types. ``walk`` maps a list of tensors to one.

    ``trial`` says which sizes to take, for a network may want multiples of something.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.input if value.name not in stored]
    results = []
    for sizes in TRIALS[trial]:
        binding = bind(values, sizes)
        pairs = zip(values, inputs, strict=True)
        shapes = [bound(value, binding) or tuple(x.shape) for value, x in pairs]
        results.append(_walked(walk, shapes, [x.dtype for x in inputs]))
        if not binding:
            break
    here, there = results[0], results[-1]
    return [
        keras.KerasTensor(
            [m if m == n else None for m, n in zip(a.shape, b.shape, strict=False)],
            keras.backend.standardize_dtype(a.dtype),
        )
        for a, b in zip(here, there, strict=True)
    ]


def _walked(walk: Walk, shapes: list[Any], kinds: list[str]) -> list[Any]:
    """Walk once, for simple numbers or, in JAX, for shapes alone."""
    with keras.StatelessScope():
        if keras.backend.backend() == "jax":
            import jax

            given = [
                jax.ShapeDtypeStruct(shape, ops.zeros((), kind).dtype)
                for shape, kind in zip(shapes, kinds, strict=True)
            ]
            return list(jax.eval_shape(lambda *tensors: walk(list(tensors)), *given))
        return walk([simple(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)])


def simple(shape: Sequence[int], dtype: str) -> Any:
    """Return ones, and matrices such as have an inverse, until there is something better."""
    ones = ops.ones(shape, dtype)
    if len(shape) < 2 or not keras.backend.is_float_dtype(dtype):
        return ones
    return ones + ops.eye(shape[-2], shape[-1], dtype=dtype)
