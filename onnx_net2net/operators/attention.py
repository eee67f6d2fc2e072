"""Attention and rotary embeddings.

    q "b s (kv rep ~d)", k "b t (kv d)", v "b t (kv e)" -> "b s (kv rep e)"     Attention

Queries and keys are multiplied inside the operator, over the head size d: copies of it share
on the queries' side, and the default scale 1 / sqrt(d) is frozen. ``rep`` query heads read each
of the ``kv`` heads of keys and values (1 in plain multi-head attention).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from onnx_net2net.operators import flops
from onnx_net2net.operators.broadcast import broadcast
from onnx_net2net.operators.language import Op, Rule, SizeRef, Unsupported, size_ref
from onnx_net2net.operators.record import Operator, Table

SOFTMAX = "a softmax runs over it"
QUERY = "positions are counted along it"
HALVES = "rotation pairs its entries"
INDEXED = "its rows are looked up by index"


def count(op: Op, name: str) -> int:
    """Return the positive number that attribute ``name`` must state."""
    value = op.attr(name, 0)
    if not isinstance(value, int) or value < 1:
        raise Unsupported(f"its attribute {name} is missing")
    return value


def shape(op: Op, index: int, *ranks: int) -> tuple[Any, ...]:
    """Return the shape of input ``index``, which has one of ``ranks`` and is not empty."""
    sizes = op.shape(index)
    if len(sizes) not in ranks or 0 in sizes:
        raise Unsupported(f"the shape of its input {index} does not fit")
    return sizes


def parts(rep: int = 1) -> dict[str, str]:
    """Return what the parts of merged heads are called, ``rep`` query heads for each of a key."""
    number = {"kv": "heads"} if rep == 1 else {"kv": "kv_heads", "rep": "heads_per_kv"}
    return {"h": "heads", **number, "d": "head_size", "e": "v_head_size"}


def heads(op: Op) -> tuple[int, int, int]:
    """Count heads of keys and values, query heads for each of them, and the entries of a head."""
    first, second = shape(op, 0, 3, 4), shape(op, 1, 3, 4)
    if len(first) == 4:
        query, kv, size = first[1], second[1], first[3]
    else:
        query, kv = count(op, "q_num_heads"), count(op, "kv_num_heads")
        size = first[2] // query
    if not size or query % kv:
        raise Unsupported("its heads are not whole groups of query heads")
    return kv, query // kv, size


def frozen_scale(op: Op, size: int, *, zero: bool = False) -> dict[str, float]:
    """Return the default scale where none is given (in some operators: where it is ``zero``)."""
    if size < 1:
        raise Unsupported("its heads are empty")
    given = op.attr("scale")
    return {"scale": 1 / sqrt(size)} if given is None or (zero and not given) else {}


def given_refs(op: Op, **terms: str) -> list[SizeRef]:
    """Refer to sizes in those attributes that the node has; 0 stands for the default."""
    return [size_ref(name, item) for name, item in terms.items() if op.attr(name, 0)]


def attention(op: Op) -> Rule:
    """Relate Q, K and V: (batch, head, position, entry), or with heads and entries merged."""
    kv, rep, size = heads(op)
    if not op.rank(0) == op.rank(1) == op.rank(2):
        raise Unsupported("its operands have different ranks")
    past = op.has(4)
    whole = "(p + t)" if past else "t"
    q, k, v, y = (
        ("b (kv rep) s ~d", "b kv t d", "b kv t e", "b (kv rep) s e")
        if op.rank(0) == 4
        else ("b s (kv rep ~d)", "b t (kv d)", "b t (kv e)", "b s (kv rep e)")
    )
    mask = " ".join(broadcast(["b", "(kv rep)", "s", "u"], op.shape(3))) if op.has(3) else "b"
    outputs = f"{y}, b kv {whole} d, b kv {whole} e, b (kv rep) s {whole}"
    return Rule(
        f"{q}, {k}, {v}, {mask}, b kv p d, b kv p e, b -> {outputs}",
        sizes={"kv": kv, "rep": rep},
        fixed={"s": QUERY, "t": SOFTMAX, "p": SOFTMAX, "u": SOFTMAX},
        size_refs=given_refs(op, q_num_heads="(kv rep)", kv_num_heads="kv"),
        freeze=frozen_scale(op, size),
        rescale={"d": 0},
        parts=parts(rep),
    )


def halves(op: Op, half: int, size: int, *, interleaved: bool) -> str:
    """Name a head's entries: ``f`` rotations of two each, then ``z`` that are left alone."""
    turned = "f w" if interleaved else "w f"
    if not half or 2 * half > size:
        raise Unsupported("its rotations do not fit a head")
    return turned if 2 * half == size else f"(({turned}) + z)"


def rotary_embedding(op: Op) -> Rule:
    """Relate X, cosines, sines, and positions if the former are tables."""
    data, half = shape(op, 0, 3, 4), shape(op, 1, 2, 3)[-1]
    if len(data) == 4:
        number, size = data[1], data[3]
    else:
        number = count(op, "num_heads")
        size = data[2] // number
    return rotation(op, half, size, number, "m f" if op.has(3) else "b s f", positions=3)


def rotation(op: Op, half: int, size: int, number: int, table: str, *, positions: int) -> Rule:
    """Return the rule of a rotary embedding whose positions are input ``positions``."""
    entry = halves(op, half, size, interleaved=bool(op.attr("interleaved", 0)))
    alone = entry if entry.startswith("(") else f"({entry})"
    data = f"b h s {alone}" if op.rank(0) == 4 else f"b s (h {entry})"
    places = "b s"  # a row of positions for each image of the batch, or one start for all
    if op.has(positions) and op.rank(positions) != 1:
        places = " ".join(broadcast(["b", "s"], op.shape(positions)))
    elif op.has(positions):
        places = "1"
        if op.shape(positions) != (1,):
            raise Unsupported("its positions are neither one start nor a matrix")
    operands = [data, table, table]
    operands.insert(positions, places)
    return Rule(
        f"{', '.join(operands)} -> {data}",
        sizes={"h": number, "w": 2, "f": half},
        fixed={"w": HALVES, "m": INDEXED, "s": QUERY},
        size_refs=given_refs(op, num_heads="h", rotary_embedding_dim="(w f)"),
    )


TABLES_SIZE: dict[str | int, str] = {"rotary_embedding_dim": "the tables of cosines have this size"}

TABLES: dict[str, Table] = {
    "": {
        "Attention": Operator(attention, flops=flops.attention),
        "RotaryEmbedding": Operator(rotary_embedding, indexes={3: 1}, implied=TABLES_SIZE),
    }
}
