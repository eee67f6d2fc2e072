"""Samples of the operators that read, write, compare or pick entries by position."""

from __future__ import annotations

import numpy as np

from tests.samples import integers, weight
from tests.samples.movement import sample

LAST = 2**63 - 1
KEPT = "b1 any, x1 any, a1 any"


def below(limit: int, *shape: int) -> np.ndarray:
    """Random indices."""
    return integers(*shape, low=0, high=limit)


def pairs(count: int, *limits: int) -> np.ndarray:
    """``count`` different indices of a tensor of shape ``limits``."""
    flat = np.random.default_rng(2).permutation(int(np.prod(limits)))[:count]
    return np.stack(np.unravel_index(flat, limits), -1)


def columns(limit: int, count: int, width: int) -> np.ndarray:
    """Along axis 0 ``count`` different indices, ``width`` times."""
    rng = np.random.default_rng(4)
    return np.stack([rng.permutation(limit)[:count] for _ in range(width)], -1)


SLICED = [
    sample(
        "Slice",
        "attributes",
        ((3, 9, 5),),
        starts=[2],
        ends=[6],
        axes=[1],
        opset=7,
        expect=f"x0 any, {KEPT}, x2 any",
    ),
    sample(
        "Slice",
        "attributes-all",
        ((4, 9),),
        starts=[0, -7],
        ends=[LAST, -3],
        opset=9,
        expect=f"x0 any, {KEPT}",
    ),
    sample(
        "Slice",
        "inputs",
        ((3, 9, 5),),
        [2],
        [6],
        [1],
        [1],
        opset=10,
        expect=f"x0 any, {KEPT}, x2 any",
    ),
    sample("Slice", "negative", ((3, 9),), [-7], [-4], [-1], opset=13, expect=f"x0 any, {KEPT}"),
    sample("Slice", "prefix", ((3, 9),), [0], [4], [1], expect="x0 any, x1 any, a1 any"),
    sample("Slice", "suffix", ((3, 9),), [-4], [LAST], [1], expect="x0 any, b1 any, x1 any"),
    sample("Slice", "far", ((3, 9),), [-(10**9), 0], [10**9, 2**63 - 1], expect="x0 any, x1 any"),
    sample("Slice", "beyond", ((3, 9),), [-4, -10], [4, 12], expect="x0 any, x1 any"),
    sample("Slice", "beyond-old", ((9,),), starts=[-10], ends=[11], opset=9, expect="x0 any"),
    sample("Slice", "beyond-suffix", ((9,),), [4], [11], [0], expect="b0 any, x0 any"),
    sample(
        "Slice", "beyond-strided", ((3, 8),), [1], [9], [1], [2], expect="x0 any, x1 any, s1 fixed"
    ),
    sample("Slice", "whole", ((3, 9),), [0, -9], [3, 9], expect="x0 any, x1 any"),
    sample(
        "Slice",
        "two-axes",
        ((8, 9),),
        [5, 2],
        [8, 6],
        [0, 1],
        np.array([1, 1], np.int32),
        order="x0 w0 w1 w2",
        expect=f"b0 any, x0 any, {KEPT}",
    ),
    sample("Slice", "strided", ((3, 8),), [1], [LAST], [1], [2], expect="x0 any, x1 any, s1 fixed"),
    sample(
        "Slice",
        "strided-to-size",
        ((3, 12),),
        [0],
        [12],
        [1],
        [3],
        expect="x0 any, x1 any, s1 fixed",
    ),
    sample(
        "Slice",
        "strided-unevenly",
        ((3, 9),),
        [1],
        [8],
        [1],
        [2],
        expect="x0 any, x1 fixed, y1 fixed",
    ),
    sample(
        "Slice",
        "reversed",
        ((3, 9),),
        [-1],
        [-LAST],
        [1],
        [-1],
        expect="x0 any, x1 fixed, y1 fixed",
    ),
]

