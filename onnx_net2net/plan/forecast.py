"""What a network would cost with other widths and with copies of its blocks, before it is grown.

    forecast = Forecast(analyse(model), {})
    forecast.parameters({dimension: 96}, {"encoder.layer.3": 2})

Costs follow from the axes of every tensor: a weight has the product of its axes' new sizes, and
each product of multiply-adds grows as its sizes do. Copies of a block have the block's parameters
and do its work again. What growing adds besides (a vector of shares here and there) is not known
before it is done, so what is reported is counted on the grown model.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import TypeVar

from onnx import AttributeProto, NodeProto

from onnx_net2net.algebra.axes import Atom, Axis, atoms, canonical
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.analysis.solver import axis_of
from onnx_net2net.deepening.blocks import blocks
from onnx_net2net.deepening.segments import Block
from onnx_net2net.model.graph import Node
from onnx_net2net.plan.costs import Workload, elements
from onnx_net2net.widening.dimensions import Analysis, Dimension

Widths = Mapping[Dimension, int]
Copies = Mapping[str, int]
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class _Weight:
    """``count`` elements, and its uses: those that grow otherwise than others get one of their own.

    A use has ``axes`` where some of them may grow, and the blocks in it: a copy of a block has its
    own.
    """

    count: int
    uses: tuple[tuple[tuple[Axis, ...], tuple[str, ...]], ...]


@dataclass(frozen=True)
class _Work:
    """``flops`` of a node, in all of its runs; ``grows`` are the atoms that they may grow with."""

    flops: int
    node: Node
    grows: frozenset[Atom]
    blocks: tuple[str, ...]


class Forecast:
    """Costs of ``analysis``'s model for any widths and numbers of copies."""

    def __init__(self, analysis: Analysis, sizes: Mapping[str, int]) -> None:
        self.analysis = analysis
        self.workload = Workload(analysis.model, sizes, analysis.graph)
        self.costs = self.workload.costs()

    @cached_property
    def blocks(self) -> list[Block]:
        """List the blocks that can be copied exactly and as they are, in graph order."""
        nodes = self.analysis.graph.nodes
        return [
            block
            for block in blocks(self.analysis.model)
            if block.exact
            and not block.beside
            and not any(nodes[at].bodies for at in block.positions)
        ]

    def parameters(self, widths: Widths, copies: Copies) -> int:
        """Count weight elements that can be learned."""
        size, new = _sizes(widths), {dimension.atom for dimension in widths}
        total = self.costs.parameters
        for weight in self._weights:
            own: dict[tuple[Axis, ...], int] = {}
            for axes, inside in weight.uses:
                grows = any(not new.isdisjoint(atoms(axis)) for axis in axes)
                now = prod(map(size, axes)) if grows else weight.count
                own[tuple(map(canonical, axes)) if grows else ()] = now
                total += now * _times(inside, copies)
            total += sum(own.values()) - weight.count
        return total

    def flops(self, widths: Widths, copies: Copies) -> int:
        """Count two for each multiply-add."""
        new = {dimension.atom for dimension in widths}
        size = _sizes(widths)
        total = self.costs.flops
        for work in self._nodes:
            factor = Fraction(1) if work.grows.isdisjoint(new) else self._growth(work.node, size)
            now = round(factor * work.flops)
            total += now * (1 + _times(work.blocks, copies)) - work.flops
        return total

    @cached_property
    def _weights(self) -> list[_Weight]:
        solution = self.analysis.solution
        inside = _inside((block.name, block.parameters) for block in self.blocks)
        copies: dict[str, list[str]] = {}
        for name, copied in solution.graph.copies.items():
            copies.setdefault(copied.original, []).append(name)
        weights = []
        for name in self.analysis.model.weights:
            count = elements([name], self.analysis.model)
            uses = []
            for use in copies.get(name, [name]):
                axes = tuple(solution.axes.get(use, ()))
                uses.append((axes if self._free(axes) else (), tuple(inside.get(use, ()))))
            if count and any(axes or blocks for axes, blocks in uses):
                weights.append(_Weight(count, tuple(uses)))
        return weights

    @cached_property
    def _nodes(self) -> list[_Work]:
        load, axes = self.workload, self.analysis.solution.axes
        inside = _inside((block.name, block.positions) for block in self.blocks)
        growing = []
        for node in load.graph.nodes:
            flops = load.work(node)
            names = [name for name in (*node.inputs, *node.outputs) if name in axes]
            grows = self._free(axis for name in names for axis in axes[name])
            blocks = tuple(inside.get(node.position, ()))
            if flops and (grows or blocks):
                growing.append(_Work(flops, node, grows, blocks))
        return growing

    def _free(self, axes: Iterable[Axis]) -> frozenset[Atom]:
        """Return the atoms in ``axes`` that may grow."""
        known = self.analysis.by_atom
        inside = {atom for axis in axes for atom in atoms(axis)}
        return frozenset(atom for atom in inside if atom in known and known[atom].grows)

    def _growth(self, node: Node, size: Measure) -> Fraction:
        """Return the factor by which the work of a node grows."""
        solution = self.analysis.solution
        shape = dict(solution.shapes.shape)
        before = self.workload.op(node, shape)
        for name in (*node.inputs, *node.outputs):
            if name in solution.axes:
                shape[name] = tuple(int(trial(size(axis))) for axis in solution.axes[name])
        # Sizes at run time are others than those of the analysis, but each product has them once.
        after = replace(self.workload.op(node, shape), node=self._resized(node, size))
        now = self.workload.terms[node.position]
        terms = zip(now, *map(self.workload.products, (after, before)), strict=True)
        total = sum(Fraction(n * a, b) for n, a, b in terms if b)
        return Fraction(total) / sum(now)

    def _resized(self, node: Node, size: Measure) -> NodeProto:
        """Return the node with attributes that repeat sizes as they will be."""
        applied = self.analysis.solution.applied.get(node.position)
        if applied is None or not applied.rule.size_refs:
            return node.proto
        resized = NodeProto()
        resized.CopyFrom(node.proto)
        repeated = {ref.where: ref.terms for ref in applied.rule.size_refs}
        for attribute in resized.attribute:
            for index, item in enumerate(repeated.get(attribute.name, ())):
                axis = item and axis_of(item.term, applied.env, applied.rule.sizes)
                if item and axis:
                    number = item.sign * int(trial(size(axis)))
                    if attribute.type == AttributeProto.INT:
                        attribute.i = number
                    else:
                        attribute.ints[index] = number
        return resized


def _sizes(widths: Widths) -> Measure:
    new = {dimension.atom: width for dimension, width in widths.items()}
    return Measure(lambda free: new.get(free, free.size), prod)


def _times(blocks: Iterable[str], copies: Copies) -> int:
    return sum(copies.get(name, 0) for name in blocks)


def _inside(members: Iterable[tuple[str, Iterable[T]]]) -> dict[T, list[str]]:
    """List for every member the blocks that it belongs to."""
    blocks_of: dict[T, list[str]] = {}
    for block, owned in members:
        for member in owned:
            blocks_of.setdefault(member, []).append(block)
    return blocks_of
