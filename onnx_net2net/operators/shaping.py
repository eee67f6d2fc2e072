"""Operators that make axes or resample them: Pad, Resize, ConstantOfShape, Range, Trilu, ..."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from onnx_net2net.operators.factors import segments
from onnx_net2net.operators.language import (
    AT_RUN_TIME,
    Kind,
    Op,
    Rule,
    Unsupported,
    line,
    names,
    place_of,
    slot,
)
from onnx_net2net.operators.record import FIRST, Operator, Table

BORDER = "its borders are padded with its own entries"
MOVING = f"how far it is padded {AT_RUN_TIME}"
RESAMPLED = "it is resampled"
CROPPED = "entries are cropped from it"
COUNTED = "its entries depend on its length"


def _pad(op: Op) -> Rule:
    shape, mode = op.shape(0), op.attr("mode", "constant")
    begins, ends = _pads(op)
    moving = _pads_at_run_time(op)
    where: str | int = "pads" if op.opset < 11 else 1
    left: list[str] = []
    right: list[str] = []
    sizes: dict[str, int] = {}
    fixed: dict[str, str] = {}
    reduce: dict[str, str] = {}
    for i, (size, begin, end) in enumerate(zip(shape, begins, ends, strict=True)):
        if size + min(begin, 0) + min(end, 0) <= 0 or size + begin + end <= 0:
            raise Unsupported("it has no entries")
        if i in moving or (mode != "constant" and (begin or end)):
            left.append(f"x{i}")
            right.append(f"y{i}")
            sizes[f"y{i}"] = size + begin + end
            fixed |= dict.fromkeys((f"x{i}", f"y{i}"), MOVING if i in moving else BORDER)
            continue
        around = {f"p{i}": begin, f"x{i}": size + min(begin, 0) + min(end, 0), f"q{i}": end}
        left.append(segments([n for n in around if n[0] == "x" or around[n] < 0]))
        right.append(segments([n for n in around if n[0] == "x" or around[n] > 0]))
        sizes |= {n: abs(s) for n, s in around.items() if s}
        reduce |= {n: "unread" for n, s in around.items() if s < 0}
    elements = _pad_elements(op, begins, ends, fixed)
    inputs = [left] + [["_"]] * (0 if op.opset < 11 else len(op.node.input) - 1)
    return Rule(line(inputs, [right]), sizes, fixed, reduce=reduce, slots=[slot(where, *elements)])


def _pads(op: Op) -> tuple[list[int], list[int]]:
    """What is added before and after each axis."""
    rank = op.rank()
    given = [int(n) for n in (op.attr("pads") if op.opset < 11 else op.known(1).ravel())]
    begins, ends = [0] * rank, [0] * rank
    axes = _pad_axes(op)
    if len(given) != 2 * len(axes):
        raise Unsupported(f"it has {len(given)} pads for {len(axes)} axes")
    for axis, begin, end in zip(axes, given[: len(axes)], given[len(axes) :], strict=True):
        begins[axis], ends[axis] = begin, end
    return begins, ends


def _pads_at_run_time(op: Op) -> set[int]:
    """The axes whose pads follow dynamic sizes."""
    if op.opset < 11:
        return set()
    axes = _pad_axes(op)
    return {a for a, n in zip((*axes, *axes), op.settled(1), strict=True) if n is None}


def _pad_axes(op: Op) -> list[int]:
    rank = op.rank()
    if op.opset >= 18 and op.has(3):
        return [place_of(a, rank) for a in op.known(3).ravel()]
    return list(range(rank))


def _pad_elements(
    op: Op, begins: Sequence[int], ends: Sequence[int], fixed: dict[str, str]
) -> list[str | None]:
    def element(mark: str, axis: int, size: int) -> str | None:
        if not size or f"x{axis}" in fixed:
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
    shape, after = op.shape(0), op.output()
    left = names("x", len(shape))
    right = [f"x{i}" if i in kept else f"y{i}" for i in range(len(shape))]
    sizes = {f"y{i}": n for i, n in enumerate(after) if i not in kept}
    fixed = {n: RESAMPLED for i in range(len(shape)) if i not in kept for n in (left[i], right[i])}
    slots = []
    if op.opset >= 11 and op.has(3):
        own = op.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
        new = {a: f"y{a}" if own else None for a in _resized(op)} | {a: f"x{a}" for a in kept}
        slots = [slot(3, *(new[a] for a in _resized(op)))]
    inputs = [left] + [["_"]] * (len(op.node.input) - 1)
    return Rule(line(inputs, [right]), sizes, fixed, slots=slots)


def _resized(op: Op) -> list[int]:
    """The axes that scales and sizes are given for."""
    rank = op.rank()
    return [place_of(a, rank) for a in op.attr("axes", range(rank))]


def _kept(op: Op, first: int) -> set[int]:
    """Axes of scale 1: every way of interpolating keeps their entries."""
    shape, axes = op.shape(0), _resized(op)
    given = op.value(first)
    if given is not None and given.size:
        scaled = {a for a, s in zip(axes, given.ravel().tolist(), strict=True) if s != 1}
        moving = op.dynamic[first] if len(op.dynamic) > first else ()
        scaled |= {a for a, moves in zip(axes, moving, strict=False) if moves}
    elif first == 2 and op.has(3):
        asked = op.known(3).ravel().tolist()
        pairs = enumerate(zip(axes, asked, strict=True))
        scaled = {a for i, (a, n) in pairs if n != shape[a] or not op.same(a, i)}
        if scaled and op.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            scaled = set(axes)
    else:
        raise Unsupported(f"input {first} is not a constant")
    return set(range(len(shape))) - scaled


def _upsample(op: Op) -> Rule:
    scales = op.attr("scales") if op.opset < 9 else op.known(1).tolist()
    shape, after = op.shape(0), op.output()
    left = names("x", len(shape))
    kept = [s == 1 for s in scales]
    right = [f"x{i}" if same else f"y{i}" for i, same in enumerate(kept)]
    sizes = {f"y{i}": n for i, n in enumerate(after) if not kept[i]}
    fixed = {n: RESAMPLED for i, same in enumerate(kept) if not same for n in (left[i], right[i])}
    inputs = [left] + [["_"]] * (len(op.node.input) - 1)
    return Rule(line(inputs, [right]), sizes, fixed)


def _constant_of_shape(op: Op) -> Rule:
    after = op.output()
    if 0 in after:
        raise Unsupported("it has no entries")
    axes = names("x", len(after))
    sizes = dict(zip(axes, after, strict=True))
    return Rule(line([["_"]], [axes]), sizes, slots=[slot(0, *axes)])


def _range(op: Op) -> Rule:
    if op.outputs[0] is not None:
        size = op.output()[0]
    else:
        start, limit, delta = (float(op.known(i).item()) for i in range(3))
        size = max(ceil((limit - start) / delta), 0)
    return Rule("_, _, _ -> n", {"n": size}, {"n": COUNTED})


def _trilu(op: Op) -> Rule:
    inputs = ", _" if op.has(1) else ""
    corner = "a triangle is cut out of it"
    return Rule(f"*b r c{inputs} -> *b r c", fixed={"r": corner, "c": corner})


def _affine_grid(op: Op) -> Rule:
    after = op.output()
    axes = names("s", len(after) - 2)
    text = line([["n", "i", "j"], ["_"]], [["n", *axes, "k"]])
    sizes = dict(zip(axes, after[1:], strict=False)) | {"k": after[-1]}
    fixed = dict.fromkeys(("i", "j", "k", *axes), "it holds coordinates")
    return Rule(text, sizes, fixed, slots=[slot(1, "n", *[None] * (len(after) - 1))])


def _center_crop_pad(op: Op) -> Rule:
    shape, after = op.shape(0), op.output()
    listed = [place_of(a, len(shape)) for a in op.attr("axes", range(len(shape)))]
    left = names("x", len(shape))
    same = [i not in listed or shape[i] == after[i] for i in range(len(shape))]
    right = [f"x{i}" if s else f"y{i}" for i, s in enumerate(same)]
    sizes = {f"y{i}": n for i, n in enumerate(after) if not same[i]}
    fixed = {n: CROPPED for i, s in enumerate(same) if not s for n in (left[i], right[i])}
    terms = [left[i] if same[i] else None for i in listed]
    return Rule(line([left, ["_"]], [right]), sizes, fixed, slots=[slot(1, *terms)])


REGION = "read where a region is resized, the only one that needs it"

TABLES: dict[str, Table] = {
    "": {
        "AffineGrid": Operator(_affine_grid),
        "CenterCropPad": Operator(_center_crop_pad, carries=FIRST, computes=False),
        "ConstantOfShape": Operator(_constant_of_shape, computes=False),
        "EyeLike": Operator(Rule("r c -> r c", fixed={"r": COUNTED, "c": COUNTED}), computes=False),
        "Pad": Operator(
            _pad,
            carries=FIRST,
            computes=False,
            implied={2: "what a pad holds, where it is constant"},
        ),
        "Range": Operator(_range),
        "Resize": Operator(_resize, implied={1: REGION, "extrapolation_value": REGION}),
        "Trilu": Operator(_trilu, Kind.ZERO),
        "Upsample": Operator(_upsample),
    }
}
