"""Blocks whose branches a Concat puts side by side: Inception and fire modules.

    x -> [conv(x) | conv(conv(x)) | conv(pool(x))] -> y      x and y of one shape

No copy of one can be the identity: its branches would have to pass every part of its input on, and
what pools or narrows it cannot. They are listed so that this is said, with what would work.
"""

from __future__ import annotations

from collections import Counter

from onnx_net2net.deepening.paths import between
from onnx_net2net.deepening.segments import (
    Block,
    assess,
    crossings,
    is_activation,
    is_join,
    is_layer,
    signature,
)
from onnx_net2net.model.graph import Node
from onnx_net2net.widening.dimensions import Analysis

_FAR = 64  # nodes between a module's beginning and its end, at most


def joined_blocks(analysis: Analysis, taken: set[int]) -> list[Block]:
    """Return the modules among the nodes not ``taken`` of which two are built alike, unnamed."""
    joins = (n for n in analysis.graph.main if is_join(n) and n.position not in taken)
    modules = [b for n in joins if (b := _module(analysis, n)) and taken.isdisjoint(b.positions)]
    alike = Counter(signature(analysis, block) for block in modules)
    repeated = [block for block in modules if alike[signature(analysis, block)] > 1]
    return [b for b in repeated if not any(b.positions < other.positions for other in repeated)]


def _module(analysis: Analysis, join: Node) -> Block | None:
    """Return the shortest segment that ends in ``join`` and keeps its shape, with one way in and
    out; None for one that can be copied, too.
    """
    graph, shapes, output = analysis.graph, analysis.solution.shapes, join.outputs[0]
    near = reversed(graph.nodes[max(join.position - _FAR, 0) : join.position])
    names = [name for node in near for name in node.outputs if name]
    for entry in (*names, *graph.inputs) if is_activation(analysis, output) else ():
        same = shapes.of(entry) == shapes.of(output) is not None
        if not (same and is_activation(analysis, entry)):
            continue
        inside = between(analysis, entry, output)
        layers = sum(is_layer(analysis, graph.nodes[at]) for at in inside)
        if layers > 1 and not crossings(analysis, inside, entry, output):
            block = assess(analysis, "", "", entry, output)
            return None if block.exact else block
    return None
