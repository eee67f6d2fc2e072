"""Sizes that a graph repeats: shape inputs, attributes and numbers computed from shapes.

After growth every size chain is evaluated again with the new shapes. Where a node then reads
what the grown axes demand, nothing is done; where it does not, the number is rewritten; where
the number follows dynamic sizes as well and cannot be rewritten, growth is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import helper

from onnx_net2net.algebra.axes import Axis
from onnx_net2net.analysis.dependence import Element
from onnx_net2net.analysis.shapes import shape_value
from onnx_net2net.analysis.solver import Applied, Solution, axis_of
from onnx_net2net.analysis.values import Array, evaluate
from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import Node, captured
from onnx_net2net.operators.language import Repeated, Slot
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.runtime_sizes import NewElement, RuntimeSizes, kept


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
    patches: list[Patch] = field(default_factory=list)
    attributes: list[AttributePatch] = field(default_factory=list)
    drops: list[tuple[Node, str]] = field(default_factory=list)
    mixed: Mapping[Element, str] = field(default_factory=dict)
    runtime: RuntimeSizes = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = RuntimeSizes(self.solution)

    def find(self) -> Sizing:
        """Compare every repeated size with what it must become. Raises Refused."""
        self._evaluate()
        self.mixed = self.runtime.mixed(self.growth, self.after)
        for node in self.solution.graph.nodes:
            if node.position in self.solution.shapes.computed:
                self._condition(node)
                continue
            applied = self.solution.applied.get(node.position)
            slots = applied.rule.slots if applied is not None else ()
            if self.mixed:
                told = {slot.where for slot in slots}
                self._refuse_mixed(node, [n for i, n in enumerate(node.inputs) if i not in told])
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
        solution, before = self.solution, self.solution.shapes.value
        opset = solution.graph.model.opset.get("", 1)
        for node in solution.graph.nodes:
            if node.position not in solution.shapes.computed:
                continue
            if node.op in ("Shape", "Size") and not node.domain:
                axes = solution.axes.get(node.inputs[0])
                if axes is None or not any(map(self.growth.touches, axes)):
                    continue
                outputs = [shape_value(node.proto, self.growth.shape(axes))]
            elif node.links is not None:  # an If whose condition is known passes sizes on
                taken = solution.shapes.taken[node.position]
                sizes = {k.outer: k.inner for k in node.links.leave if k.body == taken}
                inner = [sizes.get(name, "") for name in node.outputs]
                outputs = [self.after.get(n, before.get(n, NONE)) for n in inner]
            elif any(name in self.after for name in node.inputs):
                values = [self.after.get(n, before.get(n)) if n else None for n in node.inputs]
                found = evaluate(node.proto, values, opset)
                if found is None:
                    raise Refused(node.name, "sizes computed here have no value after growth")
                outputs = found
            else:
                continue
            for name, array in zip(node.outputs, outputs, strict=False):
                if name and not np.array_equal(array, before[name]):
                    self.after[name] = array

    def _condition(self, node: Node) -> None:
        """An If that always takes one branch, which gives sizes, goes on taking it."""
        if node.links is not None and node.inputs[0] in self.after:
            self._frozen(node, set())

    def _refuse_mixed(self, node: Node | None, names: Collection[str]) -> None:
        """Refuse to read what :meth:`RuntimeSizes.mixed` found: nobody knows what it becomes."""
        for element, origin in self.mixed.items():
            if element.tensor in names:
                raise Refused(
                    node.name if node is not None else None,
                    f"'{element.tensor}' mixes the grown size with sizes known only at run time:"
                    f" {origin} does not keep them in proportion",
                    FIXED_SIZES,
                )

    def _slot(self, applied: Applied, slot: Slot) -> None:
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
        old = self.solution.shapes.value[name]
        new = self.after.get(name, old)
        want = _wanted(old, sizes)
        if not np.array_equal(new, want) or any(e.tensor == name for e in self.mixed):
            axes = [self._axis(applied, item) for item in slot.terms]
            self._patch(node, slot.where, name, new, want, axes)
        if slot.drops:
            self.drops.append((node, slot.drops))
        return None

    def _sizes(self, applied: Applied, slot: Slot) -> list[tuple[int, int]]:
        """(old, new) for every element; equal where the slot leaves it."""
        found = []
        for item in slot.terms:
            axis = self._axis(applied, item)
            if item is None or axis is None:
                found.append((NEVER, NEVER))
            elif item.beyond is not None:
                enough = self.growth.size(axis) <= abs(item.beyond)
                found.append((item.beyond, item.beyond if enough else item.sign * FARTHEST))
            else:
                found.append((item.sign * axis.size, item.sign * self.growth.size(axis)))
        return found

    def _axis(self, applied: Applied, item: Repeated | None) -> Axis | None:
        return axis_of(item.term, applied.env, applied.rule.sizes) if item is not None else None

    def _attribute(self, applied: Applied, slot: Slot, sizes: list[tuple[int, int]]) -> None:
        assert isinstance(slot.where, str)
        if all(new == old for old, new in sizes):
            return
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

    def _absent(self, applied: Applied, slot: Slot, sizes: list[tuple[int, int]]) -> None:
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
        axes = [self._axis(applied, item) for item in slot.terms]
        if not all(axis is not None and self.runtime.static(axis) for axis in axes):
            raise Refused(node.name, "it gives equal parts of a size known only at run time")
        self.patches.append(Patch(node, slot.where, "", np.asarray(want, np.int64)))
        if slot.drops:
            self.drops.append((node, slot.drops))

    def _patch(
        self,
        node: Node,
        index: int,
        name: str,
        new: Array,
        want: Array,
        axes: Sequence[Axis | None] = (),
    ) -> None:
        if new.shape != want.shape:
            raise Refused(node.name, f"the number of sizes in '{name}' changes with growth")
        dynamic = self.runtime.dynamic(name)
        if not dynamic.any():
            self.patches.append(Patch(node, index, name, want))
            return
        if want.ndim > 1:
            raise Refused(node.name, f"'{name}' is a table of sizes known only at run time")
        old = np.atleast_1d(self.solution.shapes.value[name])
        elements: list[NewElement] = np.atleast_1d(want).tolist()
        for place in np.flatnonzero(dynamic).tolist():
            now, then = int(np.atleast_1d(new)[place]), int(elements[place])  # type: ignore[arg-type]
            axis = axes[place] if place < len(axes) else None
            # A chain that growth moves could be off by another ratio at another size.
            mixed = Element(name, place) in self.mixed
            steady = axis is not None and self.runtime.steady(axis, self.growth)
            if not mixed and (now == then or (now == old[place] and steady)):
                elements[place] = kept(place, now, then)
                continue
            found = self.runtime.element(name, place, axis, self.growth)
            if found is None or not want.ndim:
                self._refuse_mixed(node, [name])
                raise Refused(
                    node.name,
                    f"'{name}' mixes the grown size with sizes known only at run time",
                    FIXED_SIZES,
                )
            elements[place] = found
        self.patches.append(Patch(node, index, name, want, tuple(elements)))

    def _frozen(self, node: Node, slots: set[str | int]) -> None:
        """A size that flows into arithmetic keeps its old value: sqrt(head_dim) is a scale."""
        for index, name in enumerate(node.inputs):
            if name in self.after and index not in slots:
                old = self.solution.shapes.value[name]
                self._patch(node, index, name, self._same_shape(node, name, old), old)

    def _same_shape(self, node: Node, name: str, old: Array) -> Array:
        new = self.after[name]
        if new.shape != old.shape:
            raise Refused(node.name, f"the number of sizes in '{name}' changes with growth")
        return new

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
        self._refuse_mixed(None, graph.outputs)
        for name in graph.outputs:
            if name in self.after:
                raise Refused(None, f"the network's output '{name}' tells a size that grows")
        for node in graph.nodes:
            if node.opaque:
                self._refuse_mixed(node, captured(node.proto))
            if node.opaque and captured(node.proto) & self.after.keys():
                raise Refused(node.name, "its subgraph reads a size that grows")
            if node.links is None or node.position in self.solution.shapes.computed:
                continue
            self._refuse_mixed(node, [link.inner for link in node.links.leave])
            if any(link.inner in self.after for link in node.links.leave):
                raise Refused(node.name, "its subgraph passes on a size that grows")


FIXED_SIZES = "export the model with fixed input sizes"
NONE = np.zeros(0)  # of an output that is absent
FARTHEST = 2**31 - 1  # a bound that is beyond the end of every axis
NEVER = np.iinfo(np.int64).min  # a size that no element repeats


def _wanted(old: Array, sizes: list[tuple[int, int]]) -> Array:
    """``old`` with the elements that repeat a size brought up to date."""
    want = np.array(old)
    flat = want.reshape(-1)
    for position, (before, after) in enumerate(sizes):
        if position < flat.size and flat[position] == before:
            flat[position] = after
    return want
