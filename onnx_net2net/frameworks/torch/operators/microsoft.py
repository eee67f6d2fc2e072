"""Operators that ONNX Runtime's optimisers fuse."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, Operation
from onnx_net2net.frameworks.torch.operators.convolution import convolution
from onnx_net2net.frameworks.torch.operators.linear import gemm
from onnx_net2net.frameworks.torch.operators.normalisation import (
    normalised,
    rms_layer,
)
from onnx_net2net.frameworks.torch.types import short

DOMAIN = "com.microsoft"


def activated(op: Operation, code: str, parameters: list[float]) -> str:
    """An activation fused behind a layer."""
    name = op.attribute("activation", "")
    forms = {
        "": "{x}",
        "Clip": "torch.clamp({x}, {0}, {1})",
        "Elu": "F.elu({x}, {0})",
        "HardSigmoid": "torch.clamp({0} * ({x}) + {1}, 0, 1)",
        "LeakyRelu": "F.leaky_relu({x}, {0})",
        "Relu": "F.relu({x})",
        "Sigmoid": "torch.sigmoid({x})",
        "Tanh": "torch.tanh({x})",
    }
    if name not in forms:
        op.refuse(f"its activation {name} is not known")
    form = forms[name]
    if form.count("{") - 1 > len(parameters):
        op.refuse(f"the parameters of its activation {name} are missing")
    for index, value in enumerate(parameters):
        form = form.replace(f"{{{index}}}", short(value))
    return form.replace("{x}", code)


def fused_conv(op: Operation) -> str:
    """A convolution, a sum and an activation."""
    code = convolution(op, op.tensor(0), 1, 2 if op.has(2) else None)
    if op.has(3):
        code = f"{code} + {op.tensor(3)}"
    return activated(op, code, list(op.attribute("activation_params") or []))


def fused_gemm(op: Operation) -> str:
    """A Gemm and an activation."""
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = [op.attribute(n) for n in names if op.attribute(n) is not None]
    return activated(op, gemm(op), parameters)


def fused_matmul(op: Operation) -> str:
    """A product of matrices, transposed or not, times a number."""
    if op.attribute("transBatchA", 0) or op.attribute("transBatchB", 0):
        op.refuse("it transposes batches")
    sides = []
    for index, name in enumerate(("transA", "transB")):
        code = op.tensor(index)
        turned = op.attribute(name, 0) and op.axes_of(index) > 1
        sides.append(f"({code}).transpose(-1, -2)" if turned else f"({code})")
    op.named(op.path(1)) if op.path(1) else None
    alpha = op.attribute("alpha", 1.0)
    product = f"{sides[0]} @ {sides[1]}"
    return product if alpha == 1.0 else f"({product}) * {short(alpha)}"


def with_bias(form: str) -> Entry:
    """An activation of a sum with a bias."""

    def entry(op: Operation) -> str:
        x = f"{op.tensor(0)} + {op.tensor(1)}" if op.has(1) else op.tensor(0)
        return form.replace("{x}", x)

    return entry


def quick_gelu(op: Operation) -> str:
    """x * sigmoid(alpha * x); SiLU for alpha 1."""
    alpha = op.attribute("alpha", 1.702)
    if alpha == 1.0:
        return f"F.silu({op.tensor(0)})"
    return op.filled(f"{{0}} * torch.sigmoid({short(alpha)} * {{0}})")


def _summed(op: Operation, bias: int) -> str:
    code = f"{op.tensor(0)} + {op.tensor(1)}"
    return f"{code} + {op.tensor(bias)}" if op.has(bias) else code


def skip_norm(op: Operation) -> list[str]:
    """LayerNorm of a sum, which is the fourth output."""
    if op.wants(1) or op.wants(2):
        op.refuse("its statistics are read")
    total = op.add(_summed(op, 4), "total", inline=not op.wants(3))
    shape = op.shape(2)
    if shape is None:
        op.refuse("its scale is computed")
    epsilon = short(op.attribute("epsilon", 1e-12))
    code = normalised(op, shape, epsilon, 2, 3 if op.has(3) else None, total)
    return [code, "", "", total][: len(op.step.outputs)]


def skip_rms(op: Operation) -> list[str]:
    """RMSNorm of a sum, which is the fourth output."""
    if op.wants(1) or op.wants(2):
        op.refuse("its statistics are read")
    total = op.add(_summed(op, 3), "total", inline=not op.wants(3))
    shape = op.shape(2)
    if shape is None:
        op.refuse("its scale is computed")
    code = rms_layer(op, shape, short(op.attribute("epsilon", 1e-12)), 2, total)
    return [code, "", "", total][: len(op.step.outputs)]


def embeddings(op: Operation) -> list[str]:
    """Words, positions and segments, summed and normalised."""
    ids = op.tensor(0)
    parts = []
    for table, index in ((2, ids), (4, op.optional(1) if op.has(1) else "")):
        if op.has(table):
            shape = op.shape(table)
            module = f"nn.Embedding({shape[0]}, {shape[1]})" if shape else ""
            layer = op.layer(module, weight=table)
            parts.append(f"{layer}({index})" if layer else f"{op.tensor(table)}[{index}]")
    place = op.tensor(8) if op.has(8) else f":{op.size(0, 1)}"
    parts.insert(1, f"{op.tensor(3)}[{place}]")
    total = op.add(" + ".join(parts), "embeddings", inline=not op.wants(2))
    shape = op.shape(5)
    if shape is None:
        op.refuse("its scale is computed")
    epsilon = short(op.attribute("epsilon", 1e-12))
    code = normalised(op, shape, epsilon, 5, 6, total)
    lengths = f"{ids}.new_zeros({ids}.shape[0], dtype=torch.int32)"
    if op.has(7):
        lengths = f"({op.tensor(7)}).sum(1).to(torch.int32)"
    return [code, lengths, total][: len(op.step.outputs)]


def _no(op: Operation, what: str, *indices: int) -> None:
    if any(op.has(index) for index in indices):
        op.refuse(what)


def _scores_mask(op: Operation, tokens: int, bias: int, columns: str) -> str:
    """What is added to the scores: a mask of tokens and a bias."""
    parts = []
    if op.has(tokens):
        if op.axes_of(tokens) > 3 or (op.axes_of(tokens) == 1 and not _is_batch(op, tokens)):
            op.refuse("its mask is packed")
        low = short(op.attribute("mask_filter_value", -10000.0))
        parts.append(op.kernel("token_mask", op.tensor(tokens), columns, low))
    if op.has(bias):
        parts.append(op.tensor(bias))
    return " + ".join(parts) or "None"


def _is_batch(op: Operation, index: int) -> bool:
    shapes = op.program.shapes
    mask, x = shapes.of(op.name(index)), shapes.of(op.name(0))
    return mask is not None and x is not None and mask[0] == x[0]


def attention(op: Operation) -> list[str]:
    """The projections are inside: one weight holds those of queries, keys and values."""
    _no(op, "its caches share one buffer", 6)
    if op.attribute("do_rotary", 0):
        op.refuse("it rotates queries and keys")
    heads = op.attribute("num_heads")
    sizes = list(op.attribute("qkv_hidden_sizes") or []) or [op.fixed(1, 1) // 3] * 3
    op.named(op.path(1))
    bias = f" + {op.tensor(2)}" if op.has(2) else ""
    packed = op.add(f"{op.tensor(0)} @ {op.tensor(1)}{bias}", "packed")
    parts = op.translator.block.unpack(
        f"torch.split({packed}, {sizes}, dim=-1)", ["query", "key", "value"]
    )
    q, k, v = (
        op.add(op.kernel("with_heads", p, heads), n)
        for p, n in zip(parts, ("query", "key", "value"), strict=True)
    )
    before = "0"
    if op.has(4):
        before = f"{op.tensor(4)}.shape[3]"
        k = op.add(f"torch.cat(({op.tensor(4)}[0], {k}), dim=2)", "key", inline=False)
        v = op.add(f"torch.cat(({op.tensor(4)}[1], {v}), dim=2)", "value", inline=False)
    mask = _scores_mask(op, 3, 5, f"{k}.shape[2]")
    code = op.kernel("attend", q, k, v, _options(op, mask, (q, k, before)))
    return [op.kernel("merged_heads", code), f"torch.stack(({k}, {v}))"][: len(op.step.outputs)]


def _options(op: Operation, mask: str, given: tuple[str, str, str]) -> str:
    scale = op.attribute("scale", 0.0)
    if op.attribute("unidirectional", 0):
        causal = op.kernel("fused_causal_mask", *given)
        mask = causal if mask == "None" else f"{mask} + {causal}"
    return ", ".join([mask, short(scale) if scale else "None"])


def multi_head_attention(op: Operation) -> list[str]:
    """Queries, keys and values of their own; keys may be those of a cache."""
    _no(op, "its caches share one buffer", 8, 9)
    if op.axes_of(0) != 3 or not op.has(1) or not op.has(2):
        op.refuse("queries, keys and values are packed into one operand")
    heads = op.attribute("num_heads")
    given = [op.tensor(i) for i in range(3)]
    if op.has(3):
        sizes = ", ".join(f"{code}.shape[-1]" for code in given)
        code = f"torch.split({op.tensor(3)}, [{sizes}])"
        parts = op.translator.block.unpack(code, ["bias_q", "bias_k", "bias_v"])
        given = [f"{code} + {part}" for code, part in zip(given, parts, strict=True)]
    q, k, v = (
        op.add(op.kernel("with_heads", code, heads) if op.axes_of(i) == 3 else code, name)
        for i, (code, name) in enumerate(zip(given, ("query", "key", "value"), strict=True))
    )
    before = f"{op.tensor(6)}.shape[2]" if op.has(6) else "0"
    if op.has(6):
        k = op.add(f"torch.cat(({op.tensor(6)}, {k}), dim=2)", "key", inline=False)
        v = op.add(f"torch.cat(({op.tensor(7)}, {v}), dim=2)", "value", inline=False)
    mask = _scores_mask(op, 4, 5, f"{k}.shape[2]")
    outputs = [op.kernel("attend", q, k, v, _options(op, mask, (q, k, before)))]
    outputs[0] = op.kernel("merged_heads", outputs[0])
    if op.wants(3):
        op.refuse("its scores are read")
    return [*outputs, k, v][: len(op.step.outputs)]


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


def rotary(op: Operation) -> str:
    """Entries turned by an angle that grows with the position."""
    merged = op.axes_of(0) == 3
    x = op.tensor(0)
    if merged:
        width = op.fixed(3, 1) * 2 if not op.attribute("num_heads", 0) else None
        heads = op.attribute("num_heads", 0) or op.fixed(0, 2) // (width or 1)
        x = op.kernel("with_heads", x, heads)
    x = op.add(x, "x")
    place = op.tensor(1)
    if op.rank(1) == 1:
        steps = f"torch.arange({x}.shape[2], device={x}.device)"
        place = op.add(f"({place} + {steps})[None]", "places")
    size = op.attribute("rotary_embedding_dim", 0) or f"{x}.shape[-1]"
    turned = bool(op.attribute("interleaved", 0))
    cos, sin = f"{op.tensor(2)}[{place}]", f"{op.tensor(3)}[{place}]"
    code = op.kernel("rotated", x, cos, sin, turned, size)
    return op.kernel("merged_heads", code) if merged else code


TABLES: dict[str, dict[str, Entry]] = {
    DOMAIN: {
        "Attention": attention,
        "BiasGelu": with_bias("F.gelu({x})"),
        "EmbedLayerNormalization": embeddings,
        "FastGelu": with_bias('F.gelu({x}, approximate="tanh")'),
        "FusedConv": fused_conv,
        "FusedGemm": fused_gemm,
        "FusedMatMul": fused_matmul,
        "GatedAdd": "{t0} + {t1} * {t2}",
        "Gelu": "F.gelu({0})",
        "GroupQueryAttention": group_query_attention,
        "Inverse": "torch.linalg.inv({0})",
        "MultiHeadAttention": multi_head_attention,
        "QuickGelu": quick_gelu,
        "RotaryEmbedding": rotary,
        "SkipLayerNormalization": skip_norm,
        "SkipSimplifiedLayerNormalization": skip_rms,
        "TransposeMatMul": fused_matmul,
    },
}
