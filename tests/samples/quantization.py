"""Samples of quantisation and integer arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.samples import Sample, integers, node, weight

F32, I8, U8 = np.float32, np.int8, np.uint8


def _scale(*shape: int, seed: int = 1) -> np.ndarray:
    return weight(*shape, seed=seed, low=0.02, high=0.2)


def _point(*shape: int, dtype: Any = U8, seed: int = 1) -> np.ndarray:
    return integers(*shape, low=1, high=7, dtype=dtype, seed=seed)


def _i8(*shape: int) -> np.ndarray:
    return integers(*shape, low=-90, high=90, dtype=I8)


X = {"x": (F32, (2, 3, 4))}
Q = {"x": (U8, (2, 3, 4))}
FREE = "a0 any, a1 any, a2 any"
TO, FROM = "QuantizeLinear", "DequantizeLinear"
ONE = {"scale": _scale(), "zero": _point()}
VECTOR = {"scale": _scale(3), "zero": _point(3)}
QDQ = [
    Sample("opset10", node(TO, "x scale zero"), X, ONE, 10, FREE),
    Sample("no-zero", node(TO, "x scale"), X, {"scale": _scale()}, 13, FREE),
    Sample("by-axis", node(TO, "x scale zero", axis=-2), X, VECTOR, 13, FREE),
    Sample("default-axis", node(TO, "x scale zero"), X, VECTOR, 19, FREE),
    Sample("one-number", node(TO, "x scale"), X, {"scale": _scale(1)}, 13, FREE),
    Sample(
        "int16",
        node(TO, "x scale", output_dtype=TensorProto.INT16),
        X,
        {"scale": _scale(3)},
        21,
        FREE,
    ),
    Sample("opset10", node(FROM, "x scale zero"), Q, ONE, 10, FREE),
    Sample("by-axis", node(FROM, "x scale zero", axis=1), Q, VECTOR, 13, FREE),
    Sample("last-axis", node(FROM, "x scale", axis=2), Q, {"scale": _scale(4)}, 21, FREE),
    Sample(
        "blocks",
        node(FROM, "x scale", axis=2, block_size=2),
        Q,
        {"scale": _scale(2, 3, 2)},
        21,
        "not followed: blocks have scales of their own",
    ),
    Sample(
        "of-a-weight",
        node(FROM, "w scale", axis=0),
        {},
        {"w": _i8(5, 4), "scale": _scale(5)},
        13,
        "a0 any, a1 any",
    ),
    Sample("opset11", node("DynamicQuantizeLinear", "x", "y scale zero"), X, {}, 11, "... any"),
]
PRODUCT = "... any, m any, k fixed, n any"
MATMULS = [
    Sample("plain", node("MatMulInteger", "x w"), Q, {"w": _i8(4, 5)}, 10, PRODUCT),
    Sample(
        "zero-points",
        node("MatMulInteger", "x w zx zw"),
        Q,
        {"w": _i8(4, 5), "zx": _point(), "zw": _point(5, dtype=I8)},
        10,
        PRODUCT,
    ),
]
SCALES = {"sx": _scale(), "zx": _point(), "sy": _scale(seed=3), "zy": _point(seed=2)}
OPERANDS = "x sx zx w sw zw sy zy"
LINEAR = [
    Sample(
        "by-tensor",
        node("QLinearMatMul", OPERANDS),
        Q,
        {**SCALES, "w": _i8(4, 5), "sw": _scale(), "zw": _point(dtype=I8)},
        10,
        PRODUCT,
    ),
    Sample(
        "by-column",
        node("QLinearMatMul", OPERANDS),
        Q,
        {**SCALES, "w": _i8(4, 5), "sw": _scale(5), "zw": _point(5, dtype=I8)},
        21,
        PRODUCT,
    ),
]
IMAGE = {"x": (U8, (2, 4, 6, 5))}
CONV = "b any, i fixed, o any, s fixed, k fixed, t fixed"
INTEGER = [
    Sample("plain", node("ConvInteger", "x w"), IMAGE, {"w": _i8(3, 4, 2, 3)}, 10, CONV),
    Sample(
        "zero-points",
        node("ConvInteger", "x w zx zw", strides=[2, 1]),
        IMAGE,
        {"w": integers(3, 4, 2, 3, low=0, high=200, dtype=U8), "zx": _point(), "zw": _point()},
        17,
        CONV,
    ),
    Sample(
        "depthwise",
        node("ConvInteger", "x w zx", group=4),
        IMAGE,
        {"w": _i8(4, 1, 2, 3), "zx": _point()},
        10,
        "b any, g any, s fixed, k fixed, t fixed",
    ),
]
DENSE = {"w": _i8(3, 4, 2, 3), "sw": _scale(3), "zw": np.zeros(3, I8)}
BIAS = integers(3, low=-400, high=400, dtype=np.int32)
CONVS = [
    Sample(
        "bias",
        node("QLinearConv", f"{OPERANDS} bias", pads=[1] * 4),
        IMAGE,
        {**SCALES, **DENSE, "bias": BIAS},
        10,
        CONV,
    ),
    Sample(
        "pointwise",
        node("QLinearConv", OPERANDS),
        IMAGE,
        {**SCALES, "w": _i8(3, 4, 1, 1), "sw": _scale(), "zw": np.zeros((), I8)},
        10,
        "b any, i fixed, s any, o any",
    ),
    Sample(
        "grouped",
        node("QLinearConv", OPERANDS, group=2),
        IMAGE,
        {**SCALES, "w": _i8(6, 2, 2, 3), "sw": _scale(6), "zw": np.zeros(6, I8)},
        10,
        "b any, g any, i fixed, o any, s fixed, k fixed, t fixed",
    ),
]
SAMPLES = [*QDQ, *MATMULS, *LINEAR, *INTEGER, *CONVS]
