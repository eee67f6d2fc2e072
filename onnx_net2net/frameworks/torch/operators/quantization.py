"""Quantised operators."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators.convolution import convolved
from onnx_net2net.frameworks.torch.types import FLOATS8, INTEGERS, SMALL, torch_dtype

UINT8 = 2


def target(op: TorchOperation) -> int:
    """Return the type that QuantizeLinear yields."""
    dtype = op.dtype(2) if op.has(2) else op.attribute("output_dtype", 0) or UINT8
    if dtype not in INTEGERS and dtype not in SMALL and dtype not in FLOATS8:
        op.refuse(f"it quantises to {TensorProto.DataType.Name(dtype)}")
    return int(dtype)


def limits(dtype: int) -> tuple[int, int]:
    """Return the least and the largest number of an integer type."""
    if dtype in SMALL:
        half = 2 ** (SMALL[dtype] - 1)
        return (-half, half - 1) if torch_dtype(dtype) == "torch.int8" else (0, 2 * half - 1)
    info = np.iinfo(helper.tensor_dtype_to_np_dtype(dtype))
    return int(info.min), int(info.max)


def quantize(op: TorchOperation) -> str:
    """Write round(x / scale) + zero, within the type."""
    dtype, options = target(op), [op.attribute("axis", 1), op.attribute("block_size", 0)]
    given = [op.tensor(0), op.tensor(1), op.optional(2)]
    if dtype in FLOATS8:
        saturate = bool(op.attribute("saturate", 1))
        return op.kernel("quantized_float", *given, torch_dtype(dtype), *options, saturate)
    return op.kernel("quantized", *given, torch_dtype(dtype), limits(dtype), *options)


def dequantize(op: TorchOperation) -> str:
    """Write (x - zero) * scale."""
    if op.dtype(0) not in (*INTEGERS, *SMALL, *FLOATS8):
        op.refuse(f"it reads {TensorProto.DataType.Name(op.dtype(0))}")
    options = [op.attribute("axis", 1), op.attribute("block_size", 0)]
    given = [op.tensor(0), op.tensor(1), op.optional(2), *options]
    code = op.kernel("dequantized", *given)
    wanted = op.attribute("output_dtype", 0)
    return f"({code}).to({torch_dtype(wanted)})" if wanted else code


def fake(op: TorchOperation) -> str:
    """Write QuantizeLinear and DequantizeLinear in one: gradients pass."""
    dtype, options = target(op), [op.attribute("axis", 1), op.attribute("block_size", 0)]
    scaled = [op.tensor(1), op.optional(2)]
    if dtype in FLOATS8:
        saturate = bool(op.attribute("saturate", 1))
        given = [op.tensor(0), *scaled, torch_dtype(dtype), *options, saturate]
        return op.kernel("dequantized", op.kernel("quantized_float", *given), *scaled, *options)
    return op.kernel("fake_quantized", op.tensor(0), *scaled, limits(dtype), *options)


def dynamic(op: TorchOperation) -> list[str]:
    """Take scale and zero point from the range."""
    code = op.kernel("dynamically_quantized", op.tensor(0))
    return op.unpack(code, [op.hint, "scale", "zero"])


def real(op: TorchOperation, index: int, axis: int) -> str:
    """Return an operand with its scale and zero point behind it, as a float."""
    zero = op.optional(index + 2)
    return op.kernel("dequantized", op.tensor(index), op.tensor(index + 1), zero, axis, 0)


def quantized_matmul(op: TorchOperation) -> str:
    """Write a product of bytes."""
    product = f"{real(op, 0, -2)} @ {real(op, 3, -1)}"
    return op.kernel("requantized", product, op.tensor(6), op.tensor(7))


def quantized_conv(op: TorchOperation) -> str:
    """Write a convolution of bytes; the bias is an integer in units of both scales."""
    x = real(op, 0, 1)
    bias = f", {op.tensor(8)} * {op.tensor(1)} * {op.tensor(4)}" if op.has(8) else ""
    code = convolved(op, x, real(op, 3, 0), 3, bias)
    return op.kernel("requantized", code, op.tensor(6), op.tensor(7))


def n_bits(op: TorchOperation) -> str:
    """Multiply by a weight of small integers, scaled by blocks."""
    if op.has(4):
        op.refuse("its groups are permuted")
    sizes = (op.attribute("K"), op.attribute("N"))
    given = [op.tensor(0), op.tensor(1), op.tensor(2), op.optional(3), sizes]
    code = op.kernel("matmul_n_bits", *given, op.attribute("bits", 4), op.attribute("block_size"))
    return f"{code} + {op.tensor(5)}" if op.has(5) else code


def matmul_integer(op: TorchOperation) -> str:
    """Multiply integers less their zero points."""
    a, b = (f"({op.tensor(i)}).to(torch.int32)" for i in (0, 1))
    if op.has(2):
        point = op.tensor(2)
        point = f"({point}).unsqueeze(-1)" if op.rank(2) == 1 and op.axes_of(0) > 1 else point
        a = f"({a} - {point})"
    if op.has(3):
        b = f"({b} - {op.tensor(3)})"
    return f"torch.matmul({a}, {b})"


def conv_integer(op: TorchOperation) -> str:
    """Convolve integers less their zero points, exact in float64."""
    x, w = (f"({op.tensor(i)}).double()" for i in (0, 1))
    if op.has(2):
        x = f"({x} - {op.tensor(2)})"
    if op.has(3):
        point = op.tensor(3)
        shaped = f"{point}.reshape(-1, *[1] * {op.axes_of(1) - 1})" if op.rank(3) else point
        w = f"({w} - {shaped})"
    return f"{convolved(op, x, w, 1)}.round().to(torch.int32)"


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ConvInteger": conv_integer,
        "DequantizeLinear": dequantize,
        "DynamicQuantizeLinear": dynamic,
        "MatMulInteger": matmul_integer,
        "QLinearConv": quantized_conv,
        "QLinearMatMul": quantized_matmul,
        "QuantizeLinear": quantize,
    },
    "com.microsoft": {"MatMulNBits": n_bits},
    "fusion": {"FakeQuantize": fake},
}