INDEXED = [
    sample(
        "Gather", "default", ((9, 5),), below(9, 3, 4), expect="x0 fixed, x1 any, i0 any, i1 any"
    ),
    sample(
        "Gather",
        "middle",
        ((3, 9, 5),),
        below(9, 4),
        axis=1,
        expect="x0 any, x1 fixed, x2 any, i0 any",
    ),
    sample(
        "Gather", "scalar", ((3, 9, 5),), np.array(-2), axis=-1, expect="x0 any, x1 any, x2 fixed"
    ),
    sample("Gather", "opset7", ((9, 5),), below(9, 3), opset=7, expect="x0 fixed, x1 any, i0 any"),
    sample(
        "GatherElements",
        "whole",
        ((3, 9, 5),),
        below(9, 3, 4, 5),
        axis=1,
        opset=13,
        expect="x0 any, x1 fixed, i any, x2 any",
    ),
    sample(
        "GatherElements",
        "part",
        ((4, 9),),
        below(9, 2, 3),
        axis=-1,
        opset=11,
        expect="x0 any, r0 any, x1 fixed, i any",
    ),
    sample(
        "GatherND",
        "plain",
        ((4, 9, 5),),
        pairs(3, 4, 9),
        opset=12,
        expect="x0 fixed, x1 fixed, x2 any, i0 any, k fixed",
    ),
    sample(
        "GatherND",
        "batch",
        ((4, 9, 5),),
        below(9, 4, 3, 2)[..., :1],
        batch_dims=1,
        opset=13,
        expect="x0 any, x1 fixed, x2 any, i0 any",
    ),
    sample(
        "GatherND",
        "opset11",
        ((4, 9),),
        pairs(3, 4, 9),
        opset=11,
        expect="x0 fixed, x1 fixed, i0 any, k fixed",
    ),
    sample(
        "Scatter",
        "opset9",
        ((9, 4), (3, 4)),
        columns(9, 3, 4),
        order="x0 w0 x1",
        opset=9,
        expect="x0 fixed, i fixed, x1 any",
    ),
    sample(
        "ScatterElements",
        "part",
        ((9, 4), (3, 2)),
        columns(9, 3, 2),
        order="x0 w0 x1",
        opset=11,
        expect="x0 fixed, i fixed, x1 any, r1 any",
    ),
    *(
        sample(
            "ScatterElements",
            mode,
            ((4, 9), (4, 3)),
            columns(9, 3, 4).T,
            order="x0 w0 x1",
            axis=1,
            reduction=mode,
            opset=18,
            expect="x0 any, x1 fixed, i fixed",
        )
        for mode in ("none", "add", "mul", "max", "min")
    ),
    *(
        sample(
            "ScatterND",
            mode,
            ((4, 9, 5), (3, 5)),
            pairs(3, 4, 9),
            order="x0 w0 x1",
            reduction=mode,
            opset=18,
            expect="x0 fixed, x1 fixed, i0 fixed, k fixed, x2 any",
        )
        for mode in ("none", "add", "mul", "max", "min")
    ),
    sample(
        "ScatterND",
        "opset11",
        ((9, 5), (3, 5)),
        columns(9, 3, 1),
        order="x0 w0 x1",
        opset=11,
        expect="x0 fixed, i0 fixed, x1 any",
    ),
    sample(
        "TensorScatter",
        "default",
        ((2, 3, 9, 5), (2, 3, 4, 5)),
        [1, 4],
        order="x0 x1 w0",
        opset=24,
        runs=False,
        expect="x0 any, x1 any, x2 fixed, u fixed, x3 any",
    ),
    sample(
        "TensorScatter",
        "circular",
        ((2, 9, 5), (2, 4, 5)),
        axis=1,
        mode="circular",
        opset=24,
        runs=False,
        expect="x0 any, x1 fixed, u fixed, x2 any",
    ),
]

BOXES = np.array([[0.2, 0.3, 3.1, 2.7], [0.7, 0.1, 2.9, 3.3], [1.1, 0.6, 3.6, 3.9]], np.float32)
ROUND = np.array([[1, 0, 0, 3, 2], [0, 1, 0, 4, 3], [1, 0, 2, 3, 4]], np.float32)
POOLED = "n fixed, c any, h fixed, w fixed, r any, k fixed, y fixed, x fixed"
GRID = {"x1": (-0.9, 0.9)}

