"""Operators that make axes or resample them: Pad, Resize, ConstantOfShape, Range, Trilu, ..."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from onnx_net2net.algebra.sizes import AT_RUN_TIME, AnySize, Size, maximum, minimum, trial
from onnx_net2net.operators import hazards, values
from onnx_net2net.operators.factors import segments
from onnx_net2net.operators.language import (
    Kind,
    Op,
    Rule,
    Unsupported,
    line,
    names,
    place_of,
    size_ref,
)  # fmt: skip
from onnx_net2net.operators.record import FIRST, Extent, Operator, Table

BORDER = "its borders are padded with its own entries"
MOVING = f"how far it is padded {AT_RUN_TIME}"
RESAMPLED = "it is resampled"
CROPPED = "entries are cropped from it"
MOST_PARTS = 64  # of a fraction; another number is rounded where it is multiplied
COUNTED = "its entries depend on its length"


def _pad(op: Op) -> Rule:
    shape, mode = op.shape(0), op.attr("mode", "constant")
    begins, ends = _pads(op)
    where: str | int = "pads" if op.opset < 11 else 1
    left: list[str] = []
    right: list[str] = []
    sizes: dict[str, AnySize] = {}
    fixed: dict[str, str] = {}
    reduce: dict[str, str] = {}
    for i, (size, begin, end) in enumerate(zip(shape, begins, ends, strict=True)):
        inside = size + minimum(begin, 0) + minimum(end, 0)
        if trial(inside) <= 0 or trial(size + begin + end) <= 0:
            raise Unsupported("it has no entries")
        moving = any(isinstance(n, Size) for n in (begin, end))
        if moving or (mode != "constant" and (begin or end)):
            left.append(f"x{i}")
            right.append(f"y{i}")
            sizes[f"y{i}"] = size + begin + end
            fixed |= dict.fromkeys((f"x{i}", f"y{i}"), MOVING if moving else BORDER)
            continue
        around = {f"p{i}": begin, f"x{i}": inside, f"q{i}": end}
        left.append(segments([n for n in around if n[0] == "x" or around[n] < 0]))
        right.append(segments([n for n in around if n[0] == "x" or around[n] > 0]))
        cut = {n for n in around if n[0] != "x" and around[n] < 0}
        sizes |= {n: -s if n in cut else s for n, s in around.items() if s != 0}
        reduce |= dict.fromkeys(cut, "unread")
    elements = _pad_elements(op, begins, ends, fixed)
    inputs = [left] + [["_"]] * (0 if op.opset < 11 else len(op.node.input) - 1)
    return Rule(
        line(inputs, [right]), sizes, fixed, reduce=reduce, size_refs=[size_ref(where, *elements)]
    )


def _pads(op: Op) -> tuple[list[AnySize], list[AnySize]]:
    """Return what is added before and after each axis."""
    rank = op.rank()
    given = list(op.attr("pads")) if op.opset < 11 else op.known(1).ravel().tolist()
    begins: list[AnySize] = [0] * rank
    ends: list[AnySize] = [0] * rank
    axes = _pad_axes(op)
    if len(given) != 2 * len(axes):
        raise Unsupported(f"it has {len(given)} pads for {len(axes)} axes")
    for axis, begin, end in zip(axes, given[: len(axes)], given[len(axes) :], strict=True):
        begins[axis], ends[axis] = begin, end
    return begins, ends


def _pad_axes(op: Op) -> list[int]:
    rank = op.rank()
    if op.opset >= 18 and op.has(3):
        return [place_of(a, rank) for a in op.known(3).ravel()]
    return list(range(rank))


def _pad_elements(
    op: Op, begins: Sequence[AnySize], ends: Sequence[AnySize], fixed: dict[str, str]
) -> list[str | None]:
    def element(mark: str, axis: int, size: AnySize) -> str | None:
        if f"x{axis}" in fixed or not size:
            return None
        return f"{mark}{axis}" if size > 0 else f"-{mark}{axis}"

    axes = _pad_axes(op)
    return [element("p", a, begins[a]) for a in axes] + [element("q", a, ends[a]) for a in axes]


def _resize(op: Op) -> Rule:
    mode = op.attr("coordinate_transformation_mode", "half_pixel")
    if mode in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        raise Unsupported(f"coordinate_transformation_mode is {mode}")
    first = 1 if op.opset < 11 else 2  # the input of the scales
    kept = _kept(op, first)
    shape = op.shape(0)
    left = names("x", len(shape))
    right = [f"x{i}" if i in kept else f"y{i}" for i in range(len(shape))]
    sizes = {f"y{i}": n for i, n in _scaled(op, op.value(first)).items() if i not in kept}
    fixed = {n: RESAMPLED for i in range(len(shape)) if i not in kept for n in (left[i], right[i])}
    refs = []
    if op.opset >= 11 and op.has(3):
        own = op.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
        new = {a: f"y{a}" if own else None for a in _resized(op)} | {a: f"x{a}" for a in kept}
        refs = [size_ref(3, *(new[a] for a in _resized(op)))]
    inputs = [left] + [["_"]] * (len(op.node.input) - 1)
    return Rule(line(inputs, [right]), sizes, fixed, size_refs=refs)


def _resized(op: Op) -> list[int]:
    """Return the axes that scales and sizes are stated for."""
    rank = op.rank()
    return [place_of(a, rank) for a in op.attr("axes", range(rank))]


def _kept(op: Op, first: int) -> set[int]:
    """Return axes of scale 1: every way of interpolating keeps their entries."""
    shape, axes = op.shape(0), _resized(op)
    given = op.value(first)
    if given is not None and given.size:
        scaled = {a for a, s in zip(axes, given.ravel().tolist(), strict=True) if s != 1}
    elif first == 2 and op.has(3):
        asked = op.known(3).ravel().tolist()
        scaled = {a for a, n in zip(axes, asked, strict=True) if n != shape[a]}
        if scaled and op.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            scaled = set(axes)
    else:
        raise Unsupported(f"input {first} is not a constant")
    return set(range(len(shape))) - scaled


def _scaled(op: Op, scales: np.ndarray | None) -> dict[int, AnySize]:
    """Return sizes of axes where they are stated, or are those of before times a plain fraction."""
    if op.outputs[0] is not None:
        return dict(enumerate(op.outputs[0]))
    axes = _resized(op)
    if scales is not None and scales.size:
        pairs = zip(axes, scales.ravel().tolist(), strict=True)
        ratios = {a: Fraction(s) for a, s in pairs if not isinstance(s, Size)}
        exact = {a: r for a, r in ratios.items() if r.denominator <= MOST_PARTS}
        return {a: op.shape(0)[a] * r.numerator // r.denominator for a, r in exact.items()}
    stretched = op.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    given = op.value(3) if stretched else None
    return {} if given is None else dict(zip(axes, given.ravel().tolist(), strict=True))


def _upsample(op: Op) -> Rule:
    scales = np.asarray(op.attr("scales")) if op.opset < 9 else op.known(1)
    left = names("x", op.rank())
    kept = [s == 1 for s in scales.tolist()]
    right = [f"x{i}" if same else f"y{i}" for i, same in enumerate(kept)]
    sizes = {f"y{i}": n for i, n in _scaled(op, scales).items() if not kept[i]}
    fixed = {n: RESAMPLED for i, same in enumerate(kept) if not same for n in (left[i], right[i])}
    inputs = [left] + [["_"]] * (len(op.node.input) - 1)
    return Rule(line(inputs, [right]), sizes, fixed)


def _constant_of_shape(op: Op) -> Rule:
    after = op.vector(0) if op.outputs[0] is None else op.output()
    if 0 in after:
        raise Unsupported("it has no entries")
    axes = names("x", len(after))
    sizes = dict(zip(axes, after, strict=True))
    return Rule(line([["_"]], [axes]), sizes, size_refs=[size_ref(0, *axes)])


def _range(op: Op) -> Rule:
    given = [op.value(i) for i in range(3)]
    sizes: dict[str, AnySize] = {}
    if op.outputs[0] is not None:
        sizes["n"] = op.output()[0]
    elif None not in [v if v is None else 0 for v in given]:
        start, limit, step = (v.item() for v in given if v is not None)
        if isinstance(step, int):
            sizes["n"] = maximum(-((start - limit) // step), 0)
    return Rule("_, _, _ -> n", sizes, {"n": COUNTED})


def _affine_grid(op: Op) -> Rule:
    rank = op.shape(1)[0]
    axes = names("s", int(rank) - 2)
    text = line([["n", "i", "j"], ["_"]], [["n", *axes, "k"]])
    size = op.value(1)
    after = [] if size is None else size.ravel().tolist()[2:]
    sizes = dict(zip(axes, after, strict=False)) | {"k": int(rank) - 2}
    fixed = dict.fromkeys(("i", "j", "k", *axes), "it holds coordinates")
    return Rule(text, sizes, fixed, size_refs=[size_ref(1, "n", *[None] * (int(rank) - 1))])


def _center_crop_pad(op: Op) -> Rule:
    shape = op.shape(0)
    listed = [place_of(a, len(shape)) for a in op.attr("axes", range(len(shape)))]
    after = dict(zip(listed, op.known(1).ravel().tolist(), strict=True))
    left = names("x", len(shape))
    same = [after.get(i, n) == n for i, n in enumerate(shape)]
    right = [f"x{i}" if s else f"y{i}" for i, s in enumerate(same)]
    sizes = {f"y{i}": n for i, n in after.items() if not same[i]}
    fixed = {n: CROPPED for i, s in enumerate(same) if not s for n in (left[i], right[i])}
    terms = [left[i] if same[i] else None for i in listed]
    return Rule(line([left, ["_"]], [right]), sizes, fixed, size_refs=[size_ref(1, *terms)])


TRIANGLE = Rule("*b r c, _ -> *b r c", fixed=dict.fromkeys("rc", "a triangle is cut out of it"))
REGION = "read where a region is resized, the only one that needs it"

PADDING: dict[str, Any] = {
    "choices": {"mode": ("constant", "edge", "reflect", "wrap")},
    "extents": {1: Extent.AMOUNT, 3: Extent.PLACE},
    "hazard": hazards.large_pads,
}
COUNTING: dict[str, Any] = {
    "extents": dict.fromkeys((0, 1, 2), Extent.AMOUNT),
    "hazard": hazards.endless_range,
}
MADE = Extent.SHAPE

TABLES: dict[str, Table] = {
    "": {
        "AffineGrid": Operator(_affine_grid),
        "CenterCropPad": Operator(
            _center_crop_pad, carries=FIRST, computes=False, extents={1: MADE}
        ),
        "ConstantOfShape": Operator(
            _constant_of_shape, computes=False, extents={0: MADE}, value=values.constant_of_shape
        ),
        "EyeLike": Operator(Rule("r c -> r c", fixed={"r": COUNTED, "c": COUNTED}), computes=False),
        "Pad": Operator(
            _pad,
            carries=FIRST,
            computes=False,
            implied={2: "what a pad holds, where it is constant"},
            **PADDING,
        ),
        "Range": Operator(_range, value=values.counting, **COUNTING),
        "Resize": Operator(
            _resize,
            extents={1: MADE, 2: MADE, 3: MADE},
            choices={"mode": ("cubic", "linear", "nearest")},
            implied={1: REGION, "extrapolation_value": REGION},
        ),
        "Trilu": Operator(TRIANGLE, Kind.ZERO),
        "Upsample": Operator(
            _upsample,
            extents={1: MADE},
            choices={"mode": ("bilinear", "cubic", "linear", "nearest")},
        ),
    }
}
