"""Attention as ONNX Runtime's optimisers fuse it.

    query "b s (h ~d)", key "b t (h d)", value "b t (h e)" -> "b s (h e)"    MultiHeadAttention
    input "b s i", weights "i ((h d) + (h d) + (h e))" -> "b s (h e)"        Attention

See `attention.py` for the head size d.
"""

from __future__ import annotations

from onnx_net2net.algebra.sizes import AnySize, maximum
from onnx_net2net.operators.attention import (
    HALVES,
    INDEXED,
    QUERY,
    SOFTMAX,
    count,
    frozen_scale,
    halves,
    parts,
    rotation,
    shape,
)
from onnx_net2net.operators.broadcast import broadcast
from onnx_net2net.operators.language import Op, Rule, Unsupported, size_ref
from onnx_net2net.operators.record import Operator, Table

FUSED = "queries and keys are multiplied over it behind weights or a bias they share with values"
BLOCKS = "kernels work on blocks of eight"
UNTURNED = "only the entries that are rotated grow"
ONE_SIZE = "all heads have one size where qkv_hidden_sizes is absent"
SCORES = {"s": QUERY, "t": SOFTMAX, "p": SOFTMAX, "u": SOFTMAX, "x": SOFTMAX}


def _given(op: Op, index: int, names: list[str]) -> str:
    """Name axes of an operand that is broadcast to ``names``; ``b`` where it is absent."""
    return " ".join(broadcast(names, op.shape(index))) if op.has(index) else "b"


def _padding(op: Op, index: int) -> str:
    """Name axes of a mask of tokens or rows of tokens, or of lengths of sequences."""
    if not op.has(index):
        return "b"
    rank = op.rank(index)
    if rank == 1 and op.shape(index) == op.shape(0)[:1]:
        return "b"
    if rank not in (2, 3):
        raise Unsupported("its mask is packed")
    names = ["b", "u"] if rank == 2 else ["b", "s", "u"]
    return " ".join(broadcast(names, op.shape(index)))


def _no(op: Op, what: str, *indices: int) -> None:
    if any(op.has(index) for index in indices):
        raise Unsupported(what)


