"""What scikit-learn's preprocessing becomes (domain ai.onnx.ml)."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import cast, dtype_of, gathered, tensor

__all__ = ["TABLES"]


def array_feature_extractor(op: KerasOperation, x: Any, indices: Any) -> Any:
    """Take columns of the last axis."""
    x = tensor(x)
    if len(x.shape) == 1:
        x = ops.expand_dims(x, 0)
    if isinstance(indices, np.ndarray):
        indices = indices.reshape(-1)
    else:
        indices = ops.reshape(tensor(indices), (-1,))
    return gathered(x, indices, len(x.shape) - 1)


def scaler(op: KerasOperation, x: Any) -> Any:
    """Compute (x - offset) * scale; whole numbers become float32."""
    x = _real(tensor(x))
    offset = np.asarray(op.attribute("offset", [0.0]), np.float32)
    scale = np.asarray(op.attribute("scale", [1.0]), np.float32)
    return (x - tensor(offset, dtype_of(x))) * tensor(scale, dtype_of(x))


def _real(x: Any) -> Any:
    return x if "float" in dtype_of(x) else ops.cast(x, "float32")


def binarizer(op: KerasOperation, x: Any) -> Any:
    """Return 1 above the threshold, else 0."""
    x = tensor(x)
    return ops.cast(ops.greater(x, op.attribute("threshold", 0.0)), dtype_of(x))


def imputer(op: KerasOperation, x: Any) -> Any:
    """Put a value for what is missing, one for all columns or one each."""
    x = tensor(x)
    whole = "int" in dtype_of(x)
    kind = "int64s" if whole else "floats"
    values = tensor(np.asarray(op.attribute(f"imputed_value_{kind}")), dtype_of(x))
    missing = op.attribute(f"replaced_value_{kind[:-1]}", 0)
    gone = (
        ops.isnan(x) if missing != missing else ops.equal(x, cast(ops.array(missing), dtype_of(x)))
    )
    return ops.where(gone, values, x)


def normalizer(op: KerasOperation, x: Any) -> Any:
    """Divide rows by their largest entry, their sum or their length."""
    x = _real(tensor(x))
    norm = op.attribute("norm", "MAX")
    if norm == "MAX":
        size = ops.max(x, axis=-1, keepdims=True)
    elif norm == "L1":
        size = ops.sum(ops.abs(x), axis=-1, keepdims=True)
    else:
        size = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    return ops.where(ops.equal(size, 0), x, x / ops.where(ops.equal(size, 0), 1, size))


TABLES: dict[str, dict[str, Entry]] = {
    "ai.onnx.ml": {
        "ArrayFeatureExtractor": array_feature_extractor,
        "Binarizer": binarizer,
        "Imputer": imputer,
        "Normalizer": normalizer,
        "Scaler": scaler,
    }
}
