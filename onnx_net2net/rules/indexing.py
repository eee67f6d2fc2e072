"""Operators that choose entries by position: Slice, Gather, Scatter, TopK, OneHot, ..."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_net2net.rules.language import Op, Rule, Table, Unsupported, line, names, slot
from onnx_net2net.rules.movement import segments

INDEXED = "indexed by "
STEP = "every so many entries are taken from it"
RANKED = "its entries are compared with one another"
WRITTEN = "entries are written along it"


def _slice(op: Op) -> Rule:
    rank, shape = op.rank(), op.shape(0)
    starts, ends, axes, steps = _bounds(op)
    cut = _Cut(op, names("x", rank), names("x", rank))
    first: list[str | None] = []
    last: list[str | None] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if start is None or end is None or step is None:
            cut.fix(axis, "its bounds are computed")
            terms: tuple[str | None, str | None] = (None, None)
        elif step == 1:
            terms = cut.keep(axis, start, end)
        else:
            terms = cut.stride(axis, start, end, step, shape[axis])
        first.append(terms[0])
        last.append(terms[1])
    where: tuple[str | int, str | int] = ("starts", "ends") if op.opset < 10 else (1, 2)
    slots = [slot(where[0], *first), slot(where[1], *last)]
    inputs = [cut.left] + [["_"]] * (0 if op.opset < 10 else len(op.node.input) - 1)
    # What is cut off is read by nobody: how often it is copied does not matter.
    dropped = {n: "max" for n in cut.sizes if n[0] in "ab"}
    return Rule(
        line(inputs, [cut.right]), cut.sizes, cut.fixed, reduce=dropped, slots=slots, kind="move"
    )


class _Cut:
    """The axes of Slice's input and output, cut one by one."""

    def __init__(self, op: Op, left: list[str], right: list[str]) -> None:
        self.op, self.left, self.right = op, left, right
        self.sizes: dict[str, int] = {}
        self.fixed: dict[str, str] = {}

    def fix(self, axis: int, reason: str) -> None:
        """Keep this axis from growing on both sides."""
        self.right[axis] = f"y{axis}"
        self.sizes[f"y{axis}"] = self.op.output()[axis]
        self.fixed |= {f"x{axis}": reason, f"y{axis}": reason}

    def keep(self, axis: int, start: int, end: int) -> tuple[str | None, str | None]:
        """Keep the entries from ``start`` to ``end``; the terms that the two bounds repeat."""
        size = self.op.shape(0)[axis]
        begin, stop, _ = slice(start, end, 1).indices(size)
        if stop <= begin:
            raise Unsupported("it keeps no entries")
        parts = {f"b{axis}": begin, f"x{axis}": stop - begin, f"a{axis}": size - stop}
        parts = {name: n for name, n in parts.items() if n}
        self.left[axis] = segments(list(parts))
        if len(parts) > 1:
            self.sizes |= parts
        upto, since = list(parts), list(parts)
        if f"a{axis}" in upto:
            upto.remove(f"a{axis}")
        if f"b{axis}" in since:
            since.remove(f"b{axis}")
        low = high = None
        if begin:
            low = f"b{axis}" if start > 0 else "-" + segments(since)
        elif start == -size:
            low = "-" + segments(since)
        if 0 < end <= size:
            high = segments(upto)
        elif end < 0:
            high = f"-a{axis}"
        return low, high

    def stride(
        self, axis: int, start: int, end: int, step: int, size: int
    ) -> tuple[str | None, str | None]:
        """Take one of every ``step`` entries: the axis is so many groups, if that divides it."""
        if step < 1 or not 0 <= start < step or end < size or size % step:
            self.fix(axis, STEP)
            return None, None
        self.left[axis] = f"(x{axis} s{axis})"
        self.sizes |= {f"s{axis}": step, f"x{axis}": size // step}
        self.fixed[f"s{axis}"] = STEP
        return None, f"(x{axis} s{axis})" if end == size else None


Bounds = Sequence[int | None]


def _bounds(op: Op) -> tuple[Bounds, Bounds, list[int], Bounds]:
    """Starts, ends, axes and steps, None where they are not known."""
    rank = op.rank()
    if op.opset < 10:
        starts, ends = list(op.attr("starts")), list(op.attr("ends"))
        axes = op.attr("axes", range(len(starts)))
        return starts, ends, [int(a) % rank for a in axes], [1] * len(starts)
    count = int(np.prod(op.shape(1)))
    given = op.known(3).ravel() if op.has(3) else range(count)
    axes = [int(a) % rank for a in given]
    steps: Bounds = _numbers(op, 4, count) if op.has(4) else [1] * count
    return _numbers(op, 1, count), _numbers(op, 2, count), axes, steps


def _numbers(op: Op, index: int, count: int) -> Bounds:
    value = op.value(index)
    return [None] * count if value is None else [int(n) for n in value.ravel()]


def _gather(op: Op) -> Rule:
    axis = op.axis(default=0)
    data, chosen = names("x", op.rank()), names("i", op.rank(1))
    out = data[:axis] + chosen + data[axis + 1 :]
    return Rule(line([data, chosen], [out]), fixed={data[axis]: INDEXED + "Gather"}, kind="move")


TABLES: dict[str, Table] = {
    "": {
        "Gather": _gather,
        "Slice": _slice,
    }
}
