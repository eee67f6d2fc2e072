"""Attention as onnxruntime's optimisers fuse it."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from onnx_net2net.frameworks.keras.operation import Entry, Operation
from onnx_net2net.frameworks.keras.operators.attention import (
    by_head,
    merged,
    repeated,
    rotated,
)
from onnx_net2net.frameworks.keras.operators.linear import swapped
from onnx_net2net.frameworks.keras.operators.movement import broadcast
from onnx_net2net.frameworks.keras.values import cast, dtype_of, ints, sizes, tensor

__all__ = ["TABLES"]


def _scores(op: Operation, q: Any, k: Any) -> Any:
    scale = op.attribute("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    return ops.matmul(q, swapped(k)) * ops.cast(scale, dtype_of(q))


def _padding(op: Operation, scores: Any, mask: Any) -> Any:
    """Masks of tokens (batch, keys), of rows (batch, queries, keys), or lengths (batch)."""
    if mask is None:
        return scores
    mask = tensor(mask)
    keys = sizes(scores)[-1]
    if len(mask.shape) == 1:
        ends = ops.reshape(ops.cast(mask, "int32"), (-1, 1))
        kept = ops.arange(keys, dtype="int32") < ends
        if op.attribute("unidirectional", 0) or mask.shape[0] != scores.shape[0]:
            op.refuse("this form of a mask of lengths is not translated")
    elif len(mask.shape) in (2, 3):
        kept = ops.not_equal(mask, 0)
    else:
        op.refuse("a mask of four axes is not translated")
    kept = ops.expand_dims(kept, 1) if len(mask.shape) == 3 else kept[:, None, None, :]
    low = ops.cast(op.attribute("mask_filter_value", -10000.0), dtype_of(scores))
    return scores + ops.where(kept, ops.cast(0, dtype_of(scores)), low)


def _causal(scores: Any, past: Any, window: int = -1, *, last: bool = False) -> Any:
    """Minus infinity ahead of each query, and behind a window.

    With ``last`` the last query sees all keys, as in onnxruntime, also if these are more.
    """
    queries, keys = sizes(scores)[-2:]
    row = ops.expand_dims(ops.arange(queries, dtype="int32"), -1) + past
    column = ops.arange(keys, dtype="int32")
    hidden = column > row
    if last:
        hidden = ops.logical_and(hidden, row < past + queries - 1)
    if window > 0:
        hidden = ops.logical_or(hidden, column <= row - window)
    return ops.where(hidden, ops.cast(-math.inf, dtype_of(scores)), scores)


def _sum(scores: Any, bias: Any) -> Any:
    return scores if bias is None else scores + tensor(bias)


def attention(op: Operation, x: Any, w: Any, b: Any = None, *rest: Any) -> list[Any]:
    """The projections are inside; keys and values of the past are one tensor."""
    mask, past, bias, length = op.padded(rest, 4)
    if length is not None or op.attribute("past_present_share_buffer", 0):
        op.refuse("caches that share a buffer are not translated")
    if op.attribute("do_rotary", 0):
        op.refuse("its rotary embedding is not translated")
    x, w = tensor(x), tensor(w)
    heads = op.attribute("num_heads")
    widths = op.attribute("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    parts = ops.matmul(x, w)
    parts = parts if b is None else parts + tensor(b)
    ends = [widths[0], widths[0] + widths[1]]
    q, k, v = (
        by_head(parts[..., start:stop], heads)
        for start, stop in zip((0, *ends), (*ends, sum(widths)), strict=True)
    )
    before: Any = 0
    if past is not None:
        past = tensor(past)
        before = sizes(past)[3]
        k = ops.concatenate([past[0], k], axis=2)
        v = ops.concatenate([past[1], v], axis=2)
    scores = _padding(op, _sum(_scores(op, q, k), bias), mask)
    if op.attribute("unidirectional", 0):
        scores = _causal(scores, before)
    y = merged(ops.matmul(ops.softmax(scores, axis=-1), v))
    return [y, ops.stack([k, v])] if op.wants(1) else [y]


def multi_head_attention(
    op: Operation, q: Any, k: Any = None, v: Any = None, *rest: Any
) -> list[Any]:
    """Queries, keys and values of their own."""
    bias, mask, scores_bias, past_key, past_value, *others = op.padded(rest, 7)
    if any(other is not None for other in others):
        op.refuse("caches that share a buffer are not translated")
    if k is None or v is None or len(q.shape) != 3:
        op.refuse("queries, keys and values in one operand are not translated")
    heads = op.attribute("num_heads")
    q, k, v = tensor(q), tensor(k), tensor(v)
    if bias is not None:
        bias = tensor(bias)
        width = q.shape[2]
        q = q + bias[:width]
        k = k + bias[width : 2 * width] if len(k.shape) == 3 else k
        v = v + bias[2 * width :] if len(v.shape) == 3 else v
    q = by_head(q, heads)
    k = by_head(k, heads) if len(k.shape) == 3 else k
    v = by_head(v, heads) if len(v.shape) == 3 else v
    before: Any = 0
    if past_key is not None:
        before = sizes(tensor(past_key))[2]
        k = ops.concatenate([tensor(past_key), k], axis=2)
        v = ops.concatenate([tensor(past_value), v], axis=2)
    raw = _scores(op, q, k)
    scores = _padding(op, _sum(raw, scores_bias), mask)
    if op.attribute("unidirectional", 0):
        scores = _causal(scores, before, last=True)
    y = merged(ops.matmul(ops.softmax(scores, axis=-1), v))
    return [y, k, v, raw]


def group_query_attention(
    op: Operation, q: Any, k: Any, v: Any, past_key: Any, past_value: Any, ends: Any, total: Any,
    *rest: Any,
) -> list[Any]:  # fmt: skip
    """Groups of query heads for each head of keys and values, always causal; may rotate them.

    Each sample has filled its cache up to a length of its own.
    """
    cos, sin, positions, bias, sink, *others = op.padded(rest, 9)
    if any(other is not None for other in others) or sink is not None:
        op.refuse("its quantized caches, norms or sinks are not translated")
    for name in ("smooth_softmax", "sliding_window_cache", "qk_output"):
        if op.attribute(name, 0) not in (0, -1):
            op.refuse(f"its attribute {name} is not translated")
    heads, groups = op.attribute("num_heads"), op.attribute("kv_num_heads")
    q, k, v = _unpacked(q, k, v, heads, groups)
    steps = sizes(q)[1]
    (room,) = ints(total)
    first = ops.reshape(cast(tensor(ends), "int32"), (-1, 1)) + 1 - steps
    first = ops.where(ops.equal(room, steps), ops.zeros_like(first), first)
    if op.attribute("do_rotary", 0):
        at = first + ops.arange(steps, dtype="int32") if positions is None else tensor(positions)
        cos, sin = (ops.take(tensor(t), at, axis=0) for t in (cos, sin))
        paired = bool(op.attribute("rotary_interleaved", 0))
        q, k = rotated(q, cos, sin, paired), rotated(k, cos, sin, paired)
    q, k, v = (ops.transpose(part, (0, 2, 1, 3)) for part in (q, k, v))
    if past_key is not None:
        k, v = (_cached(tensor(p), x, first, room) for p, x in ((past_key, k), (past_value, v)))
    scores = _scores(op, q, repeated(k, heads // groups))
    cap = op.attribute("softcap", 0.0)
    scores = cap * ops.tanh(scores / cap) if cap else scores
    before = ops.reshape(first, (-1, 1, 1, 1))
    scores = _causal(_sum(scores, bias), before, op.attribute("local_window_size", -1))
    y = ops.matmul(ops.softmax(scores, axis=-1), repeated(v, heads // groups))
    return [merged(y), k, v]


def _unpacked(q: Any, k: Any, v: Any, heads: int, groups: int) -> list[Any]:
    """Each as (batch, position, head, entry)."""
    q = tensor(q)
    if k is not None:
        parts, counts = [q, tensor(k), tensor(v)], [heads, groups, groups]
    else:
        size = q.shape[2] // (heads + 2 * groups)
        first, second = heads * size, (heads + groups) * size
        parts = [q[..., :first], q[..., first:second], q[..., second:]]
        counts = [heads, groups, groups]
    return [
        ops.reshape(part, (*sizes(part)[:2], count, part.shape[2] // count))
        for part, count in zip(parts, counts, strict=True)
    ]


def _cached(past: Any, new: Any, first: Any, room: Any) -> Any:
    """A cache (batch, head, place, entry) with new entries from ``first`` (batch, 1) on.

    It holds ``room`` places at least; those behind the new entries are zeros.
    """
    held, steps = sizes(past)[2], sizes(new)[2]
    plain = isinstance(held, int) and isinstance(room, int)
    column = ops.arange(max(held, room) if plain else ops.maximum(held, room), dtype="int32")
    beyond = column - first
    place = ops.where(beyond < 0, column, held + ops.minimum(beyond, steps - 1))
    both = ops.concatenate([past, new], axis=2)
    found = ops.take_along_axis(both, place[:, None, :, None], axis=2)
    return ops.where((beyond < steps)[:, None, :, None], found, ops.zeros_like(found))


def rotary_embedding(op: Operation, x: Any, positions: Any, cos: Any, sin: Any) -> Any:
    """Tables, and a matrix of positions or where they start."""
    if op.attribute("is_packed_batching", 0):
        op.refuse("sequences packed into one are not translated")
    x, cos, sin = tensor(x), tensor(cos), tensor(sin)
    shape = sizes(x)
    if len(shape) == 4:
        split = ops.transpose(x, (0, 2, 1, 3))
    else:
        heads = op.attribute("num_heads", 0) or shape[2] // (2 * cos.shape[-1])
        split = ops.reshape(x, (shape[0], shape[1], heads, shape[2] // heads))
    at = tensor(positions)
    if len(at.shape) == 1:
        at = cast(at, "int32") + ops.arange(sizes(split)[1], dtype="int32")
        at = broadcast(ops.expand_dims(at, 0), sizes(split)[:2])
    cos, sin = (ops.take(t, at, axis=0) for t in (cos, sin))
    scale = op.attribute("scale", 1.0)
    if scale not in (0.0, 1.0):
        op.refuse("its scale is not translated")
    y = rotated(split, cos, sin, bool(op.attribute("interleaved", 0)))
    return ops.transpose(y, (0, 2, 1, 3)) if len(shape) == 4 else ops.reshape(y, shape)


TABLES: dict[str, dict[str, Entry]] = {
    "com.microsoft": {
        "Attention": attention,
        "GroupQueryAttention": group_query_attention,
        "MultiHeadAttention": multi_head_attention,
        "RotaryEmbedding": rotary_embedding,
    }
}
