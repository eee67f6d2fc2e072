"""Convolutions. Kernels keep ONNX's layout and are turned when used."""

from __future__ import annotations

import math
from typing import Any

import keras

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import dtype_of, sizes, tensor
from onnx_net2net.frameworks.keras.windows import (
    Window,
    channels_last,
    padded,
    positive,
    taps,
    to_first,
    to_last,
    window,
)
from onnx_net2net.frameworks.windows import transposed_pads

__all__ = ["TABLES", "add_bias", "convolve"]


def conv(op: KerasOperation, x: Any, w: Any, b: Any = None) -> Any:
    """Convolve with any number of spatial axes, groups, strides and dilations."""
    x, w = tensor(x), tensor(w)
    y = convolve(x, w, window(op, x, w.shape[2:]), op.attribute("group", 1))
    return add_bias(y, b)


def add_bias(y: Any, b: Any) -> Any:
    """Add one number a channel (axis 1)."""
    if b is None:
        return y
    return y + ops.reshape(tensor(b), (1, -1, *[1] * (len(y.shape) - 2)))


def convolve(x: Any, w: Any, frame: Window, groups: int = 1) -> Any:
    """Convolve x (N C ...) by w (O I ...)."""
    if not channels_last():
        return _plain(x, w, frame)
    if groups == 1 and (set(frame.strides) == {1} or set(frame.dilations) == {1}):
        return _plain(x, w, frame)
    if w.shape[1] == 1 and _fits_depthwise(frame):
        return _depthwise(x, w, frame, groups)
    return _grouped(x, w, frame, groups)


def _plain(x: Any, w: Any, frame: Window) -> Any:
    """Convolve by the backend; padding is apart where the backend has no word for it."""
    mode = "same" if frame.same else "valid"
    if mode == "valid":
        x = padded(x, frame.pads)
    kernel = ops.transpose(w, (*range(2, len(w.shape)), 1, 0))
    last = channels_last()
    y = ops.conv(
        to_last(x) if last else x,
        kernel,
        strides=frame.strides,
        padding=mode,
        dilation_rate=frame.dilations,
        data_format="channels_last" if last else "channels_first",
    )
    return to_first(y) if last else y


def _fits_depthwise(frame: Window) -> bool:
    """Return whether TensorFlow's kernel does: one stride, and no dilation beside a stride."""
    stride = set(frame.strides)
    dilated = set(frame.dilations) != {1}
    return len(frame.kernel) == 2 and len(stride) == 1 and not (dilated and stride != {1})


def _depthwise(x: Any, w: Any, frame: Window, groups: int) -> Any:
    multiplier = w.shape[0] // groups
    kernel = ops.reshape(w, (groups, multiplier, *frame.kernel))
    y = ops.depthwise_conv(
        to_last(padded(x, frame.pads)),
        ops.transpose(kernel, (2, 3, 0, 1)),
        strides=frame.strides,
        padding="valid",
        dilation_rate=frame.dilations,
        data_format="channels_last",
    )
    return to_first(y)


def _grouped(x: Any, w: Any, frame: Window, groups: int) -> Any:
    """Add up a product of matrices for each place of the kernel.

    TensorFlow has no gradient of grouped convolutions on a CPU, and takes no dilation beside a
    stride.
    """
    views = taps(padded(x, frame.pads), frame)
    out = w.shape[0] // groups
    kernel = ops.reshape(w, (groups, out, w.shape[1], math.prod(frame.kernel)))
    total = None
    for place, view in enumerate(views):
        shape = sizes(view)
        split = ops.reshape(view, (shape[0], groups, w.shape[1], *shape[2:]))
        part = ops.einsum("bgi...,goi->bgo...", split, kernel[..., place])
        total = part if total is None else total + part
    shape = sizes(views[0])
    return ops.reshape(total, (shape[0], w.shape[0], *shape[2:]))


