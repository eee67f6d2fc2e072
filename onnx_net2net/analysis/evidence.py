"""What rules that are read off sizes must know of them: what is proved, whatever is dynamic.

A rule sees one choice of the dynamic sizes. That an axis of 24 is as long as one of 24, or that a
size is 1, may be so at this choice only.
"""

from __future__ import annotations

from functools import cached_property
from math import prod

from onnx_net2net.algebra.axes import Axis, Product, canonical
from onnx_net2net.analysis.dependence import MOVES, Dependence, Dynamic, Element, Key, Side
from onnx_net2net.analysis.symbols import symbol
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.alignment import Part, Size
from onnx_net2net.operators.language import AT_RUN_TIME, Pattern, Proven, Rule, Unsupported

# Whose rules must know which of the sizes that they are told are so at the sizes tried only.
TOLD = {"Pad", "Resize", "Slice", "Split", "Squeeze", "Tile", "Upsample"}
# Whose rules compare the sizes of their first input with those that another tells, or has.
SHAPED = {"Reshape": 1, "Resize": 3}
BESIDE = {"GatherElements": 1, "Scatter": 1, "ScatterElements": 1}
BOUNDED = {"Slice"}  # whose rules ask which sizes of their first input are static
MULTIPLIES = {"Cast", "Mul", "ReduceProd"}  # what gives the product of what it reads
MOST = 32  # factors; a size of more is taken as a whole


