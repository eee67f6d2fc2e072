"""Operators that ONNX Runtime's optimisers fuse and that no function text covers."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, Operation
from onnx_net2net.frameworks.torch.types import Untranslated, short


def _no(op: Operation, what: str, *indices: int) -> None:
    if any(op.has(index) for index in indices):
        raise Untranslated(what)


def group_query_attention(op: Operation) -> list[str]:
    """Groups of query heads for each head of keys and values; may rotate them first."""
    _no(op, "its positions or its bias are given", 9, 10, 11)
    _no(op, "its cache is quantised", 12, 13)
    _no(op, "it normalises queries and keys", 14, 15)
    heads = op.attribute("num_heads"), op.attribute("kv_num_heads")
    if op.has(1):
        parts = [op.tensor(i) for i in range(3)]
    else:
        size = op.fixed(0, -1) // (heads[0] + 2 * heads[1])
        sizes = [heads[0] * size, heads[1] * size, heads[1] * size]
        code = f"torch.split({op.tensor(0)}, {sizes}, dim=-1)"
        parts = op.translator.block.unpack(code, ["query", "key", "value"])
    scale, cap = op.attribute("scale", 0.0), op.attribute("softcap", 0.0)
    total = op.number(6)
    rotated = bool(op.attribute("do_rotary", 0))
    code = op.kernel(
        "group_query_attention", *parts, op.optional(3), op.optional(4), op.tensor(5),
        total if total is not None else f"int({op.tensor(6)})", heads,
        short(scale) if scale else "None", op.tensor(7) if rotated else "None",
        op.tensor(8) if rotated else "None", bool(op.attribute("rotary_interleaved", 0)),
        short(cap), op.attribute("local_window_size", -1),
    )  # fmt: skip
    names = op.translator.block.unpack(code, [op.hint, "key", "value"])
    return names[: len(op.step.outputs)]


TABLES: dict[str, dict[str, Entry]] = {
    "com.microsoft": {
        "GroupQueryAttention": group_query_attention,
        "Inverse": "torch.linalg.inv({0})",
    },
}
