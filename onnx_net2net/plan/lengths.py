"""Which blocks of a series are copied, and how often, for it to be as long as another one.

    lengths(Series(analysis), Series(larger), obstacles)
    # [Length("h", 2, 4, {"h.0": 1, "h.1": 1}, {0: 0, 1: 2})]

Copies are spread evenly over those that can be copied. A series whose members are not alike, such
as a stage whose first block changes the width, gets copies where the larger one has the same
parameters of the same shapes.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx_net2net.algebra.axes import atoms
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.deepening.block_copies import renumbered
from onnx_net2net.deepening.numbered_blocks import Series
from onnx_net2net.deepening.repeated_segments import evenly
from onnx_net2net.step import MOST

Contents = dict[str, list[list[int]]]


@dataclass(frozen=True)
class Length:
    """One series: how long it is and becomes, the copies by block, and where old numbers go."""

    series: str
    old: int
    new: int
    copies: dict[str, int]
    places: dict[int, int] = field(repr=False)

    @property
    def added(self) -> list[str]:
        """The names of the copies."""
        taken = set(self.places.values())
        first = min(taken)
        return [f"{self.series}.{n}" for n in range(first, first + self.new) if n not in taken]


def moved(name: str, lengths: Sequence[Length]) -> str:
    """Return what a parameter is called once copies have made series longer."""
    for length in sorted(lengths, key=lambda length: -len(length.series)):
        name = renumbered(name, length.series, lambda n: length.places.get(n, n))  # noqa: B023
    return name


def lengths(own: Series, other: Series, obstacles: list[str]) -> list[Length]:
    """Return the series that are longer over there; append what is in the way to ``obstacles``."""
    mine, theirs = _numbers(own), _numbers(other)
    longer: list[Length] = []
    for series, numbers in mine.items():
        wanted = theirs.get(series, [])
        if not wanted or len(wanted) == len(numbers):
            continue
        if len(wanted) < len(numbers):
            obstacles.append(
                f"'{series}' would shrink from {len(numbers)} to {len(wanted)} members"
            )
        elif _nested(series, longer):
            continue
        elif isinstance(length := _length(own, other, series, numbers, wanted), str):
            obstacles.append(f"'{series}' cannot grow from {len(numbers)} members to "
                             f"{len(wanted)}: {length}")  # fmt: skip
        else:
            longer.append(length)
    return longer


def _nested(series: str, longer: Sequence[Length]) -> bool:
    return any(series.startswith(length.series + ".") for length in longer)


def _numbers(series: Series) -> dict[str, list[int]]:
    """Return the numbers that the members of each series have."""
    members: dict[str, list[int]] = defaultdict(list)
    for member in series.members:
        name, _, number = member.rpartition(".")
        members[name].append(int(number))
    return {name: sorted(numbers) for name, numbers in sorted(members.items())}


def _length(
    own: Series, other: Series, series: str, numbers: list[int], wanted: list[int]
) -> Length | str:
    """Return how the series grows, or why it cannot."""
    for which in (numbers, wanted):
        if which != list(range(numbers[0], numbers[0] + len(which))):
            return f"its members are numbered {', '.join(map(str, which))}, with gaps"
    if len(wanted) - len(numbers) > MOST:
        return "that is beyond all bounds"
    names = [f"{series}.{number}" for number in numbers]
    blocks = [own.block(name) for name in names]
    exact = [block.exact for block in blocks]
    if not any(exact):
        return f"no member can be copied exactly ({names[0]}: {blocks[0].reason})"
    theirs = [_contents(other, f"{series}.{number}") for number in wanted]
    counts = _spread(exact, [_contents(own, name) for name in names], theirs)
    if counts is None:
        return "its new members are like no member that can be copied exactly, in this order"
    places, at = {}, wanted[0]
    for number, count in zip(numbers, counts, strict=True):
        places[number] = at
        at += 1 + count
    copies = {name: count for name, count in zip(names, counts, strict=True) if count}
    return Length(series, len(numbers), len(wanted), copies, places)


def _contents(series: Series, member: str) -> Contents:
    """Return what the parameters of a member are called within it, and the factors of their axes:
    how wide each dimension is.
    """
    axes = series.analysis.solution.axes
    return {
        name: [[int(trial(a.size)) for a in atoms(x)] for x in axes.get(f"{member}.{name}", ())]
        for name in series.contents(member)
    }


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


def _spread(
    exact: Sequence[bool], own: Sequence[Contents], other: Sequence[Contents]
) -> list[int] | None:
    """Return how many copies follow each block, as evenly as the larger series allows."""
    total = len(other) - len(exact)
    able = [i for i, can in enumerate(exact) if can]
    ideal = dict(zip(able, evenly(len(able), total), strict=True))

    # The least deviation for the blocks from one on, by the place of that one; then their counts.
    best: dict[int, tuple[int, tuple[int, ...]]] = {len(other): (0, ())}
    for block in reversed(range(len(exact))):
        behind, best = best, {}
        for place in range(block, block + total + 1):
            if not _fit(own[block], other[place]):
                continue
            for count in range(block + total + 1 - place):
                if count and (not exact[block] or other[place + count] != other[place]):
                    break
                if (rest := behind.get(place + count + 1)) is not None:
                    cost = rest[0] + (count - ideal.get(block, 0)) ** 2
                    if place not in best or cost < best[place][0]:
                        best[place] = cost, (count, *rest[1])
    return list(best[0][1]) if 0 in best else None
