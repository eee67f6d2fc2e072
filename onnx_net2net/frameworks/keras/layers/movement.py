"""Steps that move elements: most of them are only said of a tensor, and nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from keras import layers, ops

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.frameworks.keras.arranged import Arranged, reshaped
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]


def transpose(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return the same tensor with other names for its axes."""
    x = build.symbolic(step.inputs[0])
    return [x.permuted(step.attributes.get("perm", [*range(x.rank)][::-1]))]


def identity(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what is given."""
    value = build.operand(step.inputs[0])
    return [value] if isinstance(value, Arranged) else None


def concat(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return tensors joined along an axis, all turned like the first."""
    if any(build.constant(name) is not None for name in step.inputs):
        return None
    parts = [build.symbolic(name) for name in step.inputs]
    first = max(parts, key=lambda x: (x.axes != tuple(range(x.rank)), len(x.axes)))
    axis = step.attributes.get("axis", 1) % first.rank
    axes = first.axes if axis in first.axes else tuple(range(first.rank))
    values = [x.stored(axes) for x in parts]
    if len(values) < 2:
        return [parts[0]]
    layer = layers.Concatenate(axes.index(axis), dtype=values[0].dtype, name=build.layer_name(step))
    return [Arranged(layer(values), axes, first.rank)]


def reshape(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return a tensor in the shape that the graph is known to give it."""
    for name in ("allowzero", "shape", "axis"):
        step.attributes.get(name)
    x = build.symbolic(step.inputs[0])
    own, wanted = build.sizes(step.inputs[0]), build.sizes(step.output)
    if own is None or wanted is None or len(own) != x.rank:
        return None
    if x.folded is not None:
        tensor, before = x.folded
        if tensor.rank == len(wanted) and all(map(_same, before, wanted[:-1])):
            return [tensor]
    y = _reshaped(x, own, wanted)
    for kept in range(len(own) - 1, 1, -1):
        tail = own[kept:]
        if len(wanted) == 2 and all(isinstance(n, int) for n in tail) and prod(tail) == wanted[1]:
            y.folded = (_reshaped(x, own, (*own[:kept], wanted[1])), own[:kept])
            break
    return [y]


def _reshaped(x: Arranged, own: Sequence[AnySize], wanted: Sequence[AnySize]) -> Arranged:
    """Reshape; leading axes that stay what they are may lie in any order."""
    for kept in range(min(len(own), len(wanted)), 0, -1):
        front, behind = x.axes[:kept], x.axes[kept:]
        same = all(map(_same, own[:kept], wanted[:kept]))
        ordered = sorted(front) == list(range(kept)) and list(behind) == sorted(behind)
        if same and ordered and front != tuple(range(kept)):
            axes = (*front, *range(kept, len(wanted)))
            return _formed(x, [own[a] for a in x.axes], [wanted[a] for a in axes], axes, wanted)
    long = [axis for axis in x.axes if x.size(axis) != 1]
    if long != sorted(long):
        x = Arranged.plain(x.stored())
    return _formed(x, [own[a] for a in x.axes], list(wanted), tuple(range(len(wanted))), wanted)


def _formed(
    x: Arranged, own: list[AnySize], shape: list[AnySize], axes: Any, wanted: Sequence[AnySize]
) -> Arranged:
    keeps = bool(own) and bool(shape) and _same(own[0], shape[0])
    sizes = [size if isinstance(size, int) else None for size in shape]
    if keeps and x.value.shape[0] is not None:
        sizes[0] = x.value.shape[0]
    return Arranged(reshaped(x.value, sizes, keeps), axes, len(wanted))


def _same(own: AnySize, wanted: AnySize) -> bool:
    """Return whether two sizes are the same whatever open ones are."""
    if isinstance(own, int) and isinstance(wanted, int):
        return own == wanted
    return type(own) is type(wanted) and own == wanted


def unsqueeze(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return the same tensor with more axes of size 1."""
    axes = _axes(build, step)
    x = build.symbolic(step.inputs[0])
    if axes is None:
        return None
    rank = x.rank + len(axes)
    return [x.unsqueezed([axis % rank for axis in axes])]


def squeeze(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return a tensor without axes that are known to be of size 1."""
    axes = _axes(build, step)
    x = build.symbolic(step.inputs[0])
    if axes is None:
        return None
    chosen = [axis % x.rank for axis in axes]
    return [x.squeezed(chosen)] if all(x.size(axis) == 1 for axis in chosen) else None


def expand(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return a tensor repeated as far as the graph is known to want it."""
    x = build.symbolic(step.inputs[0])
    wanted = build.sizes(step.output)
    if wanted is None:
        return None
    x = x.widened(len(wanted))
    grown = [axis for axis, size in enumerate(wanted) if size != 1 and x.size(axis) == 1]
    value = x.stored()
    if not grown:
        return [x]
    zeros = build.spread(wanted, grown)
    kind = dtype_of(value)
    if kind == "bool":
        return [Arranged.plain(ops.logical_or(value, ops.cast(zeros, kind)))]
    zeros = zeros.astype(kind) if isinstance(zeros, np.ndarray) else ops.cast(zeros, kind)
    return [Arranged.plain(ops.subtract(value, zeros))]


def span(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return 0, 1, 2, ... up to the size of an axis."""
    first, step_size = (build.constant(step.inputs[at]) for at in (0, 2))
    sizes, kind = build.sizes(step.output), build.program.dtype(step.output)
    if first is None or step_size is None or sizes is None or kind is None:
        return None
    if first != 0 or step_size != 1 or isinstance(sizes[0], int):
        return None
    rows = ops.cumsum(ops.add(build.along(str(sizes[0])), 1))
    return [Arranged.plain(ops.cast(ops.subtract(rows, 1), type_name(kind)))]


def filled(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return a tensor of one number, of sizes that inputs have."""
    value = step.attributes.get("value", np.zeros(1, np.float32)).reshape(())
    wanted = build.sizes(step.output)
    if not wanted or all(isinstance(size, int) for size in wanted):
        return None
    kind = value.dtype.name
    zeros = ops.cast(build.spread(wanted, range(len(wanted))), kind)
    if kind == "bool":
        return [Arranged.plain(ops.logical_or(zeros, value))]
    return [Arranged.plain(ops.add(zeros, value) if value else zeros)]


def _axes(build: Builder, step: ProgramStep) -> list[int] | None:
    axes = step.attributes.get("axes")
    if len(step.inputs) > 1 and step.inputs[1]:
        given = build.constant(step.inputs[1])
        axes = None if given is None else given.reshape(-1).tolist()
    return None if axes is None else list(axes)


TABLES: dict[str, dict[str, Maker]] = {
    "": {
        "Concat": concat,
        "ConstantOfShape": filled,
        "Expand": expand,
        "Flatten": reshape,
        "Identity": identity,
        "Range": span,
        "Reshape": reshape,
        "Squeeze": squeeze,
        "Transpose": transpose,
        "Unsqueeze": unsqueeze,
    }
}
