"""Samples of the pointwise operators."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.samples import Sample, integers, node, weight

F32 = np.float32
ANY = "... any"
# Since which opset, and on which interval a function is defined.
UNARY: dict[str, tuple[int, tuple[float, float] | None]] = {
    "Abs": (7, None),
    "Acos": (7, (-0.9, 0.9)),
    "Acosh": (9, (1.1, 3.0)),
    "Asin": (7, (-0.9, 0.9)),
    "Asinh": (9, None),
    "Atan": (7, None),
    "Atanh": (9, (-0.9, 0.9)),
    "Ceil": (7, (-3.0, 3.0)),
    "Celu": (12, None),
    "Cos": (7, None),
    "Cosh": (9, None),
    "Elu": (7, None),
    "Erf": (9, None),
    "Exp": (7, None),
    "Floor": (7, (-3.0, 3.0)),
    "Gelu": (20, None),
    "HardSigmoid": (7, None),
    "HardSwish": (14, (-4.0, 4.0)),
    "LeakyRelu": (7, None),
    "Log": (7, (0.1, 3.0)),
    "Mish": (18, None),
    "Neg": (7, None),
    "Reciprocal": (7, (0.5, 3.0)),
    "Relu": (7, None),
    "Round": (11, (-3.0, 3.0)),
    "Selu": (7, None),
    "Shrink": (9, None),
    "Sigmoid": (7, None),
    "Sign": (9, None),
    "Sin": (7, None),
    "Sinh": (9, None),
    "Softplus": (7, None),
    "Softsign": (7, None),
    "Sqrt": (7, (0.1, 3.0)),
    "Swish": (24, None),
    "Tan": (7, (-1.0, 1.0)),
    "Tanh": (7, None),
    "ThresholdedRelu": (10, None),
}
NO_KERNEL = {"Swish"}


def _unary(op: str, since: int, within: tuple[float, float] | None) -> Sample:
    ranges = {"x": within} if within else {}
    inputs = {"x": (F32, (3, 4))}
    return Sample(
        f"opset{since}", node(op, "x"), inputs, {}, since, ANY, ranges, op not in NO_KERNEL
    )


def _operands(op: str, opset: int, *types: Any, **extra: Any) -> Sample:
    """Operands that are broadcast both ways: (2, 1, 4), (3, 1) and (3, 4)."""
    shapes = [(2, 1, 4), (3, 1), (3, 4)]
    inputs = {name: (t, s) for name, t, s in zip("abc", types, shapes, strict=False)}
    attributes = extra.pop("attributes", {})
    made = node(op, " ".join(inputs), **attributes)
    return Sample(f"opset{opset}", made, inputs, {}, opset, ANY, **extra)


def _binary() -> list[Sample]:
    floats = [("Add", 7), ("Div", 7), ("Mul", 14), ("Sub", 7), ("Mod", 13), ("Pow", 7)]
    away = {"a": (0.5, 2.0), "b": (0.6, 3.0)}
    result = [
        _operands(op, opset, F32, F32, within=away, attributes={"fmod": 1} if op == "Mod" else {})
        for op, opset in floats
    ]
    result += [_operands(op, 7, np.bool_, np.bool_) for op in ("And", "Or", "Xor")]
    compared = [("Equal", 13), ("Greater", 9), ("GreaterOrEqual", 16), ("Less", 9)]
    compared += [("LessOrEqual", 12)]
    result += [_operands(op, opset, np.int32, np.int32) for op, opset in compared]
    result += [
        _operands(op, 18, np.int32, np.int32) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ]
    shift = {"attributes": {"direction": "LEFT"}, "within": {"a": (0, 9), "b": (0, 4)}}
    result.append(_operands("BitShift", 11, np.uint8, np.uint8, **shift))
    result.append(_operands("Where", 9, np.bool_, F32, F32))
    for op in ("Max", "Mean", "Min", "Sum"):
        result += [_operands(op, 8, F32, F32, F32), _operands(op, 13, F32, F32)]
    return [_unique(sample, i) for i, sample in enumerate(result)]


def _unique(sample: Sample, number: int) -> Sample:
    return Sample(**{**vars(sample), "id": f"{sample.id}-{number}"})


def _one(op: str, name: str, inputs: str = "x", dtype: Any = F32, **extra: Any) -> Sample:
    attributes = extra.pop("attributes", {})
    outputs = extra.pop("outputs", "y")
    extra.setdefault("expect", ANY)
    return Sample(name, node(op, inputs, outputs, **attributes), {"x": (dtype, (3, 4))}, **extra)


LOW, HIGH = {"low": np.float32(-0.4)}, {"high": np.float32(0.9)}
ODD = np.array([[1, np.inf, np.nan, 2], [3, 4, 5, np.inf], [-np.inf, np.nan, 6, 7]], F32)
RANDOM = {"expect": "not followed: its output is random"}
SAMPLES = [
    *(_unary(op, since, within) for op, (since, within) in UNARY.items()),
    *_binary(),
    _one("BitwiseNot", "int32", dtype=np.int32, opset=18),
    _one("BitCast", "int32", opset=26, attributes={"to": TensorProto.INT32}, runs=False),
    _one("Bernoulli", "seeded", opset=15, within={"x": (0, 1)}, **RANDOM),
    _one("Cast", "half", attributes={"to": TensorProto.FLOAT16}),
    _one("Cast", "int64", opset=9, attributes={"to": TensorProto.INT64}),
    _one("Cast", "from-int8", dtype=np.int8, attributes={"to": TensorProto.FLOAT}),
    _one("Cast", "from-bool", dtype=np.bool_, attributes={"to": TensorProto.FLOAT}),
    Sample(
        "like-int8",
        node("CastLike", "x like"),
        {"x": (F32, (3, 4)), "like": (np.int8, (5, 2, 7))},
        opset=15,
        expect="... any, l0 any, l1 any, l2 any",
    ),
    _one("Clip", "opset7", opset=7, attributes={"min": 0.0, "max": 6.0}),
    _one("Clip", "bounds", "x low high", weights={**LOW, **HIGH}),
    _one("Clip", "no-low", "x _ high", weights=HIGH, opset=13),
    _one("Dropout", "opset7", opset=7, attributes={"ratio": 0.3}),
    _one("Dropout", "mask", outputs="y mask", opset=12),
    _one(
        "Dropout",
        "training",
        "x ratio training",
        opset=12,
        weights={"ratio": np.float32(0.3), "training": np.array(True)},
        expect="not followed: Dropout in training mode is random",
    ),
    _one("Gelu", "tanh", opset=20, attributes={"approximate": "tanh"}),
    Sample("weight", node("IsInf", "x", detect_negative=0), {}, {"x": ODD}, 10, ANY),
    Sample("weight", node("IsNaN", "x"), {}, {"x": ODD}, 13, ANY),
    _one("Max", "single", opset=13),
    _one("Multinomial", "seeded", attributes={"sample_size": 3, "seed": 1.0}, **RANDOM),
    _one("Not", "bool", dtype=np.bool_),
    _one("PRelu", "slopes", "x slope", weights={"slope": weight(4)}, opset=16),
    Sample(
        "learned-opset7",
        node("PRelu", "x slope"),
        {"x": (F32, (2, 3, 4)), "slope": (F32, (3, 1))},
        opset=7,
        expect=ANY,
    ),
    _one("RandomNormalLike", "seeded", attributes={"seed": 1.0}, **RANDOM),
    _one("RandomUniformLike", "seeded", attributes={"seed": 1.0}, **RANDOM),
    Sample(
        "seeded", node("RandomNormal", "", shape=[3, 4], seed=1.0), {}, {}, expect=RANDOM["expect"]
    ),
    Sample(
        "seeded", node("RandomUniform", "", shape=[3, 4], seed=1.0), {}, {}, expect=RANDOM["expect"]
    ),
    _one(
        "Where",
        "mask",
        "mask x low",
        weights={"mask": integers(4, low=0, high=2).astype(bool), **LOW},
        opset=16,
    ),
]
