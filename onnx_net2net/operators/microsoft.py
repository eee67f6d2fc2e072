"""Operators that ONNX Runtime's optimisers write: fused forms of standard ones.

    "b i *s, o i *k, o, b o t0 t1 -> b o t0 t1"    FusedConv with its residual
    "a0 a1 n, a0 a1 n, n, n -> a0 a1 n, ..."       SkipLayerNormalization, n normalised

onnx infers no shapes for this domain, so every size of an output follows from its rule.
"""

from __future__ import annotations

from onnx import AttributeProto

from onnx_net2net.operators import flops, recurrent
from onnx_net2net.operators.attention import INDEXED, QUERY, count
from onnx_net2net.operators.broadcast import broadcast
from onnx_net2net.operators.control import CONVOLVING
from onnx_net2net.operators.elementwise import pointwise
from onnx_net2net.operators.language import Kind, Norm, Op, Rule, Unsupported, line, names, size_ref
from onnx_net2net.operators.linear import conv, gemm, matrices, product_of
from onnx_net2net.operators.normalisation import rms_normalization
from onnx_net2net.operators.quantization import INTEGERS, parameter, quantize
from onnx_net2net.operators.record import (
    SCALE_SHIFT,
    Operand,
    Operator,
    Table,
)
from onnx_net2net.operators.selection import SAMPLING
from onnx_net2net.operators.shaping import COUNTING, PADDING
from onnx_net2net.operators.windows import sliding

# Activations that are fused; all work entry by entry.
SIGMOIDS = ("HardSigmoid", "Sigmoid", "Softplus", "Softsign", "Tanh")
RECTIFIERS = ("Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Relu", "Selu", "ThresholdedRelu")
ACTIVATIONS = {"", *SIGMOIDS, *RECTIFIERS}
FUSED_EPSILON = 1e-12  # what the fused norms add to the variance unless told otherwise


def fused_conv(op: Op) -> Rule:
    """Add a residual Z of the output's shape to a Conv, and activate the sum."""
    base = conv(op)
    sizes = sliding(op, op.shape(1)[2:], "t")
    out = base.pattern.rsplit("->", 1)[1].split("*")[0].strip()  # batch and channels
    spatial = " ".join(sizes)
    inputs = base.pattern.rsplit("->", 1)[0].strip()
    return Rule(
        f"{inputs}, {out} {spatial} -> {out} {spatial}",
        sizes={**base.sizes, **sizes},
        fixed={**base.fixed, "s*": "a kernel window slides over it"},
        size_refs=base.size_refs,
    )


def fused_gemm(op: Op) -> Rule:
    """Activate a Gemm, which is then not linear."""
    return Rule(gemm(op).pattern)


def fused_matmul(op: Op) -> Rule:
    """Multiply matrices whose axes may be swapped."""
    if op.attr("transBatchA", 0) or op.attr("transBatchB", 0):
        raise Unsupported("it transposes batch axes")
    operands = matrices(op.rank(0), op.rank(1))
    out = product_of(*operands)
    for axes, turned in zip(operands, ("transA", "transB"), strict=True):
        if op.attr(turned, 0):
            if len(axes) < 2:
                raise Unsupported("it transposes a vector")
            axes[-2:] = axes[:-3:-1]
    return Rule(line(operands, [out]))


def fast_gelu(op: Op) -> Rule:
    """Activate the input plus an optional bias."""
    return Rule("..., ... -> ...", kind=Kind.OTHER if op.has(1) else Kind.ZERO)


def skip_layer_normalization(op: Op) -> Rule:
    """Normalise the sum of input, skip and bias (after gamma and beta), which may be an output."""
    beta = 3 if op.has(3) else None
    return _skip(op, Norm("n", True, FUSED_EPSILON, (0, 1, 4), scale=2, bias=beta, total=3))


def skip_simplified_layer_normalization(op: Op) -> Rule:
    """Normalise the same without mean and beta."""
    return _skip(op, Norm("n", False, FUSED_EPSILON, (0, 1, 3), scale=2, total=3))


def _skip(op: Op, norm: Norm) -> Rule:
    axes = [*names("a", op.rank() - 1), "n"]
    skip = broadcast(axes, op.shape(1))
    statistics = [*axes[:-1], "1"]
    text = line([axes, skip, ["n"], ["n"], ["n"]], [axes, statistics, statistics, axes])
    return Rule(text, normalised=["n"], norm=norm)


def simplified_layer_normalization(op: Op) -> Rule:
    """Normalise like RMSNormalization; an output more is the inverse deviation."""
    base = rms_normalization(op)
    output = base.pattern.rsplit("->", 1)[1].split()
    statistics = ["1" if name in base.normalised else name for name in output]
    return Rule(
        f"{base.pattern}, {' '.join(statistics)}", normalised=base.normalised, norm=base.norm
    )


def embed_layer_normalization(op: Op) -> Rule:
    """Sum and normalise word, position and segment embeddings."""
    positions = broadcast(["b", "s"], op.shape(8)) if op.has(8) else ["b", "s"]
    tables = "b s, b s, v n, p n, g n, n, n, b s"
    return Rule(
        f"{tables}, {' '.join(positions)} -> b s n, b, b s n",
        fixed={**dict.fromkeys("vpg", INDEXED), "s": QUERY},
        normalised=["n"],
        norm=Norm("n", True, FUSED_EPSILON, (2, 3, 4), scale=5, bias=6, total=2),
    )


