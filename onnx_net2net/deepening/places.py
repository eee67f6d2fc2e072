"""Where a layer can be inserted: a tensor with a channel axis, and what its neighbourhood is like.

place = place_of(analysis, "layer1.0.conv1")
place.tensor, place.channels, place.activation.op      # behind the unit's norm and activation
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import NodeProto

from onnx_net2net.algebra.axes import atoms
from onnx_net2net.algebra.sizes import AT_RUN_TIME
from onnx_net2net.deepening.masks import mask_in
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.language import Op
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.dimensions import Analysis, title, written
from onnx_net2net.widening.naming import begun, called, inside, near

# How far a tensor's neighbourhood reaches, in nodes.
_NEAR = 12


@dataclass(frozen=True)
class Place:
    """A tensor and its surroundings.

    ``tensor`` has ``channels`` along ``axis`` of ``rank`` axes. ``writer`` is the nearest node
    before it that has weights, ``norm`` a BatchNormalization between the two, ``activation`` the
    one that gives the tensor, ``nearby`` another of the neighbourhood where it is not idempotent.
    """

    name: str
    tensor: str
    producer: Node
    axis: int
    rank: int
    channels: int
    dtype: int
    writer: Node | None
    norm: Node | None
    activation: Node | None
    nearby: Node | None

    @property
    def idempotent(self) -> bool:
        """Return whether the tensor is what an activation f with f(f(x)) = f(x) gives."""
        return self.activation is not None and self.activation.facts.idempotent

    @property
    def convolved(self) -> bool:
        """Return whether space comes after the channels, as in a convolution."""
        return self.axis == 1 and self.rank > 2


def places_of(analysis: Analysis, wanted: list[str]) -> list[Place]:
    """Return the places that names and globs mean, in graph order, each once.

    Raises UsageError for a name that the graph does not have, Refused where no layer fits.
    """
    places: dict[str, Place] = {}
    for name in wanted:
        if any(mark in name for mark in "*?["):
            matching = [p for p in every_place(analysis) if fnmatchcase(p.name, name)]
            if not matching:
                raise UsageError(f"no layer matches '{name}'", _hint(analysis, name))
            places.update((place.tensor, place) for place in matching)
        else:
            place = place_of(analysis, name)
            places[place.tensor] = place
    return sorted(places.values(), key=lambda place: place.producer.position)


def every_place(analysis: Analysis) -> Iterator[Place]:
    """Yield one place behind each layer with weights, in graph order, where a layer fits."""
    seen = set()
    for node in (node for node in analysis.graph.main if writes(analysis, node)):
        tensor = _end_of_unit(analysis, node)
        if tensor not in seen:
            seen.add(tensor)
            try:
                yield place_at(analysis, _title(analysis, node), tensor)
            except Refused:
                continue


def place_of(analysis: Analysis, name: str) -> Place:
    """Return the place that ``name`` means: a tensor, or behind the unit of a node or module."""
    graph, applied = analysis.graph, analysis.solution.applied
    if name in graph.inputs:
        raise Refused(name, "it is an input of the network", "choose a layer behind it")
    nodes = [n for n in called(graph, name) if n.position in applied]
    nodes = [n for n in nodes if n.parent is None] or nodes
    own = inside(graph, name)
    if name in graph.producer and all(n.parent is not None for n in nodes or own):
        return place_at(analysis, name, name)
    layers = [n for n in nodes or own or begun(graph, name) if writes(analysis, n)]
    if not nodes and not layers:
        problem = f"there is no node, tensor, parameter or module '{name}'"
        raise UsageError(problem, _hint(analysis, name))
    if not nodes and len({_end_of_unit(analysis, node) for node in layers}) > 1:
        titles = dict.fromkeys(_title(analysis, node) for node in layers)
        raise UsageError(f"'{name}' holds several layers", f"name one: {', '.join(titles)}")
    return place_at(analysis, name, _end_of_unit(analysis, (layers or nodes)[-1]))


def _title(analysis: Analysis, node: Node) -> str:
    return title(analysis.solution, analysis.solution.applied[node.position])


def writes(analysis: Analysis, node: Node) -> bool:
    """Return whether a node's weights give it its output channels."""
    applied = analysis.solution.applied.get(node.position)
    if applied is None or node.outputs[0] in analysis.graph.derived:
        return False
    contracted = [name for name in applied.pattern.contracted if name in applied.env]
    return bool(contracted) and bool(written(analysis.solution, applied))


def _end_of_unit(analysis: Analysis, node: Node) -> str:
    """Return the tensor behind the norm and the activation that belong to ``node`` alone."""
    graph = analysis.graph
    tensor = node.outputs[0]
    while tensor not in graph.results and (readers := graph.consumers.get(tensor)):
        reader, index = readers[0]
        norm = analysis.norms.get(reader.position)
        if norm is not None and norm.summands == (tensor,):
            alone = {other.position for other, _ in readers} <= norm.nodes
            last, others = norm.node, [norm.scale, norm.bias]
        else:
            alone = len(readers) == 1 and index == 0 and _continues(analysis, reader)
            last, others = reader, [*reader.inputs[1:]]
        own = alone and last.parent is node.parent and not any(last.outputs[1:])
        if not own or any(name and name not in graph.derived for name in others):
            break
        tensor = last.outputs[0]
    return tensor