def conv_transpose(op: KerasOperation, x: Any, w: Any, b: Any = None) -> Any:
    """Compute what a convolution's gradient is: every entry spreads the kernel."""
    x, w = tensor(x), tensor(w)
    groups = op.attribute("group", 1)
    rank, kernel = len(w.shape) - 2, tuple(w.shape[2:])
    pads = transposed_pads(op, kernel, lambda axis: sizes(x)[axis + 2], positive)
    frame = Window(kernel, tuple(op.strides(rank)), tuple(op.dilations(rank)), tuple(pads))
    if groups == 1:
        return add_bias(_spread(x, w, frame), b)
    parts = zip(ops.split(x, groups, axis=1), ops.split(w, groups, axis=0), strict=True)
    return add_bias(ops.concatenate([_spread(a, k, frame) for a, k in parts], axis=1), b)


def _spread(x: Any, w: Any, frame: Window) -> Any:
    """Put zeros between the entries, then convolve with the kernel turned round."""
    if set(frame.dilations) != {1} or not channels_last():
        return _by_zeros(x, w, frame)
    if isinstance(x, keras.KerasTensor):
        raise NotImplementedError("Keras confuses the arguments of this operation")
    kernel = ops.transpose(w, (*range(2, len(w.shape)), 1, 0))
    y = ops.conv_transpose(
        to_last(x), kernel, strides=frame.strides, padding="valid", data_format="channels_last"
    )
    # Keras goes on with zeros to a whole number of strides where those exceed the kernel.
    surplus = [max(s - k, 0) for s, k in zip(frame.strides, frame.kernel, strict=True)]
    cut = [(-a, -b - more) for (a, b), more in zip(frame.pads, surplus, strict=True)]
    return padded(to_first(y), cut)


def _by_zeros(x: Any, w: Any, frame: Window) -> Any:
    for axis, stride in enumerate(frame.strides, 2):
        x = _spaced(x, axis, stride)
    around = [(s - 1 - a, s - 1 - b) for s, (a, b) in zip(frame.spans, frame.pads, strict=True)]
    turned = ops.flip(ops.swapaxes(w, 0, 1), tuple(range(2, len(w.shape))))
    ones = (1,) * len(frame.kernel)
    return _plain(x, turned, Window(frame.kernel, ones, frame.dilations, tuple(around)))


def _spaced(x: Any, axis: int, stride: int) -> Any:
    """Put ``stride - 1`` zeros between the entries of one axis."""
    if stride == 1:
        return x
    shape = sizes(x)
    wide = ops.expand_dims(x, axis + 1)
    pads = [(0, 0)] * len(wide.shape)
    pads[axis + 1] = (0, stride - 1)
    shape[axis] = shape[axis] * stride
    y = ops.reshape(ops.pad(wide, pads), shape)
    index: list[Any] = [slice(None)] * len(shape)
    index[axis] = slice(0, shape[axis] - (stride - 1))
    return y[tuple(index)]


def col2im(op: KerasOperation, x: Any, image: Any, block: Any) -> Any:
    """Sum overlapping blocks into an image: a transposed convolution by unit kernels."""
    from onnx_net2net.frameworks.keras.values import ints

    x = tensor(x)
    shape, kernel = ints(image), ints(block)
    if not all(isinstance(n, int) for n in (*shape, *kernel)):
        op.refuse("the size of its output is not known ahead")
    rank, area = len(kernel), math.prod(kernel)
    strides = tuple(op.strides(rank))
    dilations = tuple(op.dilations(rank))
    given = op.pads(rank)
    pads = tuple(zip(given[:rank], given[rank:], strict=True))
    frame = Window(tuple(kernel), strides, dilations, pads)
    counts = [
        (n + a + b - span) // s + 1
        for n, (a, b), span, s in zip(shape, pads, frame.spans, strides, strict=True)
    ]
    batch, rows = sizes(x)[:2]
    channels = rows // area
    blocks = ops.reshape(x, (batch * channels, area, *counts))
    kernels = ops.reshape(ops.eye(area, dtype=dtype_of(x)), (area, 1, *kernel))
    short = [
        n + a - ((c - 1) * s + span)
        for n, (a, _), c, s, span in zip(shape, pads, counts, strides, frame.spans, strict=True)
    ]
    cut = tuple((a, -more) for (a, _), more in zip(pads, short, strict=True))
    y = _by_zeros(blocks, kernels, Window(tuple(kernel), strides, dilations, cut))
    return ops.reshape(y, (batch, channels, *shape))


TABLES: dict[str, dict[str, Entry]] = {
    "": {"Col2Im": col2im, "Conv": conv, "ConvTranspose": conv_transpose},
}
