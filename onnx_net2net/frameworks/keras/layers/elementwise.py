"""Pointwise steps, in whatever order the axes of their operands lie, and Dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.operation import KerasOperation, Scope
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.operators.elementwise import POINTWISE
from onnx_net2net.frameworks.keras.sums import is_plain_sum
from onnx_net2net.frameworks.keras.types import typed
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]

Axes = tuple[int, ...]

# Keras' name of an activation, by the attributes that it has then.
ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "HardSigmoid": ("hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "HardSwish": ("hard_silu", {}),
    "Mish": ("mish", {}),
    "Relu": ("relu", {}),
    "Sigmoid": ("sigmoid", {}),
    "Softsign": ("softsign", {}),
    "Swish": ("silu", {"alpha": 1.0}),
    "Tanh": ("tanh", {}),
}
DEFAULTS = {"alpha": 0.2, "beta": 0.5}


def pointwise(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what an operation makes of operands that are turned like the widest of them."""
    given = [build.constant(name) for name in step.inputs if name]
    names = [name for name in step.inputs if name]
    operands = [
        x if x is not None else build.symbolic(n) for x, n in zip(given, names, strict=True)
    ]
    if not any(isinstance(x, Arranged) for x in operands):
        return None
    rank = max(len(x.shape) for x in operands)
    wide = [_widened(x, rank) for x in operands]
    axes = _common([x for x in wide if isinstance(x, Arranged)], wide)
    values = [_turned(x, axes) for x in wide]
    results = _layered(build, step, values) or _operated(build, step, values)
    return [Arranged(value, axes[len(axes) - len(value.shape) :], rank) for value in results]


def _widened(x: Any, rank: int) -> Any:
    return x.widened(rank) if isinstance(x, Arranged) else x


def _common(tensors: list[Arranged], operands: list[Any]) -> Axes:
    """Return the order of axes that the result has: all that one operand has, if not of size 1."""
    rank = tensors[0].rank
    needed = {axis for x in tensors for axis in x.axes if x.size(axis) != 1}
    for x in operands:
        if isinstance(x, np.ndarray):
            needed |= {rank - x.ndim + axis for axis, size in enumerate(x.shape) if size != 1}
    plain = tuple(range(rank))
    orders = sorted({x.axes for x in tensors}, key=lambda a: (a == plain, -len(a)))
    fitting = [axes for axes in orders if needed <= set(axes)]
    return fitting[0] if fitting else plain


def _turned(x: Any, axes: Axes) -> Any:
    """Return an operand with its axes in that order; what is of size 1 in front may be left out."""
    if isinstance(x, Arranged):
        start = next((i for i, axis in enumerate(axes) if x.size(axis) != 1), len(axes))
        first = next((i for i, axis in enumerate(axes) if axis in x.axes), len(axes))
        return x.stored(axes[min(start, first) :])
    rank = max(axes, default=-1) + 1
    rank = max(rank, x.ndim)
    full = x.reshape((1,) * (rank - x.ndim) + x.shape)
    turned = full.transpose((*axes, *(a for a in range(rank) if a not in axes)))
    turned = turned.reshape([full.shape[axis] for axis in axes])
    while turned.ndim > x.ndim and turned.shape[0] == 1:
        turned = turned[0]
    return turned


def _operated(build: Builder, step: ProgramStep, values: list[Any]) -> list[Any]:
    """Return what the operator's translation makes."""
    op = KerasOperation(step, build, Scope({}))  # type: ignore[arg-type]
    operands = iter(values)
    places = [next(operands) if name else None for name in step.inputs]
    results = translations()[step.domain, step.op](op, *places)
    results = list(results) if isinstance(results, list | tuple) else [results]
    return typed(step, places, results)


def _layered(build: Builder, step: ProgramStep, values: list[Any]) -> list[Any] | None:
    """Return what a layer makes, None where none is better known than the operation."""
    kind = dtype_of(values[0])
    make = LAYERS.get(step.op)
    if make is None or kind not in ("float16", "bfloat16", "float32", "float64"):
        return None
    made = make(build, step, values, kind)
    return None if made is None else [made]


