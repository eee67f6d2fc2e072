"""One-node networks over the attributes of operators: combinations drawn from tables.

    for case in variants("ConvTranspose", 40, seed=0): ...

A table says which values each attribute may take, and what the operands are; what onnxruntime
does not run is no case. Each network is there with all operands but the first as weights, and,
by chance, with open sizes, or with all operands as inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.backend.cases import Case

Draw = random.Random
Node = tuple[str, dict[str, Any], dict[str, Any], int]  # operator, operands, attributes, opset

FLOATS = ("float32", "float32", "float32", "float64", "float16")
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def normal(draw: Draw, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Random numbers of any type; whole ones reach its ends."""
    source = np.random.default_rng(draw.randrange(2**32))
    if dtype == "bool":
        return source.integers(0, 2, shape).astype(bool)
    if "int" not in dtype:
        return source.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    small = source.integers(max(-9, limits.min), 9, shape).astype(dtype)
    large = source.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return np.where(source.random(shape) < 0.7, small, large).astype(dtype)


def lengths(draw: Draw, rank: int, low: int = 3, high: int = 8) -> list[int]:
    """Sizes of axes."""
    return [draw.randint(low, high) for _ in range(rank)]


def some(draw: Draw, chance: float, value: Any) -> Any:
    """The value, or with the other chance None, which leaves an attribute out."""
    return value if draw.random() < chance else None


