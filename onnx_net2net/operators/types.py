"""Element types by what can be computed with them."""

from __future__ import annotations

from onnx import TensorProto

__all__ = ["FLOATS"]

# Real numbers that can be shared among copies; those of 8 bits only store.
FLOATS = frozenset(
    {TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16}
)
