"""A model cut into segments that run one after the other, so that memory holds one at a time.

>>> segments = cut(model)                            # in the order of its nodes
>>> [segment.writes for segment in segments]         # what crosses into later ones, and outputs
[['layer3_output'], ['layer7_output'], ['logits']]
>>> part(model, segments[1], {"layer3_output": "tensor(float)"})   # a model of its own

Any place between two nodes is right to cut at. Narrow ones, where few tensors are needed on both
sides, keep what crosses small. Only the graph is looked at, and nothing is known of growth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from onnx import ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from onnx_net2net.model.model import Model
from onnx_net2net.model.schemas import schema_of
from onnx_net2net.model.subgraphs import captured
from onnx_net2net.model.tensors import nodes
from onnx_net2net.operators import facts

__all__ = ["LIMITS", "UNLIMITED", "Limits", "Segment", "cut", "part"]


@dataclass(frozen=True)
class Limits:
    """What one segment may hold, unless it is a single node."""

    nbytes: int = 256 << 20
    nodes: int = 2000


LIMITS, UNLIMITED = Limits(), Limits(1 << 62, 1 << 62)


@dataclass(frozen=True)
class Segment:
    """Consecutive nodes of the main graph, the Constants that they read included.

    ``reads`` are tensors of earlier segments and inputs of the model, ``last`` those of them that
    no later segment reads, ``writes`` the outputs of the model and what later segments read.
    """

    nodes: Sequence[NodeProto]
    weights: Sequence[TensorProto]
    reads: Sequence[str]
    last: Collection[str]
    writes: Sequence[str]
    nbytes: int


def cut(
    model: Model, limits: Limits = LIMITS, preferred: Collection[str] = frozenset()
) -> list[Segment]:
    """Return the segments of a model: one where it is small, or where it cannot be cut.

    ``preferred`` are tensors that had better be the ones that cross.
    """
    graph = _Indexed(model)
    if graph.nbytes(range(len(graph.nodes))) <= limits.nbytes and len(graph.nodes) <= limits.nodes:
        return [graph.segment(0, len(graph.nodes))]
    if not all(map(_is_tensor, (*model.proto.graph.input, *model.proto.graph.output))):
        return [graph.segment(0, len(graph.nodes))]
    if any(_stays_inside(node, model.opset) for node in nodes(model.proto.graph)):
        return [graph.segment(0, len(graph.nodes))]
    places = [0, *_places(graph, limits, preferred), len(graph.nodes)]
    segments = (graph.segment(start, end) for start, end in pairwise(places))
    return [segment for segment in segments if segment.writes]  # of others nothing is needed


def _is_tensor(value: ValueInfoProto) -> bool:
    """Return whether it can be handed from one session to another: a tensor, of numbers."""
    kind = value.type.WhichOneof("value")
    numbers = value.type.tensor_type.elem_type != TensorProto.STRING
    return kind is None or (kind == "tensor_type" and numbers)


def _stays_inside(node: NodeProto, opsets: Mapping[str, int]) -> bool:
    """Return whether it gives an optional value, which onnxruntime hands out unwrapped.

    Or whether it draws random numbers, which each new session would draw again.
    """
    schema = schema_of(node, opsets)
    kinds = [kind for output in schema.outputs for kind in output.types] if schema else []
    optional = bool(kinds) and all(kind.startswith("optional(") for kind in kinds)
    return optional or facts(node.op_type, node.domain).draws(node.input)


@dataclass
class _Indexed:
    """The main graph of a model: Constants count as weights, for every segment can hold its own."""

    model: Model
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NodeProto] = field(default_factory=dict)
    reads: list[list[str]] = field(default_factory=list)  # of each node, captured names included
    writer: dict[str, int] = field(default_factory=dict)
    reader: dict[str, int] = field(default_factory=dict)  # the last one

    def __post_init__(self) -> None:
        graph = self.model.proto.graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = [value.name for value in graph.output]
        for node in graph.node:
            if node.op_type == "Constant" and not node.input and len(node.output) == 1:
                self.constants[node.output[0]] = node
                continue
            at = len(self.nodes)
            self.nodes.append(node)
            self.reads.append([*filter(None, node.input), *sorted(captured(node))])
            self.reader.update((name, at) for name in self.reads[-1])
            self.writer.update((name, at) for name in node.output if name)
        # An output that no node writes, an input or a weight, is given by the last segment.
        unwritten = [name for name in self.outputs if name not in self.writer]
        self.reader.update((name, len(self.nodes)) for name in unwritten)
        self.unwritten = unwritten

    def size(self, name: str) -> int:
        """Return the bytes of a weight or a Constant, 0 for other tensors."""
        if name in self.model.weights and name in self.weights:
            return self.model.weights[name].nbytes
        return self.constants[name].ByteSize() if name in self.constants else 0

    def nbytes(self, positions: range) -> int:
        """Return the bytes of all that these nodes read."""
        return sum(map(self.size, {name for at in positions for name in self.reads[at]}))

    def segment(self, start: int, end: int) -> Segment:
        """Return the nodes from ``start`` to ``end`` as a segment."""
        names = dict.fromkeys(name for reads in self.reads[start:end] for name in reads)
        if end == len(self.nodes):
            names |= dict.fromkeys(self.unwritten)
        written = dict.fromkeys(n for node in self.nodes[start:end] for n in node.output if n)
        held = {*self.weights, *self.constants} & names.keys()
        reads = [name for name in names if name not in held and name not in written]
        outputs = {*self.outputs}
        return Segment(
            [*(self.constants[n] for n in names if n in self.constants), *self.nodes[start:end]],
            [self.weights[name] for name in names if name in self.weights],
            reads,
            {name for name in reads if self.reader[name] < end or end == len(self.nodes)},
            [
                name
                for name in (*written, *(self.unwritten if end == len(self.nodes) else ()))
                if name in outputs or self.reader.get(name, 0) >= end
            ],
            sum(map(self.size, names)),
        )


def _places(graph: _Indexed, limits: Limits, preferred: Collection[str]) -> Iterator[int]:
    """Yield before which nodes to cut: at the narrowest places from half of the limits on."""
    count = len(graph.nodes)
    changes, others = [0] * (count + 2), [0] * (count + 2)
    for name, at in graph.writer.items():
        for counted in (changes,) if name in preferred else (changes, others):
            counted[at + 1] += 1
            counted[graph.reader.get(name, at) + 1] -= 1
    crossing, unwanted = list(accumulate(changes)), list(accumulate(others))
    start = 0
    while True:
        half, end = _extent(graph, limits, start)
        if end == count:
            return
        places = [at for at in range(start + 1, half) if preferred and not unwanted[at]]
        places += range(half, end + 1)
        start = min(places, key=lambda at: (unwanted[at], crossing[at], -at))
        yield start


def _extent(graph: _Indexed, limits: Limits, start: int) -> tuple[int, int]:
    """Return where a segment from ``start`` on has half of what it may hold, and all of it."""
    held: set[str] = set()
    nbytes, half = 0, None
    most = min(len(graph.nodes), start + limits.nodes)
    for at in range(start, most):
        more = {*graph.reads[at]} - held
        nbytes += sum(map(graph.size, more))
        if nbytes > limits.nbytes and at > start:
            return half or at, at
        held |= more
        if half is None and (2 * nbytes >= limits.nbytes or 2 * (at + 1 - start) >= limits.nodes):
            half = at + 1
    return half or most, most


# A segment as a model ------------------------------------------------------------------------


def part(model: Model, segment: Segment, kinds: Mapping[str, str]) -> Model:
    """Return a model of one segment.

    ``kinds`` are the types of the tensors that it reads from earlier ones, as onnxruntime has them.
    """
    source, declared = model.proto, model.derived(_declared)
    inputs = {value.name for value in source.graph.input}
    proto = ModelProto(ir_version=source.ir_version, opset_import=source.opset_import)
    graph = proto.graph
    graph.name = source.graph.name
    graph.node.extend(segment.nodes)
    graph.initializer.extend(segment.weights)
    for name in segment.reads:
        graph.input.append(declared[name] if name in inputs else _value(name, kinds[name]))
    graph.output.extend(declared.get(name, ValueInfoProto(name=name)) for name in segment.writes)
    inner = {name for node in segment.nodes for name in node.output}.difference(segment.writes)
    graph.value_info.extend(declared[name] for name in sorted(inner & declared.keys()))
    return model.with_changes(proto, {})


def _declared(model: Model) -> dict[str, ValueInfoProto]:
    """Return what the file says of the types of tensors."""
    graph = model.proto.graph
    return {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}


def _value(name: str, kind: str) -> ValueInfoProto:
    value = ValueInfoProto(name=name)
    _set_type(value.type, kind)
    return value


def _set_type(target: TypeProto, kind: str) -> None:
    """Set a type that is written ``tensor(float)`` or ``seq(tensor(int64))``."""
    outer, _, inner = kind.removesuffix(")").partition("(")
    if outer == "tensor":
        target.tensor_type.elem_type = TensorProto.DataType.Value(inner.upper())
    elif outer == "seq":
        _set_type(target.sequence_type.elem_type, inner)
    else:
        raise ValueError(f"no tensor and no sequence, but {kind}")
