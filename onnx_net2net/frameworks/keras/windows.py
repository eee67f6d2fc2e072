"""Kernels that slide over the spatial axes: padding, strides, and where the channels stand.

TensorFlow has no convolution with channels first on a CPU; the other backends take both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import keras

from onnx_net2net.frameworks.keras.operation import KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import dtype_of, sizes
from onnx_net2net.frameworks.windows import same_pads

__all__ = [
    "Window",
    "channels_last",
    "extended",
    "padded",
    "positive",
    "taps",
    "to_first",
    "to_last",
    "window",
]

Pads = list[tuple[Any, Any]]


def channels_last() -> bool:
    """Return whether the backend wants the channels behind."""
    return bool(keras.backend.backend() == "tensorflow")


def to_last(x: Any) -> Any:
    """Turn N C ... into N ... C."""
    return ops.moveaxis(x, 1, -1)


def to_first(x: Any) -> Any:
    """Turn N ... C into N C ..."""
    return ops.moveaxis(x, -1, 1)


@dataclass(frozen=True)
class Window:
    """A kernel's size, how it moves, and what is put around the spatial axes."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[Any, Any], ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """Return what a window covers along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def same(self) -> bool:
        """Return whether the padding is what Keras calls "same" at stride 1."""
        if set(self.strides) != {1} or not all(isinstance(n, int) for p in self.pads for n in p):
            return False
        return self.pads == tuple(((s - 1) // 2, (s - 1) - (s - 1) // 2) for s in self.spans)


def window(
    op: KerasOperation, x: Any, kernel: Sequence[int], *, ceil: bool | None = None
) -> Window:
    """Return the window of a convolution of ``x`` (N C ...), with ``ceil`` given of a pooling.

    A pooling counts its stated mode of padding without dilation, as onnxruntime does.
    """
    rank = len(kernel)
    strides = tuple(op.strides(rank))
    dilations = tuple(op.dilations(rank))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    lengths = sizes(x)[2:]
    mode = op.attribute("auto_pad", "NOTSET")
    pools = ceil is not None
    pads: Pads
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = [
            same_pads(length, span, stride, mode == "SAME_LOWER", cuts=pools, positive=positive)
            for length, span, stride in zip(
                lengths, kernel if pools else spans, strides, strict=True
            )
        ]
    elif mode == "VALID":
        pads = [(0, 0)] * rank
    else:
        given = op.pads(rank)
        pads = list(zip(given[:rank], given[rank:], strict=True))
    if ceil:
        pads = [
            (before, after + _overhang(length, before, after, span, stride))
            for length, (before, after), span, stride in zip(
                lengths, pads, spans, strides, strict=True
            )
        ]
    if ceil is not None:
        for length, (before, after), span in zip(lengths, pads, spans, strict=True):
            known = all(isinstance(n, int) for n in (length, before, after))
            if known and length + before + after < span:
                op.refuse("its window is larger than what it slides over")
    return Window(tuple(kernel), strides, dilations, tuple(pads))


def _overhang(length: Any, before: int, after: int, span: int, stride: int) -> Any:
    """Return what must follow so that the last, partial window fits, outside the padding."""
    if stride == 1:
        return 0
    total = length + before + after
    count = -(-(total - span) // stride) + 1
    beyond = (count - 1) * stride >= length + before
    if isinstance(length, int):
        count -= bool(beyond)
        return max((count - 1) * stride + span - total, 0)
    count = count - ops.cast(beyond, "int32")
    return ops.maximum((count - 1) * stride + span - total, 0)


def padded(x: Any, pads: Sequence[tuple[Any, Any]], value: float = 0) -> Any:
    """Pad the spatial axes of ``x`` (N C ...), or cut them where a pad is negative."""
    if all(isinstance(n, int) for pair in pads for n in pair):
        if any(n < 0 for pair in pads for n in pair):
            inner = [slice(max(-a, 0), -max(-b, 0) or None) for a, b in pads]
            x = x[(slice(None), slice(None), *inner)]
            pads = [(max(a, 0), max(b, 0)) for a, b in pads]
        if not any(n for pair in pads for n in pair):
            return x
        return ops.pad(x, [(0, 0), (0, 0), *pads], constant_values=value or None)
    for axis, (before, after) in enumerate(pads, 2):
        index = [slice(None)] * len(x.shape)
        index[axis] = slice(positive(-before), sizes(x)[axis] - positive(-after))
        x = extended(x[tuple(index)], axis, positive(before), positive(after), value)
    return x


def extended(x: Any, axis: int, before: Any, after: Any, value: float = 0) -> Any:
    """Put so many entries of a value before and after those of an axis of ``x``."""
    parts = [x]
    for place, count in ((0, before), (2, after)):
        if not isinstance(count, int) or count:
            shape = sizes(x)
            shape[axis] = count
            parts.insert(place, ops.broadcast_to(ops.cast(value, dtype_of(x)), shape))
    return ops.concatenate(parts, axis=axis) if len(parts) > 1 else x


def positive(count: Any) -> Any:
    """Return the count, or 0 where it is below."""
    return max(count, 0) if isinstance(count, int) else ops.maximum(count, 0)


def taps(x: Any, frame: Window) -> list[Any]:
    """Return a strided view of the padded ``x`` (N C ...) for each place of the kernel in order."""
    lengths = sizes(x)[2:]
    counts = [
        (length - span) // stride + 1
        for length, span, stride in zip(lengths, frame.spans, frame.strides, strict=True)
    ]
    views = []
    for place in product(*(range(k) for k in frame.kernel)):
        index = [
            slice(i * d, i * d + (count - 1) * s + 1, s)
            for i, d, s, count in zip(place, frame.dilations, frame.strides, counts, strict=True)
        ]
        views.append(x[(slice(None), slice(None), *index)])
    return views
