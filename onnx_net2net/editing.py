"""An editable copy of a model's skeleton: new weights, inserted nodes, changed attributes.

Everything that is not touched stays as it was, byte for byte.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_net2net.graph import Graph, Node
from onnx_net2net.model import Computed, Model, Weight


class Editor:
    """Edits a copy of ``graph``'s model; :meth:`finish` gives the new model."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model = graph.model
        self.proto = ModelProto()
        self.proto.CopyFrom(graph.model.proto)
        self.weights: dict[str, Weight] = {}
        self._before: dict[int, list[NodeProto]] = defaultdict(list)
        self._names = set(graph.producer) | set(graph.consumers) | set(graph.model.weights)
        self._node_names = {node.proto.name for node in graph.nodes}
        self._retired: set[str] = set()

    def node(self, node: Node) -> NodeProto:
        """The editable counterpart of a main-graph node."""
        return self.proto.graph.node[node.position]

    def unique(self, name: str) -> str:
        """``name``, or ``name_2`` ... where a tensor or node is called that already."""
        found, count = name, 1
        while found in self._names or found in self._node_names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def add_weight(self, name: str, array: np.ndarray) -> str:
        """A new initializer holding ``array``; its (unique) name."""
        name = self.unique(name)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.proto.graph.initializer.append(
            TensorProto(name=name, data_type=dtype, dims=array.shape)
        )
        self.weights[name] = Computed(name, dtype, array.shape, lambda: array)
        return name

    def set_weight(self, name: str, array: np.ndarray) -> None:
        """New contents for an existing weight."""
        dtype = self.model.weights[name].dtype
        self.weights[name] = Computed(name, dtype, array.shape, lambda: array)

    def insert(self, before: Node, proto: NodeProto) -> None:
        """Put ``proto`` directly before ``before``."""
        self._before[before.position].append(proto)

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
        proto = self.node(node)
        self.drop_attribute(node, name)
        proto.attribute.append(helper.make_attribute(name, value))

    def drop_attribute(self, node: Node, name: str) -> None:
        """Remove an attribute where it exists."""
        attributes = self.node(node).attribute
        for position, attribute in enumerate(attributes):
            if attribute.name == name:
                del attributes[position]
                return

    def resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Rewrite the sizes that the file itself states for these tensors."""
        graph = self.proto.graph
        for value in (*graph.input, *graph.output, *graph.value_info):
            shape = shapes.get(value.name)
            dims = value.type.tensor_type.shape.dim
            if shape is not None and len(shape) == len(dims):
                for dim, size in zip(dims, shape, strict=True):
                    if dim.HasField("dim_value"):
                        dim.dim_value = size

    def finish(self, extra: Iterable[object] = ()) -> Model:
        """The new model: nodes in order, what the edit made dead removed."""
        self._weave()
        self._prune()
        return self.model.with_changes(self.proto, self.weights, extra)

    def _weave(self) -> None:
        if not self._before:
            return
        nodes = self.proto.graph.node
        woven = []
        for position, node in enumerate(nodes):
            woven += [*self._before.get(position, ()), node]
        copies = [_copied(node) for node in woven]
        del nodes[:]
        nodes.extend(copies)

    def _prune(self) -> None:
        """Remove producers of tensors that this edit disconnected, if nobody else reads them."""
        if not self._retired:
            return
        graph = self.proto.graph
        used = {name for node in graph.node for name in _reads(node)}
        used |= {value.name for value in graph.output}
        pending = [name for name in self._retired if name not in used]
        dead: set[str] = set(pending)
        kept: list[NodeProto] = list(graph.node)
        while pending:
            kept, gone = _partition(kept, dead)
            if not gone:
                break
            used = {name for node in kept for name in _reads(node)}
            used |= {value.name for value in graph.output}
            pending = [n for node in gone for n in node.input if n and n not in used]
            dead.update(pending)
        if len(kept) != len(graph.node):
            copies = [_copied(node) for node in kept]
            del graph.node[:]
            graph.node.extend(copies)
        for entry in [t for t in graph.initializer if t.name in dead]:
            graph.initializer.remove(entry)
            self.weights.pop(entry.name, None)
        for value in [v for v in (*graph.input,) if v.name in dead]:
            graph.input.remove(value)
        for value in [v for v in graph.value_info if v.name in dead]:
            graph.value_info.remove(value)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _reads(node: NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            for value in graph.output:
                yield value.name


def _partition(
    nodes: list[NodeProto], dead: set[str]
) -> tuple[list[NodeProto], list[NodeProto]]:
    kept: list[NodeProto] = []
    gone: list[NodeProto] = []
    for node in nodes:
        (gone if all(not o or o in dead for o in node.output) else kept).append(node)
    return kept, gone
