"""Which blocks of a series are copied, and how often, for it to be as long as another one.

    lengths(Series(analysis), Series(larger), obstacles)
    # [Length("h.", 2, 4, {"h.0": 1, "h.1": 1}, {0: 0, 1: 2})]

Copies are spread evenly over those that can be copied. A series whose members are not alike, such
as a stage whose first block changes the width, gets copies where the larger one has the same
parameters of the same shapes.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx_net2net.algebra.axes import atoms
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.deepening.numbered_blocks import Series
from onnx_net2net.deepening.repeated_segments import evenly
from onnx_net2net.deepening.segments import Block
from onnx_net2net.model.numbers import renumbered, split, title
from onnx_net2net.step import MOST

Contents = dict[str, list[list[int]]]
_FAR = MOST * MOST  # more than any unevenness costs


@dataclass(frozen=True)
class Length:
    """One series: how long it is and becomes, the copies by block, and where old numbers go.

    ``prefix`` is what the names of all members begin with.
    """

    prefix: str
    old: int
    new: int
    copies: dict[str, int]
    places: dict[int, int] = field(repr=False)
    added: tuple[str, ...] = field(repr=False)  # the names of the copies
    beside: bool = False  # copies make others read more, as DenseNet's do

    @property
    def series(self) -> str:
        """Return what people call the series."""
        return title(self.prefix)


def moved(name: str, lengths: Sequence[Length]) -> str:
    """Return what a parameter is called once copies have made series longer."""
    for length in sorted(lengths, key=lambda length: -len(length.prefix)):
        name = renumbered(name, length.prefix, lambda n: length.places.get(n, n))  # noqa: B023
    return name


def lengths(own: Series, other: Series, obstacles: list[str]) -> list[Length]:
    """Return the series that are longer over there; append what is in the way to ``obstacles``."""
    mine, theirs = _numbers(own), _numbers(other)
    longer: list[Length] = []
    for prefix in sorted(other.prefixes):
        names, wanted = mine.get(prefix), theirs.get(prefix)
        if not names or not wanted or len(names) == len(wanted):
            continue
        if len(wanted) < len(names):
            obstacles.append(
                f"'{title(prefix)}' would shrink from {len(names)} to {len(wanted)} members"
            )
        elif any(re.match(rf"{re.escape(outer.prefix)}\d+\.", prefix) for outer in longer):
            continue
        elif isinstance(length := _length(own, other, names, wanted), str):
            obstacles.append(f"'{title(prefix)}' cannot grow from {len(names)} members to "
                             f"{len(wanted)}: {length}")  # fmt: skip
        else:
            longer.append(length)
    return longer


def _numbers(series: Series) -> dict[str, dict[int, str]]:
    """Return the names of the members by their numbers, for each prefix."""
    members: dict[str, dict[int, str]] = defaultdict(dict)
    for prefix, number, name in sorted((*split(name), name) for name in series.nodes):
        members[prefix][number] = name
    return members


def _length(
    own: Series, other: Series, names: dict[int, str], wanted: dict[int, str]
) -> Length | str:
    """Return how the series grows, or why it cannot; members are given by their numbers."""
    prefix, _ = split(next(iter(names.values())))
    stride = own.strides[prefix]
    for which in (names, wanted):
        if [*which] != [*range(min(which), min(which) + stride * len(which), stride)]:
            numbers = ", ".join(map(str, which))
            return f"its members are numbered {numbers}, so that no rule says what new ones are"
    if len(wanted) - len(names) > MOST:
        return "that is beyond all bounds"
    mine = _members(own, [*names.values()])
    theirs = _members(other, [*wanted.values()])
    if not any(member.block.exact for member in mine):
        block = mine[0].block
        return f"no member can be copied exactly ({block.name}: {block.reason})"
    counts = _spread(mine, theirs)
    if counts is None:
        return "its new members are like no member that can be copied exactly, in this order"
    places, at = {}, min(wanted)
    for number, count in zip(names, counts, strict=True):
        places[number] = at
        at += stride * (1 + count)
    copies = {m.block.name: count for m, count in zip(mine, counts, strict=True) if count}
    added = tuple(name for number, name in wanted.items() if number not in places.values())
    beside = any(member.block.beside for member in mine)
    return Length(prefix, len(names), len(wanted), copies, places, added, beside)


@dataclass(frozen=True)
class _MemberShapes:
    """A member of a series: what its parameters are called within it, and the factors of their
    axes; its operators, and which of the tensors that members read besides it does.
    """

    block: Block
    contents: Contents
    structure: tuple[tuple[str, ...], frozenset[int]]


def _members(series: Series, names: Sequence[str]) -> list[_MemberShapes]:
    """Return the members of these names."""
    graph, axes = series.analysis.graph, series.analysis.solution.axes
    blocks = [series.block(name) for name in names]
    read = [_read(series, block) for block in blocks]
    order = sorted(set().union(*read), key=lambda n: getattr(graph.producer.get(n), "position", -1))
    members = []
    for block, outside in zip(blocks, read, strict=True):
        contents = {
            name: [[int(trial(a.size)) for a in atoms(x)] for x in axes.get(full, ())]
            for name in series.contents[block.name]
            for full in [f"{block.name}.{name}"]
        }
        operators = tuple(graph.nodes[at].op for at in sorted(block.positions))
        places = frozenset(i for i, name in enumerate(order) if name in outside)
        members.append(_MemberShapes(block, contents, (operators, places)))
    return members


def _read(series: Series, block: Block) -> set[str]:
    """Return the tensors, masks for example, that a block reads besides its input and sizes."""
    graph, sizes = series.analysis.graph, series.analysis.solution.shapes.computed
    nodes = [graph.nodes[at] for at in block.positions]
    inside = {name for node in nodes for name in node.outputs} | {block.input, ""}
    names = {name for node in nodes for name in node.inputs} - inside - graph.derived
    return {n for n in names if n not in graph.producer or graph.producer[n].position not in sizes}


def _fit(own: Contents, other: Contents) -> bool:
    """Return whether a member can grow into another: the same modules, no dimension smaller.

    Exporters keep one of several equal parameters, so that not all of them need be there.
    """
    modules = ({name.rpartition(".")[0] for name in contents} for contents in (own, other))
    return operator.eq(*modules) and all(
        len(mine) != len(theirs) or all(map(operator.le, mine, theirs))
        for name in own.keys() & other.keys()
        for mine, theirs in zip(own[name], other[name], strict=False)
    )


def _same(block: Block, first: Contents, second: Contents) -> bool:
    """Return whether members are equally large, but for what those of dense blocks read."""
    if block.beside:
        first, second = (
            {name: [axis for axis in axes if len(axis) == 1] for name, axes in contents.items()}
            for contents in (first, second)
        )
    return first == second


def _spread(own: Sequence[_MemberShapes], other: Sequence[_MemberShapes]) -> list[int] | None:
    """Return how many copies follow each block, as evenly as the larger series allows.

    Where blocks alternate, as shifted windows do, each must stand where the larger series has one
    of its kind. A copy is the identity, of whatever kind.
    """
    total = len(other) - len(own)
    able = [i for i, member in enumerate(own) if member.block.exact]
    ideal = dict(zip(able, evenly(len(able), total), strict=True))
    if own[able[-1]].block.beside:  # what lies behind copies reads more
        ideal = {able[-1]: total}

    # The least deviation for the blocks from one on, by the place of that one; then their counts.
    best: dict[int, tuple[int, tuple[int, ...]]] = {len(other): (0, ())}
    for index, member in reversed(list(enumerate(own))):
        behind, best = best, {}
        for place in range(index, index + total + 1):
            there = other[place]
            if not _fit(member.contents, there.contents):
                continue
            strange = _FAR * (member.structure != there.structure)
            for count in range(index + total + 1 - place):
                alike = _same(member.block, other[place + count].contents, there.contents)
                if count and not (member.block.exact and alike):
                    break
                if (rest := behind.get(place + count + 1)) is not None:
                    cost = rest[0] + strange + (count - ideal.get(index, 0)) ** 2
                    if place not in best or cost < best[place][0]:
                        best[place] = cost, (count, *rest[1])
    return list(best[0][1]) if 0 in best else None
