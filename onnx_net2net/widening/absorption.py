"""Shares that a contraction asks of an activation, taken by the weights that write it.

Q.K^T summed over a grown head_dim needs its copies scaled on one side. Instead of a Mul in front
of the product, the scale travels up through the operators that are linear in the tensor (both
halves of a rotary embedding included) into weights and biases, if everything that reads the
tensors on the way wants the same. The file then keeps its nodes, and loads into its author's class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from onnx_net2net.analysis.solver import Applied, Env, Solution
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.notation import Group, Plus, Term, leaves
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.contraction import Edge, Rescale, Site, carriers_of
from onnx_net2net.widening.growth import Growth

# A positive factor for each entry along an axis; NaN where any factor will do.
Vector = np.ndarray


@dataclass
class Absorbed:
    """Tensors (weights among them) that are scaled along an axis, after growth."""

    scaled: dict[Site, Vector] = field(default_factory=dict)
    edges: set[Edge] = field(default_factory=set)


RTOL = 1e-12


class Stuck(Exception):
    """The scale cannot travel further."""


def absorb(
    solution: Solution, growth: Growth, rescale: Rescale, vector: Vector, taken: set[Site]
) -> Absorbed | None:
    """Return how weights can give ``vector`` along the operand's axis; None where they cannot.

    ``taken`` are sites that something else splits or scales already.
    """
    node = rescale.contraction.applied.node
    walk = _Absorption(solution, growth, Absorbed())
    try:
        edge = (node.position, rescale.index, rescale.axis)
        walk.demand(node.inputs[rescale.index], rescale.axis, vector, edge)
        walk.settle()
        walk.check(taken)
    except Stuck:
        return None
    return walk.result


@dataclass
class _Absorption:
    solution: Solution
    growth: Growth
    result: Absorbed
    siblings: set[Site] = field(default_factory=set)  # scaled whether anybody asked or not

    def demand(self, tensor: str, axis: int, vector: Vector, edge: Edge) -> None:
        """Let ``tensor`` be scaled by ``vector`` along ``axis``. Raises Stuck where it cannot."""
        if self.solution.shapes.dtype.get(tensor) not in FLOATS:
            raise Stuck
        self.result.edges.add(edge)
        known = self.result.scaled.get((tensor, axis))
        if known is not None:
            vector = _both(known, vector)
            if np.array_equal(known, vector, equal_nan=True):
                return
        self.result.scaled[tensor, axis] = vector
        weight = self.solution.graph.model.weights.get(tensor)
        if weight is not None:
            if weight.dtype not in FLOATS:
                raise Stuck
            return
        producer = self.solution.graph.producer.get(tensor)
        applied = self.solution.applied.get(producer.position) if producer is not None else None
        if applied is None:
            raise Stuck
        self._upward(applied, tensor, axis, vector)

    def _upward(self, applied: Applied, tensor: str, axis: int, vector: Vector) -> None:
        """Demand of the inputs of a node what scales its output ``tensor``."""
        position = applied.node.outputs.index(tensor)
        spec = applied.pattern.outputs[position]
        if spec is None or (position and applied.rule.kind is not Kind.MOVE):
            raise Stuck
        named = self._factors(applied, spec[axis], vector)
        if not named:
            return
        node, pattern = applied.node, applied.pattern
        for other, output in enumerate(pattern.outputs[: len(node.outputs)]):
            for place, item in enumerate(output or ()):  # other outputs (Split) are scaled as well
                if other != position and node.outputs[other] and named.keys() & set(leaves(item)):
                    self.siblings.add((node.outputs[other], place))
        factors = dict(named)
        if applied.rule.kind is Kind.MOVE:  # what an operator only drops (Slice) may have any scale
            for name in applied.env.keys() - _read(applied) - named.keys():
                factors[name] = _ones(name, applied.env, self.growth) * np.nan
        for chosen in self._choices(applied, carriers_of(self.solution, applied, named.keys())):
            terms = {site: (pattern.inputs[site[0]] or ())[site[1]] for site in chosen}
            if not named.keys() <= {name for item in terms.values() for name in leaves(item)}:
                continue  # a factor would be lost
            kept = dict(self.result.scaled), set(self.result.edges)
            try:
                for (index, place), item in terms.items():
                    inner = compose(item, factors, applied.env, self.growth)
                    self.demand(node.inputs[index], place, inner, (node.position, index, place))
            except Stuck:
                self.result.scaled, self.result.edges = kept
            else:
                return
        raise Stuck

    def _factors(self, applied: Applied, item: Term, vector: Vector) -> dict[str, Vector]:
        """Return the factors of the names along ``item`` that ``vector`` scales."""
        factors = decompose(item, vector, applied.env, self.growth)
        return {name: factor for name, factor in factors.items() if (factor != 1).any()}

    def _choices(
        self, applied: Applied, carriers: list[tuple[int, int]]
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield sets of operands whose scaling scales the result; any one will do."""
        rule, derived = applied.rule, self.solution.graph.derived
        given = {i for i, name in enumerate(applied.node.inputs) if name}
        having = {c[0] for c in carriers}
        if rule.norm is not None:  # its affine map
            affine = {rule.norm.scale, rule.norm.bias} & given
            if affine <= having:
                yield [c for c in carriers if c[0] in affine]
        elif rule.kind is Kind.MOVE or (rule.kind is Kind.LINEAR and having == given):
            yield carriers
        elif rule.kind is Kind.PRODUCT:
            weights = [c for c in carriers if applied.node.inputs[c[0]] in derived]
            yield from ([c] for c in [*weights, *(c for c in carriers if c not in weights)])
        elif rule.kind is Kind.AFFINE:  # rows of a weight with its bias, which stands last
            rows = [c for c in carriers if applied.node.inputs[c[0]] in derived]
            if len(rows) == 2 and max(given) in {c[0] for c in rows}:
                yield rows
        elif rule.kind is Kind.SCALE:
            linear = [c for c in carriers if c[0] != applied.node.facts.singular]  # no divisor
            yield from ([c] for c in linear if applied.node.inputs[c[0]] in derived)
            yield from ([c] for c in linear if c[0] == 0)

    def settle(self) -> None:
        """Take 1 where any factor will do."""
        for site, vector in self.result.scaled.items():
            self.result.scaled[site] = np.nan_to_num(vector, nan=1.0)

    def check(self, taken: set[Site]) -> None:
        """Raise Stuck where something else reads a scaled tensor, and would see the scale."""
        graph = self.solution.graph
        for tensor, _ in self.siblings - self.result.scaled.keys():
            if tensor in graph.outputs or tensor in graph.consumers:
                raise Stuck
        for tensor, axis in self.result.scaled:
            if tensor in graph.outputs or (tensor, axis) in taken:
                raise Stuck
            for node, index in graph.consumers.get(tensor, ()):
                known = (node.position, index, axis) in self.result.edges
                if not known and not self._unseen(node, index, axis, tensor):
                    raise Stuck

    def _unseen(self, node: Node, index: int, axis: int, tensor: str) -> bool:
        """Return whether a reader drops all that is scaled (the other half of a Slice)."""
        if node.position in self.solution.shapes.computed:
            return True
        applied = self.solution.applied.get(node.position)
        spec = applied.pattern.inputs[index] if applied is not None else None
        if applied is None or spec is None or applied.rule.kind is not Kind.MOVE:
            return False
        scaled = self._factors(applied, spec[axis], self.result.scaled[tensor, axis])
        return not scaled.keys() & _read(applied)


