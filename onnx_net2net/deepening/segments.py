"""Segments of a graph: what lies between two tensors, and whether a copy can be the identity.

block = assess(analysis, "layer.0", "layer", entry, output)
block.exact, block.reason
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from onnx_net2net.deepening.identity_init import Vanishing, Weights
from onnx_net2net.deepening.norms import in_a_row
from onnx_net2net.deepening.paths import norm_of, trained_behind
from onnx_net2net.deepening.places import writes
from onnx_net2net.model.graph import Node
from onnx_net2net.model.numbers import split
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.dimensions import Analysis

NO_SUM = "no sum leads from its input to its output past weights that could be zero"
UNFUSED = "use the file as it was before onnxruntime fused its norms"
OWN_EPSILONS = "exact, its norms having epsilons of their own; up to epsilon where all share one"
AFTER = "insert single layers instead (--after)"


# Operators with weights: domain, type, how many inputs.
Signature = tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Block:
    """A segment of the graph from tensor ``input`` to tensor ``output``.

    ``series`` is what its number counts in (``encoder.layer``, ``encoder_layer_``), empty where the
    names of its parameters hold no number. ``exact`` tells whether a copy of it can begin as the
    identity, ``reason`` why not, or what it takes of epsilons, and ``remedy`` what would work;
    ``values`` are the parameters that are zero (or one) then, ``parameters`` all of them. Where the
    block ends in a norm (BERT), ``affine`` is its scale and bias, which move to the copy. Where a
    Concat puts ``beside`` each other what it reads and gives (DenseNet), a copy is read with zeros.
    """

    name: str
    nodes: list[str]
    input: str
    output: str
    series: str
    exact: bool
    reason: str | None = None
    remedy: str | None = None
    values: tuple[tuple[str, float], ...] = ()
    affine: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    positions: frozenset[int] = field(default=frozenset(), repr=False)
    beside: bool = False
    stride: int = 1  # from its number to that of the next member

    @property
    def index(self) -> int | None:
        """Return its number in the series; None where it is in none."""
        return split(self.name)[1] if self.series else None

    @property
    def prefix(self) -> str:
        """Return what the names of all members of its series begin with; none begins with ""."""
        return split(self.name)[0] if self.series else ""


def assess(
    analysis: Analysis,
    name: str,
    series: str,
    entry: str,
    output: str,
    positions: set[int] | None = None,
) -> Block:
    """Return the block between two tensors, and whether a copy of it can be the identity.

    ``positions`` are its nodes where they are more than those on the ways between the tensors.
    """
    vanishing = Vanishing(analysis, entry, output)
    values = vanishing.kept_at(output)
    inside = vanishing.inside if positions is None else positions
    block = Block(
        name,
        [analysis.graph.nodes[at].name for at in sorted(inside)],
        entry,
        output,
        series,
        False,
        parameters=parameters(analysis, inside),
        positions=frozenset(inside),
    )
    obstacle = _obstacle(analysis, block, values, vanishing)
    if obstacle is not None:
        return replace(block, reason=obstacle[0], remedy=obstacle[1])
    assert values is not None
    return _exact(analysis, block, values)


def _obstacle(
    analysis: Analysis, block: Block, values: Weights | None, vanishing: Vanishing
) -> tuple[str, str] | None:
    """Say why no copy of a block can be the identity, and what would work; None where one can."""
    before, behind = (analysis.solution.shapes.of(name) for name in (block.input, block.output))
    if not vanishing.shaped(block.output):
        return f"its output is of another shape than its input: {behind} and {before}", AFTER
    graph = analysis.graph
    for tensor in (block.input, block.output):
        parting = _parting(analysis, tensor)
        if parting is not None:
            return f"{parting.label} gives a sum and the norm of it, which go on apart", UNFUSED
    nodes = [analysis.graph.nodes[at] for at in sorted(block.positions)]
    if not values:
        hidden = next(_unexplained(analysis, nodes), None)
        if hidden is not None:
            return hidden, "first compute what is computed from weights alone (--fold)"
        last, reason = graph.producer.get(block.output), NO_SUM
        if last is not None and is_join(last):
            reason = f"{last.label} puts its branches side by side: a copy cannot pass all parts on"
        return next(iter(vanishing.obstacles), reason), AFTER
    if not any(is_layer(analysis, node) for node in nodes):
        return "it holds no layer with weights", AFTER
    holding = next((node for node in nodes if node.bodies or node.opaque), None)
    if holding is not None:
        return f"it has a node with bodies, {holding.label}", AFTER
    result = _result_aside(analysis, block)
    if result is not None:
        reason = f"the network's output '{result}' comes from within it, and a copy has none"
        return reason, "export the network without that output (a cache: use_cache=False)"
    return None


def _unexplained(analysis: Analysis, nodes: list[Node]) -> Iterator[str]:
    """Yield what no rule explains of the ways in which weights of these nodes are computed."""
    graph, barriers = analysis.graph, analysis.solution.barriers
    pending, seen = [name for node in nodes for name in node.inputs], set[str]()
    while pending:
        name = pending.pop()
        node = graph.producer.get(name) if name in graph.derived and name not in seen else None
        seen.add(name)
        if node is not None:
            pending += [other for other in node.inputs if other]
            if node.position in barriers:
                yield f"its weights are computed by {node.label}: {barriers[node.position]}"


def _result_aside(analysis: Analysis, block: Block) -> str | None:
    """Return the output of the network that is computed within a block, if there is one.

    What comes of the block's own output is none, nor what other layers compute.
    """
    graph, inside = analysis.graph, block.positions
    pending = [o for at in inside for o in graph.nodes[at].outputs if o and o != block.output]
    seen = set(pending)
    while pending:
        name = pending.pop()
        if name in graph.outputs:
            return name
        for reader, _ in graph.consumers.get(name, []):
            if reader.position not in inside and is_weightless(analysis, reader):
                new = [o for o in reader.outputs if o and o not in seen]
                seen.update(new)
                pending += new
    return None


def _parting(analysis: Analysis, tensor: str) -> Node | None:
    """Return the fused norm that gives ``tensor`` and, to others, the sum that it norms."""
    graph = analysis.graph
    node = graph.producer.get(tensor)
    norm = None if node is None else norm_of(analysis, node)
    if norm is None or not norm.total:
        return None
    ends = (norm.node.outputs[0], norm.total)
    return node if all(end in graph.consumers or end in graph.results for end in ends) else None


def _exact(analysis: Analysis, block: Block, values: Weights) -> Block:
    """Return ``block`` with what its copies take to be the identity."""
    graph = analysis.graph
    ones = {name for name, value in values if value}
    nodes = [graph.nodes[at] for at in block.positions]
    row = in_a_row(analysis, block.positions, ones)
    affine: tuple[str, ...] = ()
    reason = None
    if row.norms:
        last = graph.producer[block.output]
        norm = norm_of(analysis, last)
        if norm is None:
            reason = f"it ends in {last.label} behind its norm, and not in the norm itself"
            return replace(block, reason=reason, remedy=AFTER)
        if row.rounded is not None:
            reason = f"another epsilon of {row.rounded.node.label} would be rounded"
            return replace(block, reason=reason, remedy=AFTER)
        affine = (norm.scale, norm.bias) if norm.bias else (norm.scale,)
        readers = [name for node in nodes for name in node.inputs if name in affine]
        if len(readers) > len(affine) or any(name not in graph.model.weights for name in affine):
            reason = "its last norm shares its scale or bias with others"
            return replace(block, reason=reason, remedy=AFTER)
        reason = "exact up to the epsilon of its norms" if row.steady is None else OWN_EPSILONS
    own = tuple(sorted((name, value) for name, value in values if name not in affine))
    if not any(value == 0 for _, value in own):
        return replace(block, reason=NO_SUM, remedy=AFTER)
    return replace(block, exact=True, reason=reason, values=own, affine=affine)


def ancestors_and_descendants(analysis: Analysis, tensor: str) -> set[int]:
    """Return the nodes that ``tensor`` is computed by, and those that it leads to."""
    graph = analysis.graph
    positions, pending = set(), [tensor]
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.position not in positions:
            positions.add(node.position)
            pending += [i for i in node.inputs if i and i not in graph.derived]
    reached = {tensor}
    for node in graph.main:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
            positions.add(node.position)
    return positions


def parameters(analysis: Analysis, positions: set[int]) -> tuple[str, ...]:
    """Return the trained initializers that these nodes read."""
    nodes = analysis.graph.nodes
    names = (n for at in sorted(positions) for n in trained_behind(analysis, nodes[at].inputs))
    return tuple(dict.fromkeys(names))


def is_activation(analysis: Analysis, name: str) -> bool:
    """Return whether a tensor holds what the network computes, not a weight or a size."""
    solution = analysis.solution
    if not name or name in solution.graph.derived:
        return False
    return solution.shapes.dtype.get(name) in FLOATS


def is_layer(analysis: Analysis, node: Node) -> bool:
    """Return whether a node makes channels of channels; looking up an embedding does not."""
    return writes(analysis, node) and any(is_activation(analysis, name) for name in node.inputs)


def is_join(node: Node) -> bool:
    """Return whether a node puts tensors side by side."""
    return node.op == "Concat" and not node.domain


def is_weightless(analysis: Analysis, node: Node) -> bool:
    """Return whether a node has no weights and no body."""
    return not node.bodies and not any(trained_behind(analysis, node.inputs))


def signature(analysis: Analysis, block: Block) -> Signature:
    """Return the operators with weights: equal for blocks of one structure, of any width."""
    nodes = (analysis.graph.nodes[at] for at in sorted(block.positions))
    return tuple((n.domain, n.op, len(n.inputs)) for n in nodes if not is_weightless(analysis, n))


def crossings(analysis: Analysis, inside: set[int], entry: str, output: str) -> int:
    """Count the tensors that lead past the entry into a segment, or past the output out of it."""
    graph = analysis.graph
    count = 0
    for at in inside:
        node = graph.nodes[at]
        for name in node.inputs:
            source = graph.producer.get(name)
            own = name == entry or (source is not None and source.position in inside)
            count += not own and is_activation(analysis, name)
        for name in node.outputs:
            readers = graph.consumers.get(name, [])
            leaves = name in graph.results or any(n.position not in inside for n, _ in readers)
            count += leaves and name != output
    return count
