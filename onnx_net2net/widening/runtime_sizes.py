"""Elements of size vectors that vary at run time: how to compute what they must be after growth.

A size vector such as (batch * heads, length, width) mixes sizes of the inputs with sizes that
grow. Both what the graph computes by itself once it has grown, and what is wanted, are formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.algebra.unknowns import Unknown
from onnx_net2net.analysis.solver import Solution

Places = Mapping[Unknown, tuple[str, int]]  # the input and its axis that has a size


@dataclass(frozen=True)
class Kept:
    """Element ``place`` of the vector as it is computed, times a ratio."""

    place: int
    numerator: int = 1
    denominator: int = 1


@dataclass(frozen=True)
class Fresh:
    """The product of some sizes of the network's inputs, (input, axis), and a constant."""

    sources: tuple[tuple[str, int], ...]
    factor: int


NewElement = int | Kept | Fresh


def input_places(solution: Solution) -> Places:
    """Return where the network's inputs show a dynamic size by itself."""
    places: dict[Unknown, tuple[str, int]] = {}
    for name in solution.graph.inputs:
        for axis, size in enumerate(solution.shapes.sizes_of(name) or ()):
            if isinstance(size, Size) and list(size.terms.values()) == [1]:
                (monomial,) = size.terms
                if len(monomial) == 1:
                    places.setdefault(monomial[0], (name, axis))
    return places


def element(place: int, now: AnySize, wanted: AnySize, places: Places) -> NewElement | None:
    """Say how to compute element ``place``, which is ``now``, as ``wanted``; None if unknown."""
    if not isinstance(wanted, Size):
        return wanted
    ratio = proportion(now, wanted)
    if ratio is not None:
        return Kept(place, *ratio)
    (monomial, factor), *more = wanted.terms.items()
    if more or not all(one in places for one in monomial):
        return None
    return Fresh(tuple(places[one] for one in monomial), int(factor))


def proportion(before: AnySize, after: AnySize) -> tuple[int, int] | None:
    """Return the fraction that the one size times is the other, if there is one."""
    if not isinstance(before, Size) or not isinstance(after, Size):
        return None
    if before.terms.keys() != after.terms.keys():
        return None
    monomial = next(iter(before.terms))
    numbers = int(after.terms[monomial]), int(before.terms[monomial])
    common = gcd(*numbers)
    numerator, denominator = numbers[0] // common, numbers[1] // common
    if numerator * denominator < 0 or before * numerator != after * denominator:
        return None
    return abs(numerator), abs(denominator)
