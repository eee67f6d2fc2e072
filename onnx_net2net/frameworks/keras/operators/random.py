"""Random numbers, from the layer's own generator: a seed in the file is not repeated."""

from __future__ import annotations

from typing import Any

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops, random
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import dtype_of, sizes, tensor

__all__ = ["TABLES"]


def _kind(op: KerasOperation, default: str) -> str:
    given = op.attribute("dtype")
    return default if given is None else type_name(given)


def normal(op: KerasOperation, x: Any = None) -> Any:
    """Draw for RandomNormal and RandomNormalLike."""
    shape = op.attribute("shape") if x is None else sizes(x)
    kind = _kind(op, "float32" if x is None else dtype_of(x))
    unit = random.normal(shape, dtype=kind, seed=op.translator.seed)
    return unit * op.attribute("scale", 1.0) + op.attribute("mean", 0.0)


def uniform(op: KerasOperation, x: Any = None) -> Any:
    """Draw for RandomUniform and RandomUniformLike."""
    shape = op.attribute("shape") if x is None else sizes(x)
    kind = _kind(op, "float32" if x is None else dtype_of(x))
    low, high = op.attribute("low", 0.0), op.attribute("high", 1.0)
    return random.uniform(shape, dtype=kind, seed=op.translator.seed) * (high - low) + low


def bernoulli(op: KerasOperation, x: Any) -> Any:
    """Draw 1 with the probability that each entry gives."""
    x = tensor(x)
    draw = random.uniform(sizes(x), dtype=dtype_of(x), seed=op.translator.seed)
    return ops.cast(draw < x, _kind(op, dtype_of(x)))


def multinomial(op: KerasOperation, x: Any) -> Any:
    """Draw classes by their logarithmic weights."""
    count = op.attribute("sample_size", 1)
    drawn = random.categorical(tensor(x), count, seed=op.translator.seed)
    return ops.cast(drawn, _kind(op, "int32"))


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
