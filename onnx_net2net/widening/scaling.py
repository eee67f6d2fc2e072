"""Widths by one factor: which dimensions follow it, and in which steps.

    scaling = scaling_of(analysis, multiple_of=8, kept=set())
    scaling.widths(1.5)                       # {dimension: 96, ...}

Of dimensions that are merged into one axis (heads and their size) the outer one follows the factor
and the others keep their width, so that the axis as a whole grows by the factor, and not by its
square or cube.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from onnx_net2net.algebra.axes import Atom, Axis, Sum, canonical
from onnx_net2net.widening.dimensions import Analysis, Dimension, Freedom, growable, written
from onnx_net2net.widening.request import MOST, TIMES


@dataclass(frozen=True)
class Scaling:
    """``steps`` are the dimensions that follow the factor, and what their widths are multiples of;
    ``held`` those that could grow, but are merged with one that does."""

    steps: dict[Dimension, int]
    held: list[Dimension]

    def widths(self, factor: float) -> dict[Dimension, int]:
        """Return the nearest multiples of the steps that are larger than the present widths."""
        widths = {}
        for dimension, step in self.steps.items():
            width = dimension.width
            most = max(width, min(MOST, TIMES * width) // step * step)
            nearest = min(most, math.floor(width * factor / step + 0.5) * step)
            if nearest > width:
                widths[dimension] = nearest
        return widths


def scaling_of(analysis: Analysis, multiple_of: int, kept: Collection[Dimension]) -> Scaling:
    """Choose what follows a factor. Axes that weights write become multiples of ``multiple_of``."""
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
            steps[dimension] = base * (multiple_of // math.gcd(multiple_of, base * inner[atom]))
    return Scaling(steps, [free[a] for a in held])


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
