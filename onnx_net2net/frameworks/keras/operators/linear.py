"""Products of matrices."""

from __future__ import annotations

import operator
from typing import Any

import keras

from onnx_net2net.frameworks.keras.library import whole_einsum
from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import cast, dtype_of, sizes, tensor

__all__ = ["TABLES", "gemm", "swapped"]


def swapped(x: Any) -> Any:
    """Exchange the last two axes."""
    return ops.swapaxes(x, -1, -2)


def multiplied(a: Any, b: Any) -> Any:
    """Multiply two tensors; Keras' own goes by float32 in PyTorch, or for whole numbers."""
    if "int" in dtype_of(a):
        return _whole(a, b)
    if keras.backend.backend() == "torch" and dtype_of(a) == "float64":
        return operator.matmul(a, b)
    return ops.matmul(a, b)


def _whole(a: Any, b: Any) -> Any:
    """Multiply whole numbers, each in its type."""
    left, right = (ops.cast(x, "int64") for x in (a, b))
    left = ops.expand_dims(left, 0) if len(a.shape) == 1 else left
    right = ops.expand_dims(right, 1) if len(b.shape) == 1 else right
    y = operator.matmul(left, right)
    y = ops.squeeze(y, -2) if len(a.shape) == 1 else y
    y = ops.squeeze(y, -1) if len(b.shape) == 1 else y
    return cast(y, dtype_of(a))


def determinant(op: KerasOperation, x: Any) -> Any:
    """Return determinants of matrices, whether both of their sizes are known or one."""
    x = tensor(x)
    size = x.shape[-1] or x.shape[-2]
    return ops.det(ops.reshape(x, [*sizes(x)[:-2], size, size]) if size else x)


def matmul(op: KerasOperation, a: Any, b: Any) -> Any:
    """Multiply as NumPy does."""
    return multiplied(tensor(a), tensor(b))


def scaled(x: Any, factor: float) -> Any:
    """Multiply ``x`` by a number, in its own type."""
    return x if factor == 1 else ops.multiply(x, ops.cast(factor, dtype_of(x)))


def gemm(op: KerasOperation, a: Any, b: Any, c: Any = None) -> Any:
    """Compute alpha * A' B' + beta * C."""
    a, b = tensor(a), tensor(b)
    a = swapped(a) if op.attribute("transA", 0) else a
    b = swapped(b) if op.attribute("transB", 0) else b
    y, beta = scaled(multiplied(a, b), op.attribute("alpha", 1.0)), op.attribute("beta", 1.0)
    return y if c is None else y + scaled(tensor(c), beta)


def einsum(op: KerasOperation, *values: Any) -> Any:
    """Sum as NumPy does; with no output given, letters that occur once, by the alphabet."""
    equation = op.attribute("equation").replace(" ", "")
    if "->" not in equation:
        letters = equation.replace(",", "").replace("...", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        dots = "..." if "..." in equation else ""
        equation = f"{equation}->{dots}{''.join(once)}"
    tensors = [tensor(value) for value in values]
    if "int" in dtype_of(tensors[0]) and keras.backend.backend() == "tensorflow":
        return whole_einsum(equation, *tensors)
    return cast(ops.einsum(equation, *tensors), dtype_of(tensors[0]))


def inverse(op: KerasOperation, x: Any) -> Any:
    """Invert matrices."""
    return ops.inv(tensor(x))


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Det": determinant,
        "Einsum": einsum,
        "Gemm": gemm,
        "MatMul": matmul,
    },
    "com.microsoft": {"Inverse": inverse},
}
