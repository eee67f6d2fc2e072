"""Random numbers, from the layer's own generator: a seed in the file is not repeated."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from onnx import helper

from onnx_net2net.frameworks.keras.trace import Call, Entry
from onnx_net2net.frameworks.keras.values import dtype_of, sizes, tensor

__all__ = ["TABLES"]


def _kind(call: Call, default: str) -> str:
    given = call.attribute("dtype")
    return default if given is None else str(helper.tensor_dtype_to_np_dtype(given).name)


def normal(call: Call, x: Any = None) -> Any:
    """RandomNormal and RandomNormalLike."""
    shape = call.attribute("shape") if x is None else sizes(x)
    kind = _kind(call, "float32" if x is None else dtype_of(x))
    unit = keras.random.normal(shape, dtype=kind, seed=call.trace.seed)
    return unit * call.attribute("scale", 1.0) + call.attribute("mean", 0.0)


def uniform(call: Call, x: Any = None) -> Any:
    """RandomUniform and RandomUniformLike."""
    shape = call.attribute("shape") if x is None else sizes(x)
    kind = _kind(call, "float32" if x is None else dtype_of(x))
    low, high = call.attribute("low", 0.0), call.attribute("high", 1.0)
    return keras.random.uniform(shape, dtype=kind, seed=call.trace.seed) * (high - low) + low


def bernoulli(call: Call, x: Any) -> Any:
    """1 with the probability that each entry gives."""
    x = tensor(x)
    draw = keras.random.uniform(sizes(x), dtype=dtype_of(x), seed=call.trace.seed)
    return ops.cast(draw < x, _kind(call, dtype_of(x)))


def multinomial(call: Call, x: Any) -> Any:
    """Classes drawn by their logarithmic weights."""
    count = call.attribute("sample_size", 1)
    drawn = keras.random.categorical(tensor(x), count, seed=call.trace.seed)
    return ops.cast(drawn, _kind(call, "int32"))


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Bernoulli": bernoulli,
        "Multinomial": multinomial,
        "RandomNormal": normal,
        "RandomNormalLike": normal,
        "RandomUniform": uniform,
        "RandomUniformLike": uniform,
    }
}
