"""An editable copy of a model's skeleton: new weights, inserted nodes, changed attributes.

Everything that is not touched stays as it was, byte for byte.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.model import Computed, Model, Weight
from onnx_net2net.model.tensors import graphs
from onnx_net2net.model.untying import join


class Editor:
    """Edits a copy of ``graph``'s model; :meth:`finish` gives the new model."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model = graph.model
        self.proto = graph.model.editable()
        self.weights: dict[str, Weight] = {}
        self.kinds: dict[str, Hashable] = {}  # equal for copies of a weight that are equal now
        self._nodes: list[NodeProto] = []
        self._index(graph.main, self.proto.graph)
        self._before: dict[int, list[NodeProto]] = defaultdict(list)
        self._after: dict[int, list[NodeProto]] = defaultdict(list)
        self._names = {name for inner in graphs(self.proto.graph) for name in _names(inner)}
        self._counts: dict[str, int] = {}
        self._retired: set[str] = set()
        self._copies = graph.copies

    def _index(self, nodes: list[Node], graph: GraphProto) -> None:
        """Find the editable counterparts in the order of ``Graph.nodes``."""
        for node, proto in zip(nodes, graph.node, strict=True):
            for body in node.bodies:
                self._index(body.nodes, _body(proto, body.attribute))
            self._nodes.append(proto)

    def node(self, node: Node) -> NodeProto:
        """Return the editable counterpart of a node."""
        return self._nodes[node.position]

    def unique(self, name: str) -> str:
        """Return ``name``, or ``name_2`` ... where a tensor or node is called that already."""
        unique, count = name, self._counts.get(name, 1)
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._counts[name] = count  # all names before are taken, and stay so
        self._names.add(unique)
        return unique

    def add_weight(self, name: str, array: np.ndarray) -> str:
        """Add an initializer that holds ``array``; return its (unique) name."""
        name = self.unique(name)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.proto.graph.initializer.append(
            TensorProto(name=name, data_type=dtype, dims=array.shape)
        )
        self.weights[name] = Computed(name, dtype, array.shape, lambda: array)
        return name

    def set_weight(self, name: str, array: np.ndarray) -> None:
        """Replace the contents of a weight, or of one that was added."""
        dtype = (self.weights.get(name) or self.model.weights[name]).dtype
        self.weights[name] = Computed(name, dtype, array.shape, lambda: array)

    def describe(self, like: str, name: str) -> None:
        """Let the file say of tensor ``name`` what it says of ``like``: its type and shape."""
        value = self._described.get(like)
        if value is not None:
            new = self.proto.graph.value_info.add()
            new.CopyFrom(value)
            new.name = name
            self._described.setdefault(name, new)

    @cached_property
    def _described(self) -> dict[str, ValueInfoProto]:
        """What the file says of tensors, by name: to search for each would take quadratic time."""
        graph = self.proto.graph
        return {value.name: value for value in (*graph.output, *reversed(graph.value_info))}

    def insert(self, before: Node, proto: NodeProto) -> None:
        """Put ``proto`` directly before ``before``."""
        self._before[before.position].append(proto)

    def append(self, after: Node, proto: NodeProto) -> None:
        """Put ``proto`` behind ``after`` and what was appended to it before."""
        self._after[after.position].append(proto)

    def connect(self, node: Node, index: int, tensor: str) -> None:
        """Let input ``index`` of ``node`` read ``tensor``."""
        proto = self.node(node)
        while len(proto.input) <= index:
            proto.input.append("")
        if proto.input[index]:
            self._retired.add(proto.input[index])
        proto.input[index] = tensor

    def set_attribute(self, node: Node, name: str, value: object) -> None:
        """Set or replace an attribute."""
        set_attribute(self.node(node), name, value)

    def drop_attribute(self, node: Node, name: str) -> None:
        """Remove an attribute where it exists."""
        drop_attribute(self.node(node), name)

    def resize(self, shapes: Mapping[str, Sequence[int | None]]) -> None:
        """Rewrite the sizes that the file itself states for these tensors; None leaves one alone.

        A name such as 12*batch, which others may bear as well, no longer tells what has grown:
        onnxruntime takes tensors of one name for equally large and reuses their memory.
        """
        for graph in graphs(self.proto.graph):
            for value in (*graph.input, *graph.output, *graph.value_info):
                shape = shapes.get(value.name)
                dims = value.type.tensor_type.shape.dim
                if shape is None or len(shape) != len(dims):
                    continue
                for dim, size in zip(dims, shape, strict=True):
                    if size is not None and dim.HasField("dim_value"):
                        dim.dim_value = size
                    elif size is not None:
                        dim.ClearField("dim_param")

    def finish(self, extra: Iterable[object] = ()) -> Model:
        """Return the new model: nodes in order, what the edit made dead removed."""
        if self._before or self._after:
            self._weave(self.graph.main, self.proto.graph)
        if self._retired:
            self._prune()
        self.join()
        return self.model.with_changes(self.proto, self.weights, extra)

    def join(self) -> dict[str, str]:
        """Let the uses of a weight that are still equal read one; return their new names."""
        if not self._copies:
            return {}
        kinds = {name: self.kinds.get(name, name) for name in self.weights if name in self._copies}
        names = join(self.proto, self._copies, kinds)
        for name in kinds:
            weight = self.weights.pop(name)
            self.weights[names[name]] = weight
        self._copies = {}
        return names

    def _weave(self, nodes: list[Node], graph: GraphProto) -> None:
        """Put the inserted nodes in their places, in the bodies first."""
        for node in nodes:
            for body in node.bodies:
                self._weave(body.nodes, _body(self.node(node), body.attribute))
        woven: list[NodeProto] = []
        for node in nodes:
            woven += [*self._before.get(node.position, ()), self.node(node)]
            woven += self._after.get(node.position, ())
        if len(woven) > len(nodes):
            _replace(graph, woven)

    def _prune(self) -> None:
        """Remove producers of tensors that this edit disconnected, if nobody else reads them."""
        every = list(graphs(self.proto.graph))
        reads = Counter(name for graph in every for node in graph.node for name in node.input)
        reads.update(value.name for graph in every for value in graph.output)
        writer = {name: node for graph in every for node in graph.node for name in node.output}
        pending = [name for name in sorted(self._retired) if not reads[name]]
        dead: set[str] = set()
        while pending:
            name = pending.pop()
            node = writer.get(name)
            if name in dead or (node is not None and any(reads[o] for o in node.output if o)):
                continue
            dead.update(node.output if node is not None else [name])
            for read in node.input if node is not None else ():
                reads[read] -= 1
                if read and not reads[read]:
                    pending.append(read)
        for name in dead:
            self.weights.pop(name, None)
        for graph in reversed(every) if dead else ():  # bodies first: what holds them is copied
            kept = [node for node in graph.node if not node.output or set(node.output) - dead]
            if len(kept) != len(graph.node):
                _replace(graph, kept)
            for entries in (graph.initializer, graph.input, graph.value_info):
                for entry in [entry for entry in entries if entry.name in dead]:
                    entries.remove(entry)


def _names(graph: GraphProto) -> Iterator[str]:
    """Yield the names of tensors and nodes in ``graph``."""
    for entry in (*graph.input, *graph.output, *graph.initializer):
        yield entry.name
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output


def _body(proto: NodeProto, name: str) -> GraphProto:
    body: GraphProto = next(a.g for a in proto.attribute if a.name == name)
    return body


def _replace(graph: GraphProto, nodes: list[NodeProto]) -> None:
    copies = [deepcopy(node) for node in nodes]  # before what they lie in goes
    del graph.node[:]
    graph.node.extend(copies)


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Set or replace an attribute of a node that no graph has yet, or of one that has."""
    drop_attribute(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def drop_attribute(node: NodeProto, name: str) -> None:
    """Remove an attribute where it exists."""
    for position, attribute in enumerate(node.attribute):
        if attribute.name == name:
            del node.attribute[position]
            return
