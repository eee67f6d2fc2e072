"""Sizes known only at run time: batch, sequence length, and numbers computed from them.

A size vector such as (batch * heads, length, width) mixes them with sizes that grow. An element
is frozen only where it is proved to follow nothing (dependence.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import gcd, prod

import numpy as np

from onnx_net2net.algebra.axes import Atom, Axis, Product, Sum, atoms, canonical
from onnx_net2net.algebra.measures import Measure, shortest
from onnx_net2net.analysis.dependence import MOVES, Dependence, Element, Key, Side
from onnx_net2net.analysis.solver import Solution
from onnx_net2net.analysis.values import Array
from onnx_net2net.model.graph import Node
from onnx_net2net.widening.growth import Growth

PROPORTIONAL = {"Mul", "ReduceProd", "Shape", "Size"}  # to each operand
ROUNDING = {"Cast", "Div"}  # proportional but for rounding


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


NewElement = int | Kept | Fresh


class RuntimeSizes:
    """What is dynamic in ``solution``, found when first asked for."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution

    @property
    def dependence(self) -> Dependence | None:
        """What follows the dynamic sizes; None where the inputs have none."""
        return self.solution.dependence

    def dynamic(self, name: str) -> np.ndarray:
        """Which elements of a size vector may follow the dynamic sizes of the inputs."""
        here = np.atleast_1d(self.solution.shapes.value[name])
        evidence = self.solution.evidence
        found = (False,) * here.size if evidence is None else evidence.dynamic(name)
        return np.reshape(found, here.shape)

    def static(self, axis: Axis) -> bool:
        """Whether the size of ``axis`` is the same at all dynamic sizes."""
        if self.dependence is None:
            return True
        return not self._unproved(axis)

    @cached_property
    def _unproved(self) -> Measure:
        """How many atoms of an axis are not proved to be static."""
        return Measure(lambda free: not (self._shown(free) or free in self._deduced), sum)

    def _shown(self, free: Atom) -> bool:
        """Whether a tensor shows that ``free`` is static."""
        if free in self._stored:
            return True
        assert self.dependence is not None
        side = self._places.get(free)
        return side is not None and not self.dependence.follows(side)

    def steady(self, axis: Axis, growth: Growth) -> bool:
        """Whether ``axis`` grows by one factor at every dynamic size."""
        growing = (free for free in atoms(axis) if growth.touches(free))
        return proportional(axis) and all(map(self.static, growing))

    def element(
        self, name: str, place: int, axis: Axis | None, growth: Growth
    ) -> NewElement | None:
        """Dynamic element ``place`` of vector ``name`` as it must be once ``axis`` has grown.

        The old element is taken for the size of ``axis``; None where that cannot be followed.
        """
        if axis is None:
            return None
        old = int(np.atleast_1d(self.solution.shapes.value[name])[place])
        if old != axis.size or old == 1:
            return None  # nothing is known of an axis that is 1 here
        return self._fresh(axis, growth)

    def _fresh(self, axis: Axis, growth: Growth) -> Fresh | None:
        axis = canonical(axis)
        factors = axis.factors if isinstance(axis, Product) else (axis,)
        known = self._inputs
        sources = tuple(known[f] for f in factors if isinstance(f, Atom) and f in known)
        rest = [f for f in factors if not (isinstance(f, Atom) and f in known)]
        if not all(map(self.static, rest)):
            return None
        return Fresh(sources, prod(map(growth.size, rest)))

    def mixed(self, growth: Growth, after: Mapping[str, Array]) -> dict[Element, str]:
        """Sizes in which a grown size meets a dynamic one other than in proportion, and where.

        A product grows by the same factor at every dynamic size; a minimum may grow at some only,
        and then one choice of the dynamic sizes tells nothing of the others. ``after`` are the
        values that growth changes.
        """
        if self.dependence is None:
            return {}
        return _Mixtures(self.solution, self.dependence, growth, after).find()

    @cached_property
    def _inputs(self) -> dict[Axis, tuple[str, int]]:
        """Where the network's inputs show a dynamic size by itself."""
        found: dict[Axis, tuple[str, int]] = {}
        for name, index in sorted(self.dependence.symbolic if self.dependence else ()):
            axes = self.solution.axes.get(name, ())
            if index < len(axes) and isinstance(axis := canonical(axes[index]), Atom):
                found.setdefault(axis, (name, index))
        return found

    @cached_property
    def _stored(self) -> set[Axis]:
        """What an axis of a weight is."""
        known, weights = self.solution.axes, self.solution.graph.model.weights
        return {canonical(axis) for name in weights for axis in known.get(name, ())}

    @cached_property
    def _places(self) -> dict[Axis, Side]:
        """For each atom that is an axis by itself the first one."""
        found: dict[Axis, Side] = {}
        for name, axes in self.solution.axes.items():
            for index, axis in enumerate(map(canonical, axes)):
                if isinstance(axis, Atom):
                    found.setdefault(axis, Side(name, index))
        return found

    @cached_property
    def _deduced(self) -> set[Atom]:
        """Atoms that are static because an axis is static, and so is all else it is made of."""
        assert self.dependence is not None
        found: set[Atom] = set()
        static: list[Sum] = []
        axes: list[tuple[Axis, Callable[[], bool]]] = []
        for axis, follows in self._axes(self.dependence):
            axis = canonical(axis)
            if not isinstance(axis, Sum):
                axes.append((axis, follows))
            elif not follows():
                static.append(axis)
        axes += [(axis, lambda: False) for axis in shortest(static)]
        pending = [
            ({free for free in atoms(axis) if not self._shown(free)}, follows)
            for axis, follows in axes
        ]
        while True:
            pending = [(left, follows) for free, follows in pending if (left := free - found)]
            new = {free for (free, *more), follows in pending if not more and not follows()}
            if not new:
                return found
            found |= new
            pending = [(free, follows) for free, follows in pending if len(free) > 1]

    def _axes(self, dependence: Dependence) -> Iterator[tuple[Axis, Callable[[], bool]]]:
        """All axes of tensors and all that rules name, and what tells whether they follow."""
        for name, axes in self.solution.axes.items():
            for index, axis in enumerate(axes):
                yield axis, partial(dependence.follows, Side(name, index))
        for it in self.solution.applied.values():
            for name, axis in it.env.items():
                yield axis, partial(dependence.follows_name, it.node, it.rule, it.pattern, name)


