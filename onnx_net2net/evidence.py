"""What rules that are read off sizes must know of them: what is proved, whatever is dynamic.

A rule sees one choice of the dynamic sizes. That an axis of 24 is as long as one of 24, or that a
size is 1, may be so at this choice only.
"""

from __future__ import annotations

from functools import cached_property
from math import prod

from onnx_net2net.axes import Axis, Product, canonical
from onnx_net2net.dependence import MOVES, Dependence, Dynamic, Element, Key, Side
from onnx_net2net.graph import Node
from onnx_net2net.rules.alignment import Part, Size
from onnx_net2net.rules.language import Pattern, Proven, Unsupported

# Whose rules must know which of the sizes that they are told are so at the sizes tried only.
TOLD = {"Pad", "Slice", "Split", "Tile"}
READ_OFF = {"Reshape"}  # whose rules are read off sizes: what is proved of these they must know
MULTIPLIES = {"Cast", "Mul", "ReduceProd"}  # what gives the product of what it reads


class Evidence:
    """Of the tensors whose ``axes`` are known so far."""

    def __init__(self, dependence: Dependence, axes: dict[str, list[Axis]]) -> None:
        self.dependence, self.axes = dependence, axes
        self.graph, self.here, self.follows = dependence.graph, dependence.here, dependence.follows

    def dynamic(self, name: str) -> tuple[bool, ...]:
        """For every element of a small value whether it may follow the dynamic sizes."""
        return tuple(map(self.follows, self.dependence.elements(name)))

    def told(self, node: Node) -> Dynamic:
        """The same for every input of a node, where its rule needs to know."""
        return tuple(map(self.dynamic, node.inputs)) if node.op in TOLD else ()

    def proven(self, node: Node) -> Proven | None:
        """What is proved of the sizes that the rule of a node is read off."""
        if node.op not in READ_OFF or len(node.inputs) < 2:
            return None
        data, shape = node.inputs[:2]
        rank = len(self.here.shape.get(data, ()))
        axes = [self._size(Side(data, index)) for index in range(rank)]
        return Proven.of(axes, [*map(self._product, self.dependence.elements(shape))])

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
        if static or not isinstance(axis, Product):
            return (Part(size, static, self._symbols.get(axis, axis)),)
        return tuple(
            Part(factor.size, self._is_static(factor), self._symbols.get(factor, factor))
            for factor in axis.factors
        )

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
            canonical(axis): dim.dim_param
            for value in self.graph.model.proto.graph.input
            for axis, dim in zip(
                self.axes.get(value.name, ()), value.type.tensor_type.shape.dim, strict=False
            )
            if dim.dim_param
        }

    def check(self, node: Node, pattern: Pattern) -> None:
        """Unsupported where sizes that a rule was read off are so at those that are tried only."""
        if self.hides(node, pattern):
            raise Unsupported("an axis of size 1 is not proved to be so at all sizes of the inputs")

    def hides(self, node: Node, pattern: Pattern) -> bool:
        """Whether an axis that is merged, cut or left out as one of size 1 may have another."""
        if node.op in READ_OFF:
            return False  # its rule knows
        inputs, outputs = pattern.merged
        sides = [*zip(node.inputs, inputs, strict=False), *zip(node.outputs, outputs, strict=False)]
        for name, merged in sides:
            shape = () if name in self.graph.model.weights else self.here.shape.get(name, ())
            if any(shape[axis] == 1 and self.follows(Side(name, axis)) for axis in merged if shape):
                return True
        return False