def window(draw: Draw, kernel: list[int]) -> dict[str, Any]:
    """Strides, dilations and padding of a kernel."""
    rank = len(kernel)
    mode = draw.choice(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    return {
        "strides": some(draw, 0.8, [draw.randint(1, 4) for _ in kernel]),
        "dilations": some(draw, 0.4, [draw.randint(1, 2) for _ in kernel]),
        "auto_pad": some(draw, 0.5, mode) if mode == "NOTSET" else mode,
        "pads": some(draw, 0.7, [draw.randint(0, 2) for _ in range(2 * rank)])
        if mode == "NOTSET"
        else None,
    }


def conv(draw: Draw) -> Node:
    """Convolutions."""
    rank, group = draw.choice([1, 2, 2, 3]), draw.choice([1, 1, 2, 3])
    kernel = lengths(draw, rank, 1, 3)
    x = normal(draw, 2, group * 2, *lengths(draw, rank, 5, 9))
    operands = {"x": x, "w": normal(draw, group * draw.randint(1, 2), 2, *kernel)}
    if draw.random() < 0.5:
        operands["b"] = normal(draw, operands["w"].shape[0])
    return "Conv", operands, {"group": group, **window(draw, kernel)}, 18


def conv_transpose(draw: Draw) -> Node:
    """Transposed convolutions, with stated sizes, negative pads and strides above the kernel."""
    rank, group = draw.choice([1, 1, 2, 2, 3]), draw.choice([1, 1, 2])
    kernel = lengths(draw, rank, 1, 3)
    x = normal(draw, 2, group * 2, *lengths(draw, rank, 2, 4))
    operands = {"x": x, "w": normal(draw, group * 2, draw.randint(1, 2), *kernel)}
    if draw.random() < 0.5:
        operands["b"] = normal(draw, operands["w"].shape[1] * group)
    given = window(draw, kernel)
    strides, dilations = (given[n] or [1] * rank for n in ("strides", "dilations"))
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    given["output_shape"] = some(draw, 0.3, [max(n + draw.randint(-3, 3), 1) for n in full])
    given["output_padding"] = some(
        draw, 0.3, [draw.randint(0, max(s, d) - 1) for s, d in zip(strides, dilations, strict=True)]
    )
    if given["pads"] is not None and draw.random() < 0.2:
        given["pads"] = [draw.randint(-2, 1) for _ in given["pads"]]
    return "ConvTranspose", operands, {"group": group, **given}, draw.choice([11, 22])


def pool(draw: Draw) -> Node:
    """Poolings of all ranks, with partial windows."""
    name = draw.choice(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool"])
    rank = draw.choice([1, 2, 2, 3])
    kernel = lengths(draw, rank, 1, 4)
    given = window(draw, kernel)
    given["kernel_shape"] = kernel
    given["ceil_mode"] = some(draw, 0.6, draw.randint(0, 1))
    if given["pads"] is not None:
        given["pads"] = [draw.randint(0, k - 1) for k in kernel * 2]
    if name == "AveragePool":
        given["count_include_pad"] = some(draw, 0.6, draw.randint(0, 1))
    if name == "LpPool":
        given["p"] = some(draw, 0.6, draw.randint(1, 3))
    opset = 22 if name != "AveragePool" else draw.choice([11, 19, 22])
    if opset == 11:
        given["dilations"] = None
    kind = draw.choice(["float32", "float32", "float64", "int8", "uint8"])
    x = normal(
        draw, 2, 3, *lengths(draw, rank, 7, 10), dtype=kind if name == "MaxPool" else "float32"
    )
    return name, {"x": x}, given, opset


def resize(draw: Draw) -> Node:
    """All modes and coordinates, by scales and by sizes."""
    rank = draw.choice([1, 2, 2, 3])
    mode = draw.choice(["nearest", "nearest", "linear", "linear", "cubic"])
    rank = 2 if mode == "cubic" else rank
    x = normal(draw, 1, 2, *lengths(draw, rank, 2, 9), dtype=draw.choice(FLOATS[:4]))
    how = draw.choice(
        [
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
        ]
    )
    given: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": how,
        "nearest_mode": some(
            draw,
            0.8,
            draw.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
        ),
        "cubic_coeff_a": some(draw, 0.3, -0.5),
        "exclude_outside": some(draw, 0.3, draw.randint(0, 1)),
        "antialias": some(draw, 0.3, draw.randint(0, 1)) if mode != "nearest" else None,
        "extrapolation_value": some(draw, 0.3, 0.5),
    }
    axes = list(range(x.ndim))
    if draw.random() < 0.3:
        axes = [axis for axis in axes if axis > 1]
        given["axes"] = [draw.choice([a, a - x.ndim]) for a in axes]
    operands: dict[str, Any] = {"x": x, "": None}
    if how == "tf_crop_and_resize":
        inner = [(draw.uniform(-0.2, 0.4), draw.uniform(0.5, 1.3)) for _ in axes]
        pairs = [(0.0, 1.0) if axis < 2 else pair for axis, pair in zip(axes, inner, strict=True)]
        roi = [a for a, _ in pairs] + [b for _, b in pairs]
        operands = {"x": x, "roi": np.array(roi, np.float32)}
    if draw.random() < 0.6:
        factors = [0.3, 0.5, 0.6, 0.7, 1.0, 1.5, 1.6, 5 / 3, 2.0, 2.7, 3.0]
        scales = [1.0 if axis < 2 else draw.choice(factors) for axis in axes]
        operands["scales"] = np.array(scales, np.float32)
    else:
        wanted = [x.shape[axis] if axis < 2 else draw.randint(1, 12) for axis in axes]
        operands |= {" ": None, "sizes": np.array(wanted, np.int64)}
        if "axes" in given:
            policy = draw.choice(["stretch", "not_larger", "not_smaller"])
            given["keep_aspect_ratio_policy"] = policy
    return "Resize", operands, given, draw.choice([18, 19])


def reduction(draw: Draw) -> Node:
    """Reductions of numbers of all types, over no axis as well, of empty tensors as well."""
    name = draw.choice(
        [
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ]
    )
    rank = draw.randint(1, 4)
    shape = [draw.choice([1, 2, 3, 3, 0 if draw.random() < 0.2 else 2]) for _ in range(rank)]
    kind = draw.choice(["float32", "float64", "int32", "int64", "int8", "uint8"])
    x = normal(draw, *shape, dtype=kind)
    x = np.abs(x) if "Log" in name and "int" not in kind else x
    x = np.clip(x, 0, 9).astype(kind) if "int" in kind else x  # sums within the type
    given = {
        "keepdims": some(draw, 0.6, draw.randint(0, 1)),
        "noop_with_empty_axes": some(draw, 0.4, draw.randint(0, 1)),
    }
    operands = {"x": x}
    if draw.random() < 0.8:
        axes = draw.sample(range(rank), draw.randint(0, rank))
        if 0 not in shape:  # of which onnxruntime reduces no negative axes
            axes = [draw.choice([a, a - rank]) for a in axes]
        operands["axes"] = np.array(axes, np.int64)
    return name, operands, given, 18


def running(draw: Draw) -> Node:
    """Sums and products so far."""
    rank = draw.randint(1, 3)
    x = normal(draw, *lengths(draw, rank, 1, 4), dtype=draw.choice(["float32", "int32", "int64"]))
    axis = draw.randrange(-rank, rank)
    given = {key: some(draw, 0.6, draw.randint(0, 1)) for key in ("exclusive", "reverse")}
    return "CumSum", {"x": x, "axis": np.array(axis, draw.choice(["int32", "int64"]))}, given, 14


def pair(draw: Draw) -> Node:
    """Two tensors of any type, broadcast."""
    name = draw.choice(
        [
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Mod",
            "Pow",
            "Max",
            "Min",
            "Equal",
            "Less",
            "LessOrEqual",
            "Greater",
            "GreaterOrEqual",
            "BitShift",
            "BitwiseAnd",
            "BitwiseOr",
            "BitwiseXor",
            "PRelu",
        ]
    )
    kind = draw.choice([*WHOLE, "float32", "float64"])
    x, y = normal(draw, 2, 3, 4, dtype=kind), normal(draw, *draw.choice([(4,), (3, 1)]), dtype=kind)
    given: dict[str, Any] = {}
    if name in ("Div", "Mod"):
        y = np.where(y == 0, np.array(3, kind), y).astype(kind)
        x = np.where(x == (0 if "int" not in kind else np.iinfo(kind).min), np.array(1, kind), x)
    if name == "Mod":
        given["fmod"] = 1 if "float" in kind else some(draw, 0.6, draw.randint(0, 1))
    if given.get("fmod") and kind.endswith("int64"):
        x, y = x % 99, y % 7 + 1  # onnxruntime goes by double precision
    if name == "Pow":
        x, y = x % 4, y % 3
    if name == "BitShift":
        given["direction"] = draw.choice(["LEFT", "RIGHT"])
        y = (y % np.array(8 * np.dtype(kind).itemsize + 0, kind)).astype(kind) if "u" in kind else y
    return name, {"x": x.astype(kind), "y": y.astype(kind)}, given, 18


def single(draw: Draw) -> Node:
    """One tensor, an entry at a time."""
    name = draw.choice(
        [
            "Abs",
            "Neg",
            "Sign",
            "Not",
            "BitwiseNot",
            "Ceil",
            "Floor",
            "Round",
            "Sqrt",
            "Reciprocal",
            "Relu",
            "LeakyRelu",
            "Elu",
            "Selu",
            "Celu",
            "ThresholdedRelu",
            "HardSigmoid",
            "HardSwish",
            "Softplus",
            "Softsign",
            "Mish",
            "Gelu",
            "Shrink",
            "IsInf",
            "IsNaN",
            "Erf",
            "Exp",
            "Tanh",
        ]
    )
    kind = draw.choice([*WHOLE, *FLOATS, "float32", "float32", "bool"])
    x = normal(draw, 3, 5, dtype=kind)
    if "float" in kind:
        x = (x * 4).round(1).astype(kind)
        x.flat[:8] = [np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -0.5, -1.5]
        if name == "Sign":
            x.flat[2] = 0  # NaN has a sign of its own in each type
    keys = {
        "Celu": ["alpha"],
        "Elu": ["alpha"],
        "LeakyRelu": ["alpha"],
        "Shrink": ["lambd", "bias"],
    }
    keys |= {"ThresholdedRelu": ["alpha"], "HardSigmoid": ["alpha", "beta"]}
    given: dict[str, Any] = {key: some(draw, 0.5, 0.7) for key in keys.get(name, [])}
    if name == "IsInf":
        given = {
            k: some(draw, 0.6, draw.randint(0, 1)) for k in ("detect_negative", "detect_positive")
        }
    if name == "Gelu":
        given["approximate"] = some(draw, 0.6, draw.choice(["none", "tanh"]))
    return name, {"x": x}, given, 20


def cast(draw: Draw) -> Node:
    """From every type to every other, within its range."""
    kind, to = draw.choice([*WHOLE, *FLOATS, "bool"]), draw.choice([*WHOLE, *FLOATS, "bool"])
    x = normal(draw, 3, 5, dtype=kind)
    if "float" in kind:
        x = (x * 20).round(1).astype(kind)
        x = np.abs(x) if to.startswith("u") else x
    return "Cast", {"x": x}, {"to": helper.np_dtype_to_tensor_dtype(np.dtype(to))}, 19


def clip(draw: Draw) -> Node:
    """Bounds that are there or not, or crossed."""
    kind = draw.choice([*WHOLE, "float32", "float64"])
    operands = {"x": normal(draw, 3, 5, dtype=kind)}
    low = np.array(draw.randint(0, 4), kind)
    operands |= {"low": low} if draw.random() < 0.7 else {"": None}
    if draw.random() < 0.7:
        operands["high"] = np.array(draw.randint(2, 9), kind)
    return "Clip", operands, {}, 13


def gather(draw: Draw) -> Node:
    """Rows, entries and slices at places that may be negative."""
    name = draw.choice(["Gather", "GatherElements", "GatherND", "OneHot"])
    rank = draw.randint(1, 3)
    x = normal(draw, *lengths(draw, rank, 2, 4), dtype=draw.choice(["float32", "int64", "uint64"]))
    axis = draw.randrange(rank)
    size = x.shape[axis]
    source = np.random.default_rng(draw.randrange(2**32))
    if name == "Gather":
        i = source.integers(-size, size, lengths(draw, draw.randint(0, 2), 1, 3))
        return name, {"x": x, "i": i}, {"axis": draw.choice([axis, axis - rank])}, 13
    if name == "GatherElements":
        shape = [draw.randint(1, n) for n in x.shape]
        i = source.integers(-size, size, shape)
        return name, {"x": x, "i": i}, {"axis": draw.choice([axis, axis - rank])}, 13
    if name == "GatherND":
        batch = draw.randint(0, rank - 1)
        depth = draw.randint(1, rank - batch)
        sizes = x.shape[batch : batch + depth]
        outer = [*x.shape[:batch], draw.randint(1, 3)]
        i = np.stack([source.integers(-n, n, outer) for n in sizes], -1)
        return (
            name,
            {"x": x, "i": i},
            {"batch_dims": some(draw, 0.9 if batch else 0.5, batch) or batch},
            13,
        )
    i = source.integers(-6, 7, lengths(draw, draw.randint(1, 2), 2, 4))
    values = normal(draw, 2, dtype=draw.choice(["float32", "int64"]))
    operands = {"i": i, "depth": np.array(5, np.int64), "values": values}
    return name, operands, {"axis": draw.randint(-i.ndim - 1, i.ndim)}, 13


def scatter(draw: Draw) -> Node:
    """Entries and slices put or added."""
    rank = draw.randint(1, 3)
    x = normal(draw, *lengths(draw, rank, 2, 4), dtype=draw.choice(["float32", "int64"]))
    reduction = some(draw, 0.6, draw.choice(["none", "add", "mul", "max", "min"]))
    source = np.random.default_rng(draw.randrange(2**32))
    if draw.random() < 0.5:
        axis = draw.randrange(rank)
        shape = [draw.randint(1, n) for n in x.shape]
        size = x.shape[axis]
        i = (
            np.argsort(source.random(shape), axis)
            if reduction in (None, "none")
            else source.integers(-size, size, shape)
        )
        operands = {"x": x, "i": i.astype(np.int64), "u": normal(draw, *shape, dtype=str(x.dtype))}
        return "ScatterElements", operands, {"axis": axis, "reduction": reduction}, 18
    depth = draw.randint(1, rank)
    count = 1 if reduction in (None, "none") else draw.randint(1, 4)
    i = np.stack([source.integers(-n, n, count) for n in x.shape[:depth]], -1)
    u = normal(draw, count, *x.shape[depth:], dtype=str(x.dtype))
    return "ScatterND", {"x": x, "i": i, "u": u}, {"reduction": reduction}, 18


def shape_change(draw: Draw) -> Node:
    """Reshape, Slice, Split, Pad, Tile, Expand, Trilu, TopK, Flatten, Transpose."""
    name = draw.choice(
        [
            "Reshape",
            "Slice",
            "Slice",
            "Pad",
            "Pad",
            "Tile",
            "Expand",
            "Trilu",
            "TopK",
            "CenterCropPad",
            "ReverseSequence",
            "DepthToSpace",
            "SpaceToDepth",
            "Unsqueeze",
            "Squeeze",
        ]
    )
    kind = draw.choice(["float32", "float32", "int64", "uint64", "int32", "bool"])
    rank = draw.randint(1, 4)
    x = normal(draw, *lengths(draw, rank, 2, 4), dtype=kind)
    whole = lambda *v: np.array(v, np.int64)  # noqa: E731
    if name == "Reshape":
        wanted = [
            draw.choice([-1, 0, x.size, 1]) if k == 0 else draw.choice([0, 1])
            for k in range(draw.randint(1, rank))
        ]
        return name, {"x": x, "s": whole(*wanted)}, {}, 14
    if name == "Slice":
        axes = draw.sample(range(rank), draw.randint(1, rank))
        bounds = [
            [draw.choice([-9, -3, -1, 0, 1, 2, 9, 2**31 - 1, 2**63 - 1, -(2**63)]) for _ in axes]
            for _ in "ab"
        ]
        steps = [draw.choice([-2, -1, 1, 1, 2, 3]) for _ in axes]
        return (
            name,
            {
                "x": x,
                "a": whole(*bounds[0]),
                "b": whole(*bounds[1]),
                "axes": whole(*[draw.choice([a, a - rank]) for a in axes]),
                "steps": whole(*steps),
            },
            {},
            13,
        )
    if name == "Pad":
        mode = draw.choice(["constant", "edge", "reflect", "wrap"])
        low = -1 if mode != "wrap" else 0
        operands = {"x": x, "pads": whole(*[draw.randint(low, 1) for _ in range(2 * rank)])}
        if mode == "constant" and draw.random() < 0.5:
            operands["value"] = np.array(1, kind)
        return name, operands, {"mode": mode}, 19
    if name == "Tile":
        return name, {"x": x, "n": whole(*[draw.randint(0, 3) for _ in range(rank)])}, {}, 13
    if name == "Expand":
        return name, {"x": x[:1], "s": whole(*[draw.choice([1, 1, 3])] * 2, *x.shape[1:])}, {}, 13
    if name == "Trilu":
        x = normal(draw, *lengths(draw, 3, 2, 4), dtype=kind)
        operands = {"x": x} | ({"k": np.array(draw.randint(-3, 3))} if draw.random() < 0.7 else {})
        return name, operands, {"upper": some(draw, 0.6, draw.randint(0, 1))}, 14
    if name == "TopK":
        axis = draw.randrange(rank)
        k = draw.randint(1, x.shape[axis])
        return (
            name,
            {"x": x, "k": whole(k)},
            {"axis": axis, "largest": some(draw, 0.6, draw.randint(0, 1))},
            11,
        )
    if name == "CenterCropPad":
        axes = draw.sample(range(rank), draw.randint(1, rank))
        return name, {"x": x, "s": whole(*[draw.randint(1, 7) for _ in axes])}, {"axes": axes}, 18
    if name == "ReverseSequence":
        x = normal(draw, 4, 3, 2, dtype=kind)
        time = draw.randint(0, 1)
        n = whole(*[draw.randint(1, x.shape[time]) for _ in range(x.shape[1 - time])])
        return name, {"x": x, "n": n}, {"time_axis": time, "batch_axis": 1 - time}, 10
    if name in ("DepthToSpace", "SpaceToDepth"):
        x = normal(draw, 1, 8, 4, 6)
        given: dict[str, Any] = {"blocksize": 2}
        if name == "DepthToSpace":
            given["mode"] = some(draw, 0.6, draw.choice(["DCR", "CRD"]))
        return name, {"x": x}, given, 13
    if name == "Unsqueeze":
        count = draw.randint(1, 2)
        axes = draw.sample(range(rank + count), count)
        return (
            name,
            {"x": x, "axes": whole(*[draw.choice([a, a - rank - count]) for a in axes])},
            {},
            13,
        )
    x = x.reshape(1, *x.shape, 1)
    operands = {"x": x}
    if draw.random() < 0.7:
        operands["axes"] = whole(*draw.choice([[0], [-1], [0, -1], [rank + 1]]))
    return name, operands, {}, 13


def split(draw: Draw) -> Node:
    """Parts, with a rest or empty."""
    rank = draw.randint(1, 3)
    x = normal(draw, *lengths(draw, rank, 2, 6))
    axis = draw.randrange(rank)
    size = x.shape[axis]
    if draw.random() < 0.5:
        return "Split:2", {"x": x}, {"axis": axis, "num_outputs": 2}, 18
    first = draw.randint(0, size)
    return "Split:2", {"x": x, "s": np.array([first, size - first], np.int64)}, {"axis": axis}, 18


def dft(draw: Draw) -> Node:
    """Transforms and their inverses, of half a spectrum as well."""
    parts = draw.choice([1, 2])
    inverse, onesided = draw.randint(0, 1), draw.randint(0, 1)
    x = normal(draw, 2, draw.randint(3, 7), draw.randint(3, 7), parts)
    axis = draw.choice([1, 2, -2, -3])
    operands: dict[str, Any] = {"x": x}
    operands |= {"n": np.array(draw.randint(3, 9))} if draw.random() < 0.5 else {"": None}
    operands["axis"] = np.array(axis)
    return "DFT", operands, {"inverse": inverse, "onesided": onesided}, 20


def attention(draw: Draw) -> Node:
    """Masks, causality, groups of heads, caches, all outputs."""
    heads, share = draw.choice([(2, 2), (4, 2), (3, 1)])
    batch, queries, keys, past = 2, draw.randint(1, 4), draw.randint(1, 5), draw.choice([0, 0, 2])
    size, wide = draw.randint(2, 4), draw.randint(2, 4)
    operands: dict[str, Any] = {
        "q": normal(draw, batch, heads, queries, size),
        "k": normal(draw, batch, share, keys, size),
        "v": normal(draw, batch, share, keys, wide),
    }
    given: dict[str, Any] = {
        "is_causal": some(draw, 0.6, draw.randint(0, 1)),
        "scale": some(draw, 0.3, 0.4),
        "softcap": some(draw, 0.3, 1.5),
        "qk_matmul_output_mode": some(draw, 0.7, draw.randint(0, 3)),
    }
    if draw.random() < 0.3:
        for name in "qkv":
            value = operands[name].transpose(0, 2, 1, 3)
            operands[name] = value.reshape(*value.shape[:2], -1)
        given |= {"q_num_heads": heads, "kv_num_heads": share}
    shape = draw.choice([(), (1,), (batch, 1), (batch, heads)])
    mask = normal(draw, *shape, queries, keys + past)
    kind = draw.choice(["none", "float", "bool", "inf"])
    if kind == "bool":
        mask = mask > -0.3
    if kind == "inf":
        mask = np.where(mask > 0, mask, -np.inf).astype(np.float32)
    operands |= {"m": mask} if kind != "none" else {"": None}
    if past:
        operands["pk"] = normal(draw, batch, share, past, size)
        operands["pv"] = normal(draw, batch, share, past, wide)
    return "Attention:4", operands, given, draw.choice([23, 24])


def grid_sample(draw: Draw) -> Node:
    """Modes, paddings, 2-D and 3-D."""
    rank = draw.choice([2, 2, 3])
    x = normal(draw, 2, 2, *lengths(draw, rank, 2, 5))
    grid = normal(draw, 2, *lengths(draw, rank, 2, 4), rank)
    modes = ["linear", "nearest", "cubic"] if rank == 2 else ["linear", "nearest"]
    given = {
        "mode": some(draw, 0.8, draw.choice(modes)),
        "padding_mode": some(draw, 0.8, draw.choice(["zeros", "border", "reflection"])),
        "align_corners": some(draw, 0.6, draw.randint(0, 1)),
    }
    return "GridSample", {"x": x, "g": grid}, given, 20


def roi_align(draw: Draw) -> Node:
    """Regions of a picture, the mean or the largest of samples."""
    x = normal(draw, 2, 3, *lengths(draw, 2, 6, 9))
    boxes = np.array(
        [
            [draw.uniform(0, 3), draw.uniform(0, 3), draw.uniform(4, 9), draw.uniform(4, 9)]
            for _ in "abc"
        ],
        np.float32,
    )
    given = {
        "mode": some(draw, 0.5, draw.choice(["avg", "max"])),
        "output_height": draw.randint(1, 4),
        "output_width": draw.randint(1, 4),
        "sampling_ratio": draw.choice([0, 1, 2, 3]),
        "spatial_scale": draw.choice([1.0, 0.5]),
        "coordinate_transformation_mode": some(
            draw, 0.6, draw.choice(["half_pixel", "output_half_pixel"])
        ),
    }
    return "RoiAlign", {"x": x, "r": boxes, "i": np.array([0, 1, 1])}, given, 16


def norms(draw: Draw) -> Node:
    """Norms and softmaxes along any axis."""
    name = draw.choice(
        [
            "LayerNormalization",
            "RMSNormalization",
            "GroupNormalization",
            "InstanceNormalization",
            "LRN",
            "LpNormalization",
            "MeanVarianceNormalization",
            "Softmax",
            "LogSoftmax",
            "Hardmax",
        ]
    )
    x = normal(
        draw,
        2,
        4,
        *lengths(draw, draw.choice([1, 2, 2]), 2, 5),
        dtype=draw.choice(["float32", "float32", "float64"]),
    )
    kind, rank = str(x.dtype), x.ndim
    axis = draw.randrange(-rank, rank)
    if name in ("LayerNormalization", "RMSNormalization"):
        shape = x.shape[axis % rank :]
        operands = {"x": x, "s": normal(draw, *shape, dtype=kind)}
        if name[0] == "L" and draw.random() < 0.5:
            operands["b"] = normal(draw, *shape, dtype=kind)
        return name, operands, {"axis": axis, "epsilon": some(draw, 0.5, 0.1)}, 23
    if name in ("GroupNormalization", "InstanceNormalization"):
        operands = {"x": x, "s": normal(draw, 4, dtype=kind), "b": normal(draw, 4, dtype=kind)}
        return name, operands, {"num_groups": 2} if name[0] == "G" else {}, 21
    if name == "LRN":
        return (
            name,
            {"x": x},
            {"size": draw.randint(1, 5), "alpha": 0.3, "beta": some(draw, 0.5, 0.6)},
            13,
        )
    if name == "LpNormalization":
        return name, {"x": x}, {"axis": axis, "p": draw.randint(1, 2)}, 22
    if name == "MeanVarianceNormalization":
        return name, {"x": x}, {"axes": draw.choice([[0, 2], [1], [0, 1, 2]])}, 13
    return name, {"x": x}, {"axis": some(draw, 0.8, axis)}, draw.choice([11, 13])


def losses(draw: Draw) -> Node:
    """Losses of classes, with weights and classes left out."""
    name = draw.choice(["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"])
    inner = lengths(draw, draw.randint(0, 2), 2, 4)
    x = normal(draw, 3, 5, *inner)
    source = np.random.default_rng(draw.randrange(2**32))
    operands = {"x": x, "t": source.integers(0, 5, (3, *inner))}
    if draw.random() < 0.5:
        operands["w"] = np.abs(normal(draw, 5))
    given = {
        "reduction": some(draw, 0.8, draw.choice(["none", "mean", "sum"])),
        "ignore_index": some(draw, 0.4, draw.randint(-1, 4)),
    }
    return name, operands, given, 13


def quantization(draw: Draw) -> Node:
    """To narrow numbers and back, by tensor, channel or block."""
    kind = draw.choice(["int8", "uint8", "int16", "uint16"])
    x = normal(draw, 2, 6, 3) * 30
    how = draw.choice(["tensor", "axis", "block"])
    axis = draw.choice([0, 1, 2, -1, -2])
    shape: list[int] = []
    given: dict[str, Any] = {}
    if how == "axis":
        shape, given = [x.shape[axis]], {"axis": axis}
    if how == "block":
        axis, shape, given = 1, [2, 3, 3], {"axis": 1, "block_size": 2}
    scale = np.abs(normal(draw, *shape)) + np.float32(0.1)
    zero = np.asarray(np.abs(normal(draw, *shape, dtype=kind).astype(np.int64)) % 9, kind)
    if draw.random() < 0.5:
        return "QuantizeLinear", {"x": x, "s": scale.astype(np.float32), "z": zero}, given, 21
    return (
        "DequantizeLinear",
        {"x": normal(draw, *x.shape, dtype=kind), "s": scale.astype(np.float32), "z": zero},
        given,
        21,
    )


def recurrent(draw: Draw) -> Node:
    """All three, both directions, sequences of unequal length."""
    name, gates = draw.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden, size, time, batch = 3, 2, draw.choice([1, 4, 40]), 2
    direction = draw.choice(["forward", "reverse", "bidirectional"])
    d = 2 if direction == "bidirectional" else 1
    operands: dict[str, Any] = {
        "x": normal(draw, time, batch, size),
        "w": normal(draw, d, gates * hidden, size),
        "r": normal(draw, d, gates * hidden, hidden),
    }
    operands |= {"b": normal(draw, d, 2 * gates * hidden)} if draw.random() < 0.6 else {"": None}
    if draw.random() < 0.6:
        operands["n"] = np.array([draw.randint(1, time), time], np.int32)
    given = {"hidden_size": hidden, "direction": direction, "clip": some(draw, 0.2, 0.9)}
    if name == "GRU":
        given["linear_before_reset"] = draw.randint(0, 1)
    return f"{name}:{3 if name == 'LSTM' else 2}", operands, given, 14


def products(draw: Draw) -> Node:
    """Products of matrices and of tensors, of whole numbers as well."""
    name = draw.choice(["Gemm", "MatMul", "Einsum", "MatMulInteger", "Det"])
    kind = draw.choice(["float32", "float32", "float64"])
    if name == "Gemm":
        first, second = draw.randint(0, 1), draw.randint(0, 1)
        a, b = normal(draw, 3, 4, dtype=kind), normal(draw, 4, 5, dtype=kind)
        operands = {"a": a.T.copy() if first else a, "b": b.T.copy() if second else b}
        c = draw.choice([None, (5,), (3, 1), (3, 5), ()])
        if c is not None:
            operands["c"] = normal(draw, *c, dtype=kind)
        given = {"alpha": some(draw, 0.5, 0.3), "beta": some(draw, 0.5, 1.7)}
        return name, operands, given | {"transA": first, "transB": second}, 13
    if name == "MatMul":
        kind = draw.choice([kind, "int32", "int64", "uint64"])
        left, right = draw.choice(
            [((3, 4), (4,)), ((4,), (4, 2)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2))]
        )
        return (
            name,
            {"a": normal(draw, *left, dtype=kind), "b": normal(draw, *right, dtype=kind)},
            {},
            13,
        )
    if name == "Einsum":
        kind = draw.choice([kind, kind, "int32", "int64"])
        equation = draw.choice(
            [
                "ij,jk",
                "ij,jk->ki",
                "bij,bjk->bik",
                "bij->bji",
                "ii->i",
                "...ij,...jk->...ik",
                "bij,bij->b",
                "ij->",
            ]
        )
        sizes = {"i": 3, "j": 4, "k": 5, "b": 2, "I": 2}
        terms = equation.split("->")[0].replace("...", "I").split(",")
        if equation == "ii->i":
            sizes["i"] = 3
        operands = {
            f"t{n}": normal(draw, *(sizes[letter] for letter in term), dtype=kind)
            for n, term in enumerate(terms)
        }
        if "int" in kind:  # sums within the type
            operands = {key: (value % 9).astype(kind) for key, value in operands.items()}
        return name, operands, {"equation": equation}, 12
    if name == "Det":
        return name, {"x": normal(draw, *draw.choice([(3, 3), (2, 3, 3)]))}, {}, 22
    a, b = (
        normal(draw, *shape, dtype=draw.choice(["int8", "uint8"])) for shape in ((3, 4), (4, 5))
    )
    operands = {"a": a, "b": b}
    if draw.random() < 0.6:
        operands |= {"az": np.array(3, a.dtype), "bz": np.array(2, b.dtype)}
    return name, operands, {}, 10


