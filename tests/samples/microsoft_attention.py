"""Samples of the fused attention of ONNX Runtime's optimisers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.samples import Sample, node, weight

F = np.float32
BATCH, HEADS, QUERIES, KEYS, PAST, HEAD, VALUE, WIDTH = 2, 3, 4, 5, 7, 6, 8, 9


def fused(
    name: str,
    op: str,
    inputs: str,
    shapes: dict[str, Any],
    weights: dict[str, Any],
    expect: str,
    outputs: str = "y",
    **attributes: Any,
) -> Sample:
    """A sample of ONNX Runtime's domain; ``shapes`` of float activations."""
    made = node(op, inputs, outputs, domain="com.microsoft", **attributes)
    used = {key: (F, shape) for key, shape in shapes.items() if key in inputs.split()}
    constants = {key: value for key, value in weights.items() if key in inputs.split()}
    return Sample(name, made, used, constants, expect=expect)


def attention(
    name: str, inputs: str, expect: str, outputs: str = "y", *, value: int = HEAD, **attributes: Any
) -> Sample:
    """Projections inside."""
    sizes = [HEADS * HEAD, HEADS * HEAD, HEADS * value]
    if value != HEAD:
        attributes["qkv_hidden_sizes"] = sizes
    shapes = {
        "x": (BATCH, QUERIES, WIDTH),
        "past": (2, BATCH, HEADS, PAST, HEAD),
        "scores": (BATCH, HEADS, QUERIES, QUERIES),
        "shared": (1, HEADS, QUERIES, QUERIES),
    }
    weights = {
        "w": weight(WIDTH, sum(sizes)),
        "b": weight(sum(sizes)),
        "lengths": np.array([4, 2], np.int32),
        "mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32),
        "rows": np.tril(np.ones((BATCH, QUERIES, QUERIES), np.int32)),
    }
    attributes["num_heads"] = HEADS
    return fused(name, "Attention", inputs, shapes, weights, expect, outputs, **attributes)


def multi_head(
    name: str, inputs: str, more: str = "", outputs: str = "y", *, d: str = "any", **attributes: Any
) -> Sample:
    """Queries, keys and values apart; k4 and v4 are kept by head."""
    shapes = {
        "q": (BATCH, QUERIES, HEADS * HEAD),
        "k": (BATCH, KEYS, HEADS * HEAD),
        "v": (BATCH, KEYS, HEADS * VALUE),
        "k4": (BATCH, HEADS, KEYS, HEAD),
        "v4": (BATCH, HEADS, KEYS, HEAD),
        "scores": (BATCH, 1, QUERIES, KEYS),
        "pk": (BATCH, HEADS, PAST, HEAD),
        "pv": (BATCH, HEADS, PAST, HEAD),
        "vd": (BATCH, KEYS, HEADS * HEAD),
    }
    weights = {
        "b": weight(HEADS * (2 * HEAD + VALUE)),
        "mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32),
    }
    expect = f"b any, s fixed, h any, d {d}, t fixed{more}"
    attributes["num_heads"] = HEADS
    op = "MultiHeadAttention"
    return fused(name, op, inputs, shapes, weights, expect, outputs, **attributes)


def grouped(
    name: str, inputs: str, entry: str, outputs: str = "y", *, half: int = 0, **attributes: Any
) -> Sample:
    """Three heads of keys and values, six of queries."""
    size = 2 * half if half else 24
    shapes = {
        "q": (BATCH, QUERIES, 2 * HEADS * size),
        "qkv": (BATCH, QUERIES, 4 * HEADS * size),
        "k": (BATCH, QUERIES, HEADS * size),
        "v": (BATCH, QUERIES, HEADS * size),
        "one": (BATCH, 1, 2 * HEADS * size),
        "key": (BATCH, 1, HEADS * size),
        "value": (BATCH, 1, HEADS * size),
        "pk": (BATCH, HEADS, PAST, size),
        "pv": (BATCH, HEADS, PAST, size),
    }
    total = PAST + 1 if "pk" in inputs else QUERIES
    weights = {
        "n": np.full(BATCH, total - 1, np.int32),
        "total": np.array([total], np.int32),
        "cos": weight(11, half),
        "sin": weight(11, half, seed=2),
    }
    attributes |= {"num_heads": 2 * HEADS, "kv_num_heads": HEADS, "do_rotary": int(half > 0)}
    expect = f"b any, kv any, rep any, {entry}"
    op = "GroupQueryAttention"
    return fused(name, op, inputs, shapes, weights, expect, outputs, **attributes)


def rotary(name: str, inputs: str, expect: str, *, half: int = 4, **attributes: Any) -> Sample:
    """Three heads of eight entries."""
    shapes = {"x": (BATCH, QUERIES, 24), "x4": (BATCH, HEADS, QUERIES, 8)}
    weights = {
        "cos": weight(9, half),
        "sin": weight(9, half, seed=2),
        "at": np.array([[5, 1, 0, 8], [2, 3, 3, 7]]),
        "start": np.array([3]),
    }
    expect = f"b any, s fixed, h any, w fixed, f any, m fixed{expect}"
    return fused(name, "RotaryEmbedding", inputs, shapes, weights, expect, **attributes)


PROJECTED = "b any, s fixed, i any, h any, d fixed"
PLAIN = "s fixed, t fixed, d any, o fixed, n fixed"
ROTATED = "q k v _ _ n total cos sin"
TURNED = f"{PLAIN}, w fixed, m fixed"

SAMPLES = [
    attention("one-size", "x w b", f"{PROJECTED}, e fixed"),
    attention("values", "x w b", f"{PROJECTED}, e any", value=VALUE, unidirectional=1),
    attention("lengths", "x w b lengths", f"{PROJECTED}, e any", value=VALUE, scale=0.2),
    attention("mask", "x w b mask _ scores", f"{PROJECTED}, e any, u fixed, x fixed", value=VALUE),
    attention("rows", "x w b rows _ shared", f"{PROJECTED}, e any, u fixed, x fixed", value=VALUE),
    attention("cache", "x w b _ past", f"{PROJECTED}, p fixed, c fixed", "y present"),
    multi_head("plain", "q k v", ", e any"),
    multi_head("scale", "q k v", ", e any", scale=0.3, unidirectional=1),
    multi_head("bias", "q k v b", ", e any", d="fixed"),
    multi_head("mask", "q k v _ mask scores", ", e any, u fixed, x fixed"),
    multi_head("kept", "q k4 v4"),
    multi_head("cache", "q k vd _ _ _ pk pv", ", p fixed", "y k2 v2"),
    grouped("plain", "q k v _ _ n total", PLAIN, "y k2 v2"),
    grouped("packed", "qkv _ _ _ _ n total", "s fixed, d fixed, o fixed, n fixed", "y k2 v2"),
    grouped("cache", "one key value pk pv n total", "d any, o fixed, p fixed, n fixed", "y k2 v2"),
    grouped("rotated", ROTATED, TURNED, "y k2 v2", half=16),
    grouped("interleaved", ROTATED, TURNED, "y k2 v2", half=16, rotary_interleaved=1),
    rotary("merged", "x at cos sin", ""),
    rotary("counted", "x at cos sin", "", num_heads=3),
    rotary("separate", "x4 start cos sin", "", interleaved=1),
    rotary("partial", "x at cos sin", ", z any", half=2, num_heads=3, rotary_embedding_dim=4),
]
