"""Normalisations and softmax. BatchNormalization follows ``training=``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import axis_of, cast, dtype_of, product, sizes, tensor

__all__ = ["TABLES"]


def by_channel(vector: Any, x: Any) -> Any:
    """Return a vector along axis 1 of ``x``."""
    return ops.reshape(tensor(vector), (1, -1, *[1] * (len(x.shape) - 2)))


def batch_norm(
    op: KerasOperation, x: Any, scale: Any, bias: Any, mean: Any, variance: Any
) -> list[Any]:
    """Normalise by the running statistics, in training by those of the batch.

    What a layer of Keras cannot be (layers/normalisation.py) has no statistics to move.
    """
    x = tensor(x)
    forced = op.opset >= 14 and op.attribute("training_mode", 0)
    if op.opset < 9 and not op.attribute("spatial", 1):
        op.refuse("statistics for each pixel (spatial=0) are not translated")
    epsilon, momentum = op.attribute("epsilon", 1e-5), op.attribute("momentum", 0.9)
    if not (op.training or forced):
        return [_normalised(x, by_channel(mean, x), by_channel(variance, x), scale, bias, epsilon)]
    axes = [axis for axis in range(len(x.shape)) if axis != 1]
    wide = _single(x)
    now = ops.mean(wide, axis=axes, keepdims=True)
    spread = ops.mean(ops.square(wide - now), axis=axes, keepdims=True)
    y = _normalised(x, cast(now, dtype_of(x)), cast(spread, dtype_of(x)), scale, bias, epsilon)
    moved = []
    for old, new in ((tensor(mean), now), (tensor(variance), spread)):
        towards = cast(ops.reshape(new, (-1,)), dtype_of(old))
        moved.append(old * momentum + ops.stop_gradient(towards) * (1 - momentum))
    return [y, *moved]


def _single(x: Any) -> Any:
    """Cast half precision to float32: sums in it lose too much."""
    return ops.cast(x, "float32") if dtype_of(x) in ("float16", "bfloat16") else x


def _normalised(x: Any, mean: Any, variance: Any, scale: Any, bias: Any, epsilon: float) -> Any:
    factor = by_channel(scale, x) * ops.rsqrt(variance + ops.cast(epsilon, dtype_of(variance)))
    return x * cast(factor, dtype_of(x)) + (by_channel(bias, x) - cast(mean * factor, dtype_of(x)))


def standardised(x: Any, axes: Sequence[int], epsilon: float) -> tuple[Any, Any, Any]:
    """Make mean 0 and variance 1 over axes; return also the mean and the inverse deviation."""
    wide = _single(x)
    mean = ops.mean(wide, axis=axes, keepdims=True)
    centred = wide - mean
    variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
    inverse = ops.rsqrt(variance + ops.cast(epsilon, dtype_of(variance)))
    return cast(centred * inverse, dtype_of(x)), mean, inverse


def layer_normalization(op: KerasOperation, x: Any, scale: Any, bias: Any = None) -> list[Any]:
    """Normalise from an axis on; return also the mean and the inverse deviation."""
    x = tensor(x)
    axes = list(range(axis_of(op.attribute("axis", -1), x), len(x.shape)))
    y, *statistics = standardised(x, axes, op.attribute("epsilon", 1e-5))
    y = y if scale is None else y * tensor(scale)
    y = y if bias is None else y + tensor(bias)
    return [y, *(cast(value, "float32") for value in statistics)]


def rms_normalization(op: KerasOperation, x: Any, scale: Any = None) -> Any:
    """Divide by the root of the mean square from an axis on."""
    x = tensor(x)
    axes = list(range(axis_of(op.attribute("axis", -1), x), len(x.shape)))
    wide = _single(x)
    square = ops.mean(ops.square(wide), axis=axes, keepdims=True)
    epsilon = ops.cast(op.attribute("epsilon", 1e-5), dtype_of(square))
    y = cast(wide * ops.rsqrt(square + epsilon), dtype_of(x))
    return y if scale is None else y * tensor(scale)


def instance_norm(op: KerasOperation, x: Any, scale: Any, bias: Any) -> Any:
    """Normalise each channel by itself."""
    x = tensor(x)
    axes = range(2, len(x.shape))
    y = standardised(x, list(axes), op.attribute("epsilon", 1e-5))[0]
    return y * by_channel(scale, x) + by_channel(bias, x)


def group_norm(op: KerasOperation, x: Any, scale: Any, bias: Any) -> Any:
    """Normalise groups of channels; before opset 21, scale and bias are one number a group."""
    x = tensor(x)
    shape = sizes(x)
    groups = op.attribute("num_groups")
    split = ops.reshape(x, (shape[0], groups, shape[1] // groups, *shape[2:]))
    axes = list(range(2, len(split.shape)))
    y = standardised(split, axes, op.attribute("epsilon", 1e-5))[0]
    if op.opset < 21:
        return ops.reshape(y * by_channel(scale, y) + by_channel(bias, y), shape)
    y = ops.reshape(y, shape)
    return y * by_channel(scale, x) + by_channel(bias, x)


def response_norm(op: KerasOperation, x: Any) -> Any:
    """Divide by the squares of neighbouring channels (LRN)."""
    x = tensor(x)
    size = op.attribute("size")
    before = (size - 1) // 2
    pads = [(0, 0)] * len(x.shape)
    pads[1] = (before, size - 1 - before)
    squares = ops.pad(ops.square(x), pads)
    channels = x.shape[1]
    total = sum(squares[:, i : i + channels] for i in range(size))
    base = total * (op.attribute("alpha", 1e-4) / size) + op.attribute("bias", 1.0)
    return x / ops.power(base, op.attribute("beta", 0.75))


def lp_norm(op: KerasOperation, x: Any) -> Any:
    """Divide by the length along an axis."""
    x = tensor(x)
    axis = op.attribute("axis", -1)
    if op.attribute("p", 2) == 1:
        length = ops.sum(ops.abs(x), axis=axis, keepdims=True)
    else:
        length = ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=True))
    empty = ops.equal(length, 0)
    return ops.where(empty, ops.zeros_like(x), x / ops.where(empty, ops.ones_like(length), length))


def mean_variance(op: KerasOperation, x: Any) -> Any:
    """Make mean 0 and variance 1 over axes."""
    x = tensor(x)
    axes = op.attribute("axes", [0, 2, 3])
    mean = ops.mean(x, axis=axes, keepdims=True)
    deviation = ops.sqrt(ops.mean(ops.square(x), axis=axes, keepdims=True) - ops.square(mean))
    return (x - mean) / (deviation + 1e-9)


def flattened(op: KerasOperation, x: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function over all axes from ``axis`` on, as before opset 13."""
    axis = axis_of(op.attribute("axis", 1), x)
    shape = sizes(x)
    flat = ops.reshape(x, (product(shape[:axis]), product(shape[axis:])))
    return ops.reshape(function(flat), shape)


