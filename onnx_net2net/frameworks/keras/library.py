"""What a written layer calls besides Keras: copied into its file, so it stands by itself."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from onnx_net2net.frameworks.keras.traced import noted

__all__ = ["sized", "unpacked", "whole_einsum"]


@noted
def sized(value: Any, fixed: Sequence[int | None] | None) -> Any:
    """Set sizes of a tensor that its graph fixes but the backend does not see."""
    if fixed is None or keras.backend.backend() != "tensorflow" or not ops.is_tensor(value):
        return value
    seen = value.shape
    news = [mine is None and size is not None for mine, size in zip(seen, fixed, strict=False)]
    if len(seen) != len(fixed) or not any(news):
        return value
    import tensorflow as tf

    return tf.ensure_shape(value, fixed)


def unpacked(text: str, dtype: str, shape: Sequence[int]) -> Any:
    """Return an array whose elements a text holds."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(shape)


@noted
def whole_einsum(equation: str, *tensors: Any) -> Any:
    """Sum whole numbers in TensorFlow, for Keras goes by float32."""
    import tensorflow as tf

    return tf.einsum(equation, *tensors)
