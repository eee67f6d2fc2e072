"""Pointwise operators: every entry of the output depends on one entry of each operand.

Sums are made by ``operator.add``: ``keras.ops.add`` takes any operand of one long axis for a bias
of the channels, and adds it along the wrong one where two axes of a tensor are of the same size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops, random
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import cast, dtype_of, known, number, tensor

__all__ = ["NUMBERS", "POINTWISE", "TABLES", "activation"]


def unary(function: Callable[[Any], Any]) -> Entry:
    """Return the translation that applies a function to one tensor."""
    return lambda op, x: function(tensor(x))


def operands(op: KerasOperation, values: tuple[Any, ...]) -> list[Any]:
    """Return them as tensors; refuse ill-aligned ones of old files."""
    if op.attribute("broadcast", 0):
        op.refuse("the broadcasting of opset 6, which aligns axes on the left, is not translated")
    return [tensor(value) for value in values]


def binary(function: Callable[[Any, Any], Any]) -> Entry:
    """Return the translation that applies a function to two tensors, broadcast."""
    return lambda op, *values: function(*operands(op, values))


def folded(function: Callable[[Any, Any], Any]) -> Entry:
    """Return the translation that applies a function to any number of tensors from the left."""

    def entry(op: KerasOperation, *values: Any) -> Any:
        result, *others = operands(op, values)
        for other in others:
            result = function(result, other)
        return result

    return entry


def mean(op: KerasOperation, *values: Any) -> Any:
    """Return the mean of several tensors."""
    return ops.divide(folded(operator.add)(op, *values), len(values))


def is_whole(x: Any) -> bool:
    """Return whether the tensor holds whole numbers."""
    return "int" in dtype_of(x)


def divide(op: KerasOperation, *values: Any) -> Any:
    """Divide; whole numbers towards zero."""
    x, y = operands(op, values)
    if not is_whole(x):
        return ops.divide(x, y)
    quotient = ops.floor_divide(x, y)
    rest = ops.subtract(x, ops.multiply(quotient, y))
    up = ops.logical_and(ops.not_equal(rest, 0), ops.not_equal(ops.less(x, 0), ops.less(y, 0)))
    return cast(quotient + ops.cast(up, dtype_of(quotient)), dtype_of(x))


def modulo(op: KerasOperation, *values: Any) -> Any:
    """Return the rest, with the sign of the divisor, or with ``fmod`` of the dividend."""
    x, y = operands(op, values)
    if not op.attribute("fmod", 0) or dtype_of(x).startswith("uint"):
        return ops.mod(x, y)
    rest = ops.mod(ops.abs(x), ops.abs(y))
    return ops.where(ops.less(x, 0), ops.negative(rest), rest)


def power(op: KerasOperation, *values: Any) -> Any:
    """Return a power in the type of the base; squares and roots are not left to logarithms."""
    x, exponent = values
    constant = known(exponent)
    if constant is not None and constant.size == 1 and not is_whole(x):
        x = tensor(x)
        value = constant.item()
        if constant.ndim <= len(x.shape) and value in (2.0, 0.5):
            return ops.square(x) if value == 2 else ops.sqrt(x)
    x, exponent = operands(op, values)
    if is_whole(x) and not is_whole(exponent):
        wide = ops.power(cast(x, dtype_of(exponent)), exponent)
        return cast(wide, dtype_of(x))
    return cast(ops.power(x, cast(exponent, dtype_of(x))), dtype_of(x))


def cast_to(op: KerasOperation, x: Any) -> Any:
    """Cast: floats are cut towards zero, NaN is true."""
    target = type_name(op.attribute("to"))
    return converted(op, x, target)


def converted(op: KerasOperation, x: Any, target: str) -> Any:
    """Return ``x`` in another type."""
    if isinstance(x, np.ndarray):
        return x.astype(np.dtype(target))
    if target not in NUMBERS:
        op.refuse(f"a cast to {target} is not translated")
    x = tensor(x)
    if target == "bool" and dtype_of(x) != "bool":
        return ops.not_equal(x, 0)
    return cast(x if is_whole(x) else cast(x, LOW_BITS.get(target, target)), target)


# Of a float beyond a narrow type onnxruntime keeps the low bits of a wider whole number.
LOW_BITS = {
    **dict.fromkeys(("int8", "int16", "uint8", "uint16"), "int32"),
    "uint32": "int64",
}

NUMBERS = frozenset({
    "bfloat16", "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
})  # fmt: skip


def sign(x: Any) -> Any:
    """Return -1, 0 or 1; numbers without a sign are 0 or not."""
    return ops.cast(x != 0, dtype_of(x)) if dtype_of(x).startswith("uint") else ops.sign(x)


def clip(op: KerasOperation, x: Any, low: Any = None, high: Any = None) -> Any:
    """Limit to bounds, which are attributes (opset 6) or scalars (opset 11)."""
    x = tensor(x)
    low = op.attribute("min") if low is None else tensor(low)
    high = op.attribute("max") if high is None else tensor(high)
    if low is not None:
        x = ops.maximum(x, ops.cast(low, dtype_of(x)))
    return x if high is None else ops.minimum(x, ops.cast(high, dtype_of(x)))


def dropout(op: KerasOperation, x: Any, ratio: Any = None, training: Any = None) -> Any:
    """Drop at random in training. ``training=`` of Keras decides, not the file."""
    if op.opset < 7 and not op.attribute("is_test", 0):
        op.refuse("Dropout in training mode, the default of opset 6, is not translated")
    x = tensor(x)
    rate = number(ratio, op.attribute("ratio", 0.5))
    if not isinstance(rate, float | int):
        op.refuse("its ratio is computed by the graph, and has to be known ahead")
    op.check_ratio(rate)
    if not op.training or rate == 0:
        return [x, ops.ones_like(x, dtype="bool")]
    scale = random.dropout(ops.ones_like(x), rate, seed=op.translator.seed)
    return [ops.multiply(x, scale), ops.not_equal(scale, 0)]


def gelu(op: KerasOperation, x: Any) -> Any:
    """Apply GELU by erf, or approximately by tanh."""
    return ops.gelu(tensor(x), approximate=op.attribute("approximate", "none") == "tanh")


def softplus(x: Any) -> Any:
    """Compute log(1 + exp x), for large x as well."""
    return ops.maximum(x, 0) + ops.log1p(ops.exp(ops.negative(ops.abs(x))))


def shrink(x: Any, lambd: float = 0.5, bias: float = 0.0) -> Any:
    """Return 0 within lambd of 0, else move towards 0 by bias; in float32 if whole."""
    x = ops.cast(x, "float32") if is_whole(x) else x
    moved = ops.where(ops.less(x, -lambd), x + cast_like(bias, x), x - cast_like(bias, x))
    return ops.where(ops.greater(ops.abs(x), lambd), moved, ops.zeros_like(x))


def cast_like(constant: float, x: Any) -> Any:
    """Return a number in the type of a tensor."""
    return ops.cast(constant, dtype_of(x))


# name -> (function of a tensor and of the attributes, their defaults)
ACTIVATIONS: dict[str, tuple[Callable[..., Any], dict[str, float]]] = {
    "Affine": (lambda x, alpha, beta: x * alpha + beta, {"alpha": 1.0, "beta": 0.0}),
    "Celu": (
        lambda x, alpha: (
            ops.maximum(x, 0) + ops.minimum(alpha * ops.expm1(ops.minimum(x, 0) / alpha), 0)
        ),
        {"alpha": 1.0},
    ),
    "Elu": (
        lambda x, alpha: ops.where(x < 0, alpha * ops.expm1(ops.minimum(x, 0)), x),
        {"alpha": 1.0},
    ),
    "HardSigmoid": (
        lambda x, alpha, beta: ops.clip(x * alpha + beta, 0, 1),
        {"alpha": 0.2, "beta": 0.5},
    ),
    "LeakyRelu": (lambda x, alpha: ops.where(x < 0, x * alpha, x), {"alpha": 0.01}),
    "Relu": (ops.relu, {}),
    "ScaledTanh": (lambda x, alpha, beta: alpha * ops.tanh(beta * x), {"alpha": 1.0, "beta": 1.0}),
    "Selu": (
        lambda x, alpha, gamma: gamma * ops.where(x > 0, x, alpha * ops.expm1(ops.minimum(x, 0))),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
    "Shrink": (shrink, {"lambd": 0.5, "bias": 0.0}),
    "Sigmoid": (ops.sigmoid, {}),
    "Softplus": (softplus, {}),
    "Softsign": (lambda x: x / (1 + ops.abs(x)), {}),
    "Swish": (lambda x, alpha: x * ops.sigmoid(alpha * x), {"alpha": 1.0}),
    "Tanh": (ops.tanh, {}),
    "ThresholdedRelu": (
        lambda x, alpha: ops.where(x > alpha, x, ops.zeros_like(x)),
        {"alpha": 1.0},
    ),
}


def activation(name: str, **given: float) -> Callable[[Any], Any]:
    """Return an activation by name, as LSTM and FusedConv name them. Raise KeyError for others.

    >>> activation("LeakyRelu", alpha=0.1)(x)
    """
    function, defaults = ACTIVATIONS[name]
    chosen = {key: given.get(key, default) for key, default in defaults.items()}
    return lambda x: function(x, **chosen)


def activated(name: str) -> Entry:
    """Return the translation of the operator of that name."""

    def entry(op: KerasOperation, x: Any) -> Any:
        defaults = ACTIVATIONS[name][1]
        given = {key: op.attribute(key, default) for key, default in defaults.items()}
        x = tensor(x)
        return cast(activation(name, **given)(x), dtype_of(x))

    return entry


def infinite(op: KerasOperation, x: Any) -> Any:
    """Find one of the infinities, or both."""
    x = tensor(x)
    positive = ops.logical_and(ops.isinf(x), ops.greater(x, 0))
    negative = ops.logical_and(ops.isinf(x), ops.less(x, 0))
    if not op.attribute("detect_positive", 1):
        return negative if op.attribute("detect_negative", 1) else ops.zeros_like(negative)
    return ops.isinf(x) if op.attribute("detect_negative", 1) else positive


def shifted(op: KerasOperation, *values: Any) -> Any:
    """Shift bits to the left or right; beyond the width nothing is left but the sign."""
    x, y = operands(op, values)
    kind = np.dtype(dtype_of(x))
    beyond = ops.logical_or(ops.less(y, 0), ops.greater_equal(y, 8 * kind.itemsize))
    within, rest = ops.where(beyond, ops.zeros_like(y), y), ops.zeros_like(x)
    if op.attribute("direction") == "LEFT":
        return ops.where(beyond, rest, ops.left_shift(x, within))
    if kind.kind == "i":
        rest = ops.negative(ops.cast(ops.less(x, 0), kind.name))
    return ops.where(beyond, rest, ops.right_shift(x, within))


def reinterpreted(op: KerasOperation, x: Any) -> Any:
    """Return the same bits as another type."""
    return ops.view(tensor(x), type_name(op.attribute("to")))


def prelu(op: KerasOperation, x: Any, slope: Any) -> Any:
    """Multiply what is negative by a slope of its own."""
    x, slope = tensor(x), tensor(slope)
    return ops.where(ops.less(x, 0), ops.multiply(x, slope), x)


POINTWISE: dict[str, Entry] = {
    **{name: activated(name) for name in ACTIVATIONS if name not in ("Affine", "ScaledTanh")},
    "Abs": unary(lambda x: x if dtype_of(x).startswith("uint") else ops.abs(x)),
    "Acos": unary(ops.arccos),
    "Acosh": unary(ops.arccosh),
    "Add": binary(operator.add),
    "And": binary(ops.logical_and),
    "Asin": unary(ops.arcsin),
    "Asinh": unary(ops.arcsinh),
    "Atan": unary(ops.arctan),
    "Atanh": unary(ops.arctanh),
    "BitShift": shifted,
    "BitwiseAnd": binary(ops.bitwise_and),
    "BitwiseNot": unary(ops.bitwise_not),
    "BitwiseOr": binary(ops.bitwise_or),
    "BitwiseXor": binary(ops.bitwise_xor),
    "Cast": cast_to,
    "CastLike": lambda op, x, y: converted(op, x, dtype_of(y)),
    "Ceil": unary(ops.ceil),
    "Clip": clip,
    "Cos": unary(ops.cos),
    "Cosh": unary(ops.cosh),
    "Div": divide,
    "Equal": binary(ops.equal),
    "Erf": unary(ops.erf),
    "Exp": unary(ops.exp),
    "Floor": unary(ops.floor),
    "Gelu": gelu,
    "Greater": binary(ops.greater),
    "GreaterOrEqual": binary(ops.greater_equal),
    "HardSwish": unary(lambda x: x * ops.clip(x / 6 + 0.5, 0, 1)),
    "IsInf": infinite,
    "IsNaN": unary(ops.isnan),
    "Less": binary(ops.less),
    "LessOrEqual": binary(ops.less_equal),
    "Log": unary(ops.log),
    "Max": folded(ops.maximum),
    "Mean": mean,
    "Min": folded(ops.minimum),
    "Mish": unary(lambda x: x * ops.tanh(softplus(x))),
    "Mod": modulo,
    "Mul": binary(ops.multiply),
    "Neg": unary(ops.negative),
    "Not": unary(ops.logical_not),
    "Or": binary(ops.logical_or),
    "PRelu": prelu,
    "Pow": power,
    "Reciprocal": unary(ops.reciprocal),
    "Round": unary(ops.round),
    "Sign": unary(sign),
    "Sin": unary(ops.sin),
    "Sinh": unary(ops.sinh),
    "Sqrt": unary(ops.sqrt),
    "Sub": binary(ops.subtract),
    "Sum": folded(operator.add),
    "Tan": unary(ops.tan),
    "Where": lambda op, *values: ops.where(*operands(op, values)),
    "Xor": binary(ops.logical_xor),
}

TABLES: dict[str, dict[str, Entry]] = {
    "": {**POINTWISE, "BitCast": reinterpreted, "Dropout": dropout}
}
