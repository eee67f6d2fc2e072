"""What a network would cost with other widths and with copies of its blocks, before it is grown.

    forecast = Forecast(analyse(model), {})
    forecast.parameters({dimension: 96}, {"encoder.layer.3": 2})

Costs follow from the axes of every tensor: a weight has the product of its axes' new sizes, and
each product of multiply-adds grows as its sizes do. Copies of a block have the block's parameters
and do its work again. What growing adds besides (a vector of shares here and there) is not known
before it is done, so what is reported is counted on the grown model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property
from math import prod
from typing import Protocol, TypeVar

from onnx import AttributeProto, NodeProto

from onnx_net2net.algebra.axes import Atom, Axis, atoms, canonical
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.algebra.sizes import AnySize, Size, trial, unknown
from onnx_net2net.algebra.unknowns import Unknown
from onnx_net2net.analysis.solver import axis_of
from onnx_net2net.deepening.blocks import blocks
from onnx_net2net.deepening.segments import Block
from onnx_net2net.model.graph import Node
from onnx_net2net.operators import looked_at
from onnx_net2net.operators.language import Op
from onnx_net2net.plan.costs import Workload, elements
from onnx_net2net.widening.dimensions import Analysis, Dimension

Widths = Mapping[Dimension, int]
Copies = Mapping[str, int]
Number = Callable[[AnySize], int]  # that of a size, at widths that are chosen
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
    """``flops`` of a node, in all of its runs, by what a count looks at now."""

    flops: int
    node: Node
    before: Op
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
        return self._once("parameters", widths, copies)

    def flops(self, widths: Widths, copies: Copies) -> int:
        """Count two for each multiply-add."""
        return self._once("flops", widths, copies)

    def _once(self, measure: str, widths: Widths, copies: Copies) -> int:
        first: dict[tuple[int, int], Dimension] = {}
        alike = {d: first.setdefault((d.width, new), d) for d, new in widths.items()}
        return self.formula(measure, alike)({d: widths[d] for d in first.values()}, copies)

    def formula(self, measure: str, alike: Mapping[Dimension, Dimension]) -> Formula:
        """Return "parameters" or "flops" as a function of widths and copies.

        ``alike`` maps the dimensions that may grow to those that stand for them in the formula's
        ``widths``: as wide now, and whatever is chosen. The fewer these are, the faster it is.
        """
        stand_ins = {
            d: unknown(f"width {i}", d.width) for i, d in enumerate(dict.fromkeys(alike.values()))
        }
        new = {dimension.atom: stand_ins[other] for dimension, other in alike.items()}
        size = Measure(lambda free: new.get(free, trial(free.size)), prod)
        unknowns = {d: one for d, size in stand_ins.items() for one in size.unknowns}
        formula = Formula(getattr(self.costs, measure), unknowns)
        for kind, inside in (self._elements if measure == "parameters" else self._products)(size):
            formula.add(kind, inside)
        return formula

    def _elements(self, size: Measure) -> Iterator[tuple[_Kind, Iterable[tuple[str, _Kind]]]]:
        """Yield what each weight has in total, and what each block has of it."""
        for weight in self._weights:
            parts: list[tuple[int, AnySize]] = []
            inside: list[tuple[str, _Kind]] = []
            shapes: dict[tuple[Axis, ...], int] = {}
            for axes, names in weight.uses:
                shape = shapes.setdefault(tuple(map(canonical, axes)), len(shapes))
                part = shape, prod(map(size, axes)) if axes else weight.count
                parts.append(part)
                inside += ((block, _Elements(weight.count, (part,))) for block in names)
            yield _Elements(weight.count, tuple(dict.fromkeys(parts))), inside

    def _products(self, size: Measure) -> Iterator[tuple[_Kind, Iterable[tuple[str, _Kind]]]]:
        """Yield the operations of each node, and the blocks that it is in."""
        axes = self.analysis.solution.axes
        for work in self._nodes:
            names = (*work.node.inputs, *work.node.outputs)
            shapes = [tuple(map(size, axes[n])) if n in axes else None for n in names]
            kind = _Products(
                work.flops,
                looked_at(work.before),
                tuple(shapes),
                tuple(self._repeated(work.node, size)),
                work.before,
                tuple(self.workload.terms[work.node.position]),
                self.workload.products,
            )
            yield kind, ((block, kind) for block in work.blocks)

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
        load, solution = self.workload, self.analysis.solution
        inside = _inside((block.name, block.positions) for block in self.blocks)
        growing = []
        for node in load.graph.nodes:
            flops = load.work(node)
            names = [name for name in (*node.inputs, *node.outputs) if name in solution.axes]
            grows = self._free(axis for name in names for axis in solution.axes[name])
            blocks = tuple(inside.get(node.position, ()))
            if flops and (grows or blocks):
                growing.append(_Work(flops, node, load.op(node, solution.shapes.shape), blocks))
        return growing

    def _free(self, axes: Iterable[Axis]) -> frozenset[Atom]:
        """Return the atoms in ``axes`` that may grow."""
        known = self.analysis.by_atom
        inside = {atom for axis in axes for atom in atoms(axis)}
        return frozenset(atom for atom in inside if atom in known and known[atom].grows)

    def _repeated(self, node: Node, size: Measure) -> Iterator[tuple[str, int, AnySize]]:
        """Yield the attributes of a node that repeat sizes: name, index, and the size."""
        applied = self.analysis.solution.applied.get(node.position)
        if applied is None:
            return
        for ref in applied.rule.size_refs:
            for index, item in enumerate(ref.terms if isinstance(ref.where, str) else ()):
                axis = item and axis_of(item.term, applied.env, applied.rule.sizes)
                if item and axis:
                    yield str(ref.where), index, item.sign * size(axis)


class _Kind(Protocol):
    """What costs the same wherever it occurs; hashable, so that it is counted once."""

    def cost(self, number: Number) -> int: ...


@dataclass(frozen=True)
class _Elements:
    """Elements of a weight: of each of its ``shapes`` that differ, unless none of them grows."""

    count: int
    shapes: tuple[tuple[int, AnySize], ...]

    def cost(self, number: Number) -> int:
        """Return the elements: those that do not grow share the weight as it is."""
        own = {}
        for shape, size in self.shapes:
            new = number(size)
            own[None if new == self.count else shape] = new
        return sum(own.values())


@dataclass(frozen=True)
class _Products:
    """``flops`` of a node, in all its runs, and all that a count looks at: each of its ``terms``
    grows as its sizes do.
    """

    flops: int
    looked_at: tuple[object, ...]
    shapes: tuple[tuple[AnySize, ...] | None, ...]  # of inputs and outputs, with what may grow
    repeated: tuple[tuple[str, int, AnySize], ...]  # in attributes
    before: Op = field(compare=False)
    terms: tuple[int, ...] = field(compare=False)
    products: Callable[[Op], list[int]] = field(compare=False)

    def cost(self, number: Number) -> int:
        """Return the operations with new sizes."""
        new = [shape if shape is None else tuple(map(number, shape)) for shape in self.shapes]
        if new == [shape if shape is None else tuple(map(trial, shape)) for shape in self.shapes]:
            return self.flops
        before = self.before
        ends = iter(new)
        after = replace(
            before,
            node=self._resized(number),
            shapes=tuple([kept if (own := next(ends)) is None else own for kept in before.shapes]),
            outputs=tuple(
                [kept if (own := next(ends)) is None else own for kept in before.outputs]
            ),
        )
        # Sizes at run time are others than those of the analysis, but each product has them once.
        terms = zip(self.terms, *map(self.products, (after, before)), strict=True)
        total = sum(Fraction(n * a, b) for n, a, b in terms if b)
        return round(total / sum(self.terms) * self.flops)

    def _resized(self, number: Number) -> NodeProto:
        """Return the node with attributes that repeat sizes as they will be."""
        if not self.repeated:
            return self.before.node
        resized = NodeProto()
        resized.CopyFrom(self.before.node)
        attributes = {attribute.name: attribute for attribute in resized.attribute}
        for name, index, size in self.repeated:
            attribute = attributes.get(name)
            if attribute is not None and attribute.type == AttributeProto.INT:
                attribute.i = number(size)
            elif attribute is not None:
                attribute.ints[index] = number(size)
        return resized


class Formula:
    """A cost as a sum over kinds: how many there are in the network, and in each of its blocks."""

    def __init__(self, present: int, stand_ins: Mapping[Dimension, Unknown]) -> None:
        self._present = present
        self._stand_ins = stand_ins
        self._kinds: Counter[_Kind] = Counter()
        self._of_blocks: dict[str, Counter[_Kind]] = {}

    def add(self, kind: _Kind, inside: Iterable[tuple[str, _Kind]]) -> None:
        """Add a weight or a node, and what the blocks have of it."""
        self._kinds[kind] += 1
        for block, part in inside:
            self._of_blocks.setdefault(block, Counter())[part] += 1

    @cached_property
    def _alike(self) -> list[tuple[list[str], Counter[_Kind]]]:
        """Return the names of blocks that cost the same, and what is in each of them."""
        groups: dict[Hashable, list[str]] = {}
        for name, kinds in self._of_blocks.items():
            groups.setdefault(frozenset(kinds.items()), []).append(name)
        return [(names, self._of_blocks[names[0]]) for names in groups.values()]

    @cached_property
    def _constant(self) -> int:
        """Return what no kind has a part in."""
        return self._present - _sum(self._kinds, _number({}))

    def __call__(self, widths: Widths, copies: Copies) -> int:
        """Return the cost with these widths, of those that stand for all, and these copies."""
        number = _number({self._stand_ins[d]: width for d, width in widths.items()})
        total = self._constant + _sum(self._kinds, number)
        for names, kinds in self._alike if copies else ():
            times = sum(copies.get(name, 0) for name in names)
            total += times and times * _sum(kinds, number)
        return total


def _sum(kinds: Counter[_Kind], number: Number) -> int:
    return sum(times * kind.cost(number) for kind, times in kinds.items())


def _number(widths: Mapping[Unknown, int]) -> Number:
    """Return what computes a size's number at these widths; other unknowns are as wide as now."""

    @cache
    def number(size: AnySize) -> int:
        if not isinstance(size, Size):
            return size
        return int(sum(times * prod(map(value, m)) for m, times in size.terms.items()))

    def value(one: Unknown) -> int:
        """Return the width; a product of very many terms is an unknown of its own."""
        return number(one.operands[0]) if one.operands else widths.get(one, int(one.trial))

    return number


def _inside(members: Iterable[tuple[str, Iterable[T]]]) -> dict[T, list[str]]:
    """List for every member the blocks that it belongs to."""
    blocks_of: dict[T, list[str]] = {}
    for block, owned in members:
        for member in owned:
            blocks_of.setdefault(member, []).append(block)
    return blocks_of
