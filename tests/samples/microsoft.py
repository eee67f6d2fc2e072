"""Samples of the fused operators of ONNX Runtime's optimisers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from tests.samples import Sample, integers, node, weight

F = np.float32


def positive(*shape: int) -> np.ndarray:
    """Values that serve as a scale."""
    return weight(*shape, low=0.5, high=1.5)


def bytes_(*shape: int) -> np.ndarray:
    """Quantised values."""
    return integers(*shape, low=3, high=40, dtype=np.uint8)


def fused(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> NodeProto:
    """A node of ONNX Runtime's domain."""
    return node(op, inputs, outputs, domain="com.microsoft", **attributes)


def sample(
    name: str,
    made: NodeProto,
    inputs: dict[str, Any],
    weights: dict[str, Any] | None,
    expect: str,
    within: dict[str, tuple[float, float]] | None = None,
) -> Sample:
    """``inputs`` gives shapes of float activations, or types and shapes."""
    typed = {k: v if isinstance(v[0], type) else (F, v) for k, v in inputs.items()}
    return Sample(name, made, typed, weights or {}, expect=expect, within=within or {})


def gelus() -> list[Sample]:
    """Pointwise operators."""
    x = {"x": (3, 5, 4)}
    every = "... any"
    return [
        sample("plain", fused("Gelu", "x"), x, None, every),
        sample("alpha", fused("QuickGelu", "x", alpha=0.7), x, None, every),
        sample("plain", fused("FastGelu", "x"), x, None, every),
        sample("bias", fused("FastGelu", "x b"), x, {"b": weight(4)}, every),
        sample("bias", fused("BiasGelu", "x b"), x, {"b": weight(4)}, every),
        sample(
            "gate",
            fused("GatedAdd", "x y g", "z"),
            {**x, "y": (3, 5, 4), "g": (3, 5, 1)},
            None,
            every,
        ),
    ]


def convolutions() -> list[Sample]:
    """Convolutions with an activation, a residual, groups and every way of padding."""
    x = {"x": (2, 6, 9, 8)}
    z = {**x, "z": (2, 4, 9, 8)}
    w, b = weight(4, 6, 3, 3), weight(4)
    convolved = "b any, i any, o any, s fixed, k fixed, t0 fixed, t1 fixed"
    leaky: dict[str, Any] = {"activation": "LeakyRelu", "activation_params": [0.1]}
    return [
        sample(
            "relu", fused("FusedConv", "x w b", activation="Relu"), x, {"w": w, "b": b}, convolved
        ),
        sample(
            "residual",
            fused("FusedConv", "x w b z", activation="Relu", pads=[1, 1, 1, 1]),
            z,
            {"w": w, "b": b},
            convolved,
        ),
        sample("no-bias", fused("FusedConv", "x w _ z", pads=[1] * 4), z, {"w": w}, convolved),
        sample(
            "strides",
            fused(
                "FusedConv", "x w b", strides=[2, 1], dilations=[1, 2], pads=[0, 2, 1, 2], **leaky
            ),
            x,
            {"w": w, "b": b},
            convolved,
        ),
        sample(
            "same",
            fused("FusedConv", "x w b", activation="Relu", auto_pad="SAME_UPPER", strides=[2, 3]),
            x,
            {"w": w, "b": b},
            convolved,
        ),
        sample(
            "groups",
            fused("FusedConv", "x w b", activation="Relu", group=3),
            x,
            {"w": weight(12, 2, 3, 3), "b": weight(12)},
            "b any, g any, i any, o any, s fixed, k fixed, t0 fixed, t1 fixed",
        ),
        sample(
            "depthwise",
            fused("FusedConv", "x w b", activation="Relu", group=6),
            x,
            {"w": weight(6, 1, 3, 3), "b": weight(6)},
            "b any, g any, s fixed, k fixed, t0 fixed, t1 fixed",
        ),
    ]


def products() -> list[Sample]:
    """Matrix products."""
    every = "m any, k any, n any"
    a = {"a": (3, 5)}
    batch = {"a": (2, 3, 5), "b": (2, 5, 4)}
    return [
        sample(
            "relu",
            fused("FusedGemm", "a w c", activation="Relu"),
            a,
            {"w": weight(5, 4), "c": weight(4)},
            every,
        ),
        sample(
            "transposed",
            fused(
                "FusedGemm",
                "a w c",
                transA=1,
                transB=1,
                alpha=0.3,
                activation="LeakyRelu",
                activation_alpha=0.2,
            ),
            {"a": (5, 3)},
            {"w": weight(4, 5), "c": weight(3, 1)},
            every,
        ),
        sample("alpha", fused("FusedMatMul", "a b", alpha=0.4), batch, None, f"... any, {every}"),
        sample(
            "both",
            fused("FusedMatMul", "a b", transA=1, transB=1),
            {"a": (2, 5, 3), "b": (2, 4, 5)},
            None,
            f"... any, {every}",
        ),
        sample("old", fused("TransposeMatMul", "a w", transB=1), a, {"w": weight(4, 5)}, every),
        sample("batch", fused("Inverse", "a"), {"a": (5, 3, 3)}, None, "b any, m fixed, n fixed"),
        sample("batch", fused("Trilu", "a"), {"a": (5, 3, 4)}, None, "b any, m fixed, n fixed"),
    ]


