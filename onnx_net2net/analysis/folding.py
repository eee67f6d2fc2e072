"""What the graph computes from its weights alone, computed once and stored in its place.

    folded = fold(model)      # weight standardisation, weight_norm, merged scales: plain weights

A weight that is normalised in the graph cannot grow: copies would change its statistics. What
only moves or decodes a weight (Transpose, Reshape, Cast, DequantizeLinear, ...) stays as it is,
for the analysis follows a weight through it.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Iterator, MutableSequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import Graph, Node, captured, has_subgraph
from onnx_net2net.model.history import append
from onnx_net2net.model.model import AnyModel, Computed, Model, Weight, load
from onnx_net2net.operators.types import FLOATS

__all__ = ["fold", "foldable"]

_DOMAINS = frozenset({"", "com.microsoft"})  # others may hide anything, chance included


def fold(model: AnyModel) -> Model:
    """Return a model that stores what ``model`` computes from its weights, of the same function.

    Results are initializers named like the tensors they replace; nodes and weights that nobody
    needs any more are gone, the history has one step more, all else is untouched. Return ``model``
    itself where there is nothing to fold. Raise Refused for what cannot be computed here (an
    operator without a kernel for its type, an opset that is too new).
    """
    model = load(model)
    graph = Graph(model)
    plan = _plan(graph)
    if not plan.results:
        return model
    contents: dict[str, np.ndarray] = {}
    for nodes, results in _parts(graph, plan):
        contents.update(_values(model, nodes, results))
    return _replaced(model, plan, contents)


@dataclass(frozen=True, eq=False)
class _Folding:
    """Tensors to store (``results``), and nodes that nobody needs then (``dead``, indices)."""

    results: dict[str, None]
    dead: set[int]


def _plan(graph: Graph) -> _Folding:
    folds = foldable(graph)
    results: dict[str, None] = {}
    needed: set[int] = set()
    pending = [value.name for value in graph.model.proto.graph.output]
    # Constants only become unnecessary: whatever reads data stays, needed or not.
    for node in graph.main:
        if not graph.derived.issuperset(node.outputs):
            needed.add(node.position)
            pending += _reads(node.proto)
    while pending:
        name = pending.pop()
        source = graph.producer.get(name)
        if source is None or source.parent is not None:
            continue
        if source.position in folds:
            results[name] = None
        elif source.position not in needed:
            needed.add(source.position)
            pending += _reads(source.proto)
    ordered = [name for node in graph.main for name in node.outputs if name in results]
    dead = _ancestors(graph, ordered) - needed
    return _Folding(
        dict.fromkeys(ordered),
        {index for index, node in enumerate(graph.main) if node.position in dead},
    )


def foldable(graph: Graph) -> set[int]:
    """Return the positions of nodes of the main graph that compute from weights alone."""
    outputs = {value.name for value in graph.model.proto.graph.output}
    weights = graph.model.weights.items()
    holding = {n for n, w in weights if w.dtype in FLOATS and math.prod(w.shape) > 1}
    known = set(graph.model.weights)
    positions: set[int] = set()
    for node in graph.main:
        reads = [name for name in node.inputs if name]
        writes = [name for name in node.outputs if name]
        if not reads or not known.issuperset(reads) or not _is_settled(node):
            continue
        known.update(writes)
        if node.facts.measures or holding.isdisjoint(reads):
            continue
        holding.update(writes)
        # What computes nothing is followed; some of it makes tables larger than what it reads.
        if node.facts.computes and outputs.isdisjoint(writes):
            positions.add(node.position)
    return positions


def _is_settled(node: Node) -> bool:
    """Return whether the node can be evaluated once and for all."""
    if node.domain not in _DOMAINS or has_subgraph(node.proto):
        return False
    # Quantisation stays explicit, as onnx_graphsurgeon has it too: what is behind is not folded.
    return not node.facts.random and not node.facts.quantizes


def _ancestors(graph: Graph, names: Iterable[str]) -> set[int]:
    """Return the positions of all nodes that these tensors are computed by."""
    positions: set[int] = set()
    pending = list(names)
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.position not in positions:
            positions.add(node.position)
            pending += node.inputs
    return positions


def _parts(graph: Graph, plan: _Folding) -> Iterator[tuple[list[Node], list[str]]]:
    """Yield the nodes behind results, and the results: few at a time, so that memory is small."""
    home: dict[int, int] = {}  # node -> part; parts that meet are merged
    members: dict[int, tuple[set[int], list[str]]] = {}
    for part, result in enumerate(plan.results):
        nodes, results = _ancestors(graph, [result]), [result]
        for other in {home[p] for p in nodes if p in home}:
            theirs = members.pop(other)
            nodes |= theirs[0]
            results = theirs[1] + results
        home.update(dict.fromkeys(nodes, part))
        members[part] = nodes, results
    for nodes, results in members.values():
        yield [graph.nodes[position] for position in sorted(nodes)], results


def _values(model: Model, nodes: list[Node], results: list[str]) -> dict[str, np.ndarray]:
    """Return what the nodes compute for these tensors."""
    import onnx_graphsurgeon as surgeon
    from onnx_graphsurgeon.logger import G_LOGGER

    said = io.StringIO()  # onnx_graphsurgeon prints its warnings, and swallows the errors
    with contextlib.redirect_stdout(said), G_LOGGER.suppress(G_LOGGER.WARNING):
        try:
            graph = surgeon.import_onnx(_part(model, nodes, results))
            graph.fold_constants(fold_shapes=False, recurse_subgraphs=False)
        except (KeyError, TypeError, ValueError) as error:  # a type that NumPy does not have
            raise _refused(nodes, str(error)) from None
        values = [t.values for t in graph.outputs if isinstance(t, surgeon.Constant)]
    if len(values) != len(results):
        raise _refused(nodes, said.getvalue())
    return dict(zip(results, values, strict=True))


def _refused(nodes: list[Node], said: str) -> Refused:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cause = next((line for line in reversed(lines) if "ONNXRuntimeError" in line), "")
    cause = cause or (lines[-1] if lines else "its values could not be computed")
    return Refused(
        nodes[-1].label,
        f"what it computes from the weights cannot be folded: {cause}",
        "export the model again with these weights computed, or leave folding out",
    )


def _part(model: Model, nodes: list[Node], results: list[str]) -> ModelProto:
    """Return a model of these nodes alone, without inputs, with the weights they read."""
    wanted = dict.fromkeys(name for node in nodes for name in node.inputs)
    used = [model.weights[name] for name in wanted if name in model.weights]
    part = ModelProto(ir_version=model.proto.ir_version)
    part.opset_import.extend(model.proto.opset_import)
    part.graph.name = "constants"
    part.graph.initializer.extend(numpy_helper.from_array(w.array(), w.name) for w in used)
    part.graph.node.extend(n.proto for n in nodes if n.op != "Constant")
    taken = set(wanted) | {name for node in nodes for name in node.outputs}
    for index, name in enumerate(results):
        # A result that others of these nodes read is no result to onnx_graphsurgeon.
        output = f"result_{index}"
        while output in taken:
            output += "_"
        part.graph.node.append(helper.make_node("Identity", [name], [output]))
        part.graph.output.add(name=output)
    return part


def _replaced(model: Model, plan: _Folding, contents: dict[str, np.ndarray]) -> Model:
    """Return ``model`` without the dead nodes and their weights, and with ``contents``."""
    proto = model.editable()
    graph = proto.graph
    gone = _gone(graph, plan)
    for field in (graph.initializer, graph.input, graph.value_info):
        _remove(field, [index for index, entry in enumerate(field) if entry.name in gone])
    _remove(graph.node, plan.dead)
    weights: dict[str, Weight] = {}
    for name, array in contents.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.initializer.append(TensorProto(name=name, data_type=kind, dims=array.shape))
        weights[name] = Computed(name, kind, array.shape, partial(np.asarray, array))
        if proto.ir_version < 4:  # every initializer is listed as an input
            graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    append(proto, "fold", model.sha256(), {"weights": len(contents)})
    return model.with_changes(proto, weights)


def _gone(graph: GraphProto, plan: _Folding) -> set[str]:
    """Return the tensors that the dead nodes wrote, and those that nobody else read."""
    read = {value.name for value in graph.output} | plan.results.keys()
    gone: set[str] = set()
    for index, node in enumerate(graph.node):
        if index in plan.dead:
            gone.update(node.input, node.output)
        else:
            read.update(_reads(node))
    return gone - read


def _remove(field: MutableSequence[Any], indices: Iterable[int]) -> None:
    for index in sorted(indices, reverse=True):
        del field[index]


def _reads(node: NodeProto) -> Iterable[str]:
    return {*node.input, *captured(node)} - {""}