def _read(applied: Applied) -> set[str]:
    """Return the names of which any entry is passed on: of ``(x s)``, with x one of s as well."""
    passed = {n for s in applied.pattern.outputs if s for t in s for n in leaves(t)}
    terms = [t for s in applied.pattern.inputs if s for t in s]
    parts = [p for t in terms for p in (t.terms if isinstance(t, Plus) else (t,))]
    return passed.union(*(leaves(p) for p in parts if not passed.isdisjoint(leaves(p))))


def decompose(term: Term, vector: Vector, env: Env, growth: Growth) -> dict[str, Vector]:
    """Return the factor of each name in ``term``, if ``vector`` along it is a product of such."""
    if isinstance(term, str):
        return {term.lstrip("~"): vector}
    sizes = [len(_ones(part, env, growth)) for part in term.terms]
    parts: list[Vector]
    if isinstance(term, Group):
        block = vector.reshape(sizes)
        finite = np.argwhere(np.isfinite(block))
        if not len(finite):
            raise Stuck
        corner = tuple(finite[0])
        parts = [
            block[(*corner[:place], slice(None), *corner[place + 1 :])] / block[corner]
            for place in range(len(sizes))
        ]
        # The common factor goes to a name that varies, so that constant names need no scale.
        varying = next((i for i, part in enumerate(parts) if (part != 1).any()), 0)
        parts[varying] = parts[varying] * block[corner]
    else:
        parts = np.split(vector, np.cumsum(sizes)[:-1])
    factors: dict[str, Vector] = {}
    for inner, part in zip(term.terms, parts, strict=True):
        for name, factor in decompose(inner, part, env, growth).items():
            factors[name] = _both(factors[name], factor) if name in factors else factor
    if not np.allclose(compose(term, factors, env, growth), vector, RTOL, 0, equal_nan=True):
        raise Stuck
    return factors


def _both(known: Vector, more: Vector) -> Vector:
    """Return one vector that satisfies two demands."""
    shared = np.isfinite(known) & np.isfinite(more)
    if not np.allclose(known[shared], more[shared], RTOL, 0):
        raise Stuck
    return np.where(np.isfinite(known), known, more)


def compose(term: Term, named: Mapping[str, Vector], env: Env, growth: Growth) -> Vector:
    """Return the vector along ``term``: the product of its names' factors, 1 for other names."""
    if isinstance(term, str):
        name = term.lstrip("~")
        return named[name] if name in named else _ones(term, env, growth)
    parts = [compose(part, named, env, growth) for part in term.terms]
    return reduce(np.kron, parts) if isinstance(term, Group) else np.concatenate(parts)


def _ones(term: Term, env: Env, growth: Growth) -> Vector:
    return growth.vector(term, "", env, [0], 0.0)
