"""Sizes known only at run time: batch, sequence length, and numbers computed from them.

A size vector such as (batch * heads, length, width) mixes them with sizes that grow. Which
element follows what is found by inferring the graph at a second choice of dynamic sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from onnx_net2net.axes import Atom, Axis, Product, atoms, canonical
from onnx_net2net.growth import Growth
from onnx_net2net.shapes import Shapes
from onnx_net2net.solver import Solution


@dataclass(frozen=True)
class Kept:
    """Element ``place`` of the old vector, times a ratio."""

    place: int
    numerator: int = 1
    denominator: int = 1


@dataclass(frozen=True)
class Fresh:
    """The product of some sizes of the network's inputs, (input, axis), and a constant."""

    sources: tuple[tuple[str, int], ...]
    factor: int


Element = int | Kept | Fresh


class RuntimeSizes:
    """What is dynamic in ``solution``, found when first asked for."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution

    @property
    def other(self) -> Shapes:
        """Shapes and values at other sizes of the dynamic dimensions."""
        return self.solution.shapes.elsewhere

    def dynamic(self, name: str) -> np.ndarray:
        """Which elements of a size vector follow the dynamic sizes of the inputs."""
        here = np.atleast_1d(self.solution.shapes.value[name])
        if not self.solution.shapes.binding or name in self.solution.graph.model.weights:
            return np.zeros(here.shape, bool)
        there = self.other.value.get(name)
        if there is None or np.size(there) != here.size:
            return np.ones(here.shape, bool)
        return here != np.atleast_1d(there)

    def element(self, name: str, place: int, axis: Axis | None, growth: Growth) -> Element | None:
        """Dynamic element ``place`` of vector ``name`` as it must be once ``axis`` has grown.

        The old element is taken for the size of ``axis``; None where that cannot be followed.
        """
        if axis is None:
            return None
        old = int(np.atleast_1d(self.solution.shapes.value[name])[place])
        if old != axis.size:
            return None
        return self._fresh(name, place, axis, growth)

    def _fresh(self, name: str, place: int, axis: Axis, growth: Growth) -> Fresh | None:
        axis = canonical(axis)
        factors = axis.factors if isinstance(axis, Product) else (axis,)
        known = self._inputs()
        sources = tuple(known[f] for f in factors if isinstance(f, Atom) and f in known)
        rest = [f for f in factors if not (isinstance(f, Atom) and f in known)]
        there = int(np.atleast_1d(self.other.value[name])[place])
        shapes = self.other.shape
        expected = prod(shapes[tensor][i] for tensor, i in sources) * prod(f.size for f in rest)
        # The rest must be static: at other dynamic sizes the product must hold as well.
        return Fresh(sources, prod(map(growth.size, rest))) if expected == there else None

    def _inputs(self) -> dict[Atom, tuple[str, int]]:
        """Where the network's inputs show a dynamic size by itself."""
        found: dict[Atom, tuple[str, int]] = {}
        for name in self.solution.graph.inputs:
            here, there = self.solution.shapes.of(name), self.other.of(name)
            for index, axis in enumerate(self.solution.axes.get(name, ())):
                axis = canonical(axis)
                if here and there and here[index] != there[index] and isinstance(axis, Atom):
                    found.setdefault(axis, (name, index))
        return found


def proportional(axis: Axis | None) -> bool:
    """Whether ``axis`` is a plain product, so that it grows by one factor at every dynamic size."""
    if axis is None:
        return False
    axis = canonical(axis)
    factors = axis.factors if isinstance(axis, Product) else (axis,)
    return all(isinstance(f, Atom) or not any(a.pins for a in atoms(f)) for f in factors)


def kept(place: int, old: int, new: int) -> Kept:
    """The old element, times new / old."""
    common = gcd(old, new) or 1
    return Kept(place, new // common, old // common)