def attention(op: Op) -> Rule:
    """Relate input, one weight of all projections, bias, mask and cache."""
    _no(op, "its caches share one buffer", 6)
    if op.attr("past_present_share_buffer", 0):
        raise Unsupported("its caches share one buffer")
    heads = count(op, "num_heads")
    sizes = [int(n) for n in op.attr("qkv_hidden_sizes", ())]
    given = bool(sizes)
    sizes = sizes or [shape(op, 1, 2)[1] // 3] * 3
    if len(sizes) != 3 or sizes[0] != sizes[1] or any(n < 1 or n % heads for n in sizes):
        raise Unsupported("its projections are not whole heads")
    whole = "(p + s)" if op.has(4) else "s"
    merged = "((h d) + (h d) + (h e))"
    past, entry = ("c b h p d", "d") if op.has(4) else ("b", "e")
    merged = merged.replace("e", entry)
    bias = _given(op, 5, ["b", "h", "s", "x"])
    fixed = {**SCORES, "d": FUSED, "c": "it counts keys and values"}
    text = f"b s i, i {merged}, {merged}, {_padding(op, 3)}, {past}, {bias}"
    refs = [size_ref("num_heads", "h")]
    if given:
        refs.append(size_ref("qkv_hidden_sizes", "(h d)", "(h d)", f"(h {entry})"))
    return Rule(
        f"{text} -> b s (h {entry}), c b h {whole} d",
        sizes={"h": heads, "d": sizes[0] // heads, "e": sizes[2] // heads, "c": 2},
        fixed=fixed if given else fixed | {"e": ONE_SIZE},
        size_refs=refs,
        parts=parts(),
    )


def multi_head_attention(op: Op) -> Rule:
    """Relate queries, keys and values of their own; a key may be one that a cache holds already."""
    _no(op, "its caches share one buffer", 8, 9)
    heads = count(op, "num_heads")
    if op.rank(0) != 3 or not op.has(1) or not op.has(2):
        raise Unsupported("queries, keys and values are packed into one operand")
    # Kernels keep caches of keys and values in one shape.
    entry = "d" if op.has(6) or 4 in (op.rank(1), op.rank(2)) else "e"
    whole = "(p + t)" if op.has(6) else "t"
    fixed = {**SCORES, "d": FUSED} if op.has(3) else SCORES
    operands = [
        *("b s (h ~d)", _keys(op, 1, "d"), _keys(op, 2, entry)),
        f"((h d) + (h d) + (h {entry}))",
        *(_padding(op, 4), _given(op, 5, ["b", "h", "s", "x"])),
        *("b h p d", f"b h p {entry}"),
    ]
    caches = f"b h {whole} d, b h {whole} {entry}"
    return Rule(
        f"{', '.join(operands)} -> b s (h {entry}), {caches}, b h s {whole}",
        sizes={"h": heads},
        fixed=fixed,
        size_refs=(size_ref("num_heads", "h"),),
        freeze=frozen_scale(op, op.shape(0)[2] // heads, zero=True),
        rescale={"d": 0},
        parts=parts(),
    )


def _keys(op: Op, index: int, entry: str) -> str:
    if op.rank(index) not in (3, 4):
        raise Unsupported("keys and values are packed into one operand")
    return f"b h t {entry}" if op.rank(index) == 4 else f"b t (h {entry})"


def group_query_attention(op: Op) -> Rule:
    """Relate groups of query heads to each head of keys and values; some rotate them first."""
    _no(op, "its cache is quantised", 12, 13)
    _no(op, "it normalises queries and keys", 14, 15)
    if op.attr("sliding_window_cache", 0):
        raise Unsupported("its cache is a window")
    heads, kv = count(op, "num_heads"), count(op, "kv_num_heads")
    if heads % kv:
        raise Unsupported("its heads are not whole groups of query heads")
    packed = not op.has(1)
    size = shape(op, 0, 3)[2] // (heads + 2 * kv if packed else heads)
    entry, sizes = _entry(op, size)
    own = entry.replace("d", "~d")
    each = f"(kv {entry})"
    data = f"b s ((kv rep {own}) + {each} + {each})" if packed else f"b s (kv rep {own})"
    cache = "b kv {} " + (entry if entry.startswith("((") else f"({entry})")
    lengths = "b 1" if op.rank(5) == 2 else "b"
    operands = [
        *(data, f"b t {each}", f"b t {each}", cache.format("p"), cache.format("p"), lengths, "_"),
        *("m (d o)", "m (d o)", _given(op, 9, ["b", "s"])),
        *(_given(op, 10, ["b", "(kv rep)", "s", "x"]), "(kv rep)"),
    ]
    present = cache.format("n")
    fixed = {**SCORES, "n": SOFTMAX, "m": INDEXED, "w": HALVES, "o": BLOCKS, "z": UNTURNED}
    return Rule(
        f"{', '.join(operands)} -> b s (kv rep {entry}), {present}, {present}, b (kv rep) s n",
        sizes={"kv": kv, "rep": heads // kv, "n": _total(op), **sizes},
        fixed=fixed | ({"d": FUSED} if packed else {}),
        size_refs=(size_ref("num_heads", "(kv rep)"), size_ref("kv_num_heads", "kv")),
        freeze=frozen_scale(op, size, zero=True),
        rescale={} if packed else {"d": 0},
        parts=parts(heads // kv) | {"d": "head_blocks"},
    )


def _entry(op: Op, size: int) -> tuple[str, dict[str, int]]:
    """Name a head's entries and give their sizes: kernels want blocks ``o`` of eight."""
    if size % 8:
        raise Unsupported("its head size is not a multiple of 8")
    if not op.attr("do_rotary", 0):
        return "d o", {"d": size // 8, "o": 8}
    half = shape(op, 7, 2)[1]
    if half % 8:
        raise Unsupported("its rotations are not a multiple of 8")
    turned = halves(op, half, size, interleaved=bool(op.attr("rotary_interleaved", 0)))
    return turned.replace("f", "d o"), {"w": 2, "d": half // 8, "o": 8, "z": size - 2 * half}


def _total(op: Op) -> AnySize:
    """Return the length of the new caches."""
    total = op.value(6)
    past = shape(op, 3, 4)[2] if op.has(3) else 0
    return past + op.shape(0)[1] if total is None else maximum(past, *total.ravel().tolist())


def rotary_embedding(op: Op) -> Rule:
    """Relate input, positions, cosines, sines; a merged head count may follow from the tables."""
    if op.attr("is_packed_batching", 0):
        raise Unsupported("sequences are packed into one")
    data, half = shape(op, 0, 3, 4), shape(op, 2, 2)[1]
    if len(data) == 4:
        number, size = data[1], data[3]
    else:
        number = int(op.attr("num_heads", 0)) or data[2] // (2 * half)
        size = data[2] // number if number > 0 else 0
    return rotation(op, half, size, number, "m f", positions=1)


TABLES: dict[str, Table] = {
    "com.microsoft": {
        "Attention": Operator(
            attention,
            required=("num_heads",),
        ),
        "GroupQueryAttention": Operator(
            group_query_attention,
            required=("kv_num_heads", "num_heads"),
        ),
        "MultiHeadAttention": Operator(
            multi_head_attention,
            required=("num_heads",),
        ),
        "RotaryEmbedding": Operator(rotary_embedding, indexes={1: 2}),
    }
}
