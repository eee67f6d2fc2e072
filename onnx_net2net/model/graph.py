"""A read-only index of a model's graph: nodes in order, who writes and who reads each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from onnx import GraphProto, NodeProto

from onnx_net2net.model.model import Model
from onnx_net2net.model.schemas import domain_of
from onnx_net2net.model.subgraphs import (
    Links,
    Unfollowed,
    bodies,
    captured,
    has_subgraph,
    links,
)
from onnx_net2net.model.validation import check_nodes
from onnx_net2net.operators import facts
from onnx_net2net.operators.record import Operator

__all__ = [
    "Body", "Copied", "Graph", "Node", "captured", "has_subgraph", "parameter_path", "scope_path",
    "scopes",
]  # fmt: skip

# Where PyTorch's exporters keep a node's module path.
SCOPE_KEYS = ("pkg.torch.onnx.name_scopes", "namespace")
CAPTURED = -1  # the index under which a node reads what its unknown subgraph captures


@dataclass(eq=False, slots=True)
class Node:
    """One node. ``links`` tie the bodies of If, Loop and Scan to it where they are followed."""

    proto: NodeProto
    name: str  # its own, else that of its first output
    position: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    op: str
    domain: str
    parent: Node | None = None
    bodies: tuple[Body, ...] = ()
    links: Links | None = None
    opaque: str = ""  # why its subgraph is not followed

    @property
    def label(self) -> str:
        """How messages name it: operator and name."""
        return f"{self.op} '{self.name}'"

    @property
    def stores(self) -> bool:
        """Whether it only holds a constant."""
        return self.op == "Constant" and not self.domain

    @property
    def facts(self) -> Operator:
        """What the operator is."""
        return facts(self.op, self.domain)


@dataclass(eq=False, slots=True)
class Body:
    """The subgraph of a node under ``attribute``."""

    attribute: str
    proto: GraphProto
    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Copied:
    """A copy of weight ``original``; along the axes in ``tied`` all copies are one."""

    original: str
    tied: frozenset[int]


@dataclass(eq=False)
class Graph:
    """``model`` indexed by tensor name. Tensor names are unique (see unique_names.py).

    ``copies`` are the weights that the file does not have (see untying.py). ``nodes`` are all
    nodes, those of a body before the node that carries it; ``main`` those of the main graph.
    """

    model: Model
    copies: Mapping[str, Copied] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    main: list[Node] = field(default_factory=list)
    producer: dict[str, Node] = field(default_factory=dict)
    consumers: dict[str, list[tuple[Node, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_nodes(self.model.proto)
        graph = self.model.proto.graph
        self._opset = self.model.opset.get("", 1)
        self.inputs = [v.name for v in graph.input if v.name not in self.model.weights]
        self.outputs = [v.name for v in graph.output]
        self.results = set(self.outputs)  # of the main graph and of every body
        self._fill(self.main, graph.node, None)
        # Tensors computed from weights alone: a transposed weight is still that weight.
        self.derived = set(self.model.weights)
        for node in self.nodes:
            operands = {name for name in node.inputs if name}
            if operands and not node.bodies and not node.opaque and operands <= self.derived:
                self.derived.update(name for name in node.outputs if name)

    def _fill(self, into: list[Node], protos: Iterable[NodeProto], parent: Node | None) -> None:
        """Index ``protos``, the nodes of one graph."""
        for proto in protos:
            inputs, outputs = tuple(proto.input), tuple(proto.output)
            name = proto.name or next(filter(None, outputs), "")
            node = Node(proto, name, -1, inputs, outputs, proto.op_type, domain_of(proto), parent)
            if has_subgraph(proto):
                self._follow(node)
            node.position = len(self.nodes)
            node.name = name or f"#{node.position}"
            self.nodes.append(node)
            into.append(node)
            for output in outputs:
                if output:
                    self.producer[output] = node
            for index, source in enumerate(inputs):
                if source:
                    self.consumers.setdefault(source, []).append((node, index))

    def _follow(self, node: Node) -> None:
        try:
            followed = bodies(node.proto, self._opset)
            node.links = links(node.proto, [graph for _, graph in followed])
        except Unfollowed as problem:
            node.opaque = f"its subgraph is not followed: {problem}"
            for name in sorted(captured(node.proto)):
                self.consumers.setdefault(name, []).append((node, CAPTURED))
            return
        node.bodies = tuple(Body(name, graph) for name, graph in followed)
        for body in node.bodies:
            self.results.update(value.name for value in body.proto.output)
            self._fill(body.nodes, body.proto.node, node)


def scopes(proto: NodeProto) -> list[str]:
    """Return the module path that PyTorch's exporter kept for this node, outermost first."""
    for entry in proto.metadata_props:
        if entry.key == SCOPE_KEYS[0]:
            return [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
        if entry.key == SCOPE_KEYS[1]:
            return [part.split(":")[0].strip() for part in entry.value.split("/")]
    return []


def parameter_path(name: str) -> str | None:
    """Return ``layer1.0.conv1`` for the parameter ``layer1.0.conv1.weight``."""
    path, dot, last = name.rpartition(".")
    known = last.startswith(("weight", "bias", "running", "gamma", "beta", "kernel", "embedding"))
    return path if dot and known and path else None


def scope_path(proto: NodeProto) -> str | None:
    """Return the module that PyTorch's exporters say this node came from."""
    path = scopes(proto)
    if not path and proto.name.startswith("/"):
        return _scripted_path(proto.name)
    if len(path) > 1 and path[-1] == proto.name:
        path.pop()
    return next((part for part in reversed(path[:-1] or path) if part), None)


def _scripted_path(name: str) -> str | None:
    """Return ``layer1.0.conv1`` for ``/layer1/layer1.0/conv1/Conv``, a node of TorchScript's."""
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path) or None
