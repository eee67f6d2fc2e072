"""Fourier transforms, as products with a matrix of sines and cosines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.open_axes import axis_last
from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.movement import cut
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import axis_of, cast, dtype_of, number, sizes, tensor
from onnx_net2net.frameworks.keras.windows import extended, positive

__all__ = ["TABLES"]


def dft(op: KerasOperation, x: Any, length: Any = None, axis: Any = None) -> Any:
    """Transform; real and imaginary parts lie on the last axis, which is 1 for real numbers."""
    x = tensor(x)
    default = -2 if op.opset >= 20 else 1
    along = number(axis, op.attribute("axis", default))
    back = None
    if not isinstance(along, int):  # one of the signal's, so that it can be moved before the last
        x, back = axis_last(op, x, along, before=1)
        along = -2
    place = axis_of(along, x)
    onesided, inverse = bool(op.attribute("onesided", 0)), bool(op.attribute("inverse", 0))
    given = sizes(x)[place]
    half = onesided and inverse
    total = number(length, (given - 1) * 2 if half else given)
    total = total if isinstance(total, int) else ops.cast(total, "int32")
    wanted = total // 2 + 1 if half else total
    if half and length is not None and not (isinstance(wanted, int) and wanted == given):
        op.refuse("its half spectrum is not as long as the signal asks for")
    x = extended(cut(x, place, 0, wanted), place, 0, positive(wanted - given))
    y = _real(x, place, total) if half else transformed(x, place, total, onesided, inverse)
    return y if back is None else back(y)


def transformed(x: Any, axis: int, length: Any, onesided: bool, inverse: bool) -> Any:
    """Transform ``length`` entries along ``axis``."""
    cosine, sine = _waves(length // 2 + 1 if onesided else length, length)
    if inverse:
        count = length if isinstance(length, int) else ops.cast(length, "float64")
        cosine, sine = cosine / count, -sine / count
    moved = ops.moveaxis(x, axis, -2)  # ... n parts
    cosine, sine = (cast(tensor(wave), dtype_of(x)) for wave in (cosine, sine))
    real = ops.matmul(cosine, moved[..., :1])
    imaginary = -ops.matmul(sine, moved[..., :1])
    if moved.shape[-1] == 2:
        real = real + ops.matmul(sine, moved[..., 1:])
        imaginary = imaginary + ops.matmul(cosine, moved[..., 1:])
    return ops.moveaxis(ops.concatenate([real, imaginary], axis=-1), -2, axis)


def _real(x: Any, axis: int, length: Any) -> Any:
    """Return the real signal of ``length`` entries of which ``x`` is half of the spectrum."""
    cosine, sine = _waves(length // 2 + 1, length)
    bins = sizes(x)[axis]
    known = isinstance(length, int)
    place = np.arange(bins) if known else ops.arange(bins)
    xp: Any = np if known else ops
    alone = xp.logical_or(place == 0, place * 2 == length)  # the others stand for two
    weight = xp.where(alone, 1.0, 2.0)
    weight = weight / (length if known else ops.cast(length, dtype_of(weight)))
    weight = weight if known else ops.cast(weight, "float64")
    cosine, sine = (
        cast(tensor(xp.transpose(wave) * weight), dtype_of(x)) for wave in (cosine, sine)
    )
    moved = ops.moveaxis(x, axis, -2)
    y = ops.matmul(cosine, moved[..., :1])
    if moved.shape[-1] == 2:
        y = y - ops.matmul(sine, moved[..., 1:])
    return ops.moveaxis(y, -2, axis)


def _waves(bins: Any, length: Any) -> tuple[Any, Any]:
    """Return cosines and sines (bins, entries), in double precision."""
    if isinstance(length, int):
        angles = np.outer(np.arange(bins), np.arange(length)) % length * (2 * math.pi / length)
        return np.cos(angles), np.sin(angles)
    steps = ops.cast(ops.arange(bins)[:, None] * ops.arange(length) % length, "float64")
    angles = steps * (2 * math.pi / ops.cast(length, "float64"))
    return ops.cos(angles), ops.sin(angles)


def stft(op: KerasOperation, x: Any, step: Any, window: Any = None, length: Any = None) -> Any:
    """Transform each frame of a signal."""
    x = tensor(x)
    x = ops.expand_dims(x, -1) if len(x.shape) == 2 else x
    size: Any = number(length) if length is not None else sizes(window)[0]
    hop, total = number(step), sizes(x)[1]
    size, hop = (n if isinstance(n, int) else ops.cast(n, "int32") for n in (size, hop))
    count = (total - size) // hop + 1
    if all(isinstance(n, int) for n in (size, hop, total)):
        index = ops.convert_to_tensor(np.arange(count)[:, None] * hop + np.arange(size), "int32")
    else:
        index = ops.arange(count)[:, None] * hop + ops.arange(size)
    frames = ops.take(x, index, axis=1)  # batch frame entry part
    if window is not None:
        frames = frames * ops.reshape(tensor(window), (1, 1, -1, 1))
    onesided = bool(op.attribute("onesided", 1)) and x.shape[2] == 1
    return transformed(frames, 2, size, onesided, False)


TABLES: dict[str, dict[str, Entry]] = {"": {"DFT": dft, "STFT": stft}}