def normalised(function: Callable[..., Any]) -> Entry:
    """Return the translation of softmax and its like, whose default axis changed in opset 13."""

    def entry(op: KerasOperation, x: Any) -> Any:
        x = tensor(x)
        if op.opset < 13:
            return flattened(op, x, lambda flat: function(flat, axis=-1))
        return function(x, axis=axis_of(op.attribute("axis", -1), x))

    return entry


def hardmax(x: Any, axis: int) -> Any:
    """Return one where the first largest entry is, else zero."""
    place = ops.expand_dims(ops.argmax(x, axis=axis), axis)
    span = [1] * len(x.shape)
    span[axis] = -1
    index = ops.reshape(ops.arange(sizes(x)[axis], dtype=dtype_of(place)), span)
    return ops.cast(ops.equal(index, place), dtype_of(x))


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "BatchNormalization": batch_norm,
        "GroupNormalization": group_norm,
        "Hardmax": normalised(hardmax),
        "InstanceNormalization": instance_norm,
        "LRN": response_norm,
        "LayerNormalization": layer_normalization,
        "LogSoftmax": normalised(ops.log_softmax),
        "LpNormalization": lp_norm,
        "MeanVarianceNormalization": mean_variance,
        "RMSNormalization": rms_normalization,
        "Softmax": normalised(ops.softmax),
    }
}
