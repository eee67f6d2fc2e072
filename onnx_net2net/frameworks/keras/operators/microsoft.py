"""Operators of onnxruntime that no function text covers, but for attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from onnx_net2net.frameworks.keras.trace import Call, Entry
from onnx_net2net.frameworks.keras.values import dtype_of, tensor

__all__ = ["TABLES"]


def inverse(call: Call, x: Any) -> Any:
    """Of matrices."""
    return ops.inv(tensor(x))


def matmul_nbits(call: Call, a: Any, b: Any, scales: Any, zeros: Any = None, *rest: Any) -> Any:
    """A weight of N rows in blocks of few bits, packed into bytes: (N, blocks, bytes)."""
    group, bias = call.padded(rest, 2)
    if group is not None:
        call.refuse("its order of groups (g_idx) is not translated")
    n, k = call.attribute("N"), call.attribute("K")
    bits, block = call.attribute("bits", 4), call.attribute("block_size")
    count = -(-k // block)
    whole = _unpacked(call, b, bits).reshape(n, count, -1)[..., :block].astype(np.float32)
    scale = ops.reshape(tensor(scales), (n, count, 1))
    middle: Any = np.float32(2 ** (bits - 1))
    if zeros is not None and "float" in dtype_of(zeros):
        middle = ops.reshape(tensor(zeros), (n, count, 1))
    elif zeros is not None:
        points = _unpacked(call, zeros, bits).reshape(n, -1)[:, :count, None]
        middle = tensor(points.astype(np.float32), dtype_of(scale))
    weight = (tensor(whole, dtype_of(scale)) - middle) * scale
    weight = ops.reshape(weight, (n, count * block))[:, :k]
    y = ops.matmul(tensor(a), ops.transpose(weight))
    return y if bias is None else y + tensor(bias)


def _unpacked(call: Call, packed: Any, bits: int) -> np.ndarray:
    """Numbers of few bits, the lower ones of a byte first."""
    if not isinstance(packed, np.ndarray) or 8 % bits:
        call.refuse(f"weights of {bits} bits have to be constant")
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1)


TABLES: dict[str, dict[str, Entry]] = {
    "com.microsoft": {
        "Inverse": inverse,
        "MatMulNBits": matmul_nbits,
    }
}
