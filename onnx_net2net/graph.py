"""A read-only index of a model's graph: nodes in order, who writes and who reads each tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
from onnx import NodeProto

from onnx_net2net.model import Model

# Where PyTorch's exporters keep a node's module path.
SCOPE_KEYS = ("pkg.torch.onnx.name_scopes", "namespace")


@dataclass(eq=False, slots=True)
class Node:
    """One node, in topological order; nodes of subgraphs follow their parent."""

    proto: NodeProto
    position: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    op: str
    domain: str
    parent: Node | None = None

    @property
    def name(self) -> str:
        """The node's own name, else that of its first output."""
        return self.proto.name or next((o for o in self.outputs if o), f"#{self.position}")

    @property
    def label(self) -> str:
        """How messages name it: operator and name."""
        return f"{self.op} '{self.name}'"


@dataclass(eq=False)
class Graph:
    """``model`` indexed by tensor name."""

    model: Model
    nodes: list[Node] = field(default_factory=list)
    producer: dict[str, Node] = field(default_factory=dict)
    consumers: dict[str, list[tuple[Node, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for proto in self.model.proto.graph.node:
            self._add(proto, None)
        self.inputs = [
            v.name for v in self.model.proto.graph.input if v.name not in self.model.weights
        ]
        self.outputs = [v.name for v in self.model.proto.graph.output]
        self.derived = self._derived()

    def _add(self, proto: NodeProto, parent: Node | None) -> None:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs, outputs = tuple(proto.input), tuple(proto.output)
        node = Node(proto, len(self.nodes), inputs, outputs, proto.op_type, domain, parent)
        self.nodes.append(node)
        for name in outputs:
            if name:
                self.producer[name] = node
        for index, name in enumerate(inputs):
            if name:
                self.consumers.setdefault(name, []).append((node, index))

    def _derived(self) -> set[str]:
        """Tensors computed from weights alone (a transposed weight is still that weight)."""
        derived = set(self.model.weights)
        for node in self.nodes:
            given = [name for name in node.inputs if name]
            if given and all(name in derived for name in given) and not has_subgraph(node.proto):
                derived.update(name for name in node.outputs if name)
        return derived


def has_subgraph(proto: NodeProto) -> bool:
    """Whether the node carries a graph of its own (If, Loop, Scan)."""
    return any(
        a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in proto.attribute
    )


def captured(proto: NodeProto) -> set[str]:
    """Names that the node's subgraphs read from outside."""
    names: set[str] = set()
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {o for n in graph.node for o in n.output}
            inner |= {v.name for v in graph.input} | {t.name for t in graph.initializer}
            read = {i for n in graph.node for i in n.input} | {v.name for v in graph.output}
            for node in graph.node:
                read |= captured(node)
            names |= read - inner
    return names - {""}


def scopes(proto: NodeProto) -> list[str]:
    """The module path that PyTorch's exporter kept for this node, outermost first."""
    for entry in proto.metadata_props:
        if entry.key == SCOPE_KEYS[0]:
            return [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
        if entry.key == SCOPE_KEYS[1]:
            return [part.split(":")[0].strip() for part in entry.value.split("/")]
    return []
