"""Quantized numbers: to them and back, and products of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.convolution import convolve
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import (
    axis_of,
    cast,
    dtype_of,
    product,
    rank,
    sizes,
    tensor,
)
from onnx_net2net.frameworks.keras.windows import window

__all__ = ["TABLES", "dequantized", "quantized"]

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}


def _float(x: Any, dtype: str = "float32") -> Any:
    """Return numbers of any width as floats; convert here what the backend has no type for."""
    if isinstance(x, np.ndarray):
        return tensor(x.astype(np.float32), dtype)
    return ops.cast(tensor(x), dtype)


def spread(op: KerasOperation, vector: Any, x: Any, dtype: str) -> Any:
    """Shape a scale or zero point: one, one a channel along ``axis``, or one a block."""
    value, block = _float(vector, dtype), op.attribute("block_size", 0)
    axis = op.attribute("axis", 1)
    if rank(value) == 0 or value.shape == (1,):
        return ops.reshape(value, ())
    axis = axis_of(axis, x)
    if block:
        wide = ops.repeat(value, block, axis=axis)
        index: list[Any] = [slice(None)] * rank(wide)
        index[axis] = slice(0, x.shape[axis])
        return wide[tuple(index)]
    shape = [1] * rank(x)
    shape[axis] = -1
    return ops.reshape(value, shape)


def dequantized(op: KerasOperation, x: Any, scale: Any, zero: Any = None) -> Any:
    """Compute (x - zero) * scale, in the type of the scale."""
    kind = dtype_of(scale)
    y = _float(x)
    if zero is not None:
        y = y - spread(op, zero, y, "float32")
    return cast(y * spread(op, scale, y, "float32"), kind)


def quantized(op: KerasOperation, x: Any, scale: Any, zero: Any = None) -> Any:
    """Round to even, and cut to the range of the type."""
    x = tensor(x)
    target = _target(op, zero)
    if target not in RANGES:
        op.refuse(f"quantization to {target} is not translated")
    y = ops.round(_float(x) / spread(op, scale, x, "float32"))
    if zero is not None:
        y = y + spread(op, zero, x, "float32")
    return ops.cast(ops.clip(y, *RANGES[target]), target)


def fake_quantized(op: KerasOperation, x: Any, scale: Any, zero: Any = None) -> Any:
    """Quantize and dequantize; gradients pass within the range as if nothing had happened."""
    x = tensor(x)
    y = dequantized(op, quantized(op, x, scale, zero), scale, zero)
    low, high = RANGES[_target(op, zero)]
    step = spread(op, scale, x, dtype_of(x))
    start = 0 if zero is None else spread(op, zero, x, dtype_of(x))
    inside = ops.clip(x, (low - start) * step, (high - start) * step)
    return ops.stop_gradient(y) + (inside - ops.stop_gradient(inside))


def _target(op: KerasOperation, zero: Any) -> str:
    given = op.attribute("output_dtype", 0)
    if given:
        return type_name(given)
    return "uint8" if zero is None else dtype_of(zero)


def dynamic_quantized(op: KerasOperation, x: Any) -> list[Any]:
    """Quantize to uint8 by the range of the tensor itself."""
    x = tensor(x)
    high, low = ops.maximum(ops.max(x), 0), ops.minimum(ops.min(x), 0)
    scale = (high - low) / 255
    scale = ops.where(scale == 0, ops.ones_like(scale), scale)
    zero = ops.clip(ops.round(-low / scale), 0, 255)
    y = ops.clip(ops.round(x / scale) + zero, 0, 255)
    return [ops.cast(y, "uint8"), scale, ops.cast(zero, "uint8")]


def _centred(x: Any, zero: Any, along: int | None = None) -> Any:
    """Return whole numbers less their zero point, as floats that hold products exactly."""
    y = _float(x, "float64")
    if zero is None:
        return y
    z = _float(zero, "float64")
    if rank(z) == 0 or z.shape == (1,) or along is None:
        return y - (ops.reshape(z, ()) if z.shape == (1,) else z)
    shape = [1] * rank(y)
    shape[along] = -1
    return y - ops.reshape(z, shape)


def _matmul(a: Any, b: Any, a_zero: Any, b_zero: Any) -> Any:
    a = _centred(a, a_zero, None if a_zero is None or rank(a_zero) > 1 else rank(a) - 2)
    b = _centred(b, b_zero, None if b_zero is None or rank(b_zero) > 1 else rank(b) - 1)
    return ops.matmul(a, b)


def matmul_integer(
    op: KerasOperation, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None
) -> Any:
    """Multiply whole numbers, in int32."""
    return ops.cast(ops.round(_matmul(a, b, a_zero, b_zero)), "int32")


def qlinear_matmul(
    op: KerasOperation, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any,
    y_scale: Any, y_zero: Any,
) -> Any:  # fmt: skip
    """Multiply quantized operands to a quantized result."""
    if any(product(sizes(value)) != 1 for value in (a_scale, y_scale, y_zero)):
        op.refuse("scales or zero points by row are not translated")  # taken for one a column
    y = _matmul(a, b, a_zero, b_zero)
    return _requantized(y, _float(a_scale) * _float(b_scale) / _float(y_scale), y_zero)


def _requantized(y: Any, factor: Any, zero: Any) -> Any:
    target = dtype_of(zero)
    y = ops.round(ops.cast(y, "float32") * factor) + _float(zero)
    return ops.cast(ops.clip(y, *RANGES[target]), target)


def _conv(op: KerasOperation, x: Any, w: Any, x_zero: Any, w_zero: Any) -> Any:
    """Convolve whole numbers; padding is the zero point, so nothing once centred."""
    x, w = _centred(x, x_zero), _centred(w, w_zero, 0)
    strides = op.attribute("strides") or [1]
    if op.attribute("auto_pad", "NOTSET").startswith("SAME") and max(strides) > min(w.shape[2:]):
        op.refuse("strides larger than the kernel with auto_pad are not translated")
    return convolve(x, w, window(op, x, w.shape[2:]), op.attribute("group", 1))


def conv_integer(op: KerasOperation, x: Any, w: Any, x_zero: Any = None, w_zero: Any = None) -> Any:
    """Convolve whole numbers, in int32."""
    return ops.cast(ops.round(_conv(op, x, w, x_zero, w_zero)), "int32")


def qlinear_conv(
    op: KerasOperation, x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any,
    y_scale: Any, y_zero: Any, bias: Any = None,
) -> Any:  # fmt: skip
    """Convolve quantized operands to a quantized result; the bias is in units of both scales."""
    y = _conv(op, x, w, x_zero, w_zero)
    shape = (1, -1, *[1] * (rank(y) - 2))
    if bias is not None:
        y = y + ops.reshape(_float(bias, "float64"), shape)
    factor = _float(x_scale) * _float(w_scale) / _float(y_scale)
    factor = ops.reshape(factor, shape) if rank(factor) == 1 else factor
    return _requantized(y, factor, y_zero)


def matmul_nbits(
    op: KerasOperation, a: Any, b: Any, scales: Any, zeros: Any = None, *rest: Any
) -> Any:
    """Multiply by N rows in blocks of few bits, packed into bytes: (N, blocks, bytes)."""
    group, bias = op.padded(rest, 2)
    if group is not None:
        op.refuse("its order of groups (g_idx) is not translated")
    n, k = op.attribute("N"), op.attribute("K")
    bits, block = op.attribute("bits", 4), op.attribute("block_size")
    count = -(-k // block)
    whole = _unpacked(op, b, bits).reshape(n, count, -1)[..., :block].astype(np.float32)
    scale = ops.reshape(tensor(scales), (n, count, 1))
    middle: Any = np.float32(2 ** (bits - 1))
    if zeros is not None and "float" in dtype_of(zeros):
        middle = ops.reshape(tensor(zeros), (n, count, 1))
    elif zeros is not None:
        points = _unpacked(op, zeros, bits).reshape(n, -1)[:, :count, None]
        middle = tensor(points.astype(np.float32), dtype_of(scale))
    weight = (tensor(whole, dtype_of(scale)) - middle) * scale
    weight = ops.reshape(weight, (n, count * block))[:, :k]
    y = ops.matmul(tensor(a), ops.transpose(weight))
    return y if bias is None else y + tensor(bias)


def _unpacked(op: KerasOperation, packed: Any, bits: int) -> np.ndarray:
    """Return numbers of few bits, the lower ones of a byte first."""
    if not isinstance(packed, np.ndarray) or 8 % bits:
        op.refuse(f"weights of {bits} bits have to be constant")
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ConvInteger": conv_integer,
        "DequantizeLinear": dequantized,
        "DynamicQuantizeLinear": dynamic_quantized,
        "MatMulInteger": matmul_integer,
        "QLinearConv": qlinear_conv,
        "QLinearMatMul": qlinear_matmul,
        "QuantizeLinear": quantized,
    },
    "com.microsoft": {"MatMulNBits": matmul_nbits},
    "fusion": {"FakeQuantize": fake_quantized},
}
