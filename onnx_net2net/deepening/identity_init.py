"""Which weights must be zero for a part of the graph to become the identity.

    x -> x + B(f(A x))        is x once B (and its bias) is zero, and A need not be

Worked out on the graph, by what rules say of operators: a tensor *vanishes* if the weights that
write it do, or whatever it is a multiple of; it is *kept* if it is the sum of the entry and of
what vanishes. A norm of what is normalised already keeps it, if its scale is one: see norms.py.

A copy of a block reads what the block gives. So it is the block's *output* that says whether one
more activation or norm changes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.analysis.signs import Signs
from onnx_net2net.deepening.paths import between, norm_of
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.dimensions import Analysis

Weights = frozenset[tuple[str, float]]  # initializers and the value that all their elements get
NOTHING: Weights = frozenset()
_ZERO = "{} might divide zero by zero"


@dataclass
class Vanishing:
    """What it takes for tensors behind ``entry`` to vanish, or to be equal to it.

    The entry holds what ``source`` does, which is a tensor further on. ``obstacles`` tell what
    stood in the way, the first one first.
    """

    analysis: Analysis
    entry: str
    source: str
    obstacles: list[str] = field(default_factory=list)
    inside: set[int] = field(init=False)
    _signs: Signs = field(init=False)
    _zero: dict[str, Weights | None] = field(default_factory=dict)
    _kept: dict[str, Weights | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inside = between(self.analysis, self.entry, self.source)
        self._signs = Signs(self.analysis.graph, self._known)

    def kept_at(self, output: str) -> Weights | None:
        """Return :meth:`kept`, but None where ``output`` is of another shape than the entry, or
        where zeros would be divided by.
        """
        values = self.kept(output) if self.shaped(output) else None
        if not values:
            return values
        nodes, last = self.analysis.graph.nodes, self._last()
        varying = {self.entry}.union(*(nodes[at].outputs for at in self.inside))
        # A Relu gives zeros that the block itself never reads, if none stands before it.
        clipped = last is not None and last.facts.idempotent
        for node in (nodes[at] for at in sorted(self.inside)):
            varies = clipped and not varying.isdisjoint(self._divisors([node]))
            if varies or self._divides([node], values):
                return self._blocked(_ZERO.format(node.label))
        return values

    def kept(self, tensor: str) -> Weights | None:
        """Return the weights that must be zero for ``tensor`` to hold the elements of the entry,
        in their order; None if none would do.
        """
        if tensor == self.entry:
            return NOTHING
        if tensor not in self._kept:
            self._kept[tensor] = None  # what reads itself is not kept
            node = self._producer(tensor)
            if node is not None:
                self._kept[tensor] = self._kept_by(node, tensor)
        return self._kept[tensor]

    def _kept_by(self, node: Node, tensor: str) -> Weights | None:
        norm = norm_of(self.analysis, node)
        if norm is not None:
            return self._kept_by_norm(norm, tensor)
        if node.outputs[0] != tensor:
            return None
        if not node.facts.summands:
            if node.facts.kind is Kind.PRODUCT:
                return self._kept_by_scale(node)
            kept = self.kept(node.inputs[0]) if node.inputs else None
            return kept if kept is None or self._passes(node) else self._changed_by(node)
        return self._kept_by_sum(node, list(filter(None, node.inputs)), node.facts.summands)

    def _passes(self, node: Node) -> bool:
        """Return whether a node gives the elements of its first input, unchanged and in order."""
        if node.position not in self.analysis.solution.applied:
            return False  # no rule explains it: Dropout in training mode, an unknown operator
        return self._hands_on(node) or self._again(node)

    def _hands_on(self, node: Node) -> bool:
        """Return whether a node has no other elements than its first input, in the same order."""
        dtypes = self.analysis.solution.shapes.dtype
        first, output = dtypes.get(next(iter(node.inputs), "")), dtypes.get(node.outputs[0])
        same = node.facts.kind is Kind.MOVE or (output is not None and first == output)
        return same and node.facts.in_order

    def _changed_by(self, node: Node) -> Weights | None:
        """Return None; note why a node changes its input, if one would think that it does not."""
        barrier = self.analysis.solution.barriers.get(node.position)
        if barrier is not None:
            return self._blocked(f"no rule explains {node.label}: {barrier}")
        if node.facts.normalises:
            return self._blocked(f"{node.label} stands between its input and its sum")
        if node.facts.activation:
            again = "is not idempotent" if not node.facts.idempotent else "is not what ends it"
            return self._blocked(f"{node.label} stands between its input and its sum, and {again}")
        return None

    def _kept_by_sum(
        self, node: Node, operands: Sequence[str], added: Container[int]
    ) -> Weights | None:
        """Return what leaves one of the ``added`` operands, by their places, of all of them."""
        for index in (i for i in range(len(operands)) if i in added):
            kept = self.kept(operands[index])
            if kept is None:
                continue
            rest = self._all((*operands[:index], *operands[index + 1 :]))
            if rest is None:
                self._blocked(f"no weights could be zero for what {node.label} adds to vanish")
            joined = self._joined(kept, rest)
            if joined is not None:
                return joined
        return None

    def _kept_by_scale(self, node: Node) -> Weights | None:
        """Return what leaves one factor, the other being a weight that is one."""
        for tensor, scale in (node.inputs, node.inputs[::-1]):
            kept = self.kept(tensor)
            one = None if kept is None else self._set(scale, 1.0)
            if one is not None:
                return self._joined(kept, one)
        return None

    def _kept_by_norm(self, norm: Normalization, tensor: str) -> Weights | None:
        """Return what a norm takes to keep a sum, in its result or in its output of the sum."""
        node, result = norm.node, norm.node.outputs[0]
        if tensor not in (result, norm.total):
            return None
        kept = self._kept_by_sum(node, norm.summands, range(len(norm.summands)))
        if kept is None or tensor == norm.total:
            return kept
        if not self._normalised(norm) or not self.shaped(result):
            return self._blocked(
                f"{node.label} stands between its input and its sum, and is not what ends it"
            )
        return self._joined(self._set(norm.scale, 1.0), self._all([norm.bias]), kept)

    def _blocked(self, why: str) -> Weights | None:
        """Return None, and note why."""
        self.obstacles.append(why)
        return None

    def _again(self, node: Node) -> bool:
        """Return whether the entry is what the same idempotent activation gives."""
        before = self._last()
        if not node.facts.idempotent or before is None or len(node.inputs) != len(before.inputs):
            return False
        for one, other in zip(node.inputs[1:], before.inputs[1:], strict=True):  # bounds
            a, b = self._known(one), self._known(other)
            if one != other and (a is None or b is None or not np.array_equal(a, b)):
                return False
        mine, others = (
            {a.name: a.SerializeToString() for a in n.proto.attribute} for n in (node, before)
        )
        return (node.domain, node.op, mine) == (before.domain, before.op, others)

    def _normalised(self, norm: Normalization) -> bool:
        """Return whether the entry is what a norm of this kind gives, over the same axis."""
        last = self._last()
        before = None if last is None else norm_of(self.analysis, last)
        shapes = self.analysis.solution.shapes
        return (
            before is not None
            and before.centred is norm.centred
            and _axis(shapes.of(before.scale)) == _axis(shapes.of(norm.scale))
        )

    def _last(self) -> Node | None:
        """Return the node that gives what the entry holds."""
        producer = self.analysis.graph.producer
        tensor = self.source
        while (node := producer.get(tensor)) is not None and node.outputs[0] == tensor:
            if not (node.facts.in_place and self._hands_on(node)):
                return node
            tensor = node.inputs[0]
        return None

    def shaped(self, tensor: str) -> bool:
        """Return whether ``tensor`` has the entry's shape, at other sizes of the inputs as well."""
        shapes = self.analysis.solution.shapes
        sizes = shapes.sizes_of(tensor)
        return sizes is not None and sizes == shapes.sizes_of(self.entry)

    def _set(self, name: str, value: float) -> Weights | None:
        """Return a weight with its value, if a copy may have one of its own."""
        return frozenset({(name, value)}) if self._trained(name) else None

    def _known(self, name: str) -> np.ndarray | None:
        """Return a small constant, if ``name`` is one whatever the sizes of the inputs."""
        shapes = self.analysis.solution.shapes
        steady = name in self.analysis.graph.model.weights or shapes.settled(name)
        return shapes.known(name) if steady else None

    def zero(self, tensor: str) -> Weights | None:
        """Return the weights that must be zero for ``tensor`` to vanish; None if none would do."""
        if tensor not in self._zero:
            self._zero[tensor] = None
            self._zero[tensor] = self._vanishes(tensor)
        return self._zero[tensor]

    def _vanishes(self, tensor: str) -> Weights | None:
        graph = self.analysis.graph
        if tensor in graph.model.weights:
            return self._set(tensor, 0.0)
        node = self._producer(tensor)
        if node is None or node.outputs[0] != tensor:
            return None
        applied = self.analysis.solution.applied.get(node.position)
        if applied is None:
            return None
        norm = norm_of(self.analysis, node)
        if norm is not None:
            return self._all((norm.scale, norm.bias))
        if node.facts.normalises:
            return self._all(node.inputs[1:3])
        first, *others = [name for name in node.inputs if name]
        kind = applied.rule.kind
        if applied.pattern.contracted and kind in (Kind.SCALE, Kind.AFFINE) and others:
            factors = first, others[0]
            return self._joined(self._any(factors), self._all(others[1:]))
        if kind is Kind.LINEAR:
            return self._all((first, *others))
        if kind is Kind.PRODUCT:
            values = self._any((first, *others), weights_last=True, apart=True)
            vain = values is None and any(map(self.zero, (first, *others)))
            return self._blocked(_ZERO.format(node.label)) if vain else values
        if node.op == "Div":
            values, why = self.zero(first), _ZERO.format(node.label)
            return self._blocked(why) if self._divides([node], values) else values
        if kind is Kind.MOVE:
            moved = (n for i, n in enumerate(node.inputs) if n and i in node.facts.carries)
            known = {name: self._known(name) for name in moved}
            return self._all(n for n, v in known.items() if v is None or v.any())  # else it is zero
        return self.zero(first) if kind in (Kind.ZERO, Kind.SCALE) else None

    def _divides(self, nodes: Iterable[Node], values: Weights | None) -> bool:
        """Return whether these nodes, or weights they compute, may divide by what becomes zero."""
        zeros = {name for name, value in values or () if not value}
        return bool(zeros) and any(
            not zeros.isdisjoint(self._behind(divisor)) for divisor in self._divisors(nodes)
        )

    def _divisors(self, nodes: Iterable[Node]) -> Iterator[str]:
        """Yield the operands that have no value at zero, and might be zero."""
        graph, pending, seen = self.analysis.graph, list(nodes), set[int]()
        while pending:
            node = pending.pop()
            if node.position in seen:
                continue
            seen.add(node.position)
            at = node.facts.singular
            if at is not None and not self._signs.positive(node.inputs[at]):
                exponent = self._known(node.inputs[1]) if node.op == "Pow" else None
                if exponent is None or not (exponent > 0).all():
                    yield node.inputs[at]
            computed = (name for name in node.inputs if name in graph.derived)
            pending += [graph.producer[name] for name in computed if name in graph.producer]

    def _behind(self, tensor: str) -> set[str]:
        """Return the weights behind ``tensor`` in a copy, but for those behind the entry."""
        pending, seen = [tensor], set[str]()
        while pending:
            name = pending.pop()
            if name in seen or self._kept.get(name) is not None:
                continue
            seen.add(name)
            node = self._producer(name)
            pending += [i for i in node.inputs if i] if node is not None else []
        return seen & self.analysis.graph.model.weights.keys()

    def _any(
        self, names: Iterable[str], *, weights_last: bool = False, apart: bool = False
    ) -> Weights | None:
        """Return what makes one of them vanish: weights before activations, or the other way
        round; if ``apart``, without making another divide by it.
        """
        graph = self.analysis.graph
        ordered = sorted(names, key=lambda n: (n in graph.derived) == weights_last)
        for name in ordered:
            values = self.zero(name)
            others = (graph.producer[n] for n in ordered if n != name and n in graph.producer)
            if values is not None and not (apart and self._divides(others, values)):
                return values
        return None

    def _all(self, names: Iterable[str]) -> Weights | None:
        """Return what makes all of them vanish."""
        return self._joined(*map(self.zero, filter(None, names)))

    def _joined(self, *parts: Weights | None) -> Weights | None:
        """Return all these weights together; None where one is None, or has two values."""
        if None in parts:
            return None
        joined = frozenset(chain.from_iterable(part for part in parts if part is not None))
        if len(dict(joined)) == len(joined):
            return joined
        names = [name for name, _ in joined]
        twice = min(name for name in names if names.count(name) > 1)
        return self._blocked(f"'{twice}' would have to be one for a norm and zero elsewhere")

    def _producer(self, tensor: str) -> Node | None:
        """Return the node that gives ``tensor``, if a copy has one of its own."""
        graph = self.analysis.graph
        node = graph.producer.get(tensor)
        inside = node is not None and (node.position in self.inside or tensor in graph.derived)
        return node if inside else None

    def _trained(self, name: str) -> bool:
        """Return whether a weight is one that a copy may have a zero of its own for."""
        weight = self.analysis.graph.model.weights.get(name)
        return weight is not None and weight.dtype in FLOATS and weight.size > 1


def _axis(shape: Sequence[AnySize] | None) -> int | None:
    """Return the axis, from the end, along which the scale of a norm over one axis lies."""
    long = (at for at, size in enumerate(reversed(shape or ()), 1) if size != 1)
    return next((-at for at in long), None)
