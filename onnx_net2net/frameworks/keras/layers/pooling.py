"""Poolings with the channels last, and means over all that is no channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from onnx_net2net.frameworks.keras.arranged import Arranged, channels_last
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.layers.convolution import padded, stated_pads
from onnx_net2net.frameworks.keras.values import dtype_of, policy_of
from onnx_net2net.frameworks.operation import Operation
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES", "over_space"]

MAXIMA = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
MEANS = (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
ALL_MAXIMA = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
ALL_MEANS = (
    layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D,
)  # fmt: skip


def _window(build: Builder, step: ProgramStep) -> tuple[Operation, Any, list[int], Any] | None:
    """Return the operands of a pooling that Keras has."""
    op = Operation(step)
    size = list(op.attribute("kernel_shape"))
    rank = len(size)
    x = build.symbolic(step.inputs[0])
    plain = set(op.dilations(rank)) == {1} and not op.attribute("ceil_mode", 0) and rank <= 3
    if not plain or any(step.outputs[1:]) or "float" not in dtype_of(x.value):
        return None
    strides = op.strides(rank)
    return op, x, strides, stated_pads(op, size, strides)


def max_pool(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return the largest of each window; zeros may stand around what is never below."""
    frame = _window(build, step)
    if frame is None:
        return None
    op, x, strides, pads = frame
    op.attribute("storage_order")  # of indices, which nobody reads
    if pads is None or (pads != "same" and any(map(any, pads)) and not _positive(build, step)):
        return None
    return _pooled(MAXIMA, step, x, strides, pads)


def _positive(build: Builder, step: ProgramStep) -> bool:
    """Return whether what a step reads is never below zero."""
    before = build.program.graph.producer.get(step.inputs[0])
    return before is not None and before.op in ("Relu", "Sigmoid") and not before.domain


def average_pool(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return the mean of each window; zeros around count where the file says so."""
    frame = _window(build, step)
    if frame is None:
        return None
    op, x, strides, pads = frame
    counted = op.attribute("count_include_pad", 0)
    mode = op.attribute("auto_pad", "NOTSET")
    if pads == "same" and counted:
        size, given = list(op.attribute("kernel_shape")), op.pads(len(strides))
        if mode == "SAME_UPPER":
            return None
        pads = list(zip(given[: len(size)], given[len(size) :], strict=True))
    if pads is None or (pads != "same" and any(map(any, pads)) and not counted):
        return None
    return _pooled(MEANS, step, x, strides, pads)


def _pooled(kinds: Any, step: ProgramStep, x: Arranged, strides: list[int], pads: Any) -> list[Any]:
    size = list(step.attributes["kernel_shape"])
    axes = channels_last(x.rank)
    value = x.stored(axes)
    value = value if pads == "same" else padded(value, pads)
    one = len(size) == 1
    layer = kinds[len(size) - 1](
        size[0] if one else size,
        strides=strides[0] if one else strides,
        padding="same" if pads == "same" else "valid",
        data_format="channels_last",
        dtype=policy_of(value),
    )
    return [Arranged(layer(value), axes, x.rank)]


def over_space(build: Builder, name: str, kinds: Any, axes: Sequence[int] = ()) -> Arranged | None:
    """Return what a global pooling makes over ``axes``, by default all but the first two.

    They have size 1 then, and are left out.
    """
    x = build.symbolic(name)
    if not 3 <= x.rank <= 5 or "float" not in dtype_of(x.value) or 0 in x.shape:
        return None
    if len(x.axes) < x.rank:
        x = Arranged.plain(x.stored())
    places = sorted(x.axes.index(axis) for axis in axes or range(2, x.rank))
    forms = {1: "channels_last", 2: "channels_first"}
    if places[0] not in forms or places != list(range(places[0], places[0] + x.rank - 2)):
        return None
    y = kinds[x.rank - 3](data_format=forms[places[0]], dtype=policy_of(x.value))(x.value)
    return Arranged(y, tuple(a for i, a in enumerate(x.axes) if i not in places), x.rank)


def _over_all(kinds: Any) -> Maker:
    def maker(build: Builder, step: ProgramStep) -> list[Any] | None:
        y = over_space(build, step.inputs[0], kinds)
        return None if y is None else [y]

    return maker


TABLES: dict[str, dict[str, Maker]] = {
    "": {
        "AveragePool": average_pool,
        "GlobalAveragePool": _over_all(ALL_MEANS),
        "GlobalMaxPool": _over_all(ALL_MAXIMA),
        "MaxPool": max_pool,
    }
}
