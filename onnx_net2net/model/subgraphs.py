"""If, Loop and Scan: which tensors of a body are which tensors of the node around it.

    links(loop)  ->  enter:  x, which the node reads,  is  x_in  of the body
                     carry:  x_out of one iteration    is  x_in  of the next
                     leave:  x_out of the body         is  x_end, which the node writes

Along ``axis`` a loop walks or stacks: the tensor outside has this axis, the one inside has not.
This is all that the analysis knows of these operators; what a body computes it sees as nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from onnx import AttributeProto, GraphProto, NodeProto, helper

from onnx_net2net.model.schemas import domain_of
from onnx_net2net.model.tensors import carried

T = TypeVar("T")
GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
BODIES = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}
CARRIERS = {*BODIES, "SequenceMap"}  # ONNX's own operators with subgraphs
FIRST_SCAN = 9  # before, Scan had a batch axis


@dataclass(frozen=True, slots=True)
class Link:
    """``outer`` and ``inner`` of the node's body ``body`` are one tensor, but for an ``axis``."""

    outer: str
    inner: str
    axis: int | None = None
    body: int = 0

    def without(self, outer: Sequence[T]) -> list[T]:
        """Return the axes or sizes of the inner tensor, of those of the outer one."""
        inner = list(outer)
        if self.axis is not None and -len(inner) <= self.axis < len(inner):
            del inner[self.axis]  # else nothing fits, as whoever compares the two finds out
        return inner

    def with_axis(self, inner: Sequence[T], walked: T) -> list[T]:
        """Return the axes or sizes of the outer tensor, ``walked`` being walked along."""
        outer = list(inner)
        if self.axis is not None:
            outer.insert(self.axis % (len(outer) + 1), walked)
        return outer


@dataclass(slots=True)
class Links:
    """How the bodies of one node are tied to it. ``carry`` links a body's input and output."""

    enter: list[Link] = field(default_factory=list)
    carry: list[Link] = field(default_factory=list)
    leave: list[Link] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)  # counters and conditions


class Unfollowed(Exception):
    """A body that cannot be followed: what it touches is pinned with this reason."""


def bodies(proto: NodeProto, opset: int) -> list[tuple[str, GraphProto]]:
    """Return the bodies of an If, Loop or Scan by attribute. Raises Unfollowed for all others."""
    wanted = None if domain_of(proto) else BODIES.get(proto.op_type)
    if wanted is None:
        raise Unfollowed(f"operator {proto.op_type} is not known")
    if proto.op_type == "Scan" and opset < FIRST_SCAN:
        raise Unfollowed("its scan has a batch axis (opset 8)")
    given = {a.name: a.g for a in proto.attribute if a.type == AttributeProto.GRAPH}
    if any(name not in given for name in wanted):
        raise Unfollowed("its body is missing")
    for name in wanted:
        stored = {tensor.name for tensor in given[name].initializer}
        if any(value.name in stored for value in given[name].input):
            raise Unfollowed("an input of its body has a default")
    return [(name, given[name]) for name in wanted]


def links(proto: NodeProto, graphs: Sequence[GraphProto]) -> Links:
    """Return the links of a node to its :func:`bodies`. Raises Unfollowed."""
    if proto.op_type == "If":
        return _branches(proto, graphs)
    return _loop(proto, graphs[0]) if proto.op_type == "Loop" else _scan(proto, graphs[0])


def _branches(proto: NodeProto, graphs: Sequence[GraphProto]) -> Links:
    branches = Links(pinned=list(proto.input))
    for index, graph in enumerate(graphs):
        if len(graph.output) != len(proto.output):
            raise Unfollowed("its branches give another number of tensors")
        pairs = zip(proto.output, graph.output, strict=True)
        branches.leave += [Link(name, value.name, body=index) for name, value in pairs if name]
    return branches


def _loop(proto: NodeProto, graph: GraphProto) -> Links:
    inputs, outputs = [v.name for v in graph.input], [v.name for v in graph.output]
    states = len(proto.input) - 2
    if states < 0 or len(inputs) != states + 2 or len(outputs) < states + 1:
        raise Unfollowed("its body takes another number of tensors than it is given")
    return Links(
        enter=_pairs(proto.input[2:], inputs[2:]),
        carry=_pairs(inputs[2:], outputs[1 : 1 + states]),
        leave=_pairs(proto.output[:states], outputs[1 : 1 + states])
        + _pairs(proto.output[states:], outputs[1 + states :], [0] * len(outputs)),
        pinned=[n for n in (*proto.input[:2], *inputs[:2], outputs[0]) if n],
    )


def _scan(proto: NodeProto, graph: GraphProto) -> Links:
    plain = (a for a in proto.attribute if a.type not in GRAPHS and not a.ref_attr_name)
    given = {a.name: helper.get_attribute_value(a) for a in plain}
    inputs, outputs = [v.name for v in graph.input], [v.name for v in graph.output]
    walked = given.get("num_scan_inputs")
    if not isinstance(walked, int):
        raise Unfollowed("it does not say how many of its inputs it walks along")
    states = len(proto.input) - walked
    if (
        not 0 <= states <= len(proto.input)
        or len(inputs) != len(proto.input)
        or len(outputs) < states
    ):
        raise Unfollowed("its body takes another number of tensors than it is given")
    scanned = given.get("scan_input_axes") or [0] * walked
    stacked = given.get("scan_output_axes") or [0] * (len(outputs) - states)
    if len(scanned) != walked or len(stacked) != len(outputs) - states:
        raise Unfollowed("it gives an axis for another number of tensors than it has")
    return Links(
        enter=_pairs(proto.input[:states], inputs[:states])
        + _pairs(proto.input[states:], inputs[states:], scanned),
        carry=_pairs(inputs[:states], outputs[:states]),
        leave=_pairs(proto.output[:states], outputs[:states])
        + _pairs(proto.output[states:], outputs[states:], stacked),
    )


def _pairs(
    outer: Sequence[str], inner: Sequence[str], axes: Sequence[int] | None = None
) -> list[Link]:
    """Return the links of tensors in order, without those that are absent."""
    return [
        Link(a, b, axes[index] if axes else None)
        for index, (a, b) in enumerate(zip(outer, inner, strict=False))
        if a and b
    ]


def has_subgraph(proto: NodeProto) -> bool:
    """Return whether the node carries a graph of its own (If, Loop, Scan)."""
    if not proto.domain and proto.op_type not in CARRIERS:
        return False
    return any(a.type in GRAPHS for a in proto.attribute)


def captured(proto: NodeProto) -> set[str]:
    """Return the names that the node's subgraphs read from outside."""
    names: set[str] = set()
    for graph in carried(proto):
        inner = {o for n in graph.node for o in n.output}
        inner |= {v.name for v in graph.input} | {t.name for t in graph.initializer}
        read = {i for n in graph.node for i in n.input} | {v.name for v in graph.output}
        for node in graph.node:
            read |= captured(node)
        names |= read - inner
    return names - {""}