@dataclass
class _Mixtures:
    """One pass over the nodes that compute sizes, element by element."""

    solution: Solution
    dependence: Dependence
    growth: Growth
    after: Mapping[str, Array]
    grown: set[Key] = field(default_factory=set)  # elements that growth may change
    mixed: dict[Element, str] = field(default_factory=dict)

    def find(self) -> dict[Element, str]:
        shapes, names = self.solution.shapes, set[str]()
        for node in self.solution.graph.nodes:
            if node.position not in shapes.computed:
                continue
            measures = node.op in ("Shape", "Size")
            inner = [k.inner for k in node.links.leave] if node.links is not None else []
            if not measures and names.isdisjoint((*node.inputs, *inner)):
                continue
            # What has no elements hands on its length all the same.
            names.update(n for n in node.outputs if n and not self.dependence.elements(n))
            for key in (k for n in node.outputs if n for k in self.dependence.elements(n)):
                read = self._may_read(node, key)
                if any(map(self._grows, read)):
                    names.add(key.tensor)
                    self.grown.add(key)
                    self._meet(node, key, read)
        return self.mixed

    def _may_read(self, node: Node, key: Element) -> set[Key]:
        """What ``key`` is made of at any dynamic sizes: which element is moved to it may follow."""
        read = set(self.dependence.read(key))
        if node.op in MOVES and any(map(self.dependence.follows, self.dependence.told(node, key))):
            read.update(e for name in node.inputs if name for e in self.dependence.elements(name))
        return self._through_lengths(read)

    def _through_lengths(self, keys: set[Key]) -> set[Key]:
        """``keys``, and instead of the length of a small value what says how long it is."""
        computed, producer = self.solution.shapes.computed, self.solution.graph.producer
        found, seen, pending = set[Key](), set(keys), list(keys)
        while pending:
            key = pending.pop()
            node = producer.get(key.tensor)
            if isinstance(key, Element) or node is None or node.position not in computed:
                found.add(key)
                continue
            new = set(self.dependence.read(key)) - seen
            seen |= new
            pending += new
        return found

    def _grows(self, key: Key) -> bool:
        if isinstance(key, Side):
            axes = self.solution.axes.get(key.tensor)
            return axes is not None and self.growth.touches(axes[key.axis])
        return key in self.grown

    def _meet(self, node: Node, key: Element, read: set[Key]) -> None:
        origins = [self.mixed[k] for k in read if isinstance(k, Element) and k in self.mixed]
        if not origins and not self._keeps_proportion(node, key, read):
            origins = [node.label]
        if origins:
            self.mixed[key] = min(origins)

    def _keeps_proportion(self, node: Node, key: Element, read: set[Key]) -> bool:
        if node.op in PROPORTIONAL or node.links is not None:
            return True
        if node.op in ROUNDING and self._exact(node):
            return True
        if node.op in MOVES:
            told = read & set(self.dependence.told(node, key))
            if not any(self._grows(k) or self.dependence.follows(k) for k in told):
                return True
        return not any(map(self.dependence.follows, read))

    def _exact(self, node: Node) -> bool:
        """Whether nothing is rounded, at both choices of the dynamic sizes and after growth."""
        before, other = self.solution.shapes.value, self.solution.shapes.elsewhere.value
        for values in (before, other, {**before, **self.after}):
            given, result = values.get(node.inputs[0]), values.get(node.outputs[0])
            if given is None or result is None:
                return False
            whole = result * values[node.inputs[1]] if node.op == "Div" else result
            if result.dtype.kind in "iu" and not np.array_equal(whole, given):
                return False
        return True


def proportional(axis: Axis) -> bool:
    """Whether ``axis`` is a plain product: it grows as its factors do."""
    axis = canonical(axis)
    factors = axis.factors if isinstance(axis, Product) else (axis,)
    return all(isinstance(f, Atom) or not any(a.pins for a in atoms(f)) for f in factors)


def kept(place: int, old: int, new: int) -> Kept:
    """The old element, times new / old."""
    common = gcd(old, new) or 1
    return Kept(place, new // common, old // common)
