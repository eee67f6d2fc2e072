"""onnxruntime's fused operators, but for attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from onnx_net2net.frameworks.keras.operation import Entry, Operation
from onnx_net2net.frameworks.keras.operators.normalisation import layer_norm, root_mean_square
from onnx_net2net.frameworks.keras.values import dtype_of, sizes, tensor

__all__ = ["TABLES"]


def gelu(op: Operation, x: Any) -> Any:
    """By erf."""
    return ops.gelu(tensor(x), approximate=False)


def bias_gelu(op: Operation, x: Any, bias: Any) -> Any:
    """gelu(x + bias)."""
    return ops.gelu(tensor(x) + tensor(bias), approximate=False)


def fast_gelu(op: Operation, x: Any, bias: Any = None) -> Any:
    """gelu(x + bias) by tanh."""
    x = tensor(x)
    return ops.gelu(x if bias is None else x + tensor(bias), approximate=True)


def quick_gelu(op: Operation, x: Any) -> Any:
    """x * sigmoid(alpha * x)."""
    x = tensor(x)
    return x * ops.sigmoid(x * op.attribute("alpha", 1.702))


def summed(x: Any, skip: Any, bias: Any) -> Any:
    """A residual sum."""
    x = tensor(x) + tensor(skip)
    return x if bias is None else x + tensor(bias)


def skip_layer_norm(
    op: Operation, x: Any, skip: Any, scale: Any, shift: Any = None, bias: Any = None
) -> list[Any]:
    """The norm of a residual sum; the sum is the fourth output."""
    total = summed(x, skip, bias)
    y, mean, inverse = layer_norm(total, -1, scale, shift, op.attribute("epsilon", 1e-12))
    return [y, mean, inverse, total]


def skip_rms_norm(op: Operation, x: Any, skip: Any, scale: Any, bias: Any = None) -> list[Any]:
    """The same with a root mean square."""
    total = summed(x, skip, bias)
    y, inverse = root_mean_square(total, -1, scale, op.attribute("epsilon", 1e-12))
    return [y, inverse, inverse, total]


def embed_layer_norm(op: Operation, ids: Any, segments: Any, *rest: Any) -> list[Any]:
    """BERT's three tables, their sum normalised; the lengths of the mask, the sum."""
    words, places, kinds, scale, shift, mask, position_ids = op.padded(rest, 7)
    ids = tensor(ids)
    batch, length = sizes(ids)
    where = ops.arange(length, dtype="int32") if position_ids is None else tensor(position_ids)
    total = ops.take(tensor(words), ids, axis=0)
    total = total + ops.take(tensor(places), where, axis=0)
    if segments is not None:
        total = total + ops.take(tensor(kinds), tensor(segments), axis=0)
    y = layer_norm(total, -1, scale, shift, op.attribute("epsilon", 1e-12))[0]
    if mask is None:
        ends = ops.broadcast_to(ops.zeros((1,), "int32"), (batch,))
    elif op.attribute("mask_index_type", 0):
        op.refuse("its mask index does not hold lengths, the only form that is translated")
    else:
        ends = ops.sum(ops.cast(tensor(mask), "int32"), axis=1)
    return [y, ops.cast(ends, "int32"), total]


def gated_add(op: Operation, a: Any, b: Any, gate: Any) -> Any:
    """a + gate * b."""
    return tensor(a) + tensor(gate) * tensor(b)


def inverse(op: Operation, x: Any) -> Any:
    """Of matrices."""
    return ops.inv(tensor(x))


def matmul_nbits(op: Operation, a: Any, b: Any, scales: Any, zeros: Any = None, *rest: Any) -> Any:
    """A weight of N rows in blocks of few bits, packed into bytes: (N, blocks, bytes)."""
    group, bias = op.padded(rest, 2)
    if group is not None:
        op.refuse("its order of groups (g_idx) is not translated")
    n, k = op.attribute("N"), op.attribute("K")
    bits, block = op.attribute("bits", 4), op.attribute("block_size")
    count = -(-k // block)
    whole = _unpacked(op, b, bits).reshape(n, count, -1)[..., :block].astype(np.float32)
    scale = ops.reshape(tensor(scales), (n, count, 1))
    middle: Any = np.float32(2 ** (bits - 1))
    if zeros is not None and "float" in dtype_of(zeros):
        middle = ops.reshape(tensor(zeros), (n, count, 1))
    elif zeros is not None:
        points = _unpacked(op, zeros, bits).reshape(n, -1)[:, :count, None]
        middle = tensor(points.astype(np.float32), dtype_of(scale))
    weight = (tensor(whole, dtype_of(scale)) - middle) * scale
    weight = ops.reshape(weight, (n, count * block))[:, :k]
    y = ops.matmul(tensor(a), ops.transpose(weight))
    return y if bias is None else y + tensor(bias)


def _unpacked(op: Operation, packed: Any, bits: int) -> np.ndarray:
    """Numbers of few bits, the lower ones of a byte first."""
    if not isinstance(packed, np.ndarray) or 8 % bits:
        op.refuse(f"weights of {bits} bits have to be constant")
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1)


TABLES: dict[str, dict[str, Entry]] = {
    "com.microsoft": {
        "BiasGelu": bias_gelu,
        "EmbedLayerNormalization": embed_layer_norm,
        "FastGelu": fast_gelu,
        "GatedAdd": gated_add,
        "Gelu": gelu,
        "Inverse": inverse,
        "MatMulNBits": matmul_nbits,
        "QuickGelu": quick_gelu,
        "SkipLayerNormalization": skip_layer_norm,
        "SkipSimplifiedLayerNormalization": skip_rms_norm,
    }
}