def normalisations() -> list[Sample]:
    """Normalisations with a residual."""
    x = {"x": (3, 5, 4)}
    both = {**x, "skip": (3, 5, 4)}
    g, b = positive(4), weight(4)
    expect = "a0 any, a1 any, n any"
    affine = {"g": g, "b": b}
    skip = "SkipLayerNormalization"
    simplified = "SkipSimplifiedLayerNormalization"
    return [
        sample("plain", fused(skip, "x skip g b"), both, affine, expect),
        sample("bare", fused(skip, "x skip g"), both, {"g": g}, expect),
        sample(
            "sum",
            fused(skip, "x skip g b c", "y _ _ sum", epsilon=0.1),
            both,
            {**affine, "c": weight(4)},
            expect,
        ),
        sample("repeated", fused(skip, "x skip g b"), {**x, "skip": (1, 5, 4)}, affine, expect),
        sample("rank-2", fused(skip, "x skip g b"), {**x, "skip": (5, 4)}, affine, expect),
        sample("plain", fused(simplified, "x skip g"), both, {"g": g}, expect),
        sample(
            "sum",
            fused(simplified, "x skip g b", "y _ _ sum", epsilon=0.1),
            both,
            {"g": g, "b": b},
            expect,
        ),
        sample(
            "plain",
            node("SimplifiedLayerNormalization", "x g", axis=-1, epsilon=0.1),
            x,
            {"g": g},
            "a0 any, a1 any, n0 any",
        ),
    ]


def embeddings() -> list[Sample]:
    """Embeddings of words and positions."""
    ids = {"ids": (np.int32, (3, 5))}
    tables = {"words": weight(7, 4), "places": weight(9, 4), "g": positive(4), "b": weight(4)}
    segments = {"segments": weight(2, 4), "mask": np.array([[1, 1, 0, 0, 0]] * 3, np.int32)}
    at = {"at": np.array([[4, 2, 0, 7, 1]], np.int32)}
    inside = {"ids": (0.0, 6.9), "kinds": (0.0, 1.9)}
    op = "EmbedLayerNormalization"
    expect = "b any, s fixed, v fixed, p fixed, n any"
    return [
        sample("words", fused(op, "ids _ words places _ g b", "y _"), ids, tables, expect, inside),
        sample(
            "segments",
            fused(op, "ids kinds words places segments g b mask", "y index", epsilon=0.1),
            {**ids, "kinds": (np.int32, (3, 5))},
            tables | segments,
            expect.replace("n any", "n multiple, g fixed"),
            inside,
        ),
        sample(
            "positions",
            fused(op, "ids _ words places _ g b _ at", "y _ sum"),
            ids,
            tables | at,
            expect,
            inside,
        ),
    ]


def quantised() -> list[Sample]:
    """Products with quantised weights, and what runs between them."""
    product = "m any, k fixed, n any"
    blocks = "... any, k fixed, n any, c fixed, d fixed"
    scale, zero = np.array(0.04, F), np.array(7, np.uint8)
    scales = {"sa": scale, "za": zero, "sy": np.array(0.07, F), "zy": np.array(4, np.uint8)}
    second = {"sb": np.array(0.02, F), "zb": np.array(9, np.uint8)}
    by_column = {"w": bytes_(5, 4), "s": positive(4), "z": bytes_(4)}
    x, a, b = {"x": (3, 5)}, {"a": (np.uint8, (3, 5))}, {"b": (np.uint8, (3, 5))}
    return [
        sample(
            "by-column",
            fused("DynamicQuantizeMatMul", "x w s z c"),
            x,
            {**by_column, "c": weight(4)},
            product,
        ),
        sample(
            "whole",
            fused("DynamicQuantizeMatMul", "x w s"),
            {"x": (2, 3, 5)},
            {"w": by_column["w"], "s": scale},
            f"... any, {product}",
        ),
        sample(
            "by-column",
            fused("MatMulIntegerToFloat", "a w sa s za z c"),
            a,
            {"sa": scale, "za": zero, **by_column, "c": weight(4)},
            product,
        ),
        sample(
            "four-bits",
            fused("MatMulNBits", "x w s", K=40, N=6, bits=4, block_size=16),
            {"x": (3, 40)},
            {"w": bytes_(6, 3, 8), "s": positive(6, 3)},
            blocks,
        ),
        sample(
            "zero-points",
            fused("MatMulNBits", "x w s z _ c", K=40, N=6, bits=4, block_size=16),
            {"x": (3, 40)},
            {"w": bytes_(6, 3, 8), "s": positive(18), "z": bytes_(12), "c": weight(6)},
            f"{blocks}, q fixed",
        ),
        *(
            sample("scalars", fused(op, "a sa za b sb zb sy zy"), a | b, scales | second, "... any")
            for op in ("QLinearAdd", "QLinearMul")
        ),
        *(
            sample("scalars", fused(op, "a sa za sy zy"), a, scales, "... any")
            for op in ("QLinearLeakyRelu", "QLinearSigmoid")
        ),
        sample(
            "by-axis",
            fused("QuantizeLinear", "x s z", axis=1),
            x,
            {"s": positive(5), "z": bytes_(5)},
            "a0 any, a1 any",
        ),
        sample(
            "by-axis",
            fused("DequantizeLinear", "a s z", axis=1),
            a,
            {"s": positive(5), "z": bytes_(5)},
            "a0 any, a1 any",
        ),
    ]


SAMPLES = [
    *gelus(),
    *convolutions(),
    *products(),
    *normalisations(),
    *embeddings(),
    *quantised(),
]
