"""Operators that only move entries: Reshape, Transpose, Concat, Split, Tile, DepthToSpace, ..."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from onnx_net2net.operators.alignment import Part, Size, uncertain
from onnx_net2net.operators.factors import Factors, factors, group, segments
from onnx_net2net.operators.language import (
    AT_RUN_TIME,
    Op,
    Rule,
    Unsupported,
    line,
    names,
    place_of,
    slot,
)
from onnx_net2net.operators.record import EVERY, FIRST, Table, move

BLOCK = "its size is an attribute of the node"
STATED = "it is squeezed, so its size is 1"
CUT = f"where it is cut {AT_RUN_TIME}"


def axes_of(op: Op, index: int, since: int, rank: int) -> list[int] | None:
    """The axes, an attribute before opset ``since`` and an input after; None if not given."""
    if op.opset < since:
        given = op.attr("axes")
    else:
        given = op.known(index).ravel() if op.has(index) else None
    return None if given is None else [place_of(a, rank) for a in given]


def _reshape(op: Op) -> Rule:
    given, shape = op.value(1), op.shape(0)
    after = op.outputs[0] or (given is not None and _resolve(given.tolist(), shape, op))
    if not after and not (op.outputs[0] == ()):
        raise Unsupported("the shape of output 0 is unknown")
    found = factors(shape, after or ())
    fixed = _uncertain(op, found, shape, after or ()) | dict(found.fixed)
    if given is not None and not op.attr("allowzero", 0):
        for index, element in enumerate(given.tolist()):
            if element == 0 and found.before[index] != found.after[index]:
                moved = f"{found.before[index]} {found.after[index]}".replace("(", " ")
                for part in moved.replace(")", " ").split():
                    fixed[part] = "a 0 in its shape repeats another axis"
    elements = [None if t == "1" else t for t in found.after]
    text = line([found.before, ["_"]], [found.after])
    return Rule(text, found.sizes, fixed, slots=[slot(1, *elements)])


def _uncertain(
    op: Op, found: Factors, shape: Sequence[int], after: Sequence[int]
) -> dict[str, str]:
    """The names of what is cut elsewhere at other dynamic sizes, and why they may not grow."""
    if op.proven is None:
        return {}
    before, behind = uncertain(op.proven.axes, _given(op, after))
    terms = [found.before[i] for i in before] + [found.after[i] for i in behind]
    names = " ".join(terms).replace("(", " ").replace(")", " ").split()
    return dict.fromkeys((name for name in names if name != "1"), CUT)


def _given(op: Op, after: Sequence[int]) -> list[Size]:
    """What is proved of the sizes that Reshape gives."""
    assert op.proven is not None
    axes, elements, given = op.proven.axes, op.proven.elements, op.value(1)
    if given is None:
        return [(Part(n, False),) for n in after]
    # What -1 stands for is static if all else is.
    rest = all(p.static for size in (*axes, *elements) for p in size)
    copies = not op.attr("allowzero", 0)
    found: list[Size] = []
    for i, (n, size, element) in enumerate(zip(given.tolist(), after, elements, strict=True)):
        if n > 0:
            found.append(element)
        elif n == 0 and copies and all(p.static for p in element):
            found.append(axes[i])
        else:
            found.append((Part(size, rest),))
    return found


def _hidden(settled: Sequence[int | None], given: Sequence[int]) -> bool:
    """Whether a dynamic number is 1, which shows nothing, or is no size: 0 or -1."""
    return any(n is None and m <= 1 for n, m in zip(settled, given, strict=True))


def _resolve(given: list[int], shape: Sequence[int], op: Op) -> tuple[int, ...]:
    """The output shape that Reshape's second input asks for."""
    if not op.attr("allowzero", 0):
        given = [shape[i] if n == 0 else n for i, n in enumerate(given)]
    rest = prod(n for n in given if n != -1)
    return tuple(prod(shape) // rest if n == -1 and rest else n for n in given)


def _flatten(op: Op) -> Rule:
    shape = op.shape(0)
    axis = op.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    found = factors(shape, (prod(shape[:axis]), prod(shape[axis:])))
    return Rule(found.text, found.sizes, found.fixed)


def _transpose(op: Op) -> Rule:
    axes = names("x", op.rank())
    order = op.attr("perm") or range(len(axes))[::-1]
    return Rule(line([axes], [[axes[i] for i in order]]))


def _squeeze(op: Op) -> Rule:
    shape = op.shape(0)
    stated = axes_of(op, 1, 13, len(shape))
    gone = [i for i, n in enumerate(shape) if n == 1] if stated is None else stated
    certain = stated is not None and (op.opset < 13 or None not in op.settled(1))
    # What is stated to be 1 is so wherever the node runs, whatever size was tried.
    other = [i for i in gone if shape[i] != 1 and certain]
    axes = ["1" if i in gone and i not in other else f"x{i}" for i in range(len(shape))]
    kept = [a for i, a in enumerate(axes) if i not in gone]
    fixed = {f"x{i}": STATED for i in other}
    return Rule(line([axes, ["_"]], [kept]), fixed=fixed, states_ones=certain)


def _unsqueeze(op: Op) -> Rule:
    count = len(op.known(1).ravel() if op.opset >= 13 else op.attr("axes", ()))
    rank = op.rank() + count
    new = axes_of(op, 1, 13, rank) or []
    axes = names("x", op.rank())
    left = iter(axes)
    return Rule(line([axes, ["_"]], [["1" if i in new else next(left) for i in range(rank)]]))


def _expand(op: Op) -> Rule:
    shape, after = op.shape(0), op.output()
    before = (1,) * (len(after) - len(shape)) + tuple(shape)
    if 0 in after:
        raise Unsupported("it has no entries")
    left = ["1" if n == 1 else f"x{i}" for i, n in enumerate(before)]
    right = names("x", len(after))  # by name also where it is 1: it may be longer at other sizes
    given = op.rank(1) and op.shape(1)[0]  # a shorter shape is right-aligned
    elements = right[len(after) - given :]
    text = line([left[len(after) - len(shape) :], ["_"]], [right])
    known = dict(zip(right, after, strict=True))
    return Rule(text, known, slots=[slot(1, *elements)])


def _tile(op: Op) -> Rule:
    shape = op.shape(0)
    times = [int(n) for n in op.known(1)]
    if 0 in shape or 0 in times:
        raise Unsupported("it has no entries")
    if _hidden(op.settled(1), times):
        raise Unsupported(f"how often it repeats {AT_RUN_TIME}")
    left = ["1" if n == 1 else f"x{i}" for i, n in enumerate(shape)]
    new = [None if r == 1 else f"r{i}" for i, r in enumerate(times)]
    right = [group([p for p in (r, x) if p and p != "1"]) for r, x in zip(new, left, strict=True)]
    sizes = {name: r for name, r in zip(new, times, strict=True) if name}
    return Rule(line([left, ["_"]], [right]), sizes, slots=[slot(1, *new)])


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
    if 0 in sizes:
        raise Unsupported("one of its outputs is empty")
    parts = names("c", count)
    axes = names("x", rank)
    axes[axis] = segments(parts)
    out = [[p if i == axis else f"x{i}" for i in range(rank)] for p in parts]
    where: str | int = "split" if op.opset < 13 else 1
    given = slot(where, *parts, drops="num_outputs" if op.opset >= 18 else "")
    at_run_time = op.opset >= 13 and op.value(1) is not None and None in op.settled(1)
    fixed = dict.fromkeys(parts, CUT) if at_run_time else {}
    left = [axes] if op.opset < 13 else [axes, ["_"]]
    unread = {p: "unread" for p, o in zip(parts, op.node.output, strict=True) if not o}
    known = dict(zip(parts, sizes, strict=True))
    return Rule(line(left, out), known, fixed, reduce=unread, slots=[given])


def split_sizes(op: Op, size: int, axis: int, count: int) -> list[int]:
    """What each output of Split takes: from the sizes given, the outputs, or even chunks."""
    given = op.attr("split") if op.opset < 13 else op.value(1)
    if given is not None:
        return [int(n) for n in given]
    if all(op.outputs):
        return [op.output(i)[axis] for i in range(count)]
    if op.opset >= 13 and op.has(1):
        raise Unsupported("input 1 is not a constant")
    chunk = -(-size // count)
    return [chunk] * (count - 1) + [size - chunk * (count - 1)]


def _depth_to_space(op: Op) -> Rule:
    return _blocks(op, "b {depth} h w -> b c (h r) (w s)")


def _space_to_depth(op: Op) -> Rule:
    return _blocks(op, "b c (h r) (w s) -> b {depth} h w")


# Where the channels stand among the rows and columns of a block.
DEPTHS = {"DCR": "(r s c)", "CRD": "(c r s)"}


def _blocks(op: Op, text: str) -> Rule:
    size, mode = int(op.attr("blocksize")), op.attr("mode", "DCR")
    if mode not in DEPTHS:
        raise Unsupported(f"mode is {mode}")
    text = text.replace("{depth}", DEPTHS[mode])
    return Rule(text, {"r": size, "s": size}, {"r": BLOCK, "s": BLOCK})


TABLES: dict[str, Table] = {
    "": {
        "Concat": move(_concat, carries=EVERY, terms=EVERY),
        "DepthToSpace": move(_depth_to_space),
        "Expand": move(_expand, terms=FIRST),
        "Flatten": move(_flatten, in_order=True),
        "Identity": move("*x -> *x", in_order=True, unchanged=True),
        "Reshape": move(_reshape, in_order=True),
        "SpaceToDepth": move(_space_to_depth),
        "Split": move(_split, implied={"num_outputs": "the outputs are counted"}),
        "Squeeze": move(_squeeze, in_order=True),
        "Tile": move(_tile),
        "Transpose": move(_transpose),
        "Unsqueeze": move(_unsqueeze, in_order=True),
    }
}
