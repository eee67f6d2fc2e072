"""Attention and rotary embeddings of ONNX's own domain."""

from __future__ import annotations

from onnx_net2net.frameworks.pytorch.operation import Entry, Operation
from onnx_net2net.frameworks.pytorch.types import Untranslated, short


def headed(op: Operation, index: int, attribute: str) -> str:
    """An operand with its heads on axis 1."""
    if op.axes_of(index) == 4:
        return op.tensor(index)
    heads = op.attribute(attribute)
    return op.kernel("with_heads", op.tensor(index), heads)


def attention(op: Operation) -> list[str]:
    """softmax(q k^T * scale + mask) v, with a cache that grows."""
    if op.has(6):
        raise Untranslated("its cache is kept outside (nonpad_kv_seqlen)")
    q = op.add(headed(op, 0, "q_num_heads"), "query")
    k = op.add(headed(op, 1, "kv_num_heads"), "key")
    v = op.add(headed(op, 2, "kv_num_heads"), "value")
    before = "0"
    if op.has(4):
        before = f"{op.tensor(4)}.shape[2]"
        k = op.add(f"torch.cat(({op.tensor(4)}, {k}), dim=2)", "key")
        v = op.add(f"torch.cat(({op.tensor(5)}, {v}), dim=2)", "value")
    mask = "None"
    if op.has(3):
        mask = op.tensor(3)
    scale = "None" if op.attribute("scale") is None else short(op.attribute("scale"))
    causal, cap = bool(op.attribute("is_causal", 0)), short(op.attribute("softcap", 0.0))
    outputs = [_attended(op, (q, k, v), mask, scale, causal, before, cap), k, v]
    if op.axes_of(0) == 3:
        outputs[0] = op.kernel("merged_heads", outputs[0])
    mode = op.attribute("qk_matmul_output_mode", 0)
    if op.wants(3):
        # The two middle stages changed places with opset 24.
        stage = {0: 0, 1: 2, 2: 1, 3: 3}[mode] if op.opset < 24 else mode
        if causal:
            raise Untranslated("it gives its scores and is causal")
        outputs.append(op.kernel("attention_scores", q, k, mask, scale, cap, stage))
    return outputs[: len(op.step.outputs)]


def _attended(
    op: Operation, qkv: tuple[str, str, str], mask: str, scale: str, causal: bool, before: str,
    cap: str,
) -> str:  # fmt: skip
    q, k, v = qkv
    if cap != "0.0":
        options = f"{mask}, {scale}, {causal}, {before}, {cap}"
        return op.kernel("attend", q, k, v, options)
    if causal and (before != "0" or mask != "None" or op.size(0, -2) != op.size(1, -2)):
        return op.kernel("attend", q, k, v, f"{mask}, {scale}, causal=True, before={before}")
    options = "" if mask == "None" else f", {mask}"
    options += ", is_causal=True" if causal else ""
    options += "" if scale == "None" else f", scale={scale}"
    heads = op.attribute("q_num_heads"), op.attribute("kv_num_heads")
    if op.axes_of(0) == 4:
        heads = op.size(0, 1), op.size(1, 1)
    options += "" if heads[0] == heads[1] else ", enable_gqa=True"
    return f"F.scaled_dot_product_attention({q}, {k}, {v}{options})"


def rotary(op: Operation) -> str:
    """Entries turned by an angle that grows with the position."""
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


def plain_attention(op: Operation) -> str:
    """The idiom of products and a softmax."""
    usual = op.program.size(op.name(0), -1)
    scale = op.attribute("scale")
    options = f", {op.tensor(3)}" if op.has(3) else ""
    if usual is None or abs(scale * usual**0.5 - 1) > 1e-6:
        options += f", scale={short(scale)}"
    given = f"{op.tensor(0)}, {op.tensor(1)}, {op.tensor(2)}"
    op.hint, op.fresh = "attention", True
    return f"F.scaled_dot_product_attention({given}{options})"


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Attention": attention,
        "RotaryEmbedding": rotary,
    },
    "idiom": {
        "Attention": plain_attention,
    },
}