def _activated(build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    name, wanted = ACTIVATIONS[step.op]
    for key, value in wanted.items():
        default = 1.0 if step.op == "Swish" else DEFAULTS[key]
        if abs(step.attributes.get(key, default) - value) > 1e-6:
            return None
    if step.op == "Relu":
        return layers.ReLU(dtype=kind, name=build.layer_name(step))(values[0])
    return layers.Activation(name, dtype=kind, name=build.layer_name(step))(values[0])


def _leaky(build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    slope = step.attributes.get("alpha", 0.01)
    return layers.LeakyReLU(slope, dtype=kind, name=build.layer_name(step))(values[0])


def _gelu(build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    if step.attributes.get("approximate", "none") != "none":
        return None
    return layers.Activation("gelu", dtype=kind, name=build.layer_name(step))(values[0])


def _clip(build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    bounds = [step.attributes.get("min"), step.attributes.get("max")]
    given = iter(values[1:])
    for place, name in enumerate(step.inputs[1:]):
        bounds[place] = next(given) if name else None
    low, high = bounds
    numbers = all(x is None or np.size(x) == 1 for x in bounds if not _symbolic_value(x))
    if low is None or any(map(_symbolic_value, bounds)) or not numbers or float(low) != 0:
        return None
    limit = None if high is None else float(high)
    if limit is not None and not (np.isfinite(limit) and limit >= 0):
        return None
    return layers.ReLU(limit, dtype=kind, name=build.layer_name(step))(values[0])


def _symbolic_value(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def _summed(build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    return _merged(layers.Add, build, step, values, kind)


def _multiplied(build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    return _merged(layers.Multiply, build, step, values, kind)


def _merged(merge: Any, build: Builder, step: ProgramStep, values: list[Any], kind: str) -> Any:
    """Merge tensors of one shape, which no broadcasting can confuse, and which is no scalar's."""
    if len(values) < 2 or not all(map(_symbolic_value, values)):
        return None
    first, *others = values
    same = all(x.shape == first.shape and dtype_of(x) == kind for x in others)
    if not first.shape or not same or not all(is_plain_sum(first, x) for x in others):
        return None
    return merge(dtype=kind, name=build.layer_name(step))(values)


LAYERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(ACTIVATIONS, _activated),
    "Add": _summed,
    "Clip": _clip,
    "Gelu": _gelu,
    "LeakyRelu": _leaky,
    "Mul": _multiplied,
    "Sum": _summed,
}


def prelu(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what PReLU makes, whose slopes may be one for several positions."""
    x, slope = build.symbolic(step.inputs[0]), build.sole(step.inputs[1])
    kind = dtype_of(x.value)
    if slope is None or slope.dtype != kind or len(slope.shape) > x.rank or x.axes[:1] != (0,):
        return pointwise(build, step)
    wide = (1,) * (x.rank - len(slope.shape)) + slope.shape
    left = [axis for axis in range(x.rank) if axis not in x.axes[1:]]
    shape = [wide[axis] for axis in x.axes[1:]]
    sizes = [x.size(axis) for axis in x.axes[1:]]
    if any(wide[axis] != 1 for axis in left) or not shape:
        return pointwise(build, step)
    if any(n not in (1, size) for n, size in zip(shape, sizes, strict=True)):
        return pointwise(build, step)
    shared = [place for place, n in enumerate(shape, 1) if n == 1]
    layer = layers.PReLU(shared_axes=shared, dtype=kind, name=build.layer_name(step, slope))
    y = layer(x.value)
    held = slope.reshaped(*wide).permuted(*left, *x.axes[1:]).reshaped(*shape)
    build.hold(layer.alpha, held)
    return [Arranged(y, x.axes, x.rank)]


def dropout(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what Dropout makes, which does nothing in inference."""
    x, ratio = build.symbolic(step.inputs[0]), step.attributes.get("ratio", 0.5)
    for place, name in enumerate(step.inputs[1:]):
        value = build.constant(name) if name else None
        if name and value is None:
            return None
        if not place and value is not None:
            ratio = float(value)
    if any(step.outputs[1:]) or not 0 <= ratio < 1 or "float" not in dtype_of(x.value):
        return None
    if step.opset < 7 and not step.attributes.get("is_test", 0):
        return None
    layer = layers.Dropout(ratio, dtype=dtype_of(x.value), name=build.layer_name(step))
    return [Arranged(layer(x.value), x.axes, x.rank)]


def softmax(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what Softmax makes along one axis."""
    x = build.symbolic(step.inputs[0])
    axis = step.attributes.get("axis", 1 if step.opset < 13 else -1) % x.rank
    if (step.opset < 13 and axis != x.rank - 1) or axis not in x.axes:
        return None
    place = x.axes.index(axis)
    place = -1 if place == len(x.axes) - 1 else place
    layer = layers.Softmax(place, dtype=dtype_of(x.value), name=build.layer_name(step))
    return [Arranged(layer(x.value), x.axes, x.rank)]


TABLES: dict[str, dict[str, Maker]] = {
    "": {
        **{op: pointwise for op in POINTWISE if op != "CastLike"},
        "Dropout": dropout,
        "PRelu": prelu,
        "Softmax": softmax,
    }
}
