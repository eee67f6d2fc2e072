"""Samples of attention and rotary embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.samples import Sample, node, weight

F = np.float32
BATCH, KV, REP, QUERIES, KEYS, PAST, HEAD, VALUE = 2, 3, 2, 4, 5, 7, 6, 8


def floats(**shapes: tuple[int, ...]) -> dict[str, Any]:
    """Float activations."""
    return {name: (F, shape) for name, shape in shapes.items()}


def attention(
    name: str,
    inputs: str = "q k v",
    outputs: str = "y",
    *,
    rank: int = 3,
    rep: int = REP,
    weights: dict[str, np.ndarray] | None = None,
    expect: str = "",
    **attributes: Any,
) -> Sample:
    """Activations are named q, k, v, pk, pv."""
    total = (PAST if "pk" in inputs else 0) + KEYS
    if rank == 4:
        shapes = floats(
            q=(BATCH, KV * rep, QUERIES, HEAD),
            k=(BATCH, KV, KEYS, HEAD),
            v=(BATCH, KV, KEYS, VALUE),
        )
    else:
        attributes |= {"q_num_heads": KV * rep, "kv_num_heads": KV}
        shapes = floats(
            q=(BATCH, QUERIES, KV * rep * HEAD),
            k=(BATCH, KEYS, KV * HEAD),
            v=(BATCH, KEYS, KV * VALUE),
        )
    shapes |= floats(
        pk=(BATCH, KV, PAST, HEAD),
        pv=(BATCH, KV, PAST, VALUE),
        mask=(QUERIES, total),
        full=(BATCH, KV * rep, QUERIES, total),
        repeated=(BATCH, 1, QUERIES, total),
    )
    used = {key: shape for key, shape in shapes.items() if key in inputs.split()}
    made = node("Attention", inputs, outputs, **attributes)
    axes = ["b any", "kv any", *(["rep any"] if rep > 1 else []), "s fixed", "t fixed"]
    axes += ["d any", "e any", *(["p fixed"] if "pk" in inputs else [])]
    axes += ["u fixed"] if {"mask", "full", "repeated"}.intersection(inputs.split()) else []
    return Sample(name, made, used, weights or {}, opset=23, expect=expect or ", ".join(axes))


def rotary(name: str, rank: int, expect: str, **attributes: Any) -> Sample:
    """Three heads of eight entries, at four positions of a table or of their own."""
    half = attributes.get("rotary_embedding_dim", 8) // 2
    x = (2, 4, 24) if rank == 3 else (2, 3, 4, 8)
    if rank == 3:
        attributes["num_heads"] = 3
    if name.startswith("table"):
        tables = {"cos": weight(9, half), "sin": weight(9, half, seed=2)}
        tables["at"] = np.array([[5, 1, 0, 8], [2, 3, 3, 7]], np.int64)
        made = node("RotaryEmbedding", "x cos sin at", **attributes)
        expect += ", m fixed"
    else:
        tables = {"cos": weight(2, 4, half), "sin": weight(2, 4, half, seed=2)}
        made = node("RotaryEmbedding", "x cos sin", **attributes)
    return Sample(f"{name}-{rank}d", made, floats(x=x), tables, opset=23, expect=expect)


TURNED = "b any, s fixed, h any, w fixed, f any"
PARTLY = f"{TURNED}, z any"

SAMPLES = [
    attention("merged"),
    attention("merged-one-each", rep=1),
    attention("separate", rank=4),
    attention("scale", scale=0.3, softcap=2.0, is_causal=1),
    attention("mask", "q k v mask"),
    attention("mask-full", "q k v full", rank=4),
    attention("mask-repeated", "q k v repeated"),
    attention("cache", "q k v _ pk pv", "y k2 v2", rank=4),
    attention("cache-mask", "q k v full pk pv", "y k2 v2"),
    attention("scores", "q k v mask", "y _ _ scores", rank=4),
    *(rotary("table", rank, TURNED) for rank in (3, 4)),
    *(rotary("own", rank, TURNED) for rank in (3, 4)),
    *(rotary("table-interleaved", rank, TURNED, interleaved=1) for rank in (3, 4)),
    *(rotary("table-partial", rank, PARTLY, rotary_embedding_dim=4) for rank in (3, 4)),
    rotary("own-partial-interleaved", 3, PARTLY, rotary_embedding_dim=4, interleaved=1),
]
