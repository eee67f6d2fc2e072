"""Attention and rotary embeddings of ONNX's own domain."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import short, torch_dtype


def headed(op: TorchOperation, index: int, attribute: str) -> str:
    """Return an operand with its heads on axis 1."""
    x = op.tensor(index)
    return x if op.axes_of(index) == 4 else op.kernel("with_heads", x, op.attribute(attribute))


def attention(op: TorchOperation) -> list[str]:
    """Write softmax(q k^T * scale + mask) v; a cache grows, or is kept outside."""
    q = op.add(headed(op, 0, "q_num_heads"), "query")
    k = op.add(headed(op, 1, "kv_num_heads"), "key")
    v = op.add(headed(op, 2, "kv_num_heads"), "value")
    before = "0"
    if op.has(4):
        before = f"{op.tensor(4)}.shape[2]"
        k = op.add(f"torch.cat(({op.tensor(4)}, {k}), dim=2)", "key")
        v = op.add(f"torch.cat(({op.tensor(5)}, {v}), dim=2)", "value")
    scale = "None" if op.attribute("scale") is None else short(op.attribute("scale"))
    result, scores = _attended(op, (q, k, v), scale, before)
    merged = op.kernel("merged_heads", result) if op.axes_of(0) == 3 else result
    return [merged, k, v, scores]


def _attended(
    op: TorchOperation, qkv: tuple[str, str, str], scale: str, before: str
) -> tuple[str, str]:
    """Return the result, and what the fourth output holds of the way to it."""
    q, k, v = qkv
    causal, cap = bool(op.attribute("is_causal", 0)), short(op.attribute("softcap", 0.0))
    window = op.attribute("left_window_size", -1), op.attribute("right_window_size", -1)
    mode, precision = op.attribute("qk_matmul_output_mode", 0), op.attribute("softmax_precision", 0)
    precise = precision not in (0, op.dtype(0))
    square = op.size(0, -2) == op.size(1, -2) and before == "0"
    narrow = op.has(3) and (op.axes_of(3) < 2 or not _as_wide(op, before))
    mask = op.optional(3)
    if (
        cap != "0.0"
        or window != (-1, -1)
        or op.has(6)
        or op.wants(3)
        or precise
        or narrow
        or (causal and (not square or op.has(3)))
    ):
        lengths = op.optional(6)
        given = f"{mask}, {causal}, {before}, {lengths}, {window}"
        mask = op.add(op.kernel("visible_mask", q, k, given), "mask")
        options = f"{mask}, {scale}, {cap}"
        exact = f", {torch_dtype(precision)}" if precise else ""
        scores = op.kernel("attention_scores", q, k, f"{options}, {mode}{exact}")
        return op.kernel("attend", q, k, v, f"{options}{exact}"), scores
    options = "" if mask == "None" else f", {mask}"
    options += ", is_causal=True" if causal else ""
    options += "" if scale == "None" else f", scale={scale}"
    heads = op.attribute("q_num_heads"), op.attribute("kv_num_heads")
    if op.axes_of(0) == 4:
        heads = op.size(0, 1), op.size(1, 1)
    options += "" if heads[0] == heads[1] else ", enable_gqa=True"
    return f"F.scaled_dot_product_attention({q}, {k}, {v}{options})", "None"


def _as_wide(op: TorchOperation, before: str) -> bool:
    """Return whether a mask is known to have a column for each key."""
    columns = op.program.size(op.name(3), -1)
    past = 0 if before == "0" else op.program.size(op.name(4), 2)
    keys = op.program.size(op.name(1), -2)
    if columns is None or past is None or keys is None:
        return columns == 1
    return columns in (1, past + keys)


def rotary(op: TorchOperation) -> str:
    """Rotate elements by an angle that grows with the position."""
    x, heads = op.tensor(0), op.attribute("num_heads")
    merged = op.axes_of(0) == 3
    if merged:
        x = op.kernel("with_heads", x, heads)
    x = op.add(x, "x")
    cos, sin = op.tensor(1), op.tensor(2)
    if op.has(3):
        cos, sin = f"{cos}[{op.tensor(3)}]", f"{sin}[{op.tensor(3)}]"
    size = op.attribute("rotary_embedding_dim", 0) or f"{x}.shape[-1]"
    code = op.kernel("rotated", x, cos, sin, bool(op.attribute("interleaved", 0)), size)
    return op.kernel("merged_heads", code) if merged else code


def plain_attention(op: TorchOperation) -> str:
    """Write the fusion of products and a softmax."""
    usual = op.program.size(op.name(0), -1)
    scale = op.attribute("scale")
    op.attribute("guarded")  # PyTorch's always is
    options = f", {op.tensor(3)}" if op.has(3) else ""
    if usual is None or abs(scale * usual**0.5 - 1) > 1e-6:
        options += f", scale={short(scale)}"
    if ratio := op.attribute("dropout"):
        options += f", dropout_p={short(ratio)} if self.training else 0.0"
    given = f"{op.tensor(0)}, {op.tensor(1)}, {op.tensor(2)}"
    op.hint, op.fresh = "attention", True
    return f"F.scaled_dot_product_attention({given}{options})"


TABLES: dict[str, dict[str, Entry]] = {
    "": {"Attention": attention, "RotaryEmbedding": rotary},
    "fusion": {"Attention": plain_attention},
}
