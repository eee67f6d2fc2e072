"""Sizes that only a run tells, as polynomials of those that are read from tensors.

    Shape(x)                    Sizes([n, 12])              n stands for a scalar tensor
    Gather, Mul, Concat, ...    Sizes([2 * n + 12, -1])

Layers need sizes that are known, and a batch stays open. So what a chain such as Shape -> Gather ->
Concat -> Reshape makes of sizes is computed as the analysis does it, and becomes a tensor only
where something else than a size is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from onnx_net2net.algebra.sizes import AnySize, Size, opaque, trial
from onnx_net2net.algebra.unknowns import Unknown
from onnx_net2net.analysis.values import evaluate, evaluate_symbols, is_symbolic
from onnx_net2net.frameworks.keras.traced import ops

__all__ = ["Scalars", "Sizes", "computed_sizes", "read_sizes"]

MOST = 64  # elements; what is longer is data
TRIAL = 7  # of every size that is read: no formula depends on it
Scalars = dict[Unknown, Any]  # the tensors that unknowns stand for, in one walk over a graph

# What the backend makes of operands, by the operator of an unknown.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": ops.add,
    "And": ops.logical_and,
    "Ceil": ops.ceil,
    "Equal": ops.equal,
    "Floor": ops.floor,
    "Greater": ops.greater,
    "GreaterOrEqual": ops.greater_equal,
    "Less": ops.less,
    "LessOrEqual": ops.less_equal,
    "Mul": ops.multiply,
    "Not": ops.logical_not,
    "Or": ops.logical_or,
    "Sub": ops.subtract,
    "Where": ops.where,
    "floordiv": ops.floor_divide,
    "min0": lambda size: ops.minimum(size, 0),
    "ratio": ops.divide,
}


class Sizes:
    """A small array of numbers and of sizes; ``scalars`` are the tensors that it is made of."""

    def __init__(self, items: np.ndarray, dtype: np.dtype, scalars: Scalars) -> None:
        self.items = items
        self.dtype = dtype
        self.scalars = scalars

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, as an array's."""
        return self.items.shape

    def elements(self) -> list[Any]:
        """Return the elements in a row: numbers, and scalar tensors."""
        return [self._element(size) for size in self.items.reshape(-1)]

    def _element(self, size: AnySize) -> Any:
        if not isinstance(size, Size):
            return size
        total: Any = 0
        for monomial, factor in size.terms.items():
            term: Any = factor
            for one in monomial:
                term = ops.multiply(self._unknown(one), term) if term != 1 else self._unknown(one)
            total = term if isinstance(total, int) and total == 0 else ops.add(total, term)
        return total

    def _unknown(self, one: Unknown) -> Any:
        if one in self.scalars:
            return self.scalars[one]
        return OPERATIONS[one.operator](*map(self._element, one.operands))


def read_sizes(
    items: Sequence[Any], shape: tuple[int, ...], scalars: Scalars, dtype: str = "int64"
) -> np.ndarray | Sizes:
    """Return numbers and scalar tensors, which are noted in ``scalars``, as an array."""
    if not any(map(ops.is_tensor, items)):
        return np.array(items, dtype).reshape(shape)
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = item
        if ops.is_tensor(item):
            array[index] = size = opaque(f"size {len(scalars)}", (), TRIAL, 0)
            scalars.update(dict.fromkeys(size.unknowns, item))
    return Sizes(array.reshape(shape), np.dtype(dtype), scalars)


def computed_sizes(
    node: NodeProto, operands: Sequence[Any], opset: int, scalars: Scalars
) -> list[Any] | None:
    """Return what ``node`` makes of arrays and sizes; None where that are no sizes."""
    arrays = [x.items if isinstance(x, Sizes) else x for x in operands]
    if any(array is not None and array.size > MOST for array in arrays):
        return None
    pairs = zip(operands, arrays, strict=True)
    tried = [_at_trial(array, x.dtype) if isinstance(x, Sizes) else x for x, array in pairs]
    numbers = evaluate(node, tried, opset)
    if numbers is None or any(array.size > MOST for array in numbers):
        return None
    results = evaluate_symbols(node, arrays, numbers, opset)
    if results is None or not all(_is_computable(i, scalars) for a in results for i in a.flat):
        return None
    return [
        Sizes(array, number.dtype, scalars) if is_symbolic(array) else array
        for array, number in zip(results, numbers, strict=True)
    ]


def _at_trial(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.array([trial(item) for item in array.flat], dtype).reshape(array.shape)


def _is_computable(size: Any, scalars: Scalars) -> bool:
    """Return whether the backend has an operation for all that a size is made of."""
    return not isinstance(size, Size) or all(
        one in scalars
        or (
            one.operator in OPERATIONS
            and all(_is_computable(operand, scalars) for operand in one.operands)
        )
        for one in size.unknowns
    )
