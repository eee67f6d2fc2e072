"""Samples of the operators that move entries, make axes or resample them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper

from tests.samples import Sample, node

FOUR = (2, 6, 4, 5)


def sample(
    op: str,
    name: str,
    shapes: Sequence[Sequence[int]] = (FOUR,),
    *constants: Any,
    order: str = "",
    outputs: str = "y",
    opset: int = 17,
    expect: str | None = None,
    within: Mapping[str, tuple[float, float]] | None = None,
    runs: bool = True,
    **attributes: Any,
) -> Sample:
    """``shapes`` of the activations, then ``constants`` (int64 unless arrays; None: absent).

    ``order`` names the operands: x0, x1, ... activations, w0, w1, ... constants.
    """
    inputs = {f"x{i}": (np.float32, tuple(shape)) for i, shape in enumerate(shapes)}
    weights = {
        f"w{i}": value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        for i, value in enumerate(constants)
        if value is not None
    }
    given = ["_" if value is None else f"w{i}" for i, value in enumerate(constants)]
    proto = node(op, order or " ".join([*inputs, *given]), outputs, **attributes)
    return Sample(name, proto, inputs, weights, opset, expect, within or {}, runs)


def floats(*values: float) -> np.ndarray:
    """A small constant of floats."""
    return np.array(values, np.float32)


ANY = "x0 any, x1 any, x2 any, x3 any"
ALL = "a any, b any, c any, d any"

MOVED = [
    sample(
        "Concat",
        "channels",
        (FOUR, (2, 3, 4, 5)),
        axis=1,
        expect="x0 any, c0 any, c1 any, x2 any, x3 any",
    ),
    sample(
        "Concat",
        "last-of-three",
        ((3, 2), (3, 5), (3, 4)),
        axis=-1,
        expect="x0 any, c0 any, c1 any, c2 any",
    ),
    sample(
        "DepthToSpace",
        "default",
        ((2, 12, 3, 5),),
        blocksize=2,
        opset=9,
        expect="b any, c any, h any, w any, r fixed, s fixed",
    ),
    sample(
        "DepthToSpace",
        "dcr",
        ((2, 12, 3, 5),),
        blocksize=2,
        mode="DCR",
        expect="b any, c any, h any, w any, r fixed, s fixed",
    ),
    sample(
        "DepthToSpace",
        "crd",
        ((2, 27, 4, 5),),
        blocksize=3,
        mode="CRD",
        expect="b any, c any, h any, w any, r fixed, s fixed",
    ),
    sample("Expand", "middle", ((3, 1, 5),), [2, 3, 4, 5], expect="x0 any, x1 any, x2 any, x3 any"),
    sample("Expand", "shorter-shape", ((3, 1, 5),), [4, 1], expect="x0 any, x1 any, x2 any"),
    sample("Expand", "ones-keep", ((3, 4, 5),), [1, 1, 1], expect="x0 any, x1 any, x2 any"),
    sample("Expand", "opset8", ((3, 1),), [3, 6], opset=8, expect="x0 any, x1 any"),
    sample("Flatten", "default", (FOUR,), expect=ALL),
    sample("Flatten", "axis-0", ((2, 3, 5),), axis=0, expect="a any, b any, c any"),
    sample("Flatten", "negative", (FOUR,), axis=-1, opset=13, expect=ALL),
    sample("Flatten", "opset7", (FOUR,), axis=2, opset=7, expect=ALL),
    sample("Identity", "plain", (FOUR,), expect="x any"),
    sample("Reshape", "merge", (FOUR,), [2, 6, 20], expect=ALL),
    sample("Reshape", "split", ((2, 12, 5),), [2, 3, 4, 5], expect=ALL),
    sample("Reshape", "zero-and-minus-one", (FOUR,), [0, -1], expect=ALL),
    sample("Reshape", "cross", ((3, 8, 5),), [6, 20], expect="a any, b any, c any, d any"),
    sample("Reshape", "one-added", ((3, 5),), [1, 3, 1, 5, 1], expect="a any, b any"),
    sample(
        "Reshape",
        "apart",
        ((5, 6, 4, 7),),
        [5, 4, 6, 7],
        expect="a any, in1 fixed, in2 fixed, out1 fixed, out2 fixed, e any",
    ),
    sample(
        "Reshape",
        "zero-elsewhere",
        ((4, 6, 2),),
        [2, 0, 4],
        expect="a any, b fixed, c fixed, d fixed, e any",
    ),
    sample("Reshape", "opset7", ((2, 12),), [-1, 3, 4], opset=7, expect="a any, b any, c any"),
    sample(
        "Reshape",
        "allowzero",
        ((2, 12),),
        [2, 3, 4],
        opset=14,
        allowzero=1,
        expect="a any, b any, c any",
    ),
    sample(
        "SpaceToDepth",
        "plain",
        ((2, 3, 4, 6),),
        blocksize=2,
        expect="b any, c any, h any, w any, r fixed, s fixed",
    ),
    sample(
        "Split",
        "attribute",
        ((2, 9, 3),),
        axis=1,
        split=[4, 3, 2],
        opset=11,
        outputs="y z t",
        expect="x0 any, x2 any, c0 any, c1 any, c2 any",
    ),
    sample(
        "Split",
        "attribute-default",
        ((2, 6),),
        axis=-1,
        opset=7,
        outputs="y z",
        expect="x0 any, c0 any, c1 any",
    ),
    sample(
        "Split",
        "sizes",
        ((2, 9, 3),),
        [4, 5],
        axis=1,
        opset=13,
        outputs="y z",
        expect="x0 any, x2 any, c0 any, c1 any",
    ),
    sample(
        "Split",
        "even",
        ((2, 6),),
        axis=1,
        opset=13,
        outputs="y z t",
        expect="x0 any, c0 any, c1 any, c2 any",
    ),
    sample(
        "Split",
        "uneven",
        ((2, 8),),
        axis=1,
        opset=18,
        num_outputs=3,
        outputs="y z t",
        expect="x0 any, c0 any, c1 any, c2 any",
    ),
    sample(
        "Split",
        "default-axis",
        ((7, 2),),
        [3, 4],
        opset=18,
        outputs="y z",
        expect="x1 any, c0 any, c1 any",
    ),
    sample("Squeeze", "attribute", ((3, 1, 5, 1),), axes=[1], opset=11, expect="x0 any, x2 any"),
    sample("Squeeze", "input", ((3, 1, 5, 1),), [-1, 1], opset=13, expect="x0 any, x2 any"),
    sample("Squeeze", "all", ((3, 1, 5, 1),), opset=13, expect="x0 any, x2 any"),
    sample("Tile", "plain", ((3, 4, 1),), [1, 2, 5], expect="x0 any, x1 any, r1 any, r2 any"),
    sample("Tile", "opset7", ((3, 4),), [2, 3], opset=7, expect="x0 any, x1 any, r0 any, r1 any"),
    sample("Transpose", "default", ((2, 3, 5),), expect="x0 any, x1 any, x2 any"),
    sample("Transpose", "perm", (FOUR,), perm=[0, 2, 3, 1], expect=ANY),
    sample("Unsqueeze", "attribute", ((3, 5),), axes=[0, 3], opset=11, expect="x0 any, x1 any"),
    sample("Unsqueeze", "input", ((3, 5),), [-1, 1], opset=13, expect="x0 any, x1 any"),
]

SHAPED = [
    sample(
        "AffineGrid",
        "plane",
        ((3, 2, 3),),
        [3, 7, 4, 5],
        opset=20,
        expect="n any, i fixed, j fixed, s0 fixed, s1 fixed, k fixed",
    ),
    sample(
        "AffineGrid",
        "volume",
        ((2, 3, 4),),
        [2, 7, 4, 5, 6],
        opset=20,
        align_corners=1,
        expect="n any, i fixed, j fixed, s0 fixed, s1 fixed, s2 fixed, k fixed",
    ),
    sample(
        "CenterCropPad",
        "crop-and-pad",
        (FOUR,),
        [2, 4, 9, 5],
        opset=18,
        expect="x0 any, x1 fixed, y1 fixed, x2 fixed, y2 fixed, x3 any",
    ),
    sample(
        "CenterCropPad",
        "axes",
        (FOUR,),
        [9, 4],
        opset=18,
        axes=[-2, 1],
        expect="x0 any, x1 fixed, y1 fixed, x2 fixed, y2 fixed, x3 any",
    ),
    sample(
        "ConstantOfShape",
        "plain",
        (),
        [40, 60],
        value=helper.make_tensor("v", 1, [1], [0.7]),
        opset=9,
        expect="x0 any, x1 any",
    ),
    sample("EyeLike", "plain", ((4, 5),), k=1, opset=9, expect="r fixed, c fixed"),
    sample(
        "Pad",
        "attribute",
        ((3, 4, 5),),
        pads=[0, 2, 3, 0, 0, 4],
        value=0.5,
        opset=10,
        expect="x0 any, x1 any, p1 any, x2 any, p2 any, q2 any",
    ),
    sample(
        "Pad",
        "input",
        ((3, 4, 5),),
        [0, 2, 3, 0, 0, 4],
        opset=11,
        expect="x0 any, x1 any, p1 any, x2 any, p2 any, q2 any",
    ),
    sample(
        "Pad",
        "value",
        ((3, 4),),
        [2, 0, 0, 3],
        np.array(0.7, np.float32),
        expect="x0 any, p0 any, x1 any, q1 any",
    ),
    sample(
        "Pad",
        "axes",
        ((3, 4, 5),),
        [2, 0, 3, 4],
        None,
        [-1, 0],
        opset=18,
        expect="x0 any, q0 any, x1 any, p2 any, x2 any, q2 any",
    ),
    sample("Pad", "crop", ((3, 9),), [0, -2, 0, -3], expect="x0 any, p1 any, x1 any, q1 any"),
    sample(
        "Pad", "crop-and-pad", ((3, 9),), [0, -2, 0, 4], expect="x0 any, p1 any, x1 any, q1 any"
    ),
    *(
        sample("Pad", mode, ((3, 6),), [0, 2, 0, 3], mode=mode, expect="x0 any, x1 fixed, y1 fixed")
        for mode in ("edge", "reflect")
    ),
    sample(
        "Pad",
        "wrap",
        ((3, 6),),
        [0, 2, 0, 3],
        mode="wrap",
        opset=19,
        expect="x0 any, x1 fixed, y1 fixed",
    ),
    sample(
        "Range",
        "plain",
        (),
        *(np.array(v, np.float32) for v in (1, 9000, 2)),
        opset=11,
        expect="n fixed",
    ),
    sample(
        "Resize",
        "opset10",
        ((2, 3, 4, 5),),
        floats(1, 1, 2, 2),
        opset=10,
        expect="x0 any, x1 any, x2 fixed, y2 fixed, x3 fixed, y3 fixed",
    ),
    sample(
        "Resize",
        "scales",
        ((2, 3, 4, 5),),
        floats(),
        floats(1, 1, 2, 1.6),
        mode="linear",
        opset=11,
        expect="x0 any, x1 any, x2 fixed, y2 fixed, x3 fixed, y3 fixed",
    ),
    sample(
        "Resize",
        "sizes",
        ((2, 3, 4, 5),),
        None,
        None,
        [2, 3, 4, 8],
        mode="cubic",
        opset=13,
        expect="x0 any, x1 any, x2 any, x3 fixed, y3 fixed",
    ),
    sample(
        "Resize",
        "axes",
        ((2, 3, 4, 5),),
        None,
        None,
        [8, 9],
        axes=[3, 2],
        opset=18,
        expect="x0 any, x1 any, x2 fixed, y2 fixed, x3 fixed, y3 fixed",
    ),
    sample(
        "Resize",
        "aspect-ratio",
        ((2, 3, 4, 5),),
        None,
        None,
        [8, 9],
        axes=[2, 3],
        keep_aspect_ratio_policy="not_larger",
        opset=18,
        expect="x0 any, x1 any, x2 fixed, y2 fixed, x3 fixed, y3 fixed",
    ),
    sample(
        "Resize",
        "align-corners",
        ((2, 3, 4, 5),),
        None,
        floats(1, 1, 1, 2),
        mode="linear",
        coordinate_transformation_mode="align_corners",
        opset=19,
        expect="x0 any, x1 any, x2 any, x3 fixed, y3 fixed",
    ),
    sample("Trilu", "lower", ((3, 4, 5),), upper=0, opset=14, expect="b any, r fixed, c fixed"),
    sample(
        "Trilu",
        "diagonal",
        ((2, 3, 4, 5),),
        np.array(1, np.int64),
        opset=14,
        expect="b any, r fixed, c fixed",
    ),
    sample(
        "Upsample",
        "attribute",
        ((2, 3, 4, 5),),
        scales=[1.0, 1.0, 2.0, 2.0],
        opset=7,
        expect="x0 any, x1 any, x2 fixed, y2 fixed, x3 fixed, y3 fixed",
    ),
    sample(
        "Upsample",
        "input",
        ((2, 3, 4, 5),),
        floats(1, 1, 2, 3),
        opset=9,
        expect="x0 any, x1 any, x2 fixed, y2 fixed, x3 fixed, y3 fixed",
    ),
]

SAMPLES = MOVED + SHAPED
