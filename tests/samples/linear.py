"""Samples of products and convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.samples import Sample, node, weight

F32 = np.float32


def _sample(
    name: str,
    op: str,
    operands: dict[str, tuple[int, ...]],
    expect: str,
    opset: int = 17,
    **attributes: Any,
) -> Sample:
    """Operands in capitals are weights, the others activations."""
    weights = {n: weight(*shape) for n, shape in operands.items() if n[0].isupper()}
    inputs = {n: (F32, shape) for n, shape in operands.items() if not n[0].isupper()}
    made = node(op, " ".join(operands), "out", **attributes)
    return Sample(name, made, inputs, weights, opset, expect)


FREE = "... any, m any, k any, n any"
SPATIAL = "s fixed, k fixed, t fixed"
DENSE = f"b any, i any, o any, {SPATIAL}"
GROUPED = f"b any, g any, i any, o any, {SPATIAL}"
DEPTHWISE = f"b any, g any, {SPATIAL}"
X = (3, 4, 7, 6)

MATMUL = [
    _sample("weight", "MatMul", {"x": (2, 3, 4), "W": (4, 5)}, FREE),
    _sample("opset7", "MatMul", {"x": (3, 4), "W": (4, 5)}, "m any, k any, n any", 7),
    _sample("weight-left", "MatMul", {"W": (3, 4), "x": (2, 4, 5)}, FREE),
    _sample("activations", "MatMul", {"x": (2, 6, 3, 4), "y": (6, 4, 5)}, FREE),
    _sample("batch-of-one", "MatMul", {"x": (1, 6, 3, 4), "y": (2, 1, 4, 5)}, FREE),
    _sample("batch-of-weights", "MatMul", {"x": (2, 3, 4), "W": (2, 4, 5)}, FREE),
    _sample("row", "MatMul", {"x": (4,), "W": (2, 4, 5)}, "... any, k any, n any"),
    _sample("column", "MatMul", {"x": (2, 3, 4), "W": (4,)}, "... any, m any, k any"),
    _sample("vectors", "MatMul", {"x": (4,), "W": (4,)}, "k any"),
    _sample("outer", "MatMul", {"x": (3, 1), "W": (1, 5)}, "m any, n any"),
]
GEMM = "m any, k any, n any"
GEMMS = [
    _sample("opset7", "Gemm", {"a": (3, 4), "B": (4, 5), "C": (5,)}, GEMM, 7),
    _sample("no-bias", "Gemm", {"a": (3, 4), "B": (4, 5)}, GEMM, 11),
    _sample(
        "transposed",
        "Gemm",
        {"a": (4, 3), "B": (5, 4), "C": (5,)},
        GEMM,
        transA=1,
        transB=1,
        alpha=0.7,
        beta=1.4,
    ),
    _sample("row", "Gemm", {"a": (3, 4), "B": (4, 5), "C": (1, 5)}, GEMM),
    _sample("column", "Gemm", {"a": (3, 4), "B": (4, 5), "C": (3, 1)}, GEMM),
    _sample("matrix", "Gemm", {"a": (3, 4), "b": (4, 5), "c": (3, 5)}, GEMM, alpha=0.3),
    _sample("one", "Gemm", {"a": (3, 4), "B": (4, 5), "C": (1,)}, GEMM),
    _sample("scalar", "Gemm", {"a": (3, 4), "B": (4, 5), "C": ()}, GEMM),
]
EINSUMS = [
    _sample(
        "matmul", "Einsum", {"x": (3, 4), "W": (4, 5)}, "i any, j any, k any", equation="ij,jk"
    ),
    _sample(
        "heads",
        "Einsum",
        {"q": (2, 3, 5, 4), "k": (2, 6, 5, 4)},
        "B any, q any, h any, d any, k any",
        equation="B q h d, B k h d -> B h q k",
    ),
    _sample(
        "ellipsis",
        "Einsum",
        {"x": (2, 3, 4), "W": (5, 4)},
        "... any, d any, e any",
        equation="...d,ed->...e",
    ),
    _sample("sum", "Einsum", {"x": (3, 4)}, "i any, j any", equation="ij->i"),
    _sample("sum-of-one", "Einsum", {"x": (3, 4), "W": (3,)}, "i any, j any", equation="ij,i->i"),
    _sample("outer", "Einsum", {"x": (3,), "W": (5,)}, "i any, j any", equation="i,j->ij"),
    _sample(
        "three",
        "Einsum",
        {"x": (3, 4), "W": (4, 5), "y": (5, 2)},
        "a any, b any, c any, d any",
        equation="ab,bc,cd->ad",
    ),
    _sample(
        "diagonal",
        "Einsum",
        {"x": (4, 4)},
        "not followed: its equation takes a diagonal",
        equation="ii->i",
    ),
]
CONVS = [
    _sample("dense", "Conv", {"x": X, "W": (5, 4, 3, 2), "B": (5,)}, DENSE, pads=[1, 0, 2, 1]),
    _sample("opset7", "Conv", {"x": X, "W": (5, 4, 3, 3)}, DENSE, 7, strides=[2, 1]),
    _sample("opset22", "Conv", {"x": X, "W": (5, 4, 3, 3)}, DENSE, 22, auto_pad="SAME_UPPER"),
    _sample(
        "pointwise", "Conv", {"x": X, "W": (5, 4, 1, 1), "B": (5,)}, "b any, i any, s any, o any"
    ),
    _sample(
        "pointwise-padded",
        "Conv",
        {"x": X, "W": (5, 4, 1, 1)},
        "b any, i any, o any, s fixed, t fixed",
        pads=[1] * 4,
    ),
    _sample(
        "pointwise-strided",
        "Conv",
        {"x": X, "W": (5, 4, 1, 1)},
        "b any, i any, o any, s fixed, t fixed",
        strides=[2, 2],
    ),
    _sample(
        "one-dimension", "Conv", {"x": (2, 4, 9), "W": (5, 4, 3), "B": (5,)}, DENSE, dilations=[2]
    ),
    _sample("three-dimensions", "Conv", {"x": (2, 3, 5, 4, 6), "W": (5, 3, 2, 3, 2)}, DENSE),
    _sample(
        "one-channel", "Conv", {"x": (3, 1, 7, 6), "W": (5, 1, 3, 3)}, f"b any, o any, {SPATIAL}"
    ),
    _sample(
        "grouped", "Conv", {"x": (2, 6, 7, 6), "W": (10, 3, 3, 3), "B": (10,)}, GROUPED, group=2
    ),
    _sample("depthwise", "Conv", {"x": X, "W": (4, 1, 3, 2), "B": (4,)}, DEPTHWISE, group=4),
    _sample(
        "multiplier",
        "Conv",
        {"x": X, "W": (12, 1, 3, 3), "B": (12,)},
        f"{DEPTHWISE}, o any",
        group=4,
    ),
    _sample(
        "one-output",
        "Conv",
        {"x": (2, 6, 7, 6), "W": (2, 3, 3, 3), "B": (2,)},
        f"{DEPTHWISE}, i any",
        group=2,
    ),
    _sample("two-activations", "Conv", {"x": X, "w": (5, 4, 3, 3), "v": (5,)}, DENSE),
]
CONVS_TRANSPOSED = [
    _sample(
        "dense", "ConvTranspose", {"x": X, "W": (4, 5, 3, 2), "B": (5,)}, DENSE, strides=[2, 1]
    ),
    _sample(
        "opset7",
        "ConvTranspose",
        {"x": X, "W": (4, 5, 3, 3)},
        DENSE,
        7,
        output_padding=[1, 0],
        strides=[2, 2],
    ),
    _sample(
        "pointwise", "ConvTranspose", {"x": X, "W": (4, 5, 1, 1)}, "b any, i any, s any, o any"
    ),
    _sample(
        "output-shape",
        "ConvTranspose",
        {"x": X, "W": (4, 5, 3, 3)},
        DENSE,
        strides=[2, 2],
        output_shape=[14, 12],
    ),
    _sample(
        "grouped",
        "ConvTranspose",
        {"x": (2, 6, 7, 5), "W": (6, 4, 3, 3), "B": (8,)},
        f"b any, g any, i fixed, o any, {SPATIAL}",
        group=2,
    ),
    _sample(
        "depthwise", "ConvTranspose", {"x": X, "W": (4, 1, 3, 3), "B": (4,)}, DEPTHWISE, group=4
    ),
    _sample(
        "multiplier",
        "ConvTranspose",
        {"x": X, "W": (4, 3, 3, 3), "B": (12,)},
        f"{DEPTHWISE}, o any",
        group=4,
    ),
]
OFFSETS = "f fixed, e fixed"
DEFORM_CONVS = [
    _sample(
        "dense",
        "DeformConv",
        {"x": X, "W": (5, 4, 3, 3), "offset": (3, 18, 5, 4), "B": (5,), "mask": (3, 9, 5, 4)},
        f"{DENSE}, {OFFSETS}",
        19,
    ),
    _sample(
        "no-mask",
        "DeformConv",
        {"x": X, "W": (5, 4, 3, 3), "offset": (3, 18, 5, 4)},
        f"{DENSE}, f fixed",
        22,
    ),
    _sample(
        "grouped",
        "DeformConv",
        {"x": X, "W": (6, 2, 3, 3), "offset": (3, 18, 5, 4)},
        f"{GROUPED}, f fixed",
        19,
        group=2,
    ),
    _sample(
        "offset-groups",
        "DeformConv",
        {"x": X, "W": (6, 4, 3, 3), "offset": (3, 36, 5, 4)},
        f"b any, i fixed, o any, {SPATIAL}, f fixed",
        19,
        offset_group=2,
    ),
    _sample(
        "both",
        "DeformConv",
        {"x": X, "W": (6, 2, 3, 3), "offset": (3, 72, 5, 4)},
        f"b any, g fixed, i fixed, o any, {SPATIAL}, f fixed",
        19,
        group=2,
        offset_group=4,
    ),
]
SAMPLES = [*MATMUL, *GEMMS, *EINSUMS, *CONVS, *CONVS_TRANSPOSED, *DEFORM_CONVS]