SELECTED = [
    *(
        sample(op, name, ((3, 4, 5),), opset=opset, expect=expect, **given)
        for op in ("ArgMax", "ArgMin")
        for name, opset, given, expect in (
            ("opset7", 7, {}, "x0 fixed, x1 any, x2 any"),
            ("last", 13, {"axis": -1, "keepdims": 0}, "x0 any, x1 any, x2 fixed"),
            ("last-index", 12, {"axis": 1, "select_last_index": 1}, "x0 any, x1 fixed, x2 any"),
        )
    ),
    sample(
        "Compress",
        "axis",
        ((3, 5),),
        np.array([True, False, True]),
        axis=0,
        opset=11,
        expect="x0 fixed, k fixed, x1 any",
    ),
    sample(
        "Compress",
        "flattened",
        ((3, 5),),
        np.array([True, False, True, True]),
        opset=9,
        expect="x0 fixed, x1 fixed, k fixed",
    ),
    sample(
        "GridSample",
        "opset16",
        ((2, 3, 4, 5), (2, 6, 7, 2)),
        within=GRID,
        opset=16,
        expect="n any, c any, s fixed, t any, k fixed",
    ),
    sample(
        "GridSample",
        "volume",
        ((2, 3, 4, 5, 6), (2, 7, 8, 9, 3)),
        within=GRID,
        mode="linear",
        padding_mode="border",
        align_corners=1,
        opset=20,
        expect="n any, c any, s fixed, t any, k fixed",
    ),
    sample("MaxRoiPool", "plain", ((2, 3, 5, 6),), ROUND, pooled_shape=[2, 3], expect=POOLED),
    sample(
        "NonMaxSuppression",
        "plain",
        ((2, 6, 4), (2, 3, 6)),
        [3],
        order="x0 x1 w0",
        opset=11,
        expect="f fixed, i fixed",
    ),
    sample(
        "NonZero",
        "plain",
        ((3, 4),),
        opset=13,
        expect="x0 fixed, x1 fixed, r fixed, n fixed",
    ),
    sample(
        "OneHot",
        "default",
        ((3, 4),),
        np.array(6, np.float32),
        weight(2),
        opset=11,
        within={"x0": (0.1, 5.9)},
        expect="x0 any, x1 any, k fixed",
    ),
    sample(
        "OneHot",
        "axis",
        ((3, 4),),
        np.array([6], np.float32),
        weight(2),
        axis=1,
        within={"x0": (-5.9, 5.9)},
        opset=9,
        expect="x0 any, x1 any, k fixed",
    ),
    sample(
        "ReverseSequence",
        "default",
        ((5, 3, 4),),
        [2, 5, 3],
        opset=10,
        expect="x0 fixed, x1 any, x2 any",
    ),
    sample(
        "ReverseSequence",
        "batch-first",
        ((3, 5, 4),),
        [2, 5, 3],
        batch_axis=0,
        time_axis=1,
        opset=10,
        expect="x0 any, x1 fixed, x2 any",
    ),
    *(
        sample(
            "RoiAlign",
            f"{mode}-opset{opset}",
            ((2, 3, 5, 6),),
            BOXES,
            [1, 0, 1],
            mode=mode,
            output_height=2,
            output_width=4,
            sampling_ratio=2,
            opset=opset,
            expect=POOLED,
        )
        for mode, opset in (("avg", 10), ("max", 16), ("avg", 16))
    ),
    sample(
        "TopK",
        "attribute",
        ((3, 9),),
        k=4,
        outputs="y z",
        opset=7,
        expect="x0 any, x1 fixed, k fixed",
    ),
    sample(
        "TopK",
        "input",
        ((3, 9, 5),),
        [4],
        outputs="y z",
        axis=1,
        opset=11,
        expect="x0 any, x1 fixed, k fixed, x2 any",
    ),
    sample(
        "TopK",
        "smallest",
        ((9, 5),),
        [4],
        outputs="y z",
        axis=-2,
        largest=0,
        sorted=0,
        opset=11,
        expect="x0 fixed, k fixed, x1 any",
    ),
    sample(
        "Unique",
        "axis",
        ((3, 5),),
        axis=0,
        opset=11,
        expect="x0 fixed, x1 fixed, n fixed",
    ),
]

SAMPLES = SLICED + INDEXED + SELECTED
