"""Which sizes may follow the dynamic sizes of the network's inputs.

A size that is the same at two choices of the dynamic sizes may differ at a third: min(length,
512), a remainder, a slice that reaches beyond the end. So being equal proves nothing. A size
counts as static only if everything that it is made of is: it is traced back, through the
operators that move it and through the rules that say which axes are the same, to weights and to
stated sizes. On the way arithmetic, and any axis an operator makes anew, depends on all that the
operator reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from onnx_net2net.analysis.values import Array, evaluate
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.operators import lookup
from onnx_net2net.operators.language import Op, Pattern, Rule, Unsupported, expand, ranks
from onnx_net2net.operators.notation import Term, leaves

Shape = tuple[int, ...]
Dynamic = tuple[tuple[bool, ...], ...]  # for each input, of each element whether it is
# What moves elements of the inputs listed (None: of all) by what the other inputs say.
MOVES: dict[str, tuple[int, ...] | None] = {
    "Concat": None,
    "Expand": (0,),
    "Gather": (0,),
    "Identity": (0,),
    "Reshape": (0,),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}
# What computes every element from the elements at its place.
ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow",
    "Reciprocal", "Round", "Sqrt", "Sub",
}  # fmt: skip
CLAMPED = {"Slice"}  # the sizes it is told may reach beyond the end
NOWHERE = -1
NONE = frozenset[str]()


class Side(NamedTuple):
    """The size of an axis of a tensor."""

    tensor: str
    axis: int


class Element(NamedTuple):
    """An element of a small value, counted in row-major order."""

    tensor: str
    place: int
    value: bool = True  # so that it never equals a Side


Key = Side | Element


class Inferred(Protocol):
    """What :mod:`shapes` finds for one choice of the dynamic sizes."""

    shape: dict[str, Shape]
    value: dict[str, Array]
    taken: dict[int, int]

    @property
    def elsewhere(self) -> Inferred:
        """The same for another choice."""

    def known(self, name: str) -> Array | None:
        """A small constant that an operator may read as a parameter, or None."""


class Dependence:
    """Dependence on the dynamic sizes, as far as ``here`` and the rules tell."""

    def __init__(self, graph: Graph, here: Inferred) -> None:
        self.graph, self.here = graph, here
        self._static: set[Key] = set()
        self._moving: set[Key] = set()
        self._reads: dict[Key, frozenset[Key]] = {}
        # By node position: each is asked for as often as the node has outputs.
        self._traces: dict[int, dict[str, list[Array]] | None] = {}
        self._outputs: dict[int, dict[str, int]] = {}
        self._rules: dict[int, tuple[Rule, Pattern] | None] = {}
        # By the rule, for a node may have several: one of what is proved, one of shapes alone.
        self._told: dict[int, tuple[Rule, dict[str, list[tuple[int, int]]]]] = {}

    def follows(self, start: Key) -> bool:
        """Whether ``start`` may differ at other dynamic sizes: it is not proved that it cannot."""
        seen: set[Key] = {start}
        pending: list[Key] = [start]
        while pending:
            key = pending.pop()
            if key in self._static:
                continue
            if key in self._moving or self._varies(key):
                self._moving |= {start, key}
                return True
            if key not in self._reads:
                self._reads[key] = frozenset(self.read(key))
            new = self._reads[key] - seen
            seen |= new
            pending += new
        self._static |= seen
        return False

    def read(self, key: Key) -> Iterable[Key]:
        """What ``key`` is made of: nothing for what the file states."""
        node = self.graph.producer.get(key.tensor)
        if key.tensor in self.graph.model.weights or (node is not None and node.op == "Constant"):
            return ()
        if isinstance(key, Element):
            return self._read_element(node, key) if node is not None else ()
        if node is None:
            outer = self._entered.get(key.tensor)
            return (Side(outer[0], outer[1][key.axis]),) if outer is not None else ()
        if node.op == "Shape":
            return ()  # a rank
        if node.op in CLAMPED and (bounds := self._bounds_of_one(node, key.axis)):
            return bounds
        return set(self._read_side(node, key))

    def elements(self, name: str) -> list[Element]:
        """All elements of a small value."""
        return [Element(name, i) for i in range(np.size(self.here.value.get(name, ())))]

    @cached_property
    def symbolic(self) -> set[Side]:
        """The dynamic axes of the network's inputs."""
        return {
            Side(value.name, index)
            for value in self.graph.model.proto.graph.input
            for index, dim in enumerate(value.type.tensor_type.shape.dim)
            if value.name not in self.graph.model.weights and dim.dim_value <= 0
        }

    @cached_property
    def _entered(self) -> dict[str, tuple[str, list[int]]]:
        """For what enters the body of a Loop or Scan: the tensor outside and its axes."""
        links = [k for n in self.graph.nodes if n.links is not None for k in n.links.enter]
        return {
            link.inner: (link.outer, link.without(range(len(self.here.shape[link.outer]))))
            for link in links
            if link.outer in self.here.shape
        }

    def _varies(self, key: Key) -> bool:
        """Whether ``key`` is seen to vary, or is unknown."""
        if key in self.symbolic:
            return True
        if key.tensor in self.graph.model.weights:
            return False
        here, there = self.here, self.here.elsewhere
        if isinstance(key, Element):
            value, other = here.value.get(key.tensor), there.value.get(key.tensor)
            if value is None or other is None or value.shape != other.shape:
                return True
            return bool(value.flat[key.place] != other.flat[key.place])
        shape, another = here.shape.get(key.tensor), there.shape.get(key.tensor)
        if shape is None or another is None or len(shape) != len(another):
            return True
        return shape[key.axis] != another[key.axis]

    # --- elements of values ---------------------------------------------------------------

    def _read_element(self, node: Node, key: Element) -> Iterable[Key]:
        if node.op in ("Shape", "Size") and not node.domain:
            sides = range(len(self.here.shape[node.inputs[0]]))
            if node.op == "Shape":
                start = next((a.i for a in node.proto.attribute if a.name == "start"), 0)
                sides = sides[start:][key.place : key.place + 1]
            return [Side(node.inputs[0], i) for i in sides]
        if node.links is not None:
            taken = self.here.taken.get(node.position)
            leave = [k for k in node.links.leave if k.outer == key.tensor and k.body == taken]
            return [Element(leave[0].inner, key.place)] if leave else self._all(node)
        data, _ = self._parts(node)
        traced = self._traced(node, data)
        if traced is None:
            return self._all(node)
        found = self.told(node, key)
        for index, places in zip(data, traced[key.tensor], strict=True):
            place = int(places.flat[key.place])
            found += [Element(node.inputs[index], place)] if place != NOWHERE else []
        return found

    def told(self, node: Node, key: Element) -> list[Key]:
        """The elements that say what ``node`` moves to ``key``, rather than being moved there."""
        names = [node.inputs[index] for index in self._parts(node)[1]]
        if node.op != "Where":
            return [element for name in names for element in self.elements(name)]
        condition, shape = self.here.value[names[0]], self.here.value[key.tensor].shape
        places = np.broadcast_to(_numbered(condition), shape)
        return [Element(names[0], int(places.flat[key.place]))]

    @staticmethod
    def _parts(node: Node) -> tuple[list[int], list[int]]:
        """Inputs whose elements a node moves or computes with, and those that say how."""
        given = [index for index, name in enumerate(node.inputs) if name]
        moved = MOVES.get(node.op)
        data = given if moved is None else [index for index in moved if index in given]
        return data, [index for index in given if index not in data]

    def _counting(self, node: Node) -> list[str]:
        """Inputs whose elements may say how long a node's outputs are."""
        moved = [] if MOVES.get(node.op) is None else self._parts(node)[0]
        return [name for i, name in enumerate(node.inputs) if name and i not in moved]

    def _traced(self, node: Node, data: list[int]) -> dict[str, list[Array]] | None:
        """For every output: which element of each input in ``data`` its elements come from."""
        if node.position not in self._traces:
            self._traces[node.position] = self._trace(node, data)
        return self._traces[node.position]

    def _trace(self, node: Node, data: list[int]) -> dict[str, list[Array]] | None:
        values = [self.here.value.get(name) for name in node.inputs]
        places = {i: _numbered(self.here.value[node.inputs[i]]) for i in data}
        outputs = {name: self.here.value[name].shape for name in node.outputs if name}
        if node.op in ELEMENTWISE:
            return {n: [np.broadcast_to(places[i], s) for i in data] for n, s in outputs.items()}
        if node.op not in MOVES:
            return None
        found: dict[str, list[Array]] = {name: [] for name in outputs}
        nowhere = {i: np.full_like(array, NOWHERE) for i, array in places.items()}
        for index in data:
            # The operator itself tells where it moves what: it is run on numbered elements.
            numbered = {**dict(enumerate(values)), **nowhere, index: places[index]}
            moved = evaluate(node.proto, list(numbered.values()), self.graph.model.opset.get("", 1))
            for name, array in zip(node.outputs, moved or (), strict=False):
                if name and array.shape == outputs[name]:
                    found[name].append(array)
        return found if all(len(arrays) == len(data) for arrays in found.values()) else None

    def _all(self, node: Node) -> list[Key]:
        """Every size that ``node`` could read, and every element of what it reads as sizes."""
        found: list[Key] = []
        for name in filter(None, node.inputs):
            found += self.elements(name)
            found += [Side(name, i) for i in range(len(self.here.shape.get(name, ())))]
        return found

    # --- axes of tensors --------------------------------------------------------------------

    def _read_side(self, node: Node, key: Side) -> Iterator[Key]:
        if node.links is not None:
            yield from self._read_body(node, key)
            return
        found = None if node.opaque else self._rule(node)
        output = self._place_of(node, key.tensor)
        spec = found[1].outputs[output] if found and output < len(found[1].outputs) else None
        if found is None or spec is None:
            yield from self._all(node)
            return
        term = spec[key.axis]
        stated = [e for e, exact in self._told_sizes(node, found[0], term) if exact]
        yield from stated
        for name in () if stated else leaves(term):
            yield from self._read_name(node, *found, name.lstrip("~"), NONE)

    def _place_of(self, node: Node, name: str) -> int:
        """Which output of ``node`` a tensor is."""
        if node.position not in self._outputs:
            found = dict(zip(reversed(node.outputs), range(len(node.outputs))[::-1], strict=True))
            self._outputs[node.position] = found
        return self._outputs[node.position][name]

    def follows_name(self, node: Node, rule: Rule, pattern: Pattern, name: str) -> bool:
        """The same for the size that ``name`` stands for in the rule of ``node``."""
        return any(map(self.follows, set(self._read_name(node, rule, pattern, name, NONE))))

    def _read_name(
        self, node: Node, rule: Rule, pattern: Pattern, name: str, known: frozenset[str]
    ) -> Iterator[Key]:
        """What the size is made of that ``name`` stands for, the sizes of ``known`` being given."""
        if name in known or name.isdigit():
            return
        if others := self._beside_attribute(rule, name):
            for other in others - {name}:
                yield from self._read_name(node, rule, pattern, other, known | others - {other})
            return
        sides = {
            Side(tensor, index): [n.lstrip("~") for n in leaves(term)]
            for tensor, spec in zip(node.inputs, pattern.inputs, strict=False)
            for index, term in enumerate(spec or ())
            if tensor
        }
        holding = [side for side, inside in sides.items() if name in inside]
        whole = [side for side in holding if sides[side] == [name]]
        told = list(self._told_sizes(node, rule, name))
        literal = [element for element, exact in told if exact]
        if literal or any(self._stored(side) for side in whole):
            yield from literal  # or as long as a weight is, whatever else it is broadcast with
            return
        yield from holding
        yield from (element for element, _ in told)
        if not told and not whole:
            for tensor in self._counting(node):
                yield from self.elements(tensor)
        if not whole:  # what is left of a size once the others that share it are known
            beside = frozenset(n for side in holding for n in sides[side]) - {name}
            for other in beside - known:
                given = known | {name} | beside - {other}
                yield from self._read_name(node, rule, pattern, other, given)
        if not holding:
            passed = {n for s in pattern.outputs for t in s or () for n in leaves(t)}
            yield from (side for side, inside in sides.items() if not passed.issuperset(inside))

    @staticmethod
    def _beside_attribute(rule: Rule, name: str) -> frozenset[str]:
        """The names whose product an attribute states, if ``name`` is one of them."""
        stated = (t for s in rule.slots if isinstance(s.where, str) for t in s.terms if t)
        found = (frozenset(leaves(item.term)) for item in stated if item.sign > 0)
        return next((names for names in found if name in names), frozenset())

    def _told_sizes(self, node: Node, rule: Rule, term: Term) -> Iterator[tuple[Element, bool]]:
        """Elements of shape inputs that ``term`` depends on, and whether they state its size."""
        if id(rule) not in self._told:
            self._told[id(rule)] = rule, _places(rule, len(node.inputs))
        places = self._told[id(rule)][1]
        found = {place: None for name in leaves(term) for place in places.get(name, ())}
        for index, place in sorted(found):
            slot = rule.slots[index]
            assert isinstance(slot.where, int)
            tensor, item = node.inputs[slot.where], slot.terms[place]
            value = self.here.value.get(tensor)
            assert item is not None
            states = item[:2] == (1, term) and node.op not in CLAMPED
            known = value is not None and place < value.size and value.flat[place] > 0
            yield Element(tensor, place), states and known

    def _stored(self, side: Side) -> bool:
        known = side.tensor in self.graph.model.weights
        return known and self.here.shape[side.tensor][side.axis] > 1

    def _read_body(self, node: Node, key: Side) -> Iterator[Key]:
        assert node.links is not None
        taken = self.here.taken.get(node.position)
        for link in node.links.leave:
            if link.outer != key.tensor or (taken is not None and link.body != taken):
                continue
            rank = len(self.here.shape[key.tensor])
            axis = None if link.axis is None else link.axis % rank
            if key.axis == axis:
                yield from self._all(node)
            else:
                yield Side(link.inner, key.axis - (axis is not None and key.axis > axis))

    def _bounds_of_one(self, node: Node, axis: int) -> list[Element]:
        """Where a cut keeps one entry, counted from one end: all that another size could do is to
        leave none."""
        given = [self.here.known(name) if name else None for name in node.inputs[1:5]]
        starts, ends, axes, steps = [*given, None, None, None, None][:4]
        if starts is None or ends is None:
            return []
        rank = len(self.here.shape[node.inputs[0]])
        places = range(starts.size) if axes is None else [int(a) % rank for a in axes.ravel()]
        at = list(places).index(axis) if axis in places else -1
        alone = at >= 0 and int(ends.flat[at]) - int(starts.flat[at]) == 1 and ends.flat[at] != 0
        if not alone or (steps is not None and steps.flat[at] != 1):
            return []
        return [Element(node.inputs[1], at), Element(node.inputs[2], at)]

    def _rule(self, node: Node) -> tuple[Rule, Pattern] | None:
        if node.position not in self._rules:
            self._rules[node.position] = self._looked_up(node)
        return self._rules[node.position]

    def _looked_up(self, node: Node) -> tuple[Rule, Pattern] | None:
        shape = self.here.shape
        given = tuple(shape.get(name) for name in node.inputs)
        after = tuple(shape.get(name) for name in node.outputs)
        version = self.graph.model.opset.get(node.domain, 1)
        values = tuple(self.here.known(name) for name in node.inputs)
        op = Op(node.proto, version, given, after, values)
        try:
            rule = lookup(op)
            return rule, expand(rule.pattern, ranks(given), ranks(after))
        except Unsupported:
            return None


def _places(rule: Rule, inputs: int) -> dict[str, list[tuple[int, int]]]:
    """By the names that shape inputs repeat: which slots, and which places in them."""
    found: dict[str, list[tuple[int, int]]] = {}
    for index, slot in enumerate(rule.slots):
        if isinstance(slot.where, int) and slot.where < inputs:
            for place, item in enumerate(slot.terms):
                for name in leaves(item[1]) if item is not None else ():
                    found.setdefault(name, []).append((index, place))
    return found


def _numbered(array: Array) -> Array:
    """The places of all elements, laid out as they are."""
    return np.arange(array.size).reshape(array.shape)
