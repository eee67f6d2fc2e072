"""Forms of arithmetic, casts, reductions and quantization, by types and sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.backend.cases import Case
from tests.backend.forms import case, family, grid, ints, real

SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
ALL = [*SIGNED, *UNSIGNED, *FLOATS, "bool"]


def extremes(dtype: str, *shape: int, seed: int = 0, nonzero: bool = False) -> np.ndarray:
    """Numbers at both ends of a type, and small ones."""
    if np.dtype(dtype).kind not in "iu":
        found = real(*shape, dtype=dtype, seed=seed) * (1 if dtype == "bool" else 3)
        return found.astype(dtype)
    info = np.iinfo(dtype)
    some = [info.min, info.max, info.max - 1, info.max // 2 + 1, 0, 1, 2, 7, info.max // 3]
    rng = np.random.default_rng(seed)
    found = np.array([some[i] for i in rng.integers(0, len(some), int(np.prod(shape)))], dtype)
    found[nonzero & (found == 0)] = 3
    return found.reshape(shape)


@family
def arithmetic() -> Iterator[Case]:
    """Two operands of every type, broadcast."""
    ops = [
        "Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Equal", "Greater", "GreaterOrEqual",
        "Less", "LessOrEqual", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "And", "Or", "Xor", "Sum",
        "Mean", "Pow",
    ]  # fmt: skip
    shapes = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (2, 1, 4)), ((3, 4), ()), ((0, 4), (4,))]
    for op, dtype, (one, two), stored in itertools.product(ops, ALL, shapes, ((), ("b",), ("a",))):
        a = extremes(dtype, *one)
        b = extremes(dtype, *two, seed=1, nonzero=op in ("Div", "Mod"))
        if op in ("Div", "Mod") and np.dtype(dtype).kind == "i":
            b = np.where(b == -1, 5, b).astype(dtype)  # the least number has no opposite
            a = np.where(a == np.iinfo(dtype).min, -7, a).astype(dtype)
        if op == "Pow":
            a, b = (
                np.abs(real(*one, dtype=dtype)) if dtype != "bool" else a,
                real(*two, dtype=dtype),
            )
            b = np.abs(b).clip(0, 3).astype(dtype) if dtype != "bool" else b
        forms: list[dict[str, Any]] = [{}]
        if op == "Mod":
            forms = [{"fmod": 1}] if dtype in FLOATS else [{}, {"fmod": 1}]
        for attributes in forms:
            yield case(op, {"a": a, "b": b}, stored, 18, **attributes)


@family
def powers() -> Iterator[Case]:
    """Pow whose exponent has another type."""
    numbers = [*FLOATS[1:], "int32", "int64"]
    for one, two, stored in itertools.product(numbers, [*numbers, "uint32"], ((), ("b",))):
        feeds = {"a": np.abs(real(3, 4, dtype=one)) + 1, "b": np.abs(real(4, dtype=two)).clip(0, 3)}
        yield case("Pow", {k: np.asarray(v) for k, v in feeds.items()}, stored, 15)


@family
def shifts() -> Iterator[Case]:
    """BitShift within and beyond the width."""
    for dtype, direction in itertools.product(UNSIGNED, ("LEFT", "RIGHT")):
        bits = np.dtype(dtype).itemsize * 8
        by = np.array([0, 1, 3, bits - 1, bits - 2, 5, 7, 2, 1], dtype)
        yield case("BitShift", {"a": extremes(dtype, 9), "b": by}, (), 11, direction=direction)
        yield case("BitShift", {"a": extremes(dtype, 9), "b": by}, ("b",), 11, direction=direction)


@family
def unary() -> Iterator[Case]:
    """One operand of every type."""
    ops = [
        "Abs", "Neg", "Sign", "Ceil", "Floor", "Round", "Sqrt", "Exp", "Log", "Relu", "Not",
        "BitwiseNot", "Reciprocal", "Sin", "Cos", "Tan", "Asin", "Atan", "Sinh", "Cosh", "Tanh",
        "Erf", "Sigmoid", "Softplus", "Softsign", "IsNaN", "IsInf", "Identity", "NonZero", "Size",
        "Shape", "Celu", "Elu", "Selu", "HardSigmoid", "HardSwish", "Mish", "Gelu", "LeakyRelu",
        "ThresholdedRelu", "Shrink", "Hardmax", "Softmax", "LogSoftmax", "Acosh", "Asinh", "Det",
    ]  # fmt: skip
    for op, dtype, shape in itertools.product(ops, ALL, ((3, 3), (2, 3, 3), (4,), ())):
        x = extremes(dtype, *shape)
        if dtype in FLOATS and x.ndim == 2:
            x[0] = [0.5, -1.5, 2.5]
            if op in ("IsNaN", "IsInf", "Sign", "Relu", "Max", "Abs", "Floor"):
                x[1] = [np.nan, np.inf, -np.inf]
        yield case(op, {"x": x}, (), 20)
    for form in grid(alpha=[None, 0.3, 2.0]):
        for op in ("Celu", "Elu", "LeakyRelu", "HardSigmoid", "ThresholdedRelu", "Selu"):
            yield case(op, {"x": real(3, 4)}, (), 20, **form)
    for form in grid(bias=[None, 0.2], lambd=[None, 0.1, 1.0]):
        for dtype in ("float32", "int32", "int8", "uint8"):
            yield case("Shrink", {"x": real(3, 4, dtype=dtype)}, (), 20, **form)


@family
def clipping() -> Iterator[Case]:
    """Clip with bounds that are missing, crossed, stored or given."""
    for dtype, low, high, stored in itertools.product(
        ["int8", "int32", "int64", "uint8", "uint32", "uint64", "float32", "float64", "float16"],
        (None, 2, 6), (None, 4, 0), ((), ("lo", "hi"), ("lo",), ("hi",)),
    ):  # fmt: skip
        bounds = {"lo": low, "hi": high}
        feeds: dict[str, np.ndarray | None] = {"x": extremes(dtype, 3, 4)}
        feeds |= {k: None if v is None else np.array(v, dtype) for k, v in bounds.items()}
        yield case("Clip", feeds, stored, 13)


@family
def casting() -> Iterator[Case]:
    """Cast between all types, with numbers that do not fit."""
    for one, two in itertools.product(ALL, ALL):
        x = extremes(one, 4, 5)
        if one in FLOATS:
            x[0] = [np.nan, np.inf, -np.inf, -0.5, 300]
            x[1] = [-1.5, 2.5, 70000 if one != "float16" else 6e4, -129, 255.9]
        to = TensorProto.DataType.Value(
            {"float64": "DOUBLE", "float32": "FLOAT"}.get(two, two.upper())
        )
        yield case("Cast", {"x": x}, (), 19, to=to)
        yield case("CastLike", {"x": x, "l": extremes(two, 1)}, (), 19)


@family
def reductions() -> Iterator[Case]:
    """Reductions by types, axes, forms and empty axes."""
    ops = [
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
        "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    ]  # fmt: skip
    shapes = [(2, 3, 4), (3,), (), (2, 0, 4), (0,)]
    axes = [None, [], [0], [-1], [1], [0, 2], [-1, -2, -3], [1, 0]]
    for op, dtype, shape in itertools.product(ops, ALL, shapes):
        for chosen, keep, none, where in itertools.product(
            axes, (None, 0), (None, 1), ("stored", "given", "dynamic", "attribute")
        ):
            if any(not -len(shape) <= a < len(shape) for a in chosen or ()):
                continue
            if 0 in shape and chosen != [1]:
                continue  # onnxruntime gives shapes that it does not announce
            if (where in ("given", "dynamic") and chosen is None) or (
                none and where == "attribute"
            ):
                continue
            x = np.abs(real(*shape, dtype=dtype)) if dtype != "bool" else real(*shape, dtype=dtype)
            attributes = {} if keep is None else {"keepdims": keep}
            attributes |= {} if none is None else {"noop_with_empty_axes": none}
            feeds: dict[str, np.ndarray | None] = {"x": np.asarray(x)}
            if where == "attribute":
                if chosen == []:
                    continue
                if chosen is not None:
                    attributes["axes"] = chosen
                yield case(op, feeds, (), 12, **attributes)
                continue
            feeds["a"] = None if chosen is None else ints(*chosen)
            stored = ("a",) if where == "stored" else ()
            yield case(op, feeds, stored, 20, dynamic=where == "dynamic", **attributes)


@family
def running() -> Iterator[Case]:
    """CumSum and CumProd, ArgMax and ArgMin, TopK."""
    for dtype, axis, exclusive, reverse, stored in itertools.product(
        [*SIGNED, *UNSIGNED, *FLOATS], (0, 1, -1), (None, 1), (None, 1), ((), ("a",))
    ):
        attributes = {k: 1 for k, v in (("exclusive", exclusive), ("reverse", reverse)) if v}
        for op, opset in (("CumSum", 14), ("CumProd", 26)):
            feeds = {"x": real(2, 3, dtype=dtype), "a": np.array(axis, np.int64)}
            yield case(op, feeds, stored, opset, **attributes)
    for op, dtype, axis, keep, last in itertools.product(
        ("ArgMax", "ArgMin"), ALL, (None, 1, -1), (None, 0), (None, 1)
    ):
        attributes = {"axis": axis, "keepdims": keep, "select_last_index": last}
        x = real(3, 4, dtype=dtype).clip(0, 3) if dtype != "bool" else real(3, 4, dtype=dtype)
        yield case(
            op,
            {"x": x.astype(dtype)},
            (),
            13,
            **{k: v for k, v in attributes.items() if v is not None},
        )
    for dtype, k, axis, largest, order in itertools.product(
        ALL, (0, 1, 3), (None, 0), (None, 0), (None, 1)
    ):
        attributes = {"axis": axis, "largest": largest, "sorted": order}
        feeds = {"x": extremes(dtype, 3, 4), "k": ints(k)}
        for stored in ((), ("k",)):
            yield case(
                "TopK",
                feeds,
                stored,
                11,
                2,
                **{k: v for k, v in attributes.items() if v is not None},
            )


@family
def quantizing() -> Iterator[Case]:
    """QuantizeLinear, DequantizeLinear and their friends, by types, axes and blocks."""
    for dtype, form, axis, zero in itertools.product(
        ("int8", "uint8", "int16", "uint16", "int32"),
        ("tensor", "axis", "block"),
        (0, 1, -1),
        (0, 1),
    ):
        shape = {"tensor": (), "axis": (4,) if axis == 0 else (6,)}.get(
            form, (2, 6) if axis == 0 else (4, 3)
        )
        scale = np.abs(real(*shape, seed=2)) + np.float32(0.05)
        scale = np.asarray(scale, np.float32)
        point = np.asarray(np.abs(real(*shape, seed=3)) * 5).astype(dtype) if zero else None
        attributes = {} if form == "tensor" else {"axis": axis}
        attributes |= {"block_size": 2} if form == "block" else {}
        x = real(4, 6) * np.float32(40)
        feeds = {"x": x, "s": scale, "z": point}
        yield case("QuantizeLinear", feeds, ("s", "z"), 21, **attributes)
        yield case("QuantizeLinear", feeds, (), 21, **attributes)
        q = {
            "x": extremes(dtype, 4, 6),
            "s": scale,
            "z": np.zeros_like(point) if dtype == "int32" and zero else point,
        }
        yield case("DequantizeLinear", q, ("s", "z"), 21, **attributes)
        yield case("DequantizeLinear", q, (), 21, **attributes)
    for seed in range(6):
        yield case(
            "DynamicQuantizeLinear", {"x": real(3, 4, seed=seed) * np.float32(seed)}, (), 11, 3
        )
    for a, b, zeros in itertools.product(
        ("int8", "uint8"), ("int8", "uint8"), ("", "a", "b", "ab", "rows")
    ):
        feeds = {"a": real(2, 4, 3, dtype=a), "b": real(3, 5, dtype=b)}
        feeds["az"] = np.array(2, a) if "a" in zeros else None
        feeds["bz"] = np.array(3, b) if "b" in zeros else None
        if zeros == "rows":
            feeds["bz"] = real(5, dtype=b)
        yield case("MatMulInteger", feeds, ("b", "bz"), 10)
    for group, pads, strides, zero in itertools.product(
        (1, 2), (None, [1, 0, 0, 1]), (None, [2, 1]), (0, 1)
    ):
        feeds = {
            "x": real(1, 4, 5, 6, dtype="uint8"),
            "w": real(6, 4 // group, 2, 3, dtype="uint8"),
        }
        feeds |= {"xz": np.array(2, "uint8"), "wz": np.array(3, "uint8")} if zero else {}
        attributes = {"group": group, "pads": pads, "strides": strides}
        attributes = {k: v for k, v in attributes.items() if v is not None}
        yield case("ConvInteger", feeds, ("w",), 10, **attributes)
        q = {
            "x": real(1, 4, 5, 6, dtype="uint8"), "xs": np.array(0.2, "f4"),
            "xz": np.array(3, "uint8"),
            "w": real(6, 4 // group, 2, 3, dtype="uint8"), "ws": np.array(0.3, "f4"),
            "wz": np.array(2, "uint8"), "ys": np.array(0.9, "f4"), "yz": np.array(9, "uint8"),
            "b": real(6, dtype="int32"),
        }  # fmt: skip
        yield case("QLinearConv", q, tuple(n for n in q if n != "x"), 10, **attributes)
