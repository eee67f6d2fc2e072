"""What a tensor is while the graph is traced: known, partly known, or a tensor of the backend.

np.ndarray      known now: sizes that are fixed, constants, masks
Sizes           sizes of which some are known: [2, batch, 64] (see run_time_sizes.py)
anything else   a tensor of Keras' backend
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from onnx_net2net.frameworks.keras.run_time_sizes import Sizes
from onnx_net2net.frameworks.keras.traced import Traced, ops

__all__ = [
    "axis_of", "cast", "dtype_of", "gathered", "ints", "known", "number", "policy_of", "rank",
    "sizes", "tensor",
]  # fmt: skip

OPEN = object()
Value = Any  # np.ndarray, Sizes, a backend's tensor, a list of these (a sequence), or None


def tensor(value: Value, dtype: str | None = None) -> Any:
    """Return ``value`` as a tensor of the backend."""
    if isinstance(value, Sizes):
        name = dtype or value.dtype.name
        parts = [
            ops.cast(item, name) if ops.is_tensor(item) else ops.convert_to_tensor(item, name)
            for item in value.elements()
        ]
        return ops.reshape(ops.stack(parts), value.shape)
    if isinstance(value, np.ndarray | np.generic):
        return ops.convert_to_tensor(
            np.ascontiguousarray(value).reshape(value.shape), dtype or value.dtype.name
        )
    return value if dtype is None else cast(value, dtype)


def dtype_of(value: Value) -> str:
    """Return the name of the type of an element."""
    if isinstance(value, np.ndarray | Sizes):
        return value.dtype.name
    return str(keras.backend.standardize_dtype(value.dtype))


def policy_of(value: Any) -> str | None:
    """Return the dtype policy of a layer that takes a tensor as it is: Keras casts floats only."""
    kind = dtype_of(value)
    return kind if keras.backend.is_float_dtype(kind) else None


def cast(value: Any, dtype: str) -> Any:
    """Cast a tensor where it has another type."""
    return value if dtype_of(value) == dtype else ops.cast(value, dtype)


def rank(value: Value) -> int:
    """Return the number of axes."""
    return len(value.shape)


def axis_of(axis: int, value: Value) -> int:
    """Return ``axis`` counted from the front."""
    return axis + rank(value) if axis < 0 else axis


def known(value: Value) -> np.ndarray | None:
    """Return the contents where they are known now, without waiting for a graph to run."""
    if isinstance(value, Traced):
        return known(value.value)
    if not isinstance(value, np.ndarray) and not ops.is_tensor(value):
        return None
    if isinstance(value, np.ndarray):
        return value
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        static: np.ndarray | None = tf.get_static_value(value)
        return static
    if keras.backend.backend() == "jax":
        import jax

        return None if isinstance(value, jax.core.Tracer) else np.asarray(value)
    return np.asarray(ops.convert_to_numpy(value))


def number(value: Value, default: Any = None) -> Any:
    """Return a scalar as a Python number, or as a tensor where it is not known."""
    if value is None:
        return default
    array = known(value)
    if array is not None:
        return array.reshape(-1)[0].item()
    _check_traced(value)
    return ops.reshape(tensor(value), ())


def ints(value: Value) -> list[Any]:
    """Return a vector of sizes: numbers, and int32 scalars where they are not known."""
    array = known(value)
    if array is not None:
        return [int(item) for item in array.reshape(-1)]
    if isinstance(value, Sizes):
        return [_narrow(item) if ops.is_tensor(item) else int(item) for item in value.elements()]
    _check_traced(value)
    vector = ops.reshape(_narrow(value), (-1,))
    return [vector[index] for index in range(vector.shape[0])]


def _check_traced(value: Value) -> None:
    """Raise ValueError for a symbolic tensor: operations of Keras want such numbers known."""
    if isinstance(value, keras.KerasTensor):
        raise ValueError("a number that only a run tells")


def _narrow(value: Any) -> Any:
    """Cast to int32; what is too large, as the end of a Slice may be, becomes its largest."""
    if dtype_of(value) != "int64":
        return ops.cast(value, "int32")
    return ops.cast(ops.clip(value, 1 - 2**31, 2**31 - 1), "int32")


def sizes(value: Value) -> list[Any]:
    """Return the shape: numbers, and int32 scalars where they are not known.

    Of a symbolic tensor these are ``OPEN``, with which nothing can be computed.

    >>> sizes(tokens)
    [<tf.Tensor 'strided_slice:0'>, 7]
    """
    if isinstance(value, np.ndarray | Sizes):
        return list(value.shape)
    if isinstance(value, keras.KerasTensor):
        return [OPEN if size is None else size for size in value.shape]
    return [size if isinstance(size, int) else ops.cast(size, "int32") for size in ops.shape(value)]


def gathered(value: Any, indices: Any, axis: int) -> Any:
    """Take entries along one axis; negative indices count from the end.

    ``indices`` is an array, or a tensor of integers.
    """
    size = value.shape[axis]
    if isinstance(indices, np.ndarray) and (isinstance(size, int) or np.all(indices >= 0)):
        indices = np.where(indices < 0, indices + (size or 0), indices).astype(np.int32)
        return ops.take(value, ops.convert_to_tensor(indices, "int32"), axis=axis)
    indices = tensor(indices)
    length = ops.cast(sizes(value)[axis], dtype_of(indices))
    return ops.take(value, ops.where(indices < 0, indices + length, indices), axis=axis)


def product(factors: Iterable[Any]) -> Any:
    """Return the product of sizes, some of them not known."""
    given = list(factors)
    plain = math.prod(f for f in given if isinstance(f, int))
    for factor in given:
        if not isinstance(factor, int):
            plain = factor * plain
    return plain
