"""ONNX element types by the names that PyTorch has for them, and data as Python writes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnx_net2net.errors import Refused

T = TensorProto
NAMES: dict[int, str] = {
    T.FLOAT: "float32", T.DOUBLE: "float64", T.FLOAT16: "float16", T.BFLOAT16: "bfloat16",
    T.INT8: "int8", T.INT16: "int16", T.INT32: "int32", T.INT64: "int64", T.BOOL: "bool",
    T.UINT8: "uint8", T.UINT16: "uint16", T.UINT32: "uint32", T.UINT64: "uint64",
    T.COMPLEX64: "complex64", T.COMPLEX128: "complex128",
    T.FLOAT8E4M3FN: "float8_e4m3fn", T.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    T.FLOAT8E5M2: "float8_e5m2", T.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    # PyTorch has no integers of 4 and 2 bits: they lie in bytes.
    T.INT4: "int8", T.UINT4: "uint8", T.INT2: "int8", T.UINT2: "uint8",
}  # fmt: skip
# Integers of few bits, and how many.
SMALL: dict[int, int] = {T.INT4: 4, T.UINT4: 4, T.INT2: 2, T.UINT2: 2}
FLOATS8 = frozenset({T.FLOAT8E4M3FN, T.FLOAT8E4M3FNUZ, T.FLOAT8E5M2, T.FLOAT8E5M2FNUZ})
INTEGERS = frozenset({
    T.INT8, T.INT16, T.INT32, T.INT64, T.UINT8, T.UINT16, T.UINT32, T.UINT64,
})  # fmt: skip
# Integers that PyTorch stores and hardly computes with.
UNSIGNED = frozenset({T.UINT16, T.UINT32, T.UINT64})

_SMALL = [helper.tensor_dtype_to_np_dtype(dtype) for dtype in SMALL]
_TYPES = [helper.tensor_dtype_to_np_dtype(dtype).type for dtype in NAMES]
_NUMBERS: Any = (bool, int, float, np.bool_, np.number, *_TYPES)
MOST_EXACT = 1e38  # beyond, fewer digits could be more than the type holds


class Untranslated(Refused):
    """An attribute or form without a translation, where no step is at hand to name."""

    def __init__(self, reason: str) -> None:
        super().__init__(None, reason)


def torch_dtype(dtype: int | None) -> str:
    """Return ``"torch.float16"`` for 10. Raises Untranslated."""
    if dtype not in NAMES:
        name = "unknown" if dtype is None else TensorProto.DataType.Name(dtype)
        raise Untranslated(f"its element type is {name}")
    return f"torch.{NAMES[dtype]}"


def literal(value: Any) -> str:
    """Return a number or a text as Python writes it, a float32 in as few digits as it takes.

    >>> literal(np.float32(0.1))
    '0.1'

    Whatever a file says gets into code through here.
    """
    value = value[()] if isinstance(value, np.ndarray) else value
    if isinstance(value, str):
        return repr(value)
    if not isinstance(value, _NUMBERS):
        raise Untranslated(f"it states {type(value).__name__} where a number is expected")
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, np.complexfloating):
        return f"complex({literal(value.real)}, {literal(value.imag)})"
    if isinstance(value, int | np.integer) or np.dtype(type(value)) in _SMALL:
        return str(int(value))
    number = float(value)
    if not math.isfinite(number):
        return f'float("{number}")'
    if isinstance(value, np.float64 | float):
        return repr(number)
    if np.float32(number) != number or abs(number) > MOST_EXACT:
        return repr(number)
    return repr(float(str(np.float32(value))))


def short(value: float) -> str:
    """Return a float attribute, which ONNX stores as float32, as code."""
    return literal(np.float32(value))


def tensor_code(array: np.ndarray) -> str:
    """Return ``torch.tensor([...])`` with the array's type and shape."""
    dtype = torch_dtype(helper.np_dtype_to_tensor_dtype(array.dtype))

    def nested(part: np.ndarray) -> str:
        if part.ndim == 0:
            return literal(part)
        return f"[{', '.join(nested(item) for item in part)}]"

    code = f"torch.tensor({nested(array)}, dtype={dtype})"
    return code if array.size else f"{code[:-1]}).reshape({array.shape})"
