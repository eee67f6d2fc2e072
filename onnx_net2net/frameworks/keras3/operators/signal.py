"""Fourier transforms, as products with a matrix of sines and cosines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from onnx_net2net.frameworks.keras3.operators.movement import cut
from onnx_net2net.frameworks.keras3.trace import Call, Entry
from onnx_net2net.frameworks.keras3.values import axis_of, dtype_of, number, sizes, tensor

__all__ = ["TABLES"]


def dft(call: Call, x: Any, length: Any = None, axis: Any = None) -> Any:
    """Real and imaginary parts lie on the last axis, which real numbers have with size 1."""
    x = tensor(x)
    default = -2 if call.opset >= 20 else 1
    place = axis_of(int(number(axis, call.attribute("axis", default))), x)
    size = sizes(x)[place]
    wanted = number(length, size)
    onesided, inverse = call.attribute("onesided", 0), call.attribute("inverse", 0)
    if onesided and inverse:
        call.refuse("the inverse of half a spectrum")
    if not isinstance(wanted, int) or not isinstance(size, int):
        call.refuse("a transform of unknown length")
    if wanted < size:
        x = cut(x, place, 0, wanted)
    elif wanted > size:
        pads = [(0, 0)] * len(x.shape)
        pads[place] = (0, wanted - size)
        x = ops.pad(x, pads)
    return transformed(x, place, wanted, bool(onesided), bool(inverse))


def transformed(x: Any, axis: int, length: int, onesided: bool, inverse: bool) -> Any:
    """The transform of ``length`` entries along ``axis``."""
    bins = length // 2 + 1 if onesided else length
    steps = np.outer(np.arange(bins), np.arange(length)) % length
    angles = steps * (2 * math.pi / length) * (1 if inverse else -1)
    scale = 1 / length if inverse else 1.0
    kind = dtype_of(x)
    cosine, sine = (tensor((f(angles) * scale).astype(np.float64), kind) for f in (np.cos, np.sin))
    moved = ops.moveaxis(x, axis, -2)  # ... n parts
    real = ops.matmul(cosine, moved[..., :1])
    imaginary = ops.matmul(sine, moved[..., :1])
    if moved.shape[-1] == 2:
        real = real - ops.matmul(sine, moved[..., 1:])
        imaginary = imaginary + ops.matmul(cosine, moved[..., 1:])
    return ops.moveaxis(ops.concatenate([real, imaginary], axis=-1), -2, axis)


def stft(call: Call, x: Any, step: Any, window: Any = None, length: Any = None) -> Any:
    """A transform of each frame of a signal."""
    x = tensor(x)
    x = ops.expand_dims(x, -1) if len(x.shape) == 2 else x
    size: Any = number(length) if length is not None else None
    if length is None and window is not None:
        size = window.shape[0]
    hop, total = number(step), sizes(x)[1]
    if not all(isinstance(n, int) for n in (size, hop, total)):
        call.refuse("frames of unknown length or number")
    count = (total - size) // hop + 1
    starts = np.arange(count) * hop
    index = starts[:, None] + np.arange(size)
    frames = ops.take(x, ops.convert_to_tensor(index, "int32"), axis=1)  # batch frame entry part
    if window is not None:
        frames = frames * ops.reshape(tensor(window), (1, 1, -1, 1))
    onesided = bool(call.attribute("onesided", 1)) and x.shape[2] == 1
    return transformed(frames, 2, size, onesided, False)


TABLES: dict[str, dict[str, Entry]] = {"": {"DFT": dft, "STFT": stft}}