class Evidence:
    """Of the tensors whose ``axes`` are known so far."""

    def __init__(self, dependence: Dependence, axes: dict[str, list[Axis]]) -> None:
        self.dependence, self.axes = dependence, axes
        self._known: dict[Key, tuple[list[Key], int]] = {}
        self._expanded: dict[Axis, Element] = {}
        self.graph, self.here, self.follows = dependence.graph, dependence.here, dependence.follows

        nodes = reversed(self.graph.nodes)
        self._expands = [n for n in nodes if n.op == "Expand" and not n.domain]

    def dynamic(self, name: str) -> tuple[bool, ...]:
        """For every element of a small value whether it may follow the dynamic sizes."""
        return tuple(map(self.follows, self.dependence.elements(name)))

    def told(self, node: Node) -> Dynamic:
        """The same for every input of a node, where its rule needs to know."""
        return tuple(map(self.dynamic, node.inputs)) if node.op in TOLD else ()

    def proven(self, node: Node) -> Proven | None:
        """What is proved of the sizes that the rule of a node is read off."""
        if node.op in BOUNDED:
            return Proven.of(self._sizes(node.inputs[0]), ())
        index = SHAPED.get(node.op) or BESIDE.get(node.op)
        if index is None or len(node.inputs) <= index:
            return None
        self._notice_expanded(node.position)
        other = node.inputs[index]
        if node.op in BESIDE:
            return Proven.of(self._sizes(node.inputs[0]), self._sizes(other))
        told = [*map(self._product, self.dependence.elements(other))]
        return Proven.of(self._sizes(node.inputs[0]), told)

    def _sizes(self, name: str) -> list[Size]:
        rank = len(self.here.shape.get(name, ()))
        return [self._size(Side(name, index)) for index in range(rank)]

    def _product(self, element: Element) -> Size:
        """The factors of a size that may be computed: a product, divided by a number."""
        keys, divisor = self._factors(element)
        parts = [part for key in keys for part in self._size(key)]
        static = prod(part.size for part in parts if part.static)
        value = int(self.here.value[element.tensor].flat[element.place])
        if static % divisor or prod(part.size for part in parts) != value * divisor:
            return self._size(element)
        return (Part(static // divisor, True), *(part for part in parts if not part.static))

    def _factors(self, key: Key) -> tuple[list[Key], int]:
        """The sizes whose product a size is, through all that moves it, and what divides that."""
        if key not in self._known:
            found = self._taken_apart(key)
            self._known[key] = found if len(found[0]) <= MOST else ([key], 1)
        return self._known[key]

    def _taken_apart(self, key: Key) -> tuple[list[Key], int]:
        node = self.graph.producer.get(key.tensor) if isinstance(key, Element) else None
        op = "" if node is None or node.domain else node.op
        if node is None or op not in MOVES.keys() | MULTIPLIES | {"Div", "Shape"}:
            return [key], 1
        assert isinstance(key, Element)
        told = self.dependence.told(node, key) if op in MOVES else []
        read = [other for other in self.dependence.read(key) if other not in told]
        if op == "Div":
            told, read, divisor = read[1:], read[:1], self._number(read[1])
        else:
            divisor = 1
        if op == "ReduceProd":
            read = list(self.dependence.elements(node.inputs[0]))  # and nothing of its axes
        found = [self._factors(other) for other in read]
        inner = prod(by for _, by in found)
        mixed = inner > 1 < len(found)  # a product of quotients may round
        if mixed or not found or divisor < 1 or any(map(self.follows, told)):
            return [key], 1
        return [factor for keys, _ in found for factor in keys], divisor * inner

    def _number(self, key: Key) -> int:
        return int(self.here.value[key.tensor].flat[key.place]) if isinstance(key, Element) else 0

    def _size(self, key: Key) -> Size:
        """The factors of a size: of an axis, those that it was merged of."""
        static = not self.follows(key)
        if isinstance(key, Element):
            return (Part(int(self.here.value[key.tensor].flat[key.place]), static),)
        size, axes = self.here.shape[key.tensor][key.axis], self.axes.get(key.tensor)
        axis = None if axes is None else canonical(axes[key.axis])
        if size == 1:
            return (Part(size, static),)  # all axes of size 1 are one in the algebra
        if not static and (stated := self._stated(axis)):
            return stated
        if static or not isinstance(axis, Product):
            return (Part(size, static, self._symbols.get(axis, axis)),)
        return tuple(
            Part(factor.size, self._is_static(factor), self._symbols.get(factor, factor))
            for factor in axis.factors
        )

    def _stated(self, axis: Axis | None) -> Size | None:
        """The factors of what an Expand was told that made ``axis`` of one of size 1."""
        if axis is None or axis in self._symbols or axis not in self._expanded:
            return None
        told = self._expanded.pop(axis)  # for it may be read off an axis that is the same
        found = self._product(told)
        self._expanded[axis] = told
        return found

    def _notice_expanded(self, before: int) -> None:
        """Take down what states the sizes of axes that Expand made, ``before`` a node."""
        shapes = self.here.shape
        while self._expands and self._expands[-1].position < before:
            node = self._expands.pop()
            (data, told), after = node.inputs, self.axes.get(node.outputs[0])
            given = self.here.value.get(told)
            if after is None or data not in shapes or given is None:
                continue  # in a branch that is not taken, or behind what nobody knows
            first = len(after) - given.size
            for place, axis in enumerate(after[first:]):
                index = first + place + len(shapes[data]) - len(after)
                if index < 0 or (shapes[data][index] == 1 and not self.follows(Side(data, index))):
                    self._expanded.setdefault(canonical(axis), Element(told, place))

    def _is_static(self, axis: Axis) -> bool:
        """Whether an axis by itself, of a tensor nearby, shows that ``axis`` is static."""
        for name, axes in reversed(self.axes.items()):
            for index, other in enumerate(axes):
                if canonical(other) is axis:
                    return not self.follows(Side(name, index))
        return False

    @cached_property
    def _symbols(self) -> dict[Axis | None, object]:
        """What the dynamic axes of the network's inputs are called."""
        return {
            canonical(axis): name
            for value in self.graph.model.proto.graph.input
            for index, (axis, dim) in enumerate(
                zip(self.axes.get(value.name, ()), value.type.tensor_type.shape.dim, strict=False)
            )
            if (name := symbol(value.name, index, dim)) and name == dim.dim_param.strip()
        }

    def check(self, node: Node, rule: Rule, pattern: Pattern) -> None:
        """Unsupported where sizes that a rule was read off are so at those that are tried only."""
        if not rule.states_ones and self.hides(node, pattern):
            raise Unsupported(
                f"whether an axis of size 1 is so at all sizes of the inputs {AT_RUN_TIME}"
            )

    def hides(self, node: Node, pattern: Pattern) -> bool:
        """Whether an axis that is merged, cut, left out or repeated as one of size 1 may have
        another.
        """
        if node.op == "Reshape":
            return False  # its rule knows
        inputs, outputs = pattern.merged
        sides = [*zip(node.inputs, inputs, strict=False), *zip(node.outputs, outputs, strict=False)]
        sides += zip(node.inputs, self._repeated(node, pattern), strict=False)
        for name, axes in sides:
            shape = () if name in self.graph.model.weights else self.here.shape.get(name, ())
            if any(shape[axis] == 1 and self.follows(Side(name, axis)) for axis in axes if shape):
                return True
        return False

    def _repeated(self, node: Node, pattern: Pattern) -> list[tuple[int, ...]]:
        """For each input its axes that broadcast to those of others."""
        if not pattern.broadcast:
            return []
        longer = {
            term
            for name, spec in zip(node.inputs, pattern.inputs, strict=False)
            for term, size in zip(spec or (), self.here.shape.get(name, ()), strict=False)
            if size > 1
        }
        names = pattern.broadcast & longer
        specs = (spec or () for spec in pattern.inputs)
        return [tuple(i for i, term in enumerate(spec) if term in names) for spec in specs]
