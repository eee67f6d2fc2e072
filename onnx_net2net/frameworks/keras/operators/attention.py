"""Attention and rotary embeddings: those of ONNX (opset 23), and what nodes make together."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.linear import scaled, swapped
from onnx_net2net.frameworks.keras.operators.movement import cut
from onnx_net2net.frameworks.keras.traced import ops, random
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import cast, dtype_of, known, sizes, tensor

__all__ = ["TABLES", "by_head", "merged", "repeated", "rotated", "softmax"]


def by_head(x: Any, heads: int) -> Any:
    """Turn (batch, position, heads * entries) into (batch, head, position, entry)."""
    batch, length, width = sizes(x)
    split = ops.reshape(x, (batch, length, heads, width // heads))
    return ops.transpose(split, (0, 2, 1, 3))


def merged(x: Any) -> Any:
    """Turn (batch, head, position, entry) into (batch, position, heads * entries)."""
    batch, heads, length, width = sizes(x)
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * width))


def repeated(x: Any, times: int) -> Any:
    """Repeat each head of keys or values as often as queries read it."""
    if times == 1:
        return x
    batch, heads, length, width = sizes(x)
    wide = ops.broadcast_to(ops.expand_dims(x, 2), (batch, heads, times, length, width))
    return ops.reshape(wide, (batch, heads * times, length, width))


def softmax(x: Any, kind: str | None = None) -> Any:
    """Apply softmax over the last axis, in another type where one is named."""
    if kind is None or kind == dtype_of(x):
        return ops.softmax(x, axis=-1)
    return cast(ops.softmax(ops.cast(x, kind), axis=-1), dtype_of(x))


def attention(op: KerasOperation, q: Any, k: Any, v: Any, *rest: Any) -> list[Any]:
    """Return the result, keys and values with those of the past, and scores."""
    mask, past_key, past_value, lengths = op.padded(rest, 4)
    q, k, v = tensor(q), tensor(k), tensor(v)
    flat = len(q.shape) == 3
    if flat:
        q = by_head(q, op.attribute("q_num_heads"))
        k = by_head(k, op.attribute("kv_num_heads"))
        v = by_head(v, op.attribute("kv_num_heads"))
    past: Any = 0
    if past_key is not None:
        past = sizes(tensor(past_key))[2]
        k = ops.concatenate([tensor(past_key), k], axis=2)
        v = ops.concatenate([tensor(past_value), v], axis=2)
    present = [k, v]
    heads, shared = q.shape[1], k.shape[1]
    if heads is None or shared is None:
        op.refuse("the number of heads is not known ahead")
    times = heads // shared
    # Each side takes the root, as the operator's definition has it: half precision needs it.
    root = _root(op, q, k)
    raw = ops.matmul(q * root, swapped(repeated(k, times)) * root)
    cap = op.attribute("softcap", 0.0)
    capped = cap * ops.tanh(raw / cap) if cap else raw
    bias = _bias(op, raw, mask, past, lengths)
    scores = capped if bias is None else capped + bias
    kind = op.attribute("softmax_precision")
    precision = type_name(kind) if kind else None
    if bias is None:
        weights = softmax(scores, precision)
    else:  # a query that may see no key at all sees nothing
        hidden = ops.max(bias, axis=-1, keepdims=True) <= lowest(dtype_of(scores))
        weights = softmax(ops.where(hidden, ops.zeros_like(scores), scores), precision)
        weights = ops.where(hidden, ops.zeros_like(weights), weights)
    y = ops.matmul(weights, repeated(v, times))
    shown = (raw, capped, scores, weights)[op.attribute("qk_matmul_output_mode", 0)]
    return [merged(y) if flat else y, *present, shown]


def _bias(op: KerasOperation, scores: Any, mask: Any, past: Any, lengths: Any) -> Any:
    """Return what is added to scores: masks, and the lowest number where a query sees no key."""
    kind = dtype_of(scores)
    queries, keys = sizes(scores)[-2:]
    low = ops.cast(lowest(kind), kind)
    bias = None
    if mask is not None:
        mask = tensor(mask)
        if dtype_of(mask) == "bool":
            mask = ops.where(mask, ops.cast(0, kind), low)
        short = known(np.array(mask.shape[-1])) if isinstance(mask.shape[-1], int) else None
        if short is not None and isinstance(keys, int) and int(short) < keys:
            pads = [(0, 0)] * (len(mask.shape) - 1) + [(0, keys - int(short))]
            mask = ops.pad(mask, pads, constant_values=-math.inf)
        bias = cast(mask, kind)
    # One query behind a cache sees all keys in onnxruntime, which counts on one new key.
    one = lengths is None and not (isinstance(past, int) and past == 0)
    ends = lengths
    if lengths is not None:  # of a cache, whose last entries are those of the queries
        ends = ops.reshape(ops.cast(tensor(lengths), "int32"), (-1, 1, 1, 1))
        past = ends - queries
    row = ops.expand_dims(ops.arange(queries, dtype="int32"), -1) + past
    column = ops.arange(keys, dtype="int32")
    hidden = [] if ends is None else [column >= ends]
    if op.attribute("is_causal", 0) and not (one and isinstance(queries, int) and queries == 1):
        ahead = column > row
        hidden.append(ops.logical_and(ahead, queries > 1) if one else ahead)
    left, right = (op.attribute(f"{side}_window_size", -1) for side in ("left", "right"))
    hidden += [row - column > left] if left >= 0 else []
    hidden += [column - row > right] if right >= 0 else []
    for place in hidden:
        bias = ops.where(place, low, ops.cast(0, kind) if bias is None else bias)
    return bias


def _root(op: KerasOperation, q: Any, k: Any) -> Any:
    """Return the root of the scale."""
    scale, size = op.attribute("scale"), q.shape[-1] or k.shape[-1]
    if not scale and size is None:
        return ops.cast(ops.power(ops.cast(sizes(q)[-1], "float32"), -0.25), dtype_of(q))
    return ops.cast(math.sqrt(scale or 1 / math.sqrt(size)), dtype_of(q))


def lowest(kind: str) -> float:
    """Return the most negative number of a type, which stands for what a query may not see."""
    return float(ml_dtypes.finfo(kind).min)


def rotated(x: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    """Turn pairs of entries (batch, position, head, entry) by angles (batch, position, half).

    What lies behind twice the angles stays.
    """
    half = cos.shape[-1]
    cos, sin = ops.expand_dims(cos, 2), ops.expand_dims(sin, 2)
    turned = cut(x, 3, 0, 2 * half)
    if interleaved:
        one, two = turned[..., 0::2], turned[..., 1::2]
    else:
        one, two = turned[..., :half], turned[..., half:]
    real, imaginary = one * cos - two * sin, one * sin + two * cos
    if interleaved:
        y = ops.reshape(ops.stack([real, imaginary], axis=-1), sizes(turned))
    else:
        y = ops.concatenate([real, imaginary], axis=-1)
    return ops.concatenate([y, x[..., 2 * half :]], axis=-1) if x.shape[3] > 2 * half else y


def rotary_embedding(op: KerasOperation, x: Any, cos: Any, sin: Any, positions: Any = None) -> Any:
    """Turn by cosines and sines, which are tables where positions are given."""
    x, cos, sin = tensor(x), tensor(cos), tensor(sin)
    shape, heads = sizes(x), op.attribute("num_heads")
    if len(shape) == 4:
        split = ops.transpose(x, (0, 2, 1, 3))
    else:
        split = ops.reshape(x, (shape[0], shape[1], heads, shape[2] // heads))
    if positions is not None:
        cos = ops.take(cos, tensor(positions), axis=0)
        sin = ops.take(sin, tensor(positions), axis=0)
    y = rotated(split, cos, sin, bool(op.attribute("interleaved", 0)))
    return ops.transpose(y, (0, 2, 1, 3)) if len(shape) == 4 else ops.reshape(y, shape)


def plain_attention(op: KerasOperation, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    """Compute the fusion of products, a mask that is added, and a softmax; heads are on axis 1."""
    q, k, v = tensor(q), tensor(k), tensor(v)
    scale, bias, blind = op.attribute("scale"), None, None
    if mask is not None:
        bias = tensor(mask)
        for _ in range(4 - len(bias.shape)):
            bias = ops.expand_dims(bias, 0)
    if op.attribute("guarded") and bias is not None:
        blind = ops.equal(ops.max(bias, axis=-1, keepdims=True), -math.inf)
        bias = ops.where(blind, ops.zeros_like(bias), bias)
    shapes = [op.translator.program.shapes.sizes_of(name) or () for name in op.step.inputs[:3]]
    ratio = op.attribute("dropout")
    rate = ratio if ratio and op.training else 0.0
    if not rate and shapes[0] and shapes[1] == shapes[2] and shapes[0][:2] == shapes[1][:2]:
        turned = [ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v)]
        y = ops.dot_product_attention(*turned, bias=bias, scale=scale)
        y = ops.transpose(y, (0, 2, 1, 3))
    else:  # heads or a batch that are broadcast, or weights that are dropped
        scores = scaled(ops.matmul(q, swapped(k)), scale)
        weights = softmax(scores if bias is None else scores + bias)
        if rate:
            weights = random.dropout(weights, rate, seed=op.translator.seed)
        y = ops.matmul(weights, v)
    return y if blind is None else ops.where(blind, ops.zeros_like(y), y)


TABLES: dict[str, dict[str, Entry]] = {
    "": {"Attention": attention, "RotaryEmbedding": rotary_embedding},
    "fusion": {"Attention": plain_attention},
}
