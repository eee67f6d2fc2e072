"""Operators that compare, sample or pick entries: TopK, ArgMax, OneHot, RoiAlign, GridSample."""

from __future__ import annotations

import numpy as np

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.operators.language import Kind, Op, Rule, line, names, place_of
from onnx_net2net.operators.record import FIRST, Extent, Operator, Table

COMPARED = "its entries are compared with one another"
CLASS = "a position on it is a class"
BOX = "it holds the corners of a box"
SAMPLED = "it is sampled at computed places"
FOUND = "its length depends on the data"
TIME = "its entries are reversed"


def _top_k(op: Op) -> Rule:
    axis, axes = op.axis(), names("x", op.rank())
    best = [*axes[:axis], "k", *axes[axis + 1 :]]
    inputs = [axes] + ([["_"]] if op.opset >= 10 else [])
    fixed = {f"x{axis}": COMPARED, "k": COMPARED}
    given = op.value(1) if op.opset >= 10 else np.asarray([op.attr("k")])
    sizes = {} if given is None else {"k": _whole(given)}
    return Rule(line(inputs, [best, best]), sizes, fixed)


def _arg(op: Op) -> Rule:
    axis, axes = op.axis(default=0), names("x", op.rank())
    kept = ["1"] if op.attr("keepdims", 1) else []
    out = [*axes[:axis], *kept, *axes[axis + 1 :]]
    return Rule(line([axes], [out]), fixed={f"x{axis}": COMPARED})


def _one_hot(op: Op) -> Rule:
    axes = names("x", op.rank())
    axis = op.axis(rank=len(axes) + 1)
    out = [*axes[:axis], "k", *axes[axis:]]
    depth = op.value(1)
    sizes = {} if depth is None else {"k": _whole(depth)}
    return Rule(line([axes, ["_"], ["_"]], [out]), sizes, {"k": CLASS})


def _whole(value: np.ndarray) -> AnySize:
    """Return the number that a tensor of one element holds."""
    (number,) = value.ravel().tolist()
    return number if isinstance(number, Size) else int(number)


def _compress(op: Op) -> Rule:
    axes = names("x", op.rank())
    if op.attr("axis") is None:
        out, fixed = ["k"], dict.fromkeys([*axes, "k"], "it is flattened and picked from")
    else:
        axis = op.axis()
        out = [*axes[:axis], "k", *axes[axis + 1 :]]
        fixed = dict.fromkeys((f"x{axis}", "k"), "it is picked from")
    condition = op.value(1)
    sizes: dict[str, AnySize] = {} if condition is None else {"k": int(condition.sum())}
    return Rule(line([axes, ["_"]], [out]), sizes, fixed)


def _reverse_sequence(op: Op) -> Rule:
    batch, time = op.axis("batch_axis", 1), op.axis("time_axis", 0)
    axes = names("x", op.rank())
    return Rule(line([axes, [axes[batch]]], [axes]), fixed={axes[time]: TIME})


def _roi_align(op: Op) -> Rule:
    return _regions(op, op.attr("output_height", 1), op.attr("output_width", 1))


def _max_roi_pool(op: Op) -> Rule:
    return _regions(op, *op.attr("pooled_shape"))


def _regions(op: Op, height: int, width: int) -> Rule:
    fixed = {"n": f"indexed by {op.node.op_type}", "k": BOX, **dict.fromkeys("hwyx", SAMPLED)}
    return Rule("n c h w, r k, r -> r c y x", {"y": height, "x": width}, fixed)


def _non_zero(op: Op) -> Rule:
    axes = names("x", op.rank())
    fixed = dict.fromkeys([*axes, "r", "n"], FOUND)
    return Rule(line([axes], [["r", "n"]]), {"r": max(1, op.rank())}, fixed)


def _unique(op: Op) -> Rule:
    axes, axis = names("x", op.rank()), op.attr("axis")
    if axis is None:
        text, fixed = line([axes], [["n"], ["n"], ["m"], ["n"]]), dict.fromkeys(axes, FOUND)
    else:
        place = place_of(axis, op.rank())
        out = [*axes[:place], "n", *axes[place + 1 :]]
        text = line([axes], [out, ["n"], ["m"], ["n"]])
        fixed = dict.fromkeys(axes, COMPARED)
    return Rule(text, fixed={**fixed, "n": FOUND, "m": FOUND})


GRID = Rule("n c *s, n *t k -> n c *t", fixed={"s*": SAMPLED, "k": "it holds coordinates"})
BOXES = Rule("_, _, _, _, _ -> f i", {"i": 3}, {"f": FOUND, "i": "it holds an index"})
SAMPLING = {"mode": ("bicubic", "bilinear", "cubic", "linear", "nearest")}

TABLES: dict[str, Table] = {
    "": {
        "ArgMax": Operator(_arg, compares=True, differentiable=False),
        "ArgMin": Operator(_arg, compares=True, differentiable=False),
        "Compress": Operator(_compress),
        "GridSample": Operator(GRID, choices=SAMPLING),
        "MaxRoiPool": Operator(_max_roi_pool),
        "NonMaxSuppression": Operator(BOXES),
        "NonZero": Operator(_non_zero, differentiable=False),
        "OneHot": Operator(_one_hot, limits={0: 1}, extents={1: Extent.SHAPE}),
        "ReverseSequence": Operator(_reverse_sequence, Kind.ZERO, carries=FIRST, computes=False),
        "RoiAlign": Operator(
            _roi_align,
            choices={
                "coordinate_transformation_mode": ("half_pixel", "output_half_pixel"),
                "mode": ("avg", "max"),
            },
        ),
        "TopK": Operator(
            _top_k,
            compares=True,
            extents={1: Extent.PLACE},
            implied={"sorted": "0 leaves the order open"},
        ),
        "Unique": Operator(_unique, compares=True),
    }
}
