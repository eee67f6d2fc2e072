"""Convolutions with the channels last; a layer in front pads where Keras has no word for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from onnx_net2net.frameworks.keras.arranged import Arranged, channels_last
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.moved import Moved
from onnx_net2net.frameworks.keras.values import policy_of
from onnx_net2net.frameworks.operation import Operation
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.frameworks.windows import transposed_pads

__all__ = ["TABLES", "Pads", "padded", "stated_pads"]

Pads = list[tuple[int, int]]


def stated_pads(op: Operation, spans: list[int], strides: list[int]) -> Pads | str | None:
    """Return what is put around each axis, "same" for Keras' own rule, None for none of its."""
    rank, mode = len(spans), op.attribute("auto_pad", "NOTSET")
    if mode == "SAME_UPPER":
        op.attribute("pads")
        return "same"
    if mode == "SAME_LOWER":
        return None
    given = [0] * (2 * rank) if mode == "VALID" else op.pads(rank)
    pads = list(zip(given[:rank], given[rank:], strict=True))
    if set(strides) == {1} and pads == [((s - 1) // 2, s // 2) for s in spans]:
        return "same"
    return None if any(n < 0 for pair in pads for n in pair) else pads


def padded(x: Any, pads: Pads) -> Any:
    """Return a tensor with zeros around its spatial axes, the channels last."""
    if not any(n for pair in pads for n in pair):
        return x
    kind = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)[len(pads) - 1]
    around: Any = pads[0] if len(pads) == 1 else tuple(pads)
    if len(pads) > 1:
        return kind(around, data_format="channels_last", dtype=policy_of(x))(x)
    return kind(around, dtype=policy_of(x))(x)


def _weights(build: Builder, step: ProgramStep) -> tuple[Moved, Moved | None] | None:
    """Return kernel and bias, None where a layer cannot hold them."""
    kernel, name = build.sole(step.inputs[1]), (*step.inputs, "")[2]
    bias = build.sole(name)
    lacks = name and bias is None and not _is_zero(build, name)
    if lacks or kernel is None or len(kernel.shape) not in (3, 4, 5):
        return None
    return kernel, bias


def _is_zero(build: Builder, name: str) -> bool:
    """Return whether a bias is a constant that does nothing."""
    value = build.constant(name)
    return value is not None and not np.any(value)


def conv(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what a convolution makes: plain, in groups, or of each channel by itself."""
    held = _weights(build, step)
    if held is None:
        return None
    (kernel, bias), op = held, Operation(step)
    size, rank = list(kernel.shape[2:]), len(kernel.shape) - 2
    strides, dilations, groups = op.strides(rank), op.dilations(rank), op.attribute("group", 1)
    op.attribute("kernel_shape")
    if set(strides) != {1} and set(dilations) != {1}:
        return None
    pads = stated_pads(op, [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)], strides)
    if pads is None:
        return None
    outputs, inputs = kernel.shape[:2]
    options: dict[str, Any] = {
        "strides": strides, "dilation_rate": dilations, "use_bias": bias is not None,
        "padding": "same" if pads == "same" else "valid", "data_format": "channels_last",
    }  # fmt: skip
    spatial = range(2, rank + 2)
    single = groups > 1 and inputs == 1 and rank < 3 and len(set(strides)) == 1
    if single:
        options |= {"depth_multiplier": outputs // groups, "kernel_size": size}
        kind: Any = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)[rank - 1]
        turned = kernel.reshaped(groups, outputs // groups, *size)
        turned = turned.permuted(*spatial, 0, 1)
    else:
        options |= {"filters": outputs, "kernel_size": size, "groups": groups}
        kind = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
        turned = kernel.permuted(*spatial, 1, 0)
    return _called(build, step, kind, options, pads, (turned, bias, kernel))


def _called(
    build: Builder, step: ProgramStep, kind: Any, options: dict[str, Any], pads: Any, weights: Any
) -> list[Any]:
    """Call a layer with the channels last, and note what it holds."""
    turned, bias, kernel = weights
    x = build.symbolic(step.inputs[0])
    axes = channels_last(x.rank)
    value = x.stored(axes)
    value = value if pads == "same" else padded(value, pads)
    layer = kind(**options, dtype=kernel.dtype, name=build.layer_name(step, kernel))
    y = layer(value)
    build.hold(layer.kernel, turned)
    if bias is not None:
        build.hold(layer.bias, bias)
    return [Arranged(y, axes, x.rank)]


def conv_transpose(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what a transposed convolution makes, cut behind it."""
    held = _weights(build, step)
    if held is None:
        return None
    (kernel, bias), op = held, Operation(step)
    size, rank = kernel.shape[2:], len(kernel.shape) - 2
    strides = op.strides(rank)
    op.attribute("kernel_shape")
    if op.attribute("group", 1) != 1 or set(op.dilations(rank)) != {1} or rank > 3:
        return None
    x = build.symbolic(step.inputs[0])
    cut = transposed_pads(op, size, lambda axis: x.shape[axis + 2])
    # Keras goes on with zeros to a whole number of strides where those exceed the kernel.
    more = [max(s - k, 0) for s, k in zip(strides, size, strict=True)]
    cut = [(a, b + m) for (a, b), m in zip(cut, more, strict=True)]
    if any(n < 0 for pair in cut for n in pair):
        return None
    options = {
        "filters": kernel.shape[1], "kernel_size": size, "strides": strides,
        "use_bias": bias is not None, "data_format": "channels_last",
    }  # fmt: skip
    kind = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)[rank - 1]
    turned = kernel.permuted(*range(2, rank + 2), 1, 0)
    (y,) = _called(build, step, kind, options, [(0, 0)] * rank, (turned, bias, kernel))
    if any(n for pair in cut for n in pair):
        crop = (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)[rank - 1]
        around: Any = cut[0] if rank == 1 else tuple(cut)
        form = {} if rank == 1 else {"data_format": "channels_last"}
        y = Arranged(crop(around, dtype=policy_of(y.value), **form)(y.value), y.axes, y.rank)
    return [y]


TABLES: dict[str, dict[str, Maker]] = {"": {"Conv": conv, "ConvTranspose": conv_transpose}}
