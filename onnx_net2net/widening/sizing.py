"""Sizes that a graph repeats: shape inputs, attributes and numbers computed from shapes.

After growth every size chain is evaluated again with the new shapes. Where a node then reads
what the grown axes demand, nothing is done; where it does not, the number is rewritten; where
the number follows dynamic sizes as well and cannot be rewritten, growth is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import helper

from onnx_net2net.algebra.axes import Axis
from onnx_net2net.algebra.sizes import AnySize, Size, trial
from onnx_net2net.analysis.solver import Applied, Solution, axis_of
from onnx_net2net.analysis.values import evaluate, evaluate_symbols, is_symbolic, shape_value
from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import Node, captured
from onnx_net2net.operators.language import Repeated, SizeRef
from onnx_net2net.operators.values import Array
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.runtime_sizes import (
    NewElement,
    Places,
    element,
    input_places,
    proportion,
)

Change = tuple[AnySize, AnySize]  # a size before growth and after it


@dataclass
class Patch:
    """Input ``index`` of ``node`` must read ``value`` instead of ``tensor``.

    ``elements``, where given, say how to compute it at every dynamic size.
    """

    node: Node
    index: int
    tensor: str
    value: Array
    elements: tuple[NewElement, ...] = ()


@dataclass
class AttributePatch:
    """Attribute ``name`` of ``node`` must become ``value``."""

    node: Node
    name: str
    value: object


@dataclass
class Sizing:
    """What growth asks of the sizes in the graph. Finding out edits nothing."""

    solution: Solution
    growth: Growth
    after: dict[str, Array] = field(default_factory=dict)  # size values that change by themselves
    numbers: dict[str, Array] = field(default_factory=dict)  # the same at the trial sizes
    origins: dict[str, str] = field(default_factory=dict)  # nodes that change them unevenly
    patches: list[Patch] = field(default_factory=list)
    attributes: list[AttributePatch] = field(default_factory=list)
    drops: list[tuple[Node, str]] = field(default_factory=list)

    def find(self) -> Sizing:
        """Compare every repeated size with what it must become. Raises Refused."""
        self._evaluate()
        for node in self.solution.graph.nodes:
            if node.position in self.solution.shapes.computed:
                self._condition(node)
                continue
            applied = self.solution.applied.get(node.position)
            slots = applied.rule.size_refs if applied is not None else ()
            for slot in slots:
                self._slot(applied, slot)  # type: ignore[arg-type]
            if self.after:
                self._frozen(node, {slot.where for slot in slots})
            if applied is not None and applied.rule.freeze:
                self._freeze(applied)
        self._check_outside()
        return self

    def _evaluate(self) -> None:
        """Evaluate the size chains again, with the new shapes."""
        for node in self.solution.graph.nodes:
            if node.position in self.solution.shapes.computed:
                results = self._evaluated(node)
                for name, (numbers, elements) in zip(node.outputs, results, strict=False):
                    if name and not _equal(elements, self._before(name)):
                        self.numbers[name], self.after[name] = numbers, elements
                        self._trace(node, name)

    def _before(self, name: str) -> Array:
        """Return a size value as it was, with symbols where it varies."""
        shapes = self.solution.shapes
        return shapes.formula.get(name, shapes.value[name])

    def _evaluated(self, node: Node) -> list[tuple[Array, Array]]:
        """Return what a node that computes sizes gives now, as numbers at the trial sizes and as
        formulas; nothing where none of its inputs changes.
        """
        solution, shapes = self.solution, self.solution.shapes
        if node.facts.measures:
            axes = solution.axes.get(node.inputs[0])
            if axes is None or not any(map(self.growth.touches, axes)):
                return []
            sizes = self.growth.shape(axes)
            numbers = shape_value(node.proto, [trial(size) for size in sizes])
            return [(numbers, shape_value(node.proto, sizes))]
        if node.links is not None:  # an If whose condition is known passes sizes on
            taken = shapes.taken[node.position]
            inner = {k.outer: k.inner for k in node.links.leave if k.body == taken}
            names = [inner.get(name, "") for name in node.outputs]
            return [(self._number(name), self._element(name)) for name in names]
        if self.after.keys().isdisjoint(node.inputs):
            return []
        opset = solution.graph.model.opset.get("", 1)
        outputs = evaluate(node.proto, [self._number(n) if n else None for n in node.inputs], opset)
        elements = outputs
        given = [self._element(n) if n else None for n in node.inputs]
        if outputs is not None and any(map(is_symbolic, given)):
            elements = evaluate_symbols(node.proto, given, outputs, opset)
        if outputs is None or elements is None:
            raise Refused(node.name, "sizes computed here have no value after growth")
        return list(zip(outputs, elements, strict=True))

    def _number(self, name: str) -> Array:
        return self.numbers.get(name, self.solution.shapes.value.get(name, NONE))

    def _element(self, name: str) -> Array:
        return self.after[name] if name in self.after else self._before(name) if name else NONE

    def _trace(self, node: Node, name: str) -> None:
        """Take down which node first changes a varying size other than in proportion."""
        before, after = self._before(name), self.after[name]
        known = [self.origins[n] for n in node.inputs if n in self.origins]
        pairs = zip(before.ravel().tolist(), after.ravel().tolist(), strict=False)
        if not known and any(
            (isinstance(a, Size) or isinstance(b, Size)) and proportion(a, b) is None
            for a, b in pairs
        ):
            known = [node.label]
        if known:
            self.origins[name] = min(known)

    def _condition(self, node: Node) -> None:
        """Let an If that always takes one branch, which gives sizes, go on taking it."""
        if node.links is not None and node.inputs[0] in self.after:
            self._frozen(node, set())

    def _slot(self, applied: Applied, slot: SizeRef) -> None:
        node = applied.node
        sizes = self._sizes(applied, slot)
        if isinstance(slot.where, str):
            return self._attribute(applied, slot, sizes)
        name = node.inputs[slot.where] if slot.where < len(node.inputs) else ""
        if not name:
            return self._absent(applied, slot, sizes)
        if name not in self.solution.shapes.value:
            if any(new != old for old, new in sizes):
                raise Refused(node.name, f"the sizes in its input '{name}' are not constant")
            return None
        want = _wanted(self._before(name), sizes)
        if not _equal(self._element(name), want):
            self._patch(node, slot.where, name, want)
        if slot.drops:
            self.drops.append((node, slot.drops))
        return None

    def _sizes(self, applied: Applied, slot: SizeRef) -> list[Change]:
        """(old, new) for every element; equal where the slot leaves it."""
        changes: list[Change] = []
        for item in slot.terms:
            axis = self._axis(applied, item)
            if item is None or axis is None:
                changes.append((NEVER, NEVER))
            elif item.beyond is not None:
                size = self.growth.size(axis)
                enough = isinstance(size, Size) or size <= abs(item.beyond)
                changes.append((item.beyond, item.beyond if enough else item.sign * FARTHEST))
            else:
                changes.append((item.sign * axis.size, item.sign * self.growth.size(axis)))
        return changes

    def _axis(self, applied: Applied, item: Repeated | None) -> Axis | None:
        return axis_of(item.term, applied.env, applied.rule.sizes) if item is not None else None

    def _attribute(self, applied: Applied, slot: SizeRef, sizes: list[Change]) -> None:
        assert isinstance(slot.where, str)
        if all(new == old for old, new in sizes):
            return
        if any(isinstance(new, Size) for _, new in sizes):
            raise Refused(applied.node.name, f"its attribute {slot.where} cannot vary", FIXED_SIZES)
        given = {a.name: helper.get_attribute_value(a) for a in applied.node.proto.attribute}
        old = given.get(slot.where)
        if old is None:
            single: object = sizes[0][1]
            value = single if len(sizes) == 1 else [new for _, new in sizes]
        elif isinstance(old, int | float):
            value = int(_wanted(np.asarray([old]), sizes)[0])
        else:
            value = _wanted(np.asarray(old, np.int64), sizes).tolist()
        if value != old:
            self.attributes.append(AttributePatch(applied.node, slot.where, value))

    def _absent(self, applied: Applied, slot: SizeRef, sizes: list[Change]) -> None:
        """Sizes that were implicit: equal parts, as Split takes them; the last may be smaller
        only where an attribute states how many there are.
        """
        assert isinstance(slot.where, int)
        node = applied.node
        want = [new for _, new in sizes]
        part = -(-sum(want) // len(want))
        last = sum(want) - part * (len(want) - 1)
        if want == [*[part] * (len(want) - 1), last] and (last == part or slot.drops):
            return
        if any(isinstance(size, Size) for size in want):
            raise Refused(node.name, "it gives equal parts of a size known only at run time")
        self.patches.append(Patch(node, slot.where, "", np.asarray(want, np.int64)))
        if slot.drops:
            self.drops.append((node, slot.drops))

    def _patch(self, node: Node, index: int, name: str, want: Array) -> None:
        """Let a node read what is wanted instead of what is computed."""
        now = self._element(name)
        if now.shape != want.shape:
            raise Refused(node.name, f"the number of sizes in '{name}' changes with growth")
        if not is_symbolic(want):
            self.patches.append(Patch(node, index, name, want))
            return
        if want.ndim > 1:
            raise Refused(node.name, f"'{name}' is a table of sizes known only at run time")
        pairs = zip(now.ravel().tolist(), want.ravel().tolist(), strict=True)
        elements = [element(i, a, b, self.places) for i, (a, b) in enumerate(pairs)]
        if None in elements or not want.ndim:
            origin = self.origins.get(name)
            why = f": {origin} does not keep them in proportion" if origin else ""
            raise Refused(
                node.name,
                f"'{name}' mixes the grown size with sizes known only at run time{why}",
                FIXED_SIZES,
            )
        self.patches.append(Patch(node, index, name, want, tuple(elements)))  # type: ignore[arg-type]

    @cached_property
    def places(self) -> Places:
        """Where the network's inputs show dynamic sizes."""
        return input_places(self.solution)

    def _frozen(self, node: Node, slots: set[str | int]) -> None:
        """Keep the old value of a size in arithmetic: sqrt(head_dim) is a scale."""
        for index, name in enumerate(node.inputs):
            if name in self.after and index not in slots:
                self._patch(node, index, name, self._before(name))

    def _freeze(self, applied: Applied) -> None:
        """Write down a default that was derived from a size which now grows."""
        if not any(self.growth.touches(axis) for axis in applied.env.values()):
            return
        present = {a.name for a in applied.node.proto.attribute}
        for name, value in applied.rule.freeze.items():
            if name not in present:
                self.attributes.append(AttributePatch(applied.node, name, value))

    def _check_outside(self) -> None:
        graph = self.solution.graph
        for name in graph.outputs:
            if name in self.after:
                raise Refused(None, f"the network's output '{name}' tells a size that grows")
        for node in graph.nodes:
            if node.opaque and captured(node.proto) & self.after.keys():
                raise Refused(node.name, "its subgraph reads a size that grows")
            if node.links is None or node.position in self.solution.shapes.computed:
                continue
            if any(link.inner in self.after for link in node.links.leave):
                raise Refused(node.name, "its subgraph passes on a size that grows")


FIXED_SIZES = "export the model with fixed input sizes"
NONE = np.zeros(0)  # of an output that is absent
FARTHEST = 2**31 - 1  # a bound that is beyond the end of every axis
NEVER = np.iinfo(np.int64).min  # a size that no element repeats


def _wanted(old: Array, sizes: list[Change]) -> Array:
    """``old`` with the elements that repeat a size brought up to date."""
    want = old.copy()
    flat = want.reshape(-1)
    for position, (before, after) in enumerate(sizes):
        if position < flat.size and flat[position] == before:
            flat[position] = after
    return want


def _equal(one: Array, other: Array) -> bool:
    """Whether two size values are equal at all dynamic sizes."""
    return one.shape == other.shape and bool(one.ravel().tolist() == other.ravel().tolist())
