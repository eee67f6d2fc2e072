"""Sizes and small values of every tensor, for one choice of the dynamic dimensions.

Symbolic input dimensions are bound to distinct sizes. Then one walk over the nodes, through the
bodies of If, Loop and Scan, takes shapes from onnx's inference and evaluates the small integer
chains that it leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from onnx import NodeProto, TensorProto

from onnx_net2net.analysis.dependence import Dependence
from onnx_net2net.analysis.onnx_inference import Ahead, Known, Shape
from onnx_net2net.analysis.rule_shapes import shapes_by_rule
from onnx_net2net.analysis.symbols import APART, PRIMES, bind, bound, candidates
from onnx_net2net.analysis.values import MOST, Array, evaluate, small
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.subgraphs import Link
from onnx_net2net.operators.types import FLOATS

INTEGERS = {TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8}
MOST_SCALES = 16  # elements; a longer float vector is a weight, not a parameter
MOST_TRIPS = 4096  # a higher bound of a loop is none
ITERATIONS = "iterations of "  # a Loop: what its number of trips is called among dynamic sizes


@dataclass
class Stored:
    """What is known of the weights, whatever the dynamic sizes."""

    shape: dict[str, Shape] = field(default_factory=dict)
    dtype: dict[str, int] = field(default_factory=dict)
    value: dict[str, Array] = field(default_factory=dict)  # shape-like
    scales: dict[str, Array] = field(default_factory=dict)  # small float weights, e.g. Resize's
    entries: dict[str, TensorProto] = field(default_factory=dict)
    candidates: tuple[tuple[int, ...], ...] = ()  # of dynamic sizes
    stuck: set[int] = field(default_factory=set)


@dataclass
class Shapes:
    """What is known of every tensor under ``binding``."""

    graph: Graph
    stored: Stored
    binding: dict[str, int]
    sizes: tuple[int, ...] = PRIMES
    alternative: bool = False  # of another choice, only to see what depends on it
    shape: dict[str, Shape] = field(default_factory=dict)
    dtype: dict[str, int] = field(default_factory=dict)
    value: dict[str, Array] = field(default_factory=dict)  # small constants and what they compute
    computed: set[int] = field(default_factory=set)  # positions of nodes that only compute sizes
    taken: dict[int, int] = field(default_factory=dict)  # If that always takes this branch
    dead: set[int] = field(default_factory=set)  # nodes in a branch that is never taken
    unsteady: set[str] = field(default_factory=set)  # loop states that change their shape
    unknown: int = 0

    def of(self, name: str) -> Shape | None:
        """The shape of a tensor, or None where it is unknown."""
        return self.shape.get(name)

    def known(self, name: str) -> Array | None:
        """A small constant that an operator may read as a parameter, or None."""
        found = self.value.get(name)
        return self.stored.scales.get(name) if found is None else found

    @cached_property
    def elsewhere(self) -> Shapes:
        """The same for other dynamic sizes."""
        used = set(self.binding.values())
        best: Shapes | None = None
        for sizes in dict.fromkeys(_without(used, c) for c in (*self.stored.candidates, (3,))):
            if sizes:
                found = infer_with(self.graph, self.stored, sizes, alternative=True)
                if best is None or found.unknown < best.unknown:
                    best = found
                if best.unknown <= self.unknown:
                    break
        assert best is not None
        return best

    @cached_property
    def coincidences(self) -> int:
        """How many sizes are equal here and not elsewhere: of them this choice shows too little."""
        others = self.elsewhere.shape
        pairs = {(1, 1)}
        for name, shape in self.shape.items():
            if len(other := others.get(name, ())) == len(shape):
                pairs.update(zip(shape, other, strict=True))
        return len(pairs) - len({here for here, _ in pairs})

    def apart(self) -> Shapes | None:
        """The same for the choice with the fewest coincidences, or None where that is this one."""
        best = self
        for sizes in APART if self.binding and self.coincidences else ():
            found = infer_with(self.graph, self.stored, sizes)
            found.__dict__["elsewhere"] = self.elsewhere
            if (found.unknown, found.coincidences) < (best.unknown, best.coincidences):
                best = found
            if not (best.unknown or best.coincidences):
                break
        return None if best is self else best

    def settled(self, name: str) -> bool:
        """Whether a value is the same for all dynamic sizes, so far as it can be proved."""
        if not self.binding or self.alternative:
            return True
        if name not in self.value:
            return False
        dependence = self.dependence()
        return not any(map(dependence.follows, dependence.elements(name)))

    def dependence(self) -> Dependence:
        """What may follow the dynamic sizes, as far as is known by now."""
        return Dependence(self.graph, self)


def infer(graph: Graph) -> Shapes:
    """Shapes under the first candidate sizes for which everything is known (else the best)."""
    best: Shapes | None = None
    stored = _stored(graph)
    for sizes in stored.candidates:
        found = infer_with(graph, stored, sizes)
        if best is None or found.unknown < best.unknown:
            best = found
        if not found.unknown or not found.binding:
            break
    assert best is not None
    return best


def _without(used: set[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size not in used)


def _stored(graph: Graph) -> Stored:
    stored = Stored()
    for name, weight in graph.model.weights.items():
        stored.shape[name], stored.dtype[name] = weight.shape, weight.dtype
        size = prod(weight.shape)
        if size <= (MOST if weight.dtype in INTEGERS else MOST_SCALES):
            array = weight.array()
            if small(array):
                stored.value[name] = array
            elif size <= MOST_SCALES and weight.dtype != TensorProto.STRING:
                stored.scales[name] = array
    stored.entries.update((entry.name, entry) for entry in graph.model.proto.graph.initializer)
    stored.candidates = candidates(_stated(graph, stored))
    return stored


def _stated(graph: Graph, stored: Stored) -> set[int]:
    """All sizes that the file states: of weights and inputs, and in small integer constants."""
    found = {size for shape in stored.shape.values() for size in shape}
    for value in graph.model.proto.graph.input:
        found.update(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    for array in stored.value.values():
        if array.dtype.kind in "iu":
            found.update(array.ravel().tolist())
    return found


def infer_with(
    graph: Graph,
    stored: Stored,
    sizes: tuple[int, ...],
    *,
    alternative: bool = False,
) -> Shapes:
    """Shapes for these sizes of the symbolic dimensions."""
    binding = bind(graph.model.proto.graph.input, sizes)
    return _inferred(Shapes(graph, stored, binding, sizes, alternative))


def infer_at(graph: Graph, binding: Mapping[str, int]) -> Shapes:
    """Shapes where each symbolic dimension, or expression of some, has the size in ``binding``."""
    return _inferred(Shapes(graph, _stored(graph), dict(binding)))


def _inferred(shapes: Shapes) -> Shapes:
    graph, stored = shapes.graph, shapes.stored
    shapes.shape.update(stored.shape)
    shapes.dtype.update(stored.dtype)
    shapes.value.update(stored.value)
    for value in graph.model.proto.graph.input:
        if value.name not in graph.model.weights:
            shapes.dtype[value.name] = value.type.tensor_type.elem_type
            shape = bound(value, shapes.binding)
            if shape is not None:
                shapes.shape[value.name] = shape
    _walk(shapes, graph.main)
    shapes.unknown = sum(not _is_known(shapes, node) for node in graph.nodes)
    return shapes


def _walk(shapes: Shapes, nodes: Sequence[Node]) -> None:
    """Infer and evaluate the nodes of one graph in order."""
    opset, stored = shapes.graph.model.opset, shapes.stored
    known = Known(stored.entries, shapes.shape, shapes.dtype, shapes.known, opset, stored.stuck)
    ahead = Ahead(nodes, known)
    for index, node in enumerate(nodes):
        if node.op == "Constant" and not node.domain:
            continue  # a weight, already known
        if node.bodies:
            _control(shapes, node)
            continue
        outputs = _value_of(shapes, node, opset.get("", 1))
        if outputs is not None:
            shapes.computed.add(node.position)
            for name, array in zip(node.outputs, outputs, strict=False):
                if name:
                    shapes.value[name] = array
                    shapes.shape[name] = array.shape
        elif not _is_known(shapes, node):
            _fill(shapes, node, ahead, index)


def _is_known(shapes: Shapes, node: Node) -> bool:
    known = shapes.shape
    return all(name in known or not name for name in node.outputs)


def _value_of(shapes: Shapes, node: Node, opset: int) -> list[Array] | None:
    if node.op in ("Shape", "Size") and not node.domain:
        shape = shapes.shape.get(node.inputs[0])
        return None if shape is None else [shape_value(node.proto, shape)]
    values: list[Array | None] = []
    for name in node.inputs:
        value = shapes.value.get(name) if name else None
        if value is None and name:
            return None
        values.append(value)
    return evaluate(node.proto, values, opset) if values else None


def shape_value(node: NodeProto, shape: Shape) -> Array:
    """What Shape or Size yields for a tensor of ``shape``."""
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64))
    given = {a.name: a.i for a in node.attribute}
    return np.asarray(shape[given.get("start", 0) : given.get("end", len(shape))], np.int64)


def _fill(shapes: Shapes, node: Node, ahead: Ahead, index: int) -> None:
    """Shapes of what ``node`` writes, from its rule where onnx does not know its domain."""
    given = [shapes.shape.get(name) if name else None for name in node.inputs]
    if node.opaque or any(s is None for s, n in zip(given, node.inputs, strict=True) if n):
        return  # what follows from an unknown shape is unknown
    if not node.domain:
        for name, dtype, shape in ahead.infer(index):
            if dtype:
                shapes.dtype[name] = dtype
            if shape is not None:
                shapes.shape.setdefault(name, shape)
    if not _is_known(shapes, node):
        # A rule may know the shapes of operators that onnx does not (other domains).
        version = shapes.graph.model.opset.get(node.domain, 1)
        values = [shapes.known(name) if name else None for name in node.inputs]
        found = shapes_by_rule(node, version, given, values) or ()
        for name, known in zip(node.outputs, found, strict=False):
            if name:
                shapes.shape.setdefault(name, known)
    # Operators of other domains give floats if they read any, else what they read first.
    types = [shapes.dtype[name] for name in node.inputs if name in shapes.dtype]
    chosen = next((t for t in types if t in FLOATS), types[0] if types else None)
    for name in node.outputs:
        if name and name not in shapes.dtype and chosen is not None:
            shapes.dtype[name] = chosen


def _control(shapes: Shapes, node: Node) -> None:
    """Shapes inside and behind an If, Loop or Scan."""
    assert node.links is not None
    for value in (v for body in node.bodies for v in body.proto.input):
        shapes.dtype[value.name] = value.type.tensor_type.elem_type
        if value.name in node.links.pinned:
            shapes.shape[value.name] = bound(value, shapes.binding) or ()
    unsteady: set[str] = set()  # inputs of the body that do not keep their shape
    while True:
        for link in node.links.enter:
            _enter(shapes, link, link.inner in unsteady)
        for body in node.bodies:
            _walk(shapes, body.nodes)
        known = shapes.shape
        carry = node.links.carry
        found = {c.outer for c in carry if known.get(c.outer) != known.get(c.inner)}
        if found <= unsteady:
            break
        unsteady |= found
        for body in node.bodies:
            _forget(shapes, body.nodes)
    if node.op == "If":
        return _branch(shapes, node)
    shapes.unsteady |= unsteady
    hidden = {link.inner for link in carry if link.outer in unsteady}
    for link in node.links.leave:
        if link.inner not in hidden:
            _leave(shapes, node, link)
    return None


def _enter(shapes: Shapes, link: Link, unsteady: bool) -> None:
    shape = None if unsteady else shapes.shape.get(link.outer)
    if shape is None:
        shapes.shape.pop(link.inner, None)
        return
    shapes.shape[link.inner] = tuple(link.without(shape))
    if link.outer in shapes.dtype:
        shapes.dtype[link.inner] = shapes.dtype[link.outer]


def _forget(shapes: Shapes, nodes: Sequence[Node]) -> None:
    for node in nodes:
        for body in node.bodies:
            _forget(shapes, body.nodes)
        shapes.computed.discard(node.position)
        if node.op != "Constant":
            for name in node.outputs:
                shapes.shape.pop(name, None)
                shapes.value.pop(name, None)


def _leave(shapes: Shapes, node: Node, link: Link) -> None:
    shape = shapes.shape.get(link.inner)
    length = iterations(shapes, node) if link.axis is not None else 1
    if link.inner in shapes.dtype:
        shapes.dtype[link.outer] = shapes.dtype[link.inner]
    if shape is not None and length is not None:
        shapes.shape[link.outer] = tuple(link.with_axis(shape, length))


def iterations(shapes: Shapes, node: Node) -> int | None:
    """How often a Loop or Scan runs; a stand-in where that is known only at run time."""
    assert node.links is not None
    if node.op == "Scan":
        walked = (link for link in node.links.enter if link.axis is not None)
        lengths = [shapes.shape[w.outer][w.axis or 0] for w in walked if w.outer in shapes.shape]
        return lengths[0] if lengths else None
    most = shapes.value.get(node.inputs[0]) if node.inputs[0] else None
    trips = int(most.reshape(-1)[0]) if most is not None else MOST_TRIPS + 1
    bounded = 0 <= trips <= MOST_TRIPS
    if bounded and _never_stops(shapes, node):
        return trips
    # Sizes that follow this one must be seen to vary: so there is another in ``elsewhere``.
    size = trips + shapes.alternative if bounded else shapes.sizes[-1]
    return shapes.binding.setdefault(ITERATIONS + node.name, size)


def _never_stops(shapes: Shapes, node: Node) -> bool:
    """Whether the condition of a Loop is true whatever the body computes."""
    start = node.inputs[1]
    if start and not _is_true(shapes, start):
        return False
    name, given = node.bodies[0].proto.output[0].name, node.bodies[0].proto.input[1].name
    while name != given and not _is_true(shapes, name):
        writer = shapes.graph.producer.get(name)
        if writer is None or writer.op not in ("Identity", "Cast"):
            return False
        name = writer.inputs[0]
    return True


def _is_true(shapes: Shapes, name: str) -> bool:
    value = shapes.value.get(name)
    return value is not None and bool(value.all()) and shapes.settled(name)


def _branch(shapes: Shapes, node: Node) -> None:
    """Shapes behind an If: of the branch taken if that is known, else those that agree."""
    assert node.links is not None
    condition = shapes.value.get(node.inputs[0])
    if condition is None:
        inner: dict[str, set[Shape | None]] = {}
        for link in node.links.leave:
            inner.setdefault(link.outer, set()).add(shapes.shape.get(link.inner))
        for link in node.links.leave:
            if len(inner[link.outer]) == 1:
                _leave(shapes, node, link)
        return
    chosen = 0 if condition.all() else 1
    links = [link for link in node.links.leave if link.body == chosen]
    for link in links:
        _leave(shapes, node, link)
    if not shapes.settled(node.inputs[0]):
        return
    shapes.taken[node.position] = chosen
    _bury(shapes, node.bodies[1 - chosen].nodes)
    if links and all(link.inner in shapes.value for link in links):
        shapes.computed.add(node.position)
        shapes.value.update((link.outer, shapes.value[link.inner]) for link in links)


def _bury(shapes: Shapes, nodes: Sequence[Node]) -> None:
    for node in nodes:
        shapes.dead.add(node.position)
        for body in node.bodies:
            _bury(shapes, body.nodes)
