"""Ways through a graph: back to what a tensor may be equal to, and between two tensors.

upstream(analysis, "y")            # ["sum_3", "sum_2", ...]
between(analysis, "sum_2", "y")    # positions of nodes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.dimensions import Analysis

# How far back a sum is followed, in tensors.
_FAR = 64


def trained_behind(analysis: Analysis, names: Iterable[str]) -> Iterator[str]:
    """Yield the initializers of floating-point type that ``names`` are computed from alone."""
    graph, pending, seen = analysis.graph, list(names), set()
    while pending:
        name = pending.pop()
        if name in seen or name not in graph.derived:
            continue
        seen.add(name)
        weight = analysis.graph.model.weights.get(name)
        if weight is not None:
            if weight.dtype in FLOATS and weight.size > 1:
                yield name
        elif name in graph.producer:
            pending += [i for i in graph.producer[name].inputs if i]


def norm_of(analysis: Analysis, node: Node) -> Normalization | None:
    """Return the LayerNorm or RMSNorm, fused or decomposed, whose result ``node`` gives, if any."""
    norm = analysis.norms.get(node.position)
    return norm if norm is not None and norm.node is node else None


def upstream(analysis: Analysis, tensor: str) -> Iterator[str]:
    """Yield the tensors that ``tensor`` would equal if all else vanished, nearest first."""
    producer, derived = analysis.graph.producer, analysis.graph.derived
    seen: set[str] = set()
    pending = _sources(analysis, tensor)
    while pending and len(seen) < _FAR:
        name = max(pending, key=lambda n: producer[n].position if n in producer else -1)
        pending.remove(name)
        if name not in seen and name not in derived:
            seen.add(name)
            yield name
            pending += _sources(analysis, name)


def _sources(analysis: Analysis, tensor: str) -> list[str]:
    """Return the inputs of the producer of ``tensor`` that it may pass on unchanged."""
    node = analysis.graph.producer.get(tensor)
    if node is None or node.parent is not None or node.position not in analysis.solution.applied:
        return []
    norm = norm_of(analysis, node)
    if norm is not None:
        return list(norm.summands)
    if node.outputs[0] != tensor:
        return []
    operator = node.facts
    if operator.summands:
        return [
            name for index, name in enumerate(node.inputs) if name and index in operator.summands
        ]
    if operator.kind is Kind.PRODUCT:
        derived = analysis.graph.derived
        others = [name for name in node.inputs if name not in derived]
        return others if len(others) == 1 else []
    return [*node.inputs[:1]] if operator.in_order or operator.idempotent else []


def between(analysis: Analysis, entry: str, output: str) -> set[int]:
    """Return the nodes on the ways from ``entry`` to ``output``."""
    graph = analysis.graph
    start = graph.producer[entry].position if entry in graph.producer else -1
    above, pending = set(), [output]
    while pending:
        name = pending.pop()
        node = graph.producer.get(name)
        new = node is not None and node.position > start and node.position not in above
        if node is not None and new and name != entry and node.parent is None:
            above.add(node.position)
            pending += [i for i in node.inputs if i]
    reached, inside = {entry}, set()
    for at in sorted(above):
        if not reached.isdisjoint(graph.nodes[at].inputs):
            reached.update(graph.nodes[at].outputs)
            inside.add(at)
    return inside