def matmul_nbits(op: Op) -> Rule:
    """Multiply with a weight quantised in blocks of k, one row of blocks for each n."""
    if op.attr("weight_prepacked", 0):
        raise Unsupported("its weight is packed for one device")
    if op.has(4):
        raise Unsupported("group indices reorder its blocks")
    zeros = ("(n q)" if op.rank(3) == 1 else "n q") if op.has(3) else "n q"
    scales = "(n c)" if op.rank(2) == 1 else "n c"
    return Rule(
        f"... k, n c d, {scales}, {zeros}, _, n -> ... n",
        sizes={"n": count(op, "N")},
        fixed=dict.fromkeys("kcdq", "its weight is quantised in blocks"),
        size_refs=[size_ref("N", "n")],
    )


def dynamic_quantize_matmul(op: Op) -> Rule:
    """Relate a, b, b_scale, b_zero_point, bias."""
    return _integer_product(op, [parameter(op, 2, "n"), parameter(op, 3, "n"), ["n"]])


def matmul_integer_to_float(op: Op) -> Rule:
    """Relate a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias."""
    for index in (2, 4):
        if op.has(index) and op.rank(index) > 0 and op.shape(index) != (1,):
            raise Unsupported("its left operand has a scale for every row")
    one = [["1"] * op.rank(i) if op.has(i) else [] for i in (2, 4)]
    scale, zero = (parameter(op, i, "n") for i in (3, 5))
    return _integer_product(op, [one[0], scale, one[1], zero, ["n"]])


def _integer_product(op: Op, others: list[list[str]]) -> Rule:
    if op.rank(1) != 2 or op.rank(0) < 2:
        raise Unsupported("its weight is not a matrix")
    a, b = matrices(op.rank(0), 2)
    return Rule(line([a, ["k", "n"], *others], [product_of(a, b)]), fixed={"k": INTEGERS})


def matrix(op: Op) -> Rule:
    """Keep the last two axes, which are a matrix as a whole."""
    return Rule(
        "*b m n, _ -> *b m n", fixed=dict.fromkeys("mn", f"{op.node.op_type} reads matrices")
    )


QLINEAR_BINARY = "..., _, _, ..., _, _, _, _ -> ..."
QLINEAR_UNARY = "..., _, _, _, _ -> ..."

FUSED = {"activation": ACTIVATIONS}
LSTM = Operator(
    choices={"activations": recurrent.ACTIVATIONS},
    types=dict.fromkeys(("activation_alpha", "activation_beta"), AttributeProto.FLOATS),
)

TABLES: dict[str, Table] = {
    "": {
        "SimplifiedLayerNormalization": Operator(
            simplified_layer_normalization, weights={1: Operand.AFFINE}
        )
    },
    "com.microsoft": {
        "AttnLSTM": LSTM,
        "BiasAdd": Operator(weights={1: Operand.WEIGHT}),
        "BiasDropout": Operator(random=True, training=4),
        "BiasGelu": Operator(pointwise),
        "BitmaskBiasDropout": Operator(random=True, training=4),
        "BitmaskDropout": Operator(random=True, training=2),
        "CausalConvWithState": Operator(choices=CONVOLVING),
        "CropAndResize": Operator(choices={"mode": ("bilinear", "nearest")}),
        "DequantizeLinear": Operator(quantize, quantizes=True),
        "DynamicQuantizeLSTM": LSTM,
        "DynamicQuantizeMatMul": Operator(dynamic_quantize_matmul),
        "EmbedLayerNormalization": Operator(embed_layer_normalization, indexes={0: 2, 1: 4, 8: 3}),
        "FastGelu": Operator(fast_gelu),
        "FusedConv": Operator(fused_conv, choices=FUSED),
        "FusedGemm": Operator(fused_gemm, choices=FUSED),
        "FusedMatMul": Operator(fused_matmul, Kind.SCALE),
        "FusedMatMulActivation": Operator(choices=FUSED),
        "GatedAdd": Operator(pointwise),
        "GatherBlockQuantized": Operator(indexes={1: 0}),
        "Gelu": Operator("... -> ...", Kind.ZERO),
        "GridSample": Operator(choices=SAMPLING),
        "GroupNorm": Operator(weights=SCALE_SHIFT, types={"activation": AttributeProto.INT}),
        "Inverse": Operator(matrix),
        "MatMulIntegerToFloat": Operator(matmul_integer_to_float),
        "MatMulNBits": Operator(
            matmul_nbits, flops=flops.product, required=("K", "N", "block_size")
        ),
        "NhwcFusedConv": Operator(choices=FUSED),
        "Pad": Operator(**PADDING),
        "QLinearAdd": Operator(QLINEAR_BINARY),
        "QLinearLeakyRelu": Operator(QLINEAR_UNARY),
        "QLinearMul": Operator(QLINEAR_BINARY),
        "QLinearSigmoid": Operator(QLINEAR_UNARY),
        "QuantizeLinear": Operator(quantize, quantizes=True),
        "QuickGelu": Operator("... -> ...", Kind.ZERO),
        "Range": Operator(**COUNTING),
        "SkipGroupNorm": Operator(types={"activation": AttributeProto.INT}),
        "SkipLayerNormalization": Operator(skip_layer_normalization),
        "SkipSimplifiedLayerNormalization": Operator(skip_simplified_layer_normalization),
        "TransposeMatMul": Operator(fused_matmul, Kind.SCALE),
        "Trilu": Operator(matrix),
    },
}
