"""Operators that only move entries: Reshape, Transpose, Concat, Split, Tile, DepthToSpace, ..."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from onnx_net2net.algebra.sizes import AT_RUN_TIME, AnySize, same
from onnx_net2net.operators import hazards, values
from onnx_net2net.operators.broadcast import repeated
from onnx_net2net.operators.factors import factors, group, segments
from onnx_net2net.operators.language import (
    Entry,
    Op,
    Rule,
    Unsupported,
    line,
    names,
    place_of,
    size_ref,
)
from onnx_net2net.operators.record import EVERY, FIRST, Extent, Table, move

BLOCK = "its size is an attribute of the node"
STATED = "it is squeezed, so its size is 1"


def axes_of(op: Op, index: int, since: int, rank: int) -> list[int] | None:
    """Return the axes, an attribute before opset ``since`` and an input after; None if absent."""
    if op.opset < since:
        given = op.attr("axes")
    else:
        given = op.known(index).ravel() if op.has(index) else None
    return None if given is None else [place_of(a, rank) for a in given]


def _reshape(op: Op) -> Rule:
    given, shape = op.value(1), op.shape(0)
    copies = not op.attr("allowzero", 0)
    after = op.output() if given is None else _asked(op.vector(1), shape, copies)
    merges = factors(shape, after)
    fixed = dict(merges.fixed)
    for index, element in enumerate([] if given is None or not copies else op.vector(1)):
        if element == 0 and merges.before[index] != merges.after[index]:
            moved = f"{merges.before[index]} {merges.after[index]}"
            reason = "a 0 in its shape repeats another axis"
            fixed |= dict.fromkeys(moved.replace("(", " ").replace(")", " ").split(), reason)
    elements = [None if t == "1" else t for t in merges.after]
    text = line([merges.before, ["_"]], [merges.after])
    return Rule(text, merges.sizes, fixed, size_refs=[size_ref(1, *elements)])


def _asked(given: list[AnySize], shape: Sequence[AnySize], copies: bool) -> list[AnySize]:
    """Return the output shape that Reshape's second input asks for."""
    if copies:
        given = [shape[i] if n == 0 else n for i, n in enumerate(given)]
    rest: AnySize = prod(n for n in given if n != -1)
    return [prod(shape) // rest if n == -1 and rest != 0 else n for n in given]


def _flatten(op: Op) -> Rule:
    shape = op.shape(0)
    axis = op.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    merges = factors(shape, (prod(shape[:axis]), prod(shape[axis:])))
    return Rule(merges.text, merges.sizes, merges.fixed)


def _transpose(op: Op) -> Rule:
    axes = names("x", op.rank())
    order = op.attr("perm") or range(len(axes))[::-1]
    return Rule(line([axes], [[axes[i] for i in order]]))


def _squeeze(op: Op) -> Rule:
    shape = op.shape(0)
    stated = axes_of(op, 1, 13, len(shape))
    gone = [i for i, n in enumerate(shape) if same(n, 1)] if stated is None else stated
    # What is stated to be 1 is so wherever the node runs.
    other = [i for i in gone if shape[i] != 1]
    axes = ["1" if i in gone and i not in other else f"x{i}" for i in range(len(shape))]
    kept = [a for i, a in enumerate(axes) if i not in gone]
    fixed = {f"x{i}": STATED for i in other}
    return Rule(line([axes, ["_"]], [kept]), fixed=fixed)


def _unsqueeze(op: Op) -> Rule:
    count = len(op.known(1).ravel() if op.opset >= 13 else op.attr("axes", ()))
    rank = op.rank() + count
    new = axes_of(op, 1, 13, rank) or []
    axes = names("x", op.rank())
    left = iter(axes)
    return Rule(line([axes, ["_"]], [["1" if i in new else next(left) for i in range(rank)]]))


def _expand(op: Op) -> Rule:
    shape = op.shape(0)
    asked = op.vector(1)
    rank = max(len(shape), len(asked))
    before = (1,) * (rank - len(shape)) + tuple(shape)
    wanted = (1,) * (rank - len(asked)) + tuple(asked)
    if 0 in before or 0 in wanted:
        raise Unsupported("it has no entries")
    left = ["1" if n == 1 else f"x{i}" for i, n in enumerate(before)]
    right = names("x", rank)  # by name also where it is 1
    sizes = {name: repeated(n, m) for name, n, m in zip(right, before, wanted, strict=True)}
    fixed: dict[str, str] = {}
    for i, (n, m) in enumerate(zip(before, wanted, strict=True)):
        if n != 1 != m and n != m:  # they are equal, or one of them is 1
            right[i] = f"y{i}"
            sizes |= {f"x{i}": n, f"y{i}": repeated(n, m)}
            fixed |= dict.fromkeys((f"x{i}", f"y{i}"), f"whether it is repeated {AT_RUN_TIME}")
    elements = right[rank - len(asked) :]  # a shorter shape is right-aligned
    text = line([left[rank - len(shape) :], ["_"]], [right])
    return Rule(text, sizes, fixed, size_refs=[size_ref(1, *elements)])


def _tile(op: Op) -> Rule:
    shape = op.shape(0)
    times = op.vector(1)
    if 0 in shape or 0 in times:
        raise Unsupported("it has no entries")
    left = ["1" if n == 1 else f"x{i}" for i, n in enumerate(shape)]
    new = [None if r == 1 else f"r{i}" for i, r in enumerate(times)]
    right = [group([p for p in (r, x) if p and p != "1"]) for r, x in zip(new, left, strict=True)]
    sizes = {name: r for name, r in zip(new, times, strict=True) if name}
    return Rule(line([left, ["_"]], [right]), sizes, size_refs=[size_ref(1, *new)])


def _concat(op: Op) -> Rule:
    rank = op.rank()
    axis = op.axis(default=1)  # optional only before opset 4
    count = len(op.node.input)
    each = [[f"c{n}" if i == axis else f"x{i}" for i in range(rank)] for n in range(count)]
    # An empty segment (a cache before its first step) has no place in the sum.
    empty = {f"c{n}": "it is empty" for n in range(count) if op.shape(n)[axis] == 0}
    full = [f"c{n}" for n in range(count) if f"c{n}" not in empty]
    if not full:
        raise Unsupported("it has no entries")
    out = [segments(full) if i == axis else f"x{i}" for i in range(rank)]
    return Rule(line(each, [out]), fixed=empty)


def _split(op: Op) -> Rule:
    rank, axis, count = op.rank(), op.axis(default=0), len(op.node.output)
    sizes = split_sizes(op, op.shape(0)[axis], axis, count)
    if any(type(n) is int and n < 1 for n in sizes):
        raise Unsupported("one of its outputs is empty")
    parts = names("c", count)
    axes = names("x", rank)
    axes[axis] = segments(parts)
    out = [[p if i == axis else f"x{i}" for i in range(rank)] for p in parts]
    where: str | int = "split" if op.opset < 13 else 1
    given = size_ref(where, *parts, drops="num_outputs" if op.opset >= 18 else "")
    left = [axes] if op.opset < 13 else [axes, ["_"]]
    unread = {p: "unread" for p, o in zip(parts, op.node.output, strict=True) if not o}
    known = dict(zip(parts, sizes, strict=True))
    return Rule(line(left, out), known, reduce=unread, size_refs=[given])


def split_sizes(op: Op, size: AnySize, axis: int, count: int) -> list[AnySize]:
    """Return what each output of Split takes: from the sizes stated, or even chunks."""
    given = op.attr("split") if op.opset < 13 else op.value(1)
    if given is not None:
        return list(given) if isinstance(given, list) else given.tolist()
    if op.opset >= 13 and op.has(1):
        raise Unsupported("input 1 is not a constant")
    chunk = -(-size // count)
    return [chunk] * (count - 1) + [size - chunk * (count - 1)]


# Where the channels stand among the rows and columns of a block.
DEPTHS = {"DCR": "(r s c)", "CRD": "(c r s)"}


def blocks(before: str, after: str) -> Entry:
    """Return the rule that takes blocks of an image to its channels, or back."""

    def rule(op: Op) -> Rule:
        size, depth = int(op.attr("blocksize")), DEPTHS[op.attr("mode", "DCR")]
        text = f"{before} -> {after}".replace("{depth}", depth)
        return Rule(text, {"r": size, "s": size}, {"r": BLOCK, "s": BLOCK})

    return rule


DEEP, WIDE = "b {depth} h w", "b c (h r) (w s)"


TABLES: dict[str, Table] = {
    "": {
        "Concat": move(_concat, carries=EVERY, terms=EVERY, value=values.concat),
        "DepthToSpace": move(blocks(DEEP, WIDE), choices={"mode": DEPTHS}),
        "Expand": move(_expand, terms=FIRST, extents={1: Extent.SHAPE}, value=values.expand),
        "Flatten": move(_flatten, in_order=True),
        "Identity": move(
            "*x -> *x", in_order=True, in_place=True, value=values.mapped(lambda x: x)
        ),
        "Reshape": move(_reshape, in_order=True, extents={1: Extent.PLACE}, value=values.reshape),
        "SpaceToDepth": move(blocks(WIDE, DEEP), choices={"mode": DEPTHS}),
        "Split": move(
            _split,
            extents={1: Extent.PLACE},
            hazard=hazards.split_parts,
            value=values.split,
            implied={"num_outputs": "the outputs are counted"},
        ),
        "Squeeze": move(_squeeze, in_order=True, value=values.squeeze),
        "Tile": move(_tile, extents={1: Extent.SHAPE}, value=values.tile),
        "Transpose": move(_transpose, value=values.transpose),
        "Unsqueeze": move(
            _unsqueeze, in_order=True, extents={1: Extent.PLACE}, value=values.unsqueeze
        ),
    }
}
