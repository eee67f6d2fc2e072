"""Widths by one factor: which dimensions follow it, in which steps, and what stays tied.

    scaling = scaling_of(analysis, multiple_of=8, kept=set())
    scaling.widths(1.5)                       # {dimension: 96, ...}

Of dimensions that are merged into one axis (heads and their size) the outer one follows the factor
and the others keep their width, so that the axis as a whole grows by the factor, and not by its
square or cube.

What one argument of a constructor says stays one number. Dimensions of the blocks of a series that
are equally wide remain so. So does a matrix that is square now, from a hidden width to heads times
their size or back: the hidden width remains that product.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from onnx_net2net.algebra.axes import Atom, Axis, Sum, canonical
from onnx_net2net.widening.dimensions import Analysis, Dimension, Freedom, growable, written
from onnx_net2net.widening.request import MOST, TIMES

WIDE = 64  # from here on, widths are multiples of EIGHT unless something else is asked for
EIGHT = 8

Widths = dict[Dimension, int]


@dataclass(frozen=True)
class Scaling:
    """``steps`` are the dimensions that follow the factor, and what their widths are multiples of;
    ``held`` those that could grow, but are merged with one that does. Those that are ``tied`` to
    one of ``steps`` grow with it: {leader: {dimension: its width relative to the leader's}}.
    """

    steps: Widths
    held: list[Dimension]
    tied: Mapping[Dimension, Mapping[Dimension, Fraction]] = field(default_factory=dict)
    multiple_of: int | None = 1  # None: EIGHT for those that are WIDE

    @property
    def dimensions(self) -> list[Dimension]:
        """All that grow."""
        return [*self.steps, *(d for others in self.tied.values() for d in others)]

    def widths(self, factor: float) -> Widths:
        """Return the widths that differ from the present ones."""
        scaled = {d: _width(d.width, factor, step) for d, step in self.steps.items()}
        return self.complete({d: width for d, width in scaled.items() if width > d.width})

    def complete(self, widths: Mapping[Dimension, int]) -> Widths:
        """Return ``widths`` of leaders with those that are tied to them."""
        whole = {d: width for d, width in widths.items() if d in self.steps}
        for leader, others in self.tied.items():
            if leader in whole:
                whole |= {d: int(whole[leader] * ratio) for d, ratio in others.items()}
        return whole


def _width(width: int, factor: float, step: int) -> int:
    """Return the multiple of ``step`` nearest to ``factor`` times ``width``."""
    most = max(width, min(MOST, TIMES * width) // step * step)
    return min(most, max(width, math.floor(width * factor / step + 0.5) * step))


def scaling_of(
    analysis: Analysis,
    multiple_of: int | None,
    kept: Collection[Dimension],
    *,
    tie: bool = False,
) -> Scaling:
    """Return what follows a factor. Axes that weights write become multiples of ``multiple_of``:
    where it is None, of :data:`EIGHT` if they are :data:`WIDE` now. ``tie`` what is one number.
    """
    free = {d.atom: d for d in growable(analysis.dimensions) if d not in kept}
    inner: dict[Atom, int] = dict.fromkeys(free, 1)
    held: dict[Atom, None] = {}
    solution = analysis.solution
    axes = (axis for applied in solution.applied.values() for axis in written(solution, applied))
    for term in (term for axis in axes for term in _products(canonical(axis))):
        members = [a for a in term if a in free]
        if not members:
            continue
        lead = next((a for a in members if free[a].growth is Freedom.ANY), members[0])
        held.update(dict.fromkeys(a for a in members if a is not lead))
        behind = math.prod(int(a.size) for a in term[term.index(lead) + 1 :])
        inner[lead] = max(inner[lead], behind)
    steps = {}
    for atom, dimension in free.items():
        if atom not in held:
            base = dimension.step
            unit = multiple_of or (EIGHT if dimension.width * inner[atom] >= WIDE else 1)
            steps[dimension] = base * (unit // math.gcd(unit, base * inner[atom]))
    still = [free[a] for a in held]
    leading, tied = _tied(analysis, steps) if tie else (steps, {})
    return Scaling(leading, still, tied, multiple_of)


def _tied(
    analysis: Analysis, steps: Widths
) -> tuple[Widths, dict[Dimension, dict[Dimension, Fraction]]]:
    """Return the steps of leaders of groups, each of which grows by one factor exactly, and how
    wide the others are.
    """
    above = {dimension: dimension for dimension in steps}

    def leader_of(dimension: Dimension) -> Dimension:
        while above[dimension] is not dimension:
            above[dimension] = dimension = above[above[dimension]]
        return dimension

    for pair in (*_alike(steps), *_square(analysis, steps)):
        lead, other = sorted(map(leader_of, pair), key=lambda d: d.width)
        above[other] = lead
    groups: dict[Dimension, list[Dimension]] = {}
    for dimension in steps:
        groups.setdefault(leader_of(dimension), []).append(dimension)
    common: Widths = {}
    tied: dict[Dimension, dict[Dimension, Fraction]] = {}
    for leader, members in groups.items():
        # All widths are so many units, and their number grows in steps that suit them all.
        unit = math.gcd(*(d.width for d in members))
        parts = {d: d.width // unit for d in members}
        step = math.lcm(*(steps[d] // math.gcd(steps[d], parts[d]) for d in members))
        common[leader] = parts[leader] * step
        if others := {d: Fraction(parts[d], parts[leader]) for d in members if d is not leader}:
            tied[leader] = others
    return common, tied


def _alike(dimensions: Iterable[Dimension]) -> Iterator[tuple[Dimension, Dimension]]:
    """Yield dimensions of one name and width in blocks of one series."""
    first: dict[tuple[str, int, Freedom], Dimension] = {}
    for dimension in dimensions:
        name = re.sub(r"(?<=\.)\d+(?=\.)", "*", dimension.name)
        key = name, dimension.width, dimension.growth
        if "*" in name:
            yield first.setdefault(key, dimension), dimension


def _square(
    analysis: Analysis, dimensions: Collection[Dimension]
) -> Iterator[tuple[Dimension, Dimension]]:
    """Yield the outer factor and the width of square matrices that are merged along one axis."""
    for name in analysis.graph.model.weights:
        axes = [canonical(axis) for axis in analysis.solution.axes.get(name, ())]
        whole = [analysis.by_atom.get(axis) for axis in axes if isinstance(axis, Atom)]
        for term in (term for axis in axes for term in _products(axis) if len(term) > 1):
            size = math.prod(int(atom.size) for atom in term)
            factors = [d for a in term if (d := analysis.by_atom.get(a)) in dimensions and d]
            for width in whole:
                if width in dimensions and width and width.width == size and len(factors) == 1:
                    yield factors[0], width


def _products(axis: Axis) -> Iterator[list[Atom]]:
    """Yield the factors of each segment: of ``(a (b + c))`` [a, b] and [a, c]."""
    if isinstance(axis, Atom):
        yield [axis]
    elif isinstance(axis, Sum):
        for segment in axis.segments:
            yield from _products(segment)
    elif axis.factors:
        *leading, last = axis.factors
        for rest in _products(last):
            yield [a for a in leading if isinstance(a, Atom)] + rest
