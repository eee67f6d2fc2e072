"""What a graph computes from its weights alone, computed once and stored in their place.

    folded = fold(model)      # weight standardisation, merged scales, transposes: plain weights

Without this a weight that is normalised in the graph cannot grow: its statistics would change.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_net2net.graph import Graph, Node, captured, has_subgraph
from onnx_net2net.model import Computed, Model, Weight
from onnx_net2net.verify import run

__all__ = ["fold"]

# These give something else each time, or a table several times the size of the stored one.
_KEPT = frozenset(
    {
        "Bernoulli",
        "ConstantOfShape",
        "DequantizeLinear",
        "Expand",
        "Multinomial",
        "RandomNormalLike",
        "RandomUniformLike",
        "Tile",
    }
)


def fold(model: Model) -> Model:
    """A model that stores what ``model`` computes from weights; its function is the same.

    Gives ``model`` itself where there is nothing to fold.
    """
    graph = Graph(model)
    folded = _foldable(graph)
    if not folded:
        return model
    results = _frontier(graph, folded)
    contents = run(_part(model, folded, results), {}, results, "cpu", optimised=False)
    return _replaced(model, folded, contents)


def _foldable(graph: Graph) -> list[Node]:
    """Main-graph nodes that depend on weights alone and always give the same."""
    fixed = set(graph.model.weights)
    outputs = set(graph.outputs)
    found = []
    for node in graph.nodes:
        reads = [name for name in node.inputs if name]
        if (
            reads
            and node.op not in _KEPT
            and not has_subgraph(node.proto)
            and fixed.issuperset(reads)
            and outputs.isdisjoint(node.outputs)
        ):
            fixed.update(name for name in node.outputs if name)
            found.append(node)
    return found


def _frontier(graph: Graph, folded: Iterable[Node]) -> list[str]:
    """Tensors of folded nodes that the others read."""
    gone = {node.position for node in folded}
    read: set[str] = set()
    for node in graph.nodes:
        if node.position not in gone:
            read.update(node.inputs)
            read |= captured(node.proto)
    return [name for node in folded for name in node.outputs if name in read]


def _part(model: Model, nodes: Iterable[Node], results: Iterable[str]) -> Model:
    """A model of these nodes alone, without inputs."""
    wanted = {name for node in nodes for name in node.inputs}
    constants = [n for n in model.proto.graph.node if n.op_type == "Constant"]
    part = ModelProto()
    part.CopyFrom(model.proto)
    graph = part.graph
    del graph.input[:], graph.output[:], graph.value_info[:], graph.node[:]
    graph.node.extend([n for n in constants if wanted.intersection(n.output)])
    graph.node.extend([node.proto for node in nodes])
    graph.output.extend(ValueInfoProto(name=name) for name in results)
    _keep(part, wanted)
    return model.with_changes(part, {})


def _replaced(model: Model, folded: Iterable[Node], contents: dict[str, np.ndarray]) -> Model:
    """``model`` without the folded nodes, and with their results as initializers."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    gone = {output for node in folded for output in node.outputs}
    kept = [node for node in model.proto.graph.node if gone.isdisjoint(node.output)]
    read = {name for node in kept for name in _reads(node)}
    read.update(value.name for value in graph.output)
    del graph.node[:]
    graph.node.extend(n for n in kept if n.op_type != "Constant" or read.intersection(n.output))
    _keep(proto, read | {value.name for value in graph.input})
    weights: dict[str, Weight] = {}
    for name, array in contents.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.initializer.append(TensorProto(name=name, data_type=kind, dims=array.shape))
        weights[name] = Computed(name, kind, array.shape, partial(np.asarray, array))
        if proto.ir_version < 4:
            graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return model.with_changes(proto, weights)


def _reads(node: NodeProto) -> set[str]:
    return set(node.input) | captured(node)


def _keep(proto: ModelProto, names: set[str]) -> None:
    """Remove all other initializers."""
    entries = [entry for entry in proto.graph.initializer if entry.name in names]
    copies = []
    for entry in entries:
        copies.append(TensorProto())
        copies[-1].CopyFrom(entry)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(copies)
