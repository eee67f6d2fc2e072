"""Operators that read or write entries by position: Slice, Gather, Scatter, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx_net2net.algebra.sizes import AT_RUN_TIME, AnySize, Undecided, exact, maximum, minimum
from onnx_net2net.operators import hazards, values
from onnx_net2net.operators.factors import CUT, segments
from onnx_net2net.operators.language import (
    Op,
    Repeated,
    Rule,
    line,
    names,
    place_of,
    repeated,
    size_ref,
)
from onnx_net2net.operators.record import Extent, Operand, Operator, Table, move

FAR = 10**9  # bounds as far away as this mean the end, whatever the size
STEP = "every so many entries are taken from it"
WRITTEN = "entries are written along it"
COVERED = f"how far the indices reach {AT_RUN_TIME}"

Bound = str | Repeated | None  # what a bound repeats
Bounds = Sequence[AnySize | None]


def _slice(op: Op) -> Rule:
    rank, shape = op.rank(), op.shape(0)
    starts, ends, axes, steps = _bounds(op)
    cut = _Cut(op, names("x", rank), names("x", rank))
    first: list[Bound] = []
    last: list[Bound] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        terms: tuple[Bound, Bound] = (None, None)
        if start is None or end is None or not isinstance(step, int):
            cut.fix(axis, CUT)
        elif step == 1:
            terms = cut.keep(axis, start, end)
        else:
            terms = cut.stride(axis, start, end, step, shape[axis])
        first.append(terms[0])
        last.append(terms[1])
    where: tuple[str | int, str | int] = ("starts", "ends") if op.opset < 10 else (1, 2)
    refs = [size_ref(where[0], *first), size_ref(where[1], *last)]
    inputs = [cut.left] + [["_"]] * (0 if op.opset < 10 else len(op.node.input) - 1)
    # What is cut off is read by nobody: how often it is copied does not matter.
    dropped = {n: "unread" for n in cut.sizes if n[0] in "ab"}
    return Rule(line(inputs, [cut.right]), cut.sizes, cut.fixed, reduce=dropped, size_refs=refs)


class _Cut:
    """The axes of Slice's input and output, cut one by one."""

    def __init__(self, op: Op, left: list[str], right: list[str]) -> None:
        self.op, self.left, self.right = op, left, right
        self.sizes: dict[str, AnySize] = {}
        self.fixed: dict[str, str] = {}

    def fix(self, axis: int, reason: str, size: AnySize | None = None) -> tuple[Bound, Bound]:
        """Keep this axis from growing on both sides; ``size`` of it is left if that is known."""
        self.right[axis] = f"y{axis}"
        if size is not None:
            self.sizes[f"y{axis}"] = size
        elif self.op.outputs[0] is not None:
            self.sizes[f"y{axis}"] = self.op.output()[axis]
        self.fixed |= {f"x{axis}": reason, f"y{axis}": reason}
        return None, None

    def keep(self, axis: int, start: AnySize, end: AnySize) -> tuple[Bound, Bound]:
        """Keep the entries from ``start`` to ``end``; return what the two bounds repeat."""
        size = self.op.shape(0)[axis]
        try:
            begin, stop = _place(start, size), _place(end, size)
        except Undecided:
            return self.fix(axis, CUT)
        parts = {f"b{axis}": begin, f"x{axis}": stop - begin, f"a{axis}": size - stop}
        try:
            if any(n < 0 for n in parts.values()) or parts[f"x{axis}"] == 0:
                return self.fix(axis, "no entry of it is kept", 0)
        except Undecided:
            return self.fix(axis, CUT, maximum(stop - begin, 0))
        parts = {name: n for name, n in parts.items() if n != 0}
        if isinstance(size, int) and not all(isinstance(n, int) for n in parts.values()):
            return self.fix(axis, CUT, parts[f"x{axis}"])
        self.left[axis] = segments(list(parts))
        if len(parts) > 1:
            self.sizes |= parts
        upto = [name for name in parts if name[0] != "a"]
        since = [name for name in parts if name[0] != "b"]
        low: Bound = None
        high: Bound = None
        if begin != 0:
            low = f"b{axis}" if start == begin else "-" + segments(since)
        elif isinstance(start, int) and start < 0:
            low = repeated("-" + segments(since), start if -start != size else None)
        if end == stop or _beyond(end, size):
            high = repeated(segments(upto), int(end) if end != stop else None)
        elif end + size == stop:
            high = f"-a{axis}"
        return low, high

    def stride(
        self, axis: int, start: AnySize, end: AnySize, step: int, size: AnySize
    ) -> tuple[Bound, Bound]:
        """Take one of every ``step`` entries: the axis is so many groups, if that divides it."""
        count = exact(size, step)
        try:
            all_of_it = step > 0 and 0 <= start < step and _place(end, size) == size
            if not all_of_it or count is None:
                if step < 0:
                    return self.fix(axis, STEP)
                room = _place(end, size) - _place(start, size)
                return self.fix(axis, STEP, maximum(-(-room // step), 0))
        except Undecided:
            return self.fix(axis, CUT)
        self.left[axis] = f"(x{axis} s{axis})"
        self.sizes |= {f"s{axis}": step, f"x{axis}": count}
        self.fixed[f"s{axis}"] = STEP
        return None, repeated(f"(x{axis} s{axis})", int(end) if end != size else None)


def _beyond(bound: AnySize, size: AnySize) -> bool:
    """Return whether a bound lies beyond the end of an axis of any size."""
    return isinstance(bound, int) and (bound >= FAR or (isinstance(size, int) and bound > size))


def _place(bound: AnySize, size: AnySize) -> AnySize:
    """Count the entries before a bound, which is one from the end where it is negative."""
    if isinstance(bound, int) and abs(bound) >= FAR:
        return size if bound > 0 else 0
    place: AnySize = maximum(bound + size, 0) if bound < 0 else minimum(bound, size)
    return place


def _bounds(op: Op) -> tuple[Bounds, Bounds, list[int], Bounds]:
    """Return starts, ends, axes and steps, None where they depend on data."""
    rank = op.rank()
    if op.opset < 10:
        starts, ends = list(op.attr("starts")), list(op.attr("ends"))
        axes = op.attr("axes", range(len(starts)))
        return starts, ends, [place_of(a, rank) for a in axes], [1] * len(starts)
    count = int(op.shape(1)[0])
    given = op.known(3).ravel() if op.has(3) else range(count)
    axes = [place_of(a, rank) for a in given]
    starts, ends, steps = (
        [None] * count if value is None else value.ravel().tolist()
        for value in map(op.value, (1, 2, 4))
    )
    return starts, ends, axes, steps if op.has(4) else [1] * count


def _gather(op: Op) -> Rule:
    axis = op.axis(default=0)
    data, chosen = names("x", op.rank()), names("i", op.rank(1))
    out = data[:axis] + chosen + data[axis + 1 :]
    return Rule(line([data, chosen], [out]), fixed={data[axis]: "indexed by Gather"})


def _gather_elements(op: Op) -> Rule:
    axis = op.axis(default=0)
    data, chosen, sizes, fixed = _beside(op, axis)
    chosen[axis] = "i"
    fixed[f"x{axis}"] = f"indexed by {op.node.op_type}"
    reduce = {n: "unread" for n in sizes if n[0] == "r"}
    return Rule(line([data, chosen], [chosen]), sizes, fixed, reduce=reduce)


def _beside(op: Op, axis: int) -> tuple[list[str], list[str], dict[str, AnySize], dict[str, str]]:
    """Name axes of data and indices: beside ``axis`` the indices cover its first entries."""
    data, chosen = names("x", op.rank()), names("x", op.rank())
    sizes: dict[str, AnySize] = {}
    fixed: dict[str, str] = {}
    for i, (whole, part) in enumerate(zip(op.shape(0), op.shape(1), strict=True)):
        if i == axis or part == whole:
            continue
        if isinstance(part, int) and isinstance(whole, int):
            data[i] = f"(x{i} + r{i})"
            sizes |= {f"x{i}": part, f"r{i}": whole - part}
        else:
            chosen[i] = f"u{i}"
            fixed |= dict.fromkeys((f"x{i}", f"u{i}"), COVERED)
    return data, chosen, sizes, fixed


def _scatter_elements(op: Op) -> Rule:
    axis = op.axis(default=0)
    data, chosen, sizes, fixed = _beside(op, axis)
    chosen[axis] = "i"
    fixed |= {f"x{axis}": WRITTEN, "i": WRITTEN}
    return Rule(line([data, chosen, chosen], [data]), sizes, fixed)


def _gather_nd(op: Op) -> Rule:
    depth, skipped = op.shape(1)[-1], int(op.attr("batch_dims", 0))
    data = names("x", op.rank())
    batch, rest = data[:skipped], data[skipped + depth :]
    chosen = batch + names("i", op.rank(1) - 1 - skipped)
    fixed = dict.fromkeys(data[skipped : skipped + depth], "indexed by GatherND")
    fixed["k"] = "it holds an index"
    return Rule(line([data, [*chosen, "k"]], [chosen + rest]), fixed=fixed)


def _scatter_nd(op: Op) -> Rule:
    depth = op.shape(1)[-1]
    data = names("x", op.rank())
    chosen = names("i", op.rank(1) - 1)
    # A copied index would write, or add, its update twice.
    fixed = dict.fromkeys([*data[:depth], *chosen], WRITTEN) | {"k": "it holds an index"}
    text = line([data, [*chosen, "k"], chosen + data[depth:]], [data])
    return Rule(text, fixed=fixed)


def _tensor_scatter(op: Op) -> Rule:
    axis = op.axis(default=-2)
    cache, update = names("x", op.rank()), names("x", op.rank())
    update[axis] = "u"
    fixed = {f"x{axis}": WRITTEN, "u": WRITTEN}
    inputs = [cache, update] + ([["x0"]] if op.has(2) else [])
    return Rule(line(inputs, [cache]), fixed=fixed)


ROWS: dict[str, Any] = {"indexes": {1: 0}, "weights": {0: Operand.TABLE}}
WRITES = {"reduction": ("add", "max", "min", "mul", "none")}

TABLES: dict[str, Table] = {
    "": {
        "Gather": move(_gather, value=values.gather, **ROWS),
        "GatherElements": move(_gather_elements, **ROWS),
        "GatherND": move(_gather_nd, multi_index=True, **ROWS),
        "Scatter": Operator(_scatter_elements, indexes={1: 0}),
        "ScatterElements": Operator(_scatter_elements, indexes={1: 0}, choices=WRITES),
        "ScatterND": Operator(
            _scatter_nd, indexes={1: 0}, multi_index=True, choices=WRITES, value=values.scatter
        ),
        "Slice": move(
            _slice,
            extents=dict.fromkeys((1, 2, 3, 4), Extent.PLACE),
            unlimited=True,
            hazard=hazards.slice_bounds,
            value=values.slices,
        ),
        "TensorScatter": Operator(_tensor_scatter, choices={"mode": ("circular", "linear")}),
    }
}
