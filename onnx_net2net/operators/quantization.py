"""Quantisation, and arithmetic on quantised integers.

    "a0 a1, a1, a1 -> a0 a1"      DequantizeLinear(axis=1)

Integers cannot be divided among copies, so what is contracted does not grow.
"""

from __future__ import annotations

from typing import Any

from onnx_net2net.operators import flops
from onnx_net2net.operators.language import Op, Rule, Unsupported, line, names
from onnx_net2net.operators.linear import GROUP, SPATIAL, grouped, matrices, pointwise, product_of
from onnx_net2net.operators.record import Operator, Table

INTEGERS = "integer weights cannot share"


def quantize(op: Op) -> Rule:
    """Scale the tensor by one number, or by one for each entry of an axis."""
    axes = names("a", op.rank())
    if op.attr("block_size", 0) or op.rank(1) > 1:
        raise Unsupported("blocks have scales of their own")
    per_axis = op.rank(1) == 1 and op.shape(1)[0] > 1
    scale = parameter(op, 1, axes[op.axis(default=1)] if per_axis else "1")
    return Rule(line([axes, scale, scale], [axes]))


def parameter(op: Op, index: int, name: str) -> list[str]:
    """Name the axis of a scale or zero point: one number, or one for each entry of ``name``."""
    if not op.has(index) or op.rank(index) == 0:
        return []
    if op.rank(index) > 1:
        raise Unsupported(f"input {index} has a scale for every row of a batch")
    return ["1" if op.shape(index)[0] == 1 else name]


def conv_integer(op: Op) -> Rule:
    """Relate x, w, x_zero_point, w_zero_point."""
    data, weight, result, spatial, rule = _conv(op, 1)
    inputs = [data, weight, parameter(op, 2, "1"), parameter(op, 3, result)]
    return Rule(line(inputs, [["b", result, spatial]]), **rule)


def qlinear_conv(op: Op) -> Rule:
    """Relate x and w, each with scale and zero point, those of y, and a bias."""
    data, weight, result, spatial, rule = _conv(op, 3)
    inputs = [data, parameter(op, 1, "1"), parameter(op, 2, "1")]
    inputs += [weight, parameter(op, 4, result), parameter(op, 5, result)]
    inputs += [parameter(op, 6, "1"), parameter(op, 7, "1"), [result]]
    return Rule(line(inputs, [["b", result, spatial]]), **rule)


def _conv(op: Op, index: int) -> tuple[list[str], list[str], str, str, dict[str, Any]]:
    """Name axes of data and weight, output channels and spatial axes; return the rest of a rule."""
    group = int(op.attr("group", 1))
    channels, weight, result, sizes = (
        grouped(op, group, index) if group > 1 else ("i", "o i", "o", {})
    )
    fixed = {"k*": SPATIAL["k*"]} if pointwise(op, index) else SPATIAL
    out = "*s" if pointwise(op, index) else "*t"
    rule = {
        "sizes": sizes,
        "fixed": {**fixed, "i": INTEGERS},
        "size_refs": [GROUP] if group > 1 else [],
    }
    return ["b", channels, "*s"], [weight, "*k"], result, out, rule


def matmul_integer(op: Op) -> Rule:
    """Relate a, b, a_zero_point (by row), b_zero_point (by column)."""
    a, b = matrices(op.rank(0), op.rank(1))
    inputs = [a, b, parameter(op, 2, "m"), parameter(op, 3, "n")]
    return Rule(line(inputs, [product_of(a, b)]), fixed={"k": INTEGERS})


def qlinear_matmul(op: Op) -> Rule:
    """Relate a and b with scales by row and column, and the scale of y."""
    a, b = matrices(op.rank(0), op.rank(3))
    inputs = [a, *(parameter(op, i, "m") for i in (1, 2))]
    inputs += [
        b,
        *(parameter(op, i, "n") for i in (4, 5)),
        *(parameter(op, i, "m") for i in (6, 7)),
    ]
    return Rule(line(inputs, [product_of(a, b)]), fixed={"k": INTEGERS})


TABLES: dict[str, Table] = {
    "": {
        "ConvInteger": Operator(conv_integer, flops=flops.convolution(1)),
        "DequantizeLinear": Operator(quantize, quantizes=True),
        "DynamicQuantizeLinear": Operator("... -> ..., , ", quantizes=True),
        "MatMulInteger": Operator(matmul_integer, flops=flops.product),
        "QLinearConv": Operator(qlinear_conv, flops=flops.convolution(3)),
        "QLinearMatMul": Operator(qlinear_matmul, flops=flops.product),
        "QuantizeLinear": Operator(
            quantize, quantizes=True, implied={"saturate": "of float8 types alone"}
        ),
    }
}
