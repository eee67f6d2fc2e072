"""Products with a matrix of weights: Dense, with the bias that is added behind."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.moved import Moved
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]


def matmul(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what Dense makes of a tensor, for weights on the right."""
    kernel = build.sole(step.inputs[1])
    if kernel is None or len(kernel.shape) != 2:
        return None
    after = build.sole_reader(step.output)
    if after is None or after.op != "Add" or after.domain:
        return dense(build, step, kernel, None)
    bias = _bias(build, kernel, next((n for n in after.inputs if n != step.output), ""))
    made = dense(build, step, kernel, bias)
    if bias is not None and made is not None:
        build.values[after.output] = made[0]
    return made


def gemm(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what Dense makes of a matrix."""
    plain = [step.attributes.get(name, 1.0) == 1 for name in ("alpha", "beta")]
    if not all(plain) or step.attributes.get("transA", 0):
        return None
    kernel = build.sole(step.inputs[1])
    if kernel is None or len(kernel.shape) != 2:
        return None
    kernel = kernel.permuted(1, 0) if step.attributes.get("transB", 0) else kernel
    if len(step.inputs) < 3 or not step.inputs[2]:
        return dense(build, step, kernel, None)
    bias = _bias(build, kernel, step.inputs[2])
    return None if bias is None else dense(build, step, kernel, bias)


def _bias(build: Builder, kernel: Moved, name: str) -> Moved | None:
    """Return weights that are one number for each column of the kernel."""
    bias, width = build.sole(name), kernel.shape[1]
    if bias is None or bias.shape[-1:] != (width,) or set(bias.shape[:-1]) - {1}:
        return None
    return bias.reshaped(width) if bias.dtype == kernel.dtype else None


def dense(build: Builder, step: ProgramStep, kernel: Moved, bias: Moved | None) -> list[Any] | None:
    """Return what the layer makes of a tensor whose last axis is multiplied."""
    x = build.operand(step.inputs[0])
    if not isinstance(x, Arranged) or x.rank < 2 or x.axes[-1:] != (x.rank - 1,):
        return None
    if bias is not None and len(bias.shape) > 1:
        return None
    if len(x.axes) < 2 or x.size(x.rank - 1) != kernel.shape[0]:
        x = Arranged.plain(x.stored())
    layer = layers.Dense(
        kernel.shape[1],
        use_bias=bias is not None,
        dtype=kernel.dtype,
        name=build.layer_name(step, kernel),
    )
    made = _multiplied(layer, x, kernel.shape[1])
    build.hold(layer.kernel, kernel)
    if bias is not None:
        build.hold(layer.bias, bias)
    return [made]


def _multiplied(layer: Any, x: Arranged, width: int) -> Arranged:
    """Return what the layer makes; of merged axes, of the tensor before they were."""
    if x.folded is None:
        return Arranged(layer(x.value), x.axes, x.rank)
    before, sizes = x.folded
    if before.axes[-1:] != (before.rank - 1,):
        before = Arranged.plain(before.stored())
    whole = Arranged(layer(before.value), before.axes, before.rank)
    merged = ops.reshape(whole.stored(), (-1, width))
    return Arranged(merged, x.axes, x.rank, (whole, sizes))


def einsum(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what EinsumDense makes of a tensor and of weights, in the order of the equation."""
    equation = step.attributes.get("equation", "").replace(" ", "")
    operands, arrow, result = equation.partition("->")
    first, comma, second = operands.partition(",")
    if not (arrow and comma) or not (first + second + result).isalpha() or len(step.inputs) != 2:
        return None
    kernel = build.sole(step.inputs[1])
    x = build.operand(step.inputs[0])
    if kernel is None or not isinstance(x, Arranged) or dtype_of(x.value) != kernel.dtype:
        return None
    letters = [set(first), set(second), set(result)]
    lengths = [len(first), len(second), len(result)]
    known = dict(zip(second, kernel.shape, strict=True))
    if [len(s) for s in letters] != lengths or first[:1] != result[:1] or first[0] in known:
        return None
    sizes = [known.get(letter) for letter in result[1:]]
    layer = layers.EinsumDense(
        equation, output_shape=sizes, dtype=kernel.dtype, name=build.layer_name(step, kernel)
    )
    y = layer(x.stored())
    if tuple(layer.kernel.shape) != tuple(kernel.shape):
        return None
    build.hold(layer.kernel, kernel)
    return [Arranged.plain(y)]


TABLES: dict[str, dict[str, Maker]] = {"": {"Einsum": einsum, "Gemm": gemm, "MatMul": matmul}}
