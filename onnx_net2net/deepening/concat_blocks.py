"""Blocks whose branches a Concat puts side by side: Inception and fire modules.

    x -> [conv(x) | conv(conv(x)) | conv(pool(x))] -> y      x and y of one shape

No copy of one can be the identity: its branches would have to pass every part of its input on, and
what pools or narrows it cannot. They are listed so that this is said, with what would work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnx_net2net.deepening.paths import between
from onnx_net2net.deepening.segments import Block, carries, is_layer, judged, leaks, signature
from onnx_net2net.model.graph import Node
from onnx_net2net.widening.dimensions import Analysis

_FAR = 64  # nodes between a module's beginning and its end, at most


def joined_blocks(analysis: Analysis, taken: set[int]) -> list[Block]:
    """The modules among the nodes that are not ``taken`` of which two are built alike, unnamed."""
    found = list(_modules(analysis, taken))
    alike = Counter(signature(analysis, block) for block in found)
    repeated = [block for block in found if alike[signature(analysis, block)] > 1]
    return [b for b in repeated if not any(b.positions < other.positions for other in repeated)]


def _modules(analysis: Analysis, taken: set[int]) -> Iterator[Block]:
    for node in analysis.graph.main:
        if (
            node.op == "Concat"
            and node.position not in taken
            and carries(analysis, node.outputs[0])
        ):
            block = _module(analysis, node)
            if block is not None and not block.exact and taken.isdisjoint(block.positions):
                yield block


def _module(analysis: Analysis, join: Node) -> Block | None:
    """The shortest segment that ends in ``join`` and keeps its shape, with one way in and out."""
    nodes, (output, *_) = analysis.graph.nodes, join.outputs
    for entry in _before(analysis, join):
        inside = between(analysis, entry, output)
        layers = sum(is_layer(analysis, nodes[at]) for at in inside)
        if layers > 1 and not leaks(analysis, inside, entry, output):
            return judged(analysis, "", "", entry, output)
    return None


def _before(analysis: Analysis, join: Node) -> Iterator[str]:
    """Tensors of the same shape that were given before ``join``, the nearest first."""
    graph, shapes = analysis.graph, analysis.solution.shapes
    shape = shapes.of(join.outputs[0])
    near = reversed(graph.nodes[max(join.position - _FAR, 0) : join.position])
    names = [name for node in near for name in node.outputs if name]
    for name in (*names, *graph.inputs):
        if shapes.of(name) == shape is not None and carries(analysis, name):
            yield name
