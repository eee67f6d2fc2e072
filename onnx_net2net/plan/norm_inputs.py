"""Larger inputs of norms, in place of other epsilons: the factors of weights that give them.

    factors = factors_for(analysis, {norm: 1.22}, stored)     # {"embed_tokens.weight": 1.22, ...}

A norm gives for c x what it gives for x with epsilon / c^2. So where a class leaves no choice of
epsilons, its network may compute what another does with each tensor a constant times as large: c in
front of norms, 1 at the inputs and outputs of the network. Each node ties the constants of its
tensors. Weights make up for them: those that write a vector are larger, those that read it smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isclose, prod

from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.deepening.paths import trained_behind
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.language import Kind, Rule
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.pairing import original
from onnx_net2net.widening.dimensions import Analysis

__all__ = ["factors_for"]

_RTOL = 1e-6  # of epsilons, which are float32


class _Stuck(Exception):
    """No constants fit."""


def factors_for(
    analysis: Analysis, norms: Mapping[Normalization, float], stored: Collection[str]
) -> dict[str, float] | None:
    """Return what ``stored`` weights must be multiplied by so that the inputs of ``norms`` are so
    many times as large, and all outputs stay; None where no factors are known to do that.
    """
    walk = _Constants(analysis, norms, stored)
    try:
        for norm, factor in norms.items():
            for tensor in norm.summands:
                walk.demand(tensor, factor)
        walk.run()
    except _Stuck:
        return None
    graph = analysis.graph
    weights = {original(graph, name) for name in walk.factors.keys() & graph.model.weights.keys()}
    return {name: walk.factors[name] for name in sorted(weights)}


@dataclass
class _Constants:
    """The constants that are settled, by tensor: what the larger network holds is so many times
    what the other does. All others are 1 so far.
    """

    analysis: Analysis
    norms: Mapping[Normalization, float]
    stored: Collection[str]
    factors: dict[str, float] = field(default_factory=dict)
    _writers: deque[Node] = field(default_factory=deque)
    _readers: deque[Node] = field(default_factory=deque)

    def run(self) -> None:
        """Visit every node of which a tensor was settled, until all agree. Raises _Stuck."""
        while self._writers or self._readers:  # who writes has less choice
            self._visit((self._writers or self._readers).popleft())

    def demand(self, tensor: str, factor: float) -> None:
        """Settle the constant of a tensor. Raises _Stuck where it cannot be this one."""
        graph = self.analysis.graph
        known = self.factors.get(tensor)
        if known is not None:
            if not isclose(known, factor, rel_tol=_RTOL):
                raise _Stuck
            return
        names, weight = [tensor], graph.model.weights.get(tensor)
        if weight is not None:
            own = original(graph, tensor)
            if own in self.stored and weight.shape:
                names = self._copies[own]
            elif weight.given and not weight.array().any():
                return  # zeros are any number of times as large
            else:
                raise _Stuck
        elif tensor not in graph.producer or tensor in graph.results:
            raise _Stuck
        if self.analysis.solution.shapes.dtype.get(tensor) not in FLOATS:
            raise _Stuck
        for name in names:
            self.factors[name] = factor
            if name in graph.producer:
                self._writers.append(graph.producer[name])
            self._readers += [node for node, _ in graph.consumers.get(name, ())]

    @cached_property
    def _copies(self) -> dict[str, list[str]]:
        """The names of a stored weight in the graph: each use of a shared one has its own."""
        graph = self.analysis.graph
        names: dict[str, list[str]] = {own: [own] for own in graph.model.weights}
        for name, copy in graph.copies.items():
            names.setdefault(copy.original, [copy.original]).append(name)
        return names

    def _visit(self, node: Node) -> None:
        """Let the tensors of a node agree. Raises _Stuck where they cannot."""
        solution = self.analysis.solution
        norm, applied = self.analysis.norms.get(node.position), solution.applied.get(node.position)
        if node.position in solution.shapes.computed:
            return None  # it reads a shape
        if norm is not None:
            return self._through_norm(norm)
        several = any(self._is_read(output) for output in node.outputs[1:])
        if applied is None or (several and applied.rule.kind is not Kind.MOVE):
            raise _Stuck
        operands = [name for name in node.inputs if solution.shapes.dtype.get(name) in FLOATS]
        if applied.rule.kind in (Kind.MOVE, Kind.LINEAR):
            return self._equal([*operands, *filter(self._is_read, node.outputs)])
        return self._multiply(node, applied.rule, operands)

    def _is_read(self, tensor: str) -> bool:
        graph = self.analysis.graph
        return tensor in graph.consumers or tensor in graph.results

    def _through_norm(self, norm: Normalization) -> None:
        """Let the vectors be as large as the norm needs, and its result as its affine map."""
        if any(map(self._is_read, {*norm.node.outputs[1:]} - {norm.total})):
            raise _Stuck
        vectors = [*norm.summands, norm.total] if self._is_read(norm.total) else norm.summands
        if not self.factors.keys().isdisjoint(vectors):
            for tensor in vectors:
                self.demand(tensor, self.norms.get(norm, 1.0))
        self._equal([t for t in (norm.scale, norm.bias, norm.node.outputs[0]) if t])

    def _equal(self, tensors: Sequence[str]) -> None:
        """Let tensors have one constant, if that of one is settled."""
        for factor in [self.factors[tensor] for tensor in tensors if tensor in self.factors][:1]:
            for tensor in tensors:
                self.demand(tensor, factor)

    def _multiply(self, node: Node, rule: Rule, operands: Sequence[str]) -> None:
        """Let the result be as large as the product of the operands that it is linear in."""
        given = [index for index, name in enumerate(node.inputs) if name]
        added = given[-1:] if rule.kind is Kind.AFFINE else []
        linear: Collection[int] = ()
        if rule.kind is Kind.PRODUCT:
            linear = given
        elif rule.kind in (Kind.SCALE, Kind.AFFINE):
            linear = {0, *node.facts.weights} - {*added}
        factors = [node.inputs[index] for index in given if index in linear]
        divisors = [node.inputs[index] for index in given if index == node.facts.singular]
        alike = [node.outputs[0], *(node.inputs[index] for index in added)]
        if any(self.factors.get(n, 1) != 1 for n in {*operands} - {*factors, *divisors, *alike}):
            raise _Stuck
        product = self._product(factors) / self._product(divisors)
        missing = self._product(alike[:1]) / product
        if not isclose(missing, 1, rel_tol=_RTOL):
            name = self._chosen(factors, alike[0])
            self.demand(name, product if name == alike[0] else missing)
        self._equal(alike)

    def _product(self, tensors: Iterable[str]) -> float:
        return prod(self.factors.get(tensor, 1.0) for tensor in tensors)

    def _chosen(self, factors: Sequence[str], result: str) -> str:
        """Return who takes what is missing of a product: a weight, if there is one that may. A
        larger activation is passed on; a larger weight is made up for by the activation.
        """
        derived = self.analysis.graph.derived
        free = [name for name in factors if name not in self.factors]
        weights = [name for name in free if name in derived and self._is_stored(name)]
        activations = [name for name in reversed(free) if name not in derived]
        larger = any(n in self.factors and n not in derived for n in factors)
        passed = larger and result not in self.factors
        chosen = [*weights, *([result] if passed else activations)]
        if not chosen:
            raise _Stuck
        return chosen[0]

    def _is_stored(self, tensor: str) -> bool:
        graph = self.analysis.graph
        weights = [original(graph, name) for name in trained_behind(self.analysis, [tensor])]
        return bool(weights) and all(name in self.stored for name in weights)