def _continues(analysis: Analysis, node: Node) -> bool:
    """Return whether ``node`` only norms, shifts or activates its first input."""
    if node.position not in analysis.solution.applied or node.domain:
        return False
    shifts = node.op == "Add" and any(node.inputs[1:])
    return shifts or node.op == "BatchNormalization" or node.facts.activation


def place_at(analysis: Analysis, name: str, tensor: str) -> Place:
    """Return the place behind ``tensor``, called ``name``. Raises Refused where no layer fits."""
    solution = analysis.solution
    producer = solution.graph.producer.get(tensor)
    if producer is None:
        raise Refused(name, "it writes nothing that others could read", "choose another layer")
    axes, dtype = solution.axes.get(tensor), solution.shapes.dtype.get(tensor)
    if axes is None or producer.position not in solution.applied:
        raise Refused(name, f"nothing is known of the axes of '{tensor}'", "choose another layer")
    if producer.parent is not None:
        where = f"'{tensor}' lies in the body of {producer.parent.label}"
        raise Refused(name, where, "choose a layer of the main graph")
    if dtype not in FLOATS:
        raise Refused(name, f"'{tensor}' holds no real numbers", "choose another layer")
    if (mask := mask_in(analysis, tensor)) is not None:
        reason = f"'{tensor}' holds numbers out of range ('{mask}'), of which a layer makes NaN"
        raise Refused(name, reason, "choose a layer before the mask, or behind its Softmax")
    graph = analysis.graph
    before = list(
        _near(tensor, lambda t: [graph.producer[t]] if t in graph.producer else [],
              lambda node: [i for i in node.inputs if i not in graph.derived])
    )  # fmt: skip
    behind = _near(
        tensor, lambda t: [n for n, _ in graph.consumers.get(t, [])], lambda n: n.outputs
    )
    writer = next((node for node in before if writes(analysis, node)), None)
    axis = _channel_axis(analysis, name, tensor, writer)
    width = axes[axis].size
    if not isinstance(width, int):
        raise Refused(name, f"the width of '{tensor}' {AT_RUN_TIME}", "choose another layer")
    norm = next((n for n in before if n.op == "BatchNormalization"), None)
    return Place(
        name,
        tensor,
        producer,
        axis,
        len(axes),
        width,
        dtype,
        writer,
        norm if norm and (writer is None or norm.position > writer.position) else None,
        producer if producer.facts.activation else None,
        next(_activations(analysis, producer, (*before, *behind)), None),
    )


def _activations(analysis: Analysis, producer: Node, nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield those of ``nodes`` that could stand behind ``producer``: their bounds are known there,
    and of its type.
    """
    writers, dtypes = analysis.graph.producer, analysis.solution.shapes.dtype
    for node in nodes:
        sources = (writers.get(name) for name in node.inputs[1:] if name)
        known = all(s is None or s.position < producer.position for s in sources)
        alike = dtypes.get(node.outputs[0]) == dtypes.get(producer.outputs[0])
        # What stands in a body may read what is known nowhere else.
        if node.facts.activation and known and alike and node.parent is None:
            yield node


def _channel_axis(analysis: Analysis, name: str, tensor: str, writer: Node | None) -> int:
    """Return the axis that the weights before it give, or the only one that could grow."""
    axes = analysis.solution.axes[tensor]
    given: list[int] = []
    if writer is not None:
        outputs = written(analysis.solution, analysis.solution.applied[writer.position])
        free = {free for axis in outputs for free in atoms(axis)}
        given = [i for i, axis in enumerate(axes) if not free.isdisjoint(atoms(axis))]
    if len(given) != 1:
        free = {d.atom for d in analysis.dimensions if d.grows}
        given = [i for i, axis in enumerate(axes) if not free.isdisjoint(atoms(axis))]
    if len(given) == 1 and given[0] in (1, len(axes) - 1):
        return given[0]
    raise Refused(
        name,
        f"the channel axis of '{tensor}' is not clear: of its {len(axes)} axes, weights give "
        f"{', '.join(map(str, given)) or 'none'}",
        "choose a layer whose output has its channels last, or behind the batch",
    )


def _near(
    tensor: str, nodes: Callable[[str], list[Node]], tensors: Callable[[Node], Iterable[str]]
) -> Iterator[Node]:
    """Yield the nodes around ``tensor``, nearest first, by way of the ``tensors`` of each."""
    pending, seen = [tensor], set[int]()
    for _ in range(_NEAR):
        if not pending:
            return
        for node in nodes(pending.pop(0)):
            if node.position not in seen:
                seen.add(node.position)
                yield node
                pending += filter(None, tensors(node))


def _hint(analysis: Analysis, name: str) -> str:
    """Return what may have been meant by the name of a layer."""
    known = [place.name for place in every_place(analysis)]
    listed = "'onnx-net2net inspect MODEL' lists the layers as writers of dimensions"
    return near(name, known, listed=listed)


def kernel_of(proto: NodeProto) -> tuple[int, ...]:
    """Return the window of a convolution."""
    op = Op(proto, 1, (), (), ())
    return tuple(op.attr("kernel_shape", ()))
