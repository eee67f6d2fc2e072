"""Samples of normalisations and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.samples import Sample, node, weight

F32 = np.float32


def _sample(
    op: str,
    name: str,
    shape: tuple[int, ...],
    expect: str,
    *,
    affine: tuple[tuple[int, ...], ...] = (),
    opset: int = 17,
    outputs: str = "y",
    **attributes: Any,
) -> Sample:
    """``affine`` lists the shapes of scale, bias and so on; all values are positive."""
    weights = {f"w{i}": weight(*s, seed=i, low=0.3) for i, s in enumerate(affine)}
    made = node(op, " ".join(["x", *weights]), outputs, **attributes)
    return Sample(name, made, {"x": (F32, shape)}, weights, opset, expect)


X, C = (2, 6, 5, 4), ((6,), (6,))
FREE = "b any, c any, s any"
BATCH = [
    _sample("BatchNormalization", "opset7", X, FREE, affine=C * 2, opset=7),
    _sample("BatchNormalization", "opset9", X, FREE, affine=C * 2, opset=9, epsilon=0.1),
    _sample("BatchNormalization", "matrix", (3, 6), "b any, c any", affine=C * 2),
    _sample(
        "BatchNormalization",
        "training",
        X,
        "not followed: BatchNormalization in training mode",
        affine=C * 2,
        training_mode=1,
        outputs="y mean var",
    ),
]
PER_GROUP = "b any, g any, c multiple, s0 multiple, s1 multiple"
GROUP = [
    _sample("GroupNormalization", "opset21", X, PER_GROUP, affine=C, opset=21, num_groups=3),
    _sample(
        "GroupNormalization", "opset18", X, PER_GROUP, affine=((3,), (3,)), opset=18, num_groups=3
    ),
    _sample(
        "GroupNormalization",
        "one-group",
        (2, 6, 5),
        "b any, c multiple, s0 multiple",
        affine=C,
        opset=21,
        num_groups=1,
    ),
    _sample(
        "GroupNormalization",
        "group-a-channel",
        (2, 6, 5),
        "b any, g any, s0 multiple",
        affine=C,
        opset=21,
        num_groups=6,
    ),
]
INSTANCE = [
    _sample(
        "InstanceNormalization",
        f"opset{opset}",
        X,
        "b any, c any, s0 multiple, s1 multiple",
        affine=C,
        opset=opset,
        epsilon=0.01,
    )
    for opset in (7, 22)
]
LAST, LAST_TWO = "a0 any, a1 any, n0 any", "a0 any, n0 multiple, n1 multiple"
Y = (2, 3, 6)
LAYER = [
    _sample("LayerNormalization", "last", Y, LAST, affine=C),
    _sample("LayerNormalization", "no-bias", Y, LAST, affine=C[:1], epsilon=0.1),
    _sample("LayerNormalization", "two-axes", Y, LAST_TWO, affine=((3, 6), (3, 6)), axis=1),
    _sample("LayerNormalization", "repeated-scale", Y, LAST_TWO, affine=((1, 6), (3, 1)), axis=1),
    _sample(  # padding would change the deviation, which is an output here
        "LayerNormalization",
        "statistics",
        Y,
        "a0 any, a1 any, n0 multiple",
        affine=C,
        outputs="y mean inverse",
    ),
    _sample("RMSNormalization", "last", Y, LAST, affine=C[:1], opset=23),
    _sample("RMSNormalization", "two-axes", Y, LAST_TWO, affine=((3, 6),), opset=23, axis=-2),
]
OTHERS = [
    _sample("LpNormalization", "one", Y, "a0 any, a1 fixed, a2 any", axis=1, p=1),
    _sample("LpNormalization", "two", Y, "a0 any, a1 any, a2 fixed", opset=22),
    _sample(
        "MeanVarianceNormalization",
        "default",
        X,
        "a0 multiple, a1 any, a2 multiple, a3 multiple",
        opset=9,
    ),
    _sample(
        "MeanVarianceNormalization",
        "axes",
        Y,
        "a0 any, a1 multiple, a2 any",
        opset=13,
        axes=[-2],
    ),
]
SOFTMAX = [
    sample
    for op in ("Hardmax", "LogSoftmax", "Softmax")
    for sample in (
        _sample(op, "default", Y, "a0 any, a1 any, a2 fixed", opset=13),
        _sample(op, "middle", Y, "a0 any, a1 fixed, a2 any", opset=13, axis=1),
        _sample(op, "opset11", Y, "a0 any, a1 fixed, a2 fixed", opset=11),
        _sample(op, "opset7-last", Y, "a0 any, a1 any, a2 fixed", opset=7, axis=2),
    )
]
SAMPLES = [*BATCH, *GROUP, *INSTANCE, *LAYER, *OTHERS, *SOFTMAX]
