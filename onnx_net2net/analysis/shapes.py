"""Sizes and small values of every tensor: at one choice of the dynamic sizes, and as formulas.

Symbolic input dimensions are bound to distinct sizes. Then one walk over the nodes, also through
bodies, takes shapes from onnx's inference and evaluates the small integer chains that it leaves
open. Beside them it computes what they are whatever the dynamic sizes, by rules and by arithmetic.
What depends on data, or has no formula, is a symbol of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from onnx_net2net.algebra.sizes import AnySize, Size, trial, unknown
from onnx_net2net.analysis.onnx_inference import Ahead, Known, Shape
from onnx_net2net.analysis.rule_shapes import RuleSizes, Sizes, sizes_by_rule
from onnx_net2net.analysis.stored import StoredFacts
from onnx_net2net.analysis.symbols import CANDIDATES, bind, bound, sized
from onnx_net2net.analysis.values import evaluate, evaluate_symbols, is_symbolic, shape_value
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.subgraphs import Link
from onnx_net2net.operators.language import Op, Unsupported
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.operators.values import Array

MOST_TRIPS = 4096  # a higher bound of a loop is none
NUMBERS = (31, 37, 41, 43, 47, 53, 59, 61, 67, 71)  # trial values of what depends on data
ITERATIONS = "iterations of "  # a Loop: what its number of trips is called among dynamic sizes


@dataclass
class Shapes:
    """What is known of every tensor: numbers under ``binding``, formulas where they vary."""

    graph: Graph
    stored: StoredFacts
    binding: dict[str, int]
    fixed: bool = False  # under ``binding`` only, without formulas
    shape: dict[str, Shape] = field(default_factory=dict)
    sizes: dict[str, Sizes] = field(default_factory=dict)  # of the shapes that vary
    dtype: dict[str, int] = field(default_factory=dict)
    value: dict[str, Array] = field(default_factory=dict)  # small constants and what they compute
    formula: dict[str, Array] = field(default_factory=dict)  # of the values that vary
    # What rules say, by position of the node, or why one says nothing.
    by_rule: dict[int, RuleSizes | str] = field(default_factory=dict)
    computed: set[int] = field(default_factory=set)  # positions of nodes that only compute sizes
    taken: dict[int, int] = field(default_factory=dict)  # If that always takes this branch
    dead: set[int] = field(default_factory=set)  # nodes in a branch that is never taken
    unsteady: set[str] = field(default_factory=set)  # loop states that change their shape
    misfits: list[str] = field(default_factory=list)  # formulas that are not what was inferred
    numbers: Iterator[int] = field(default_factory=lambda: cycle(NUMBERS))  # still to be tried
    unknown: int = 0

    def of(self, name: str) -> Shape | None:
        """Return the shape of a tensor under ``binding``, or None where it is unknown."""
        return self.shape.get(name)

    def sizes_of(self, name: str) -> Sizes | None:
        """Return the sizes of a tensor, symbols where they vary, None where they are unknown."""
        return self.sizes.get(name) or self.shape.get(name)

    def known(self, name: str) -> Array | None:
        """Return a small constant that an operator may read as a parameter, or None."""
        value = self.value.get(name)
        return self.stored.scales.get(name) if value is None else value

    def elements(self, name: str) -> Array | None:
        """Return the same with symbols where it varies."""
        formula = self.formula.get(name)
        return self.known(name) if formula is None else formula

    def settled(self, name: str) -> bool:
        """Return whether a value is the same for all dynamic sizes."""
        return self.known(name) is not None and name not in self.formula

    def put(self, name: str, sizes: Sequence[AnySize]) -> None:
        """Note the sizes of a tensor."""
        self.shape[name] = tuple([int(trial(size)) for size in sizes])
        if any(isinstance(size, Size) for size in sizes):
            self.sizes[name] = tuple(sizes)
        else:
            self.sizes.pop(name, None)

    def fresh(self, name: str, axis: int, number: int | None = None) -> AnySize:
        """Return a symbol for the size of an axis that depends on data."""
        number = next(self.numbers) if number is None else number
        return number if self.fixed else unknown(f"{name}[{axis}]", number, 0)


def infer(graph: Graph) -> Shapes:
    """Return shapes under the first candidate sizes that make all known (else under the best)."""
    best: Shapes | None = None
    stored = StoredFacts.of(graph)
    for sizes in CANDIDATES:
        shapes = _inferred(Shapes(graph, stored, bind(graph.model.proto.graph.input, sizes)))
        if best is None or shapes.unknown < best.unknown:
            best = shapes
        if not shapes.unknown or not shapes.binding:
            break
    assert best is not None
    return best


def infer_at(graph: Graph, binding: Mapping[str, int]) -> Shapes:
    """Return shapes where each symbolic dimension, or expression, has the size in ``binding``."""
    return _inferred(Shapes(graph, StoredFacts.of(graph), dict(binding), fixed=True))


def _inferred(shapes: Shapes) -> Shapes:
    """Return ``shapes``, filled in for the whole graph."""
    graph, stored = shapes.graph, shapes.stored
    shapes.shape.update(stored.shape)
    shapes.dtype.update(stored.dtype)
    shapes.value.update(stored.value)
    for value in graph.model.proto.graph.input:
        if value.name not in graph.model.weights:
            shapes.dtype[value.name] = value.type.tensor_type.elem_type
            if shapes.fixed:
                sizes: Sizes | None = bound(value, shapes.binding)
            else:
                sizes = sized(value, shapes.binding)
            if sizes is not None:
                shapes.put(value.name, sizes)
    _walk(shapes, graph.main)
    # Where formulas do not fit what was inferred, no network runs at these sizes.
    shapes.unknown = bool(shapes.misfits) + sum(not _is_known(shapes, node) for node in graph.nodes)
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
        elif not _evaluated(shapes, node, opset.get("", 1)):
            if not _is_known(shapes, node):
                _fill(shapes, node, ahead, index)
            if any(n in shapes.sizes or n in shapes.formula for n in node.inputs + node.outputs):
                _add_formulas(shapes, node)


def _is_known(shapes: Shapes, node: Node) -> bool:
    known = shapes.shape
    return all(name in known or not name for name in node.outputs)


def _evaluated(shapes: Shapes, node: Node, opset: int) -> bool:
    """Return whether the node computes small values, always as many, from others; note them."""
    elements: list[Array] | None = None
    if node.facts.measures:
        sizes = shapes.sizes_of(node.inputs[0])
        if sizes is None:
            return False
        numbers = [shape_value(node.proto, shapes.shape[node.inputs[0]])]
        elements = [shape_value(node.proto, sizes)]
    else:
        given = [shapes.value.get(name) if name else None for name in node.inputs]
        if not given or any(v is None for v, n in zip(given, node.inputs, strict=True) if n):
            return False
        arrays = evaluate(node.proto, given, opset)
        if arrays is None:
            return False
        numbers = arrays
        if any(name in shapes.formula for name in node.inputs):
            terms = [
                shapes.formula.get(name, v) for name, v in zip(node.inputs, given, strict=True)
            ]
            elements = evaluate_symbols(node.proto, terms, numbers, opset)
            if elements is None:
                return False
    shapes.computed.add(node.position)
    for index, (name, array) in enumerate(zip(node.outputs, numbers, strict=False)):
        if name:
            shapes.value[name] = array
            shapes.shape[name] = array.shape
            if elements is not None and is_symbolic(elements[index]):
                shapes.formula[name] = elements[index]
    return True


def _fill(shapes: Shapes, node: Node, ahead: Ahead, index: int) -> None:
    """Infer the shapes of what ``node`` writes, by its rule where onnx does not know its domain."""
    given = [shapes.shape.get(name) if name else None for name in node.inputs]
    if node.opaque or any(s is None for s, n in zip(given, node.inputs, strict=True) if n):
        return  # what follows from an unknown shape is unknown
    if not node.domain:
        for name, dtype, partial in ahead.infer(index):
            if dtype:
                shapes.dtype[name] = dtype
            if partial is not None and None not in partial:
                shapes.shape.setdefault(name, partial)  # type: ignore[arg-type]
            elif partial is not None and name in node.outputs:
                _complete(shapes, node, name, partial)
    if not _is_known(shapes, node):
        # A rule may know the shapes of operators that onnx does not (other domains).
        by_rule = _by_rule(shapes, node, None)
        for name, sizes in zip(node.outputs, by_rule.outputs if by_rule else (), strict=False):
            if name and None not in sizes and all(trial(size) > 0 for size in sizes):
                shapes.put(name, sizes)  # type: ignore[arg-type]
    # Operators of other domains give floats if they read any, else what they read first.
    types = [shapes.dtype[name] for name in node.inputs if name in shapes.dtype]
    chosen = next((t for t in types if t in FLOATS), types[0] if types else None)
    for name in node.outputs:
        if name and name not in shapes.dtype and chosen is not None:
            shapes.dtype[name] = chosen


def _complete(shapes: Shapes, node: Node, name: str, partial: Sequence[int | None]) -> None:
    """Add sizes that onnx does not know: by the rule, else as symbols that depend on data."""
    index = node.outputs.index(name)
    ranks = [len(partial) if output == name else None for output in node.outputs]
    by_rule = _by_rule(shapes, node, ranks)
    sizes = by_rule.outputs[index] if by_rule and index < len(by_rule.outputs) else ()
    chosen: list[AnySize] = []
    for axis, number in enumerate(partial):
        size = sizes[axis] if number is None and axis < len(sizes) else number
        chosen.append(shapes.fresh(name, axis) if size is None else size)
    shapes.put(name, chosen)


def _by_rule(shapes: Shapes, node: Node, ranks: Sequence[int | None] | None) -> RuleSizes | None:
    """Return what the rule of a node says of its outputs; None, and note why, if nothing."""
    op = Op(
        node.proto,
        shapes.graph.model.opset.get(node.domain, 1),
        tuple([shapes.sizes_of(name) if name else None for name in node.inputs]),
        (None,) * len(node.outputs),
        tuple([shapes.elements(name) if name else None for name in node.inputs]),
    )
    try:
        return sizes_by_rule(op, ranks)
    except Unsupported as problem:
        shapes.by_rule[node.position] = str(problem)
    return None


def _add_formulas(shapes: Shapes, node: Node) -> None:
    """Add formulas for the sizes of what ``node`` writes, where any it reads vary."""
    known = [shapes.shape.get(name) for name in node.outputs]
    by_rule = _by_rule(shapes, node, [None if shape is None else len(shape) for shape in known])
    for index, (name, shape) in enumerate(zip(node.outputs, known, strict=True)):
        if name and shape is not None:
            sizes = by_rule.outputs[index] if by_rule and index < len(by_rule.outputs) else ()
            agreed = _agreed(shapes, name, sizes, shape)
            shapes.put(name, agreed)
            for axis, (one, other) in enumerate(zip(sizes, agreed, strict=False)):
                if by_rule is not None and one is not None and one != other:
                    shapes.misfits.append(f"{node.label}: axis {axis} is {shape[axis]}, not {one}")
                    by_rule.forget(index, axis)
    if by_rule is not None:
        shapes.by_rule[node.position] = by_rule


def _agreed(
    shapes: Shapes, name: str, sizes: Sequence[AnySize | None], shape: Shape
) -> list[AnySize]:
    """Return ``sizes`` where they are ``shape`` under the binding, else symbols of their own."""
    own = shapes.sizes.get(name, ())
    agreed: list[AnySize] = []
    for axis, number in enumerate(shape):
        size = sizes[axis] if axis < len(sizes) else None
        if size is None or trial(size) != number:
            size = own[axis] if own else shapes.fresh(name, axis, number)
        agreed.append(size)
    return agreed


def _control(shapes: Shapes, node: Node) -> None:
    """Infer the shapes inside and behind an If, Loop or Scan."""
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
        known = shapes.sizes_of
        carry = node.links.carry
        changing = {c.outer for c in carry if known(c.outer) != known(c.inner)}
        if changing <= unsteady:
            break
        unsteady |= changing
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
    """Give an input of a body the shape of what goes in, none where it is unsteady."""
    sizes = None if unsteady else shapes.sizes_of(link.outer)
    if sizes is None:
        shapes.shape.pop(link.inner, None)
        shapes.sizes.pop(link.inner, None)
        return
    shapes.put(link.inner, link.without(sizes))
    if link.outer in shapes.dtype:
        shapes.dtype[link.inner] = shapes.dtype[link.outer]


def _forget(shapes: Shapes, nodes: Sequence[Node]) -> None:
    """Remove what was inferred of the nodes of a body."""
    for node in nodes:
        for body in node.bodies:
            _forget(shapes, body.nodes)
        shapes.computed.discard(node.position)
        shapes.by_rule.pop(node.position, None)
        if node.op != "Constant":
            for name in node.outputs:
                for known in (shapes.shape, shapes.sizes, shapes.value, shapes.formula):
                    known.pop(name, None)


def _leave(shapes: Shapes, node: Node, link: Link) -> None:
    """Give an output of a node the shape of what comes out of its body."""
    sizes = shapes.sizes_of(link.inner)
    length = iterations(shapes, node) if link.axis is not None else 1
    if link.inner in shapes.dtype:
        shapes.dtype[link.outer] = shapes.dtype[link.inner]
    if sizes is not None and length is not None:
        shapes.put(link.outer, link.with_axis(sizes, length))


def iterations(shapes: Shapes, node: Node) -> AnySize | None:
    """Return how often a Loop or Scan runs; a symbol where that is known only at run time."""
    assert node.links is not None
    if node.op == "Scan":
        walked = (link for link in node.links.enter if link.axis is not None)
        known = [(shapes.sizes_of(link.outer), link.axis or 0) for link in walked]
        return next((sizes[axis] for sizes, axis in known if sizes is not None), None)
    most = shapes.elements(node.inputs[0]) if node.inputs[0] else None
    trips = MOST_TRIPS + 1 if most is None else most.reshape(-1)[0]
    bounded = 0 <= trial(trips) <= MOST_TRIPS
    if bounded and _never_stops(shapes, node):
        return trips if isinstance(trips, Size) else int(trips)
    name = ITERATIONS + node.name
    size = shapes.binding.setdefault(name, int(trial(trips)) if bounded else NUMBERS[0])
    return size if shapes.fixed else unknown(name, size, 0)


def _never_stops(shapes: Shapes, node: Node) -> bool:
    """Return whether the condition of a Loop is true whatever the body computes."""
    start = node.inputs[1]
    if start and not _is_true(shapes, start):
        return False
    name, given = node.bodies[0].proto.output[0].name, node.bodies[0].proto.input[1].name
    while name != given and not _is_true(shapes, name):
        writer = shapes.graph.producer.get(name)
        if writer is None or not writer.facts.in_place:
            return False
        name = writer.inputs[0]
    return True


def _is_true(shapes: Shapes, name: str) -> bool:
    value = shapes.value.get(name)
    return value is not None and bool(value.all()) and shapes.settled(name)


def _branch(shapes: Shapes, node: Node) -> None:
    """Infer the shapes behind an If: of the branch taken if known, else those that agree."""
    assert node.links is not None
    condition = shapes.value.get(node.inputs[0])
    chosen = None if condition is None else 0 if condition.all() else 1
    settled = shapes.settled(node.inputs[0])
    for link in node.links.leave:
        ways = [k for k in node.links.leave if k.outer == link.outer]
        if link.body == (chosen or 0):
            _join(shapes, node, [link] if settled else ways, link, chosen is not None)
    if not settled or chosen is None:
        return
    shapes.taken[node.position] = chosen
    _bury(shapes, node.bodies[1 - chosen].nodes)
    links = [link for link in node.links.leave if link.body == chosen]
    if links and all(link.inner in shapes.value for link in links):
        shapes.computed.add(node.position)
        for link in links:
            shapes.value[link.outer] = shapes.value[link.inner]
            if link.inner in shapes.formula:
                shapes.formula[link.outer] = shapes.formula[link.inner]


def _join(shapes: Shapes, node: Node, ways: list[Link], taken: Link, sure: bool) -> None:
    """Infer the shape of what one of several ways gives: ``taken``, if ``sure`` at the trial."""
    shape = shapes.shape.get(taken.inner)
    others = [shapes.sizes_of(link.inner) for link in ways]
    if shape is None or (not sure and any(shapes.shape.get(k.inner) != shape for k in ways)):
        return
    _leave(shapes, node, taken)
    if any(sizes is None or len(sizes) != len(shape) for sizes in others):
        agreed: list[AnySize | None] = [None] * len(shape)
    else:
        agreed = [s[0] if s.count(s[0]) == len(s) else None for s in zip(*others, strict=True)]
    shapes.sizes.pop(taken.outer, None)
    shapes.put(taken.outer, _agreed(shapes, taken.outer, agreed, shape))


def _bury(shapes: Shapes, nodes: Sequence[Node]) -> None:
    """Note that the nodes of a branch never run."""
    for node in nodes:
        shapes.dead.add(node.position)
        for body in node.bodies:
            _bury(shapes, body.nodes)