def blocks(draw: Draw) -> Node:
    """DeformConv, Col2Im, MaxUnpool, EyeLike, ConvInteger and QLinearConv."""
    name = draw.choice(["DeformConv", "Col2Im", "EyeLike", "ConvInteger", "QLinearConv"])
    if name == "EyeLike":
        kind = draw.choice(["float32", "int32", "float64", "uint8", "bool"])
        to = some(
            draw,
            0.6,
            helper.np_dtype_to_tensor_dtype(np.dtype(draw.choice(["float32", "int64", "float64"]))),
        )
        return (
            name,
            {"x": normal(draw, 3, 5, dtype=kind)},
            {"k": some(draw, 0.6, draw.randint(-3, 3)), "dtype": to},
            22,
        )
    if name == "Col2Im":
        kernel = lengths(draw, 2, 1, 3)
        strides, dilations = lengths(draw, 2, 1, 2), lengths(draw, 2, 1, 2)
        pads = [draw.randint(0, 1) for _ in range(4)]
        image = lengths(draw, 2, 6, 8)
        count = 1
        for n, k, s, d, a, b in zip(
            image, kernel, strides, dilations, pads[:2], pads[2:], strict=True
        ):
            count *= (n + a + b - ((k - 1) * d + 1)) // s + 1
        x = normal(draw, 2, 3 * kernel[0] * kernel[1], count)
        operands = {"x": x, "i": np.array(image), "b": np.array(kernel)}
        return name, operands, {"strides": strides, "dilations": dilations, "pads": pads}, 18
    kernel = lengths(draw, 2, 1, 3)
    given = window(draw, kernel)
    if name == "DeformConv":
        strides, dilations = (given[n] or [1, 1] for n in ("strides", "dilations"))
        pads = given["pads"] or [0] * 4
        groups, shares = draw.choice([1, 2]), draw.choice([1, 2])
        x = normal(draw, 2, 4, *lengths(draw, 2, 7, 9))
        out = [
            (x.shape[2 + i] + pads[i] + pads[2 + i] - ((kernel[i] - 1) * dilations[i] + 1))
            // strides[i]
            + 1
            for i in (0, 1)
        ]
        area = kernel[0] * kernel[1]
        operands = {
            "x": x,
            "w": normal(draw, 2 * groups, 4 // groups, *kernel),
            "o": normal(draw, 2, shares * area * 2, *out),
        }
        operands |= {"b": normal(draw, 2 * groups)} if draw.random() < 0.5 else {"": None}
        if draw.random() < 0.5:
            operands["m"] = np.abs(normal(draw, 2, shares * area, *out))
        given = {
            "strides": strides,
            "dilations": dilations,
            "pads": pads,
            "group": groups,
            "offset_group": shares,
        }
        return name, operands, given, 22
    x = normal(draw, 2, 3, *lengths(draw, 2, 6, 9), dtype="uint8")
    w = normal(draw, 4, 3, *kernel, dtype=draw.choice(["int8", "uint8"]))
    zero = np.array(3, np.uint8)
    if name == "ConvInteger":
        operands = {"x": x, "w": w} | ({"xz": zero} if draw.random() < 0.6 else {})
        return name, operands, given, 10
    scale, wide = (
        np.array(0.05, np.float32),
        np.abs(normal(draw, 4)) * np.float32(0.1) + np.float32(0.01),
    )
    zeros = np.zeros(4, w.dtype)
    operands = {
        "x": x,
        "xs": scale,
        "xz": zero,
        "w": w,
        "ws": wide,
        "wz": zeros,
        "ys": np.array(0.7, np.float32),
        "yz": zero,
    }
    return name, operands, given, 10


FAMILIES: dict[str, Callable[[Draw], Node]] = {
    "attention": attention,
    "blocks": blocks,
    "cast": cast,
    "clip": clip,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "dft": dft,
    "gather": gather,
    "grid_sample": grid_sample,
    "losses": losses,
    "norms": norms,
    "pair": pair,
    "pool": pool,
    "products": products,
    "quantization": quantization,
    "recurrent": recurrent,
    "reduction": reduction,
    "resize": resize,
    "roi_align": roi_align,
    "running": running,
    "scatter": scatter,
    "shape_change": shape_change,
    "single": single,
    "split": split,
}


def variants(family: str, count: int, seed: int = 0) -> Iterator[Case]:
    """``count`` networks of a family."""
    for number in range(count):
        draw = Draw(f"{family} {seed} {number}")
        case = _case(f"{family}-{seed}-{number}", FAMILIES[family](draw), draw)
        yield case


def _case(name: str, node: Node, draw: Draw) -> Case:
    operator, operands, attributes, opset = node
    operator, _, outputs = operator.partition(":")
    arrays = {key: value for key, value in operands.items() if value is not None}
    given = {key: value for key, value in attributes.items() if value is not None}
    names = [key.strip() for key in operands]
    results = [f"y{i}" for i in range(int(outputs or (2 if operator == "TopK" else 1)))]
    made = helper.make_node(operator, names, results, **given)
    fed = list(arrays) if draw.random() < 0.2 else list(arrays)[:1]
    open_sizes = draw.random() < 0.3
    inputs = []
    for key in fed:
        shape: list[Any] = list(arrays[key].shape)
        if open_sizes and key == fed[0]:
            shape = [f"d{i}" if i != 1 else n for i, n in enumerate(shape)]
        inputs.append(helper.make_tensor_value_info(key, _kind(arrays[key]), shape))
    stored = [
        helper.make_tensor(key, _kind(a), a.shape, a.tobytes(), raw=True)
        for key, a in arrays.items()
        if key not in fed
    ]
    y = [
        helper.make_tensor_value_info(r, _output_kind(operator, arrays, given, i), None)
        for i, r in enumerate(results)
    ]
    graph = helper.make_graph([made], "variant", inputs, y, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return Case(f"{name} {operator} {given}", model, {key: arrays[key] for key in fed})


def _kind(array: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def _output_kind(operator: str, arrays: dict[str, Any], given: dict[str, Any], index: int) -> int:
    """The type of an output; most have that of the first operand."""
    if operator in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"):
        return TensorProto.BOOL
    if operator == "Cast":
        return int(given["to"])
    if operator in ("MatMulInteger", "ConvInteger"):
        return TensorProto.INT32
    if operator == "EyeLike" and "dtype" in given:
        return int(given["dtype"])
    if operator == "TopK" and index == 1:
        return TensorProto.INT64
    last = {"OneHot": "values", "QuantizeLinear": "z", "DequantizeLinear": "s"}.get(operator)
    return _kind(arrays[last] if last else next(iter(arrays.values())))
