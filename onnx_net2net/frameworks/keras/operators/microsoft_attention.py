"""Attention as onnxruntime's optimisers fuse it."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from onnx_net2net.frameworks.keras.operators.attention import (
    merged,
    repeated,
    rotated,
)
from onnx_net2net.frameworks.keras.operators.linear import swapped
from onnx_net2net.frameworks.keras.trace import Call, Entry
from onnx_net2net.frameworks.keras.values import cast, dtype_of, ints, sizes, tensor

__all__ = ["TABLES"]


def _scores(call: Call, q: Any, k: Any) -> Any:
    scale = call.attribute("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    return ops.matmul(q, swapped(k)) * ops.cast(scale, dtype_of(q))


def _causal(scores: Any, past: Any, window: int = -1) -> Any:
    """Minus infinity ahead of each query, and behind a window."""
    queries, keys = sizes(scores)[-2:]
    row = ops.expand_dims(ops.arange(queries, dtype="int32"), -1) + past
    column = ops.arange(keys, dtype="int32")
    hidden = column > row
    if window > 0:
        hidden = ops.logical_or(hidden, column <= row - window)
    return ops.where(hidden, ops.cast(-math.inf, dtype_of(scores)), scores)


def _sum(scores: Any, bias: Any) -> Any:
    return scores if bias is None else scores + tensor(bias)


def group_query_attention(
    call: Call, q: Any, k: Any, v: Any, past_key: Any, past_value: Any, ends: Any, total: Any,
    *rest: Any,
) -> list[Any]:  # fmt: skip
    """Groups of query heads for each head of keys and values, always causal; may rotate them.

    Each sample has filled its cache up to a length of its own.
    """
    cos, sin, positions, bias, sink, *others = call.padded(rest, 9)
    if any(other is not None for other in others) or sink is not None:
        call.refuse("its quantized caches, norms or sinks are not translated")
    for name in ("smooth_softmax", "sliding_window_cache", "qk_output"):
        if call.attribute(name, 0) not in (0, -1):
            call.refuse(f"its attribute {name} is not translated")
    heads, groups = call.attribute("num_heads"), call.attribute("kv_num_heads")
    q, k, v = _unpacked(q, k, v, heads, groups)
    steps = sizes(q)[1]
    (room,) = ints(total)
    first = ops.reshape(cast(tensor(ends), "int32"), (-1, 1)) + 1 - steps
    first = ops.where(ops.equal(room, steps), ops.zeros_like(first), first)
    if call.attribute("do_rotary", 0):
        at = first + ops.arange(steps, dtype="int32") if positions is None else tensor(positions)
        cos, sin = (ops.take(tensor(t), at, axis=0) for t in (cos, sin))
        paired = bool(call.attribute("rotary_interleaved", 0))
        q, k = rotated(q, cos, sin, paired), rotated(k, cos, sin, paired)
    q, k, v = (ops.transpose(part, (0, 2, 1, 3)) for part in (q, k, v))
    if past_key is not None:
        k, v = (_cached(tensor(p), x, first, room) for p, x in ((past_key, k), (past_value, v)))
    scores = _scores(call, q, repeated(k, heads // groups))
    cap = call.attribute("softcap", 0.0)
    scores = cap * ops.tanh(scores / cap) if cap else scores
    before = ops.reshape(first, (-1, 1, 1, 1))
    scores = _causal(_sum(scores, bias), before, call.attribute("local_window_size", -1))
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


TABLES: dict[str, dict[str, Entry]] = {
    "com.microsoft": {"GroupQueryAttention": group_query_attention}
}
