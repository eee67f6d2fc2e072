"""The normalisations of a solved graph that have an affine map, by one node or by several.

norms = normalizations(solution)
norms[node.position].scale          # by each node that has a part in it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx_net2net.algebra.axes import Axis
from onnx_net2net.analysis.fusion_patterns import Surroundings
from onnx_net2net.analysis.fusions import NORMS, fusions
from onnx_net2net.analysis.solver import Applied, Solution
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.language import Kind, Norm


@dataclass(frozen=True, eq=False, slots=True)
class Normalization:
    """LayerNorm (``centred``) or RMSNorm of the sum of ``summands`` over one axis.

    ``node`` gives the result, ``nodes`` are the positions of all that compute it. ``total`` is the
    output that gives the sum itself. ``epsilon_input`` is the operand that holds epsilon, None
    where an attribute of ``node`` does.
    """

    node: Node
    nodes: frozenset[int]
    axis: Axis
    centred: bool
    summands: tuple[str, ...]
    scale: str
    bias: str
    epsilon: float
    total: str = ""
    epsilon_input: tuple[Node, int] | None = None


def normalizations(solution: Solution) -> dict[int, Normalization]:
    """Return all of them, by the position of every node that has a part in one."""
    fused = (
        _fused(applied, norm)
        for applied in solution.applied.values()
        if (norm := applied.rule.norm) is not None and norm.name in applied.env
    )
    norms = [*fused, *_decomposed(solution)]
    return {position: norm for norm in norms for position in norm.nodes}


def _fused(applied: Applied, norm: Norm) -> Normalization:
    """Return the normalisation that one node is."""
    node = applied.node

    def tensor(index: int | None, names: tuple[str, ...]) -> str:
        return names[index] if index is not None and index < len(names) else ""

    return Normalization(
        node,
        frozenset({node.position}),
        applied.env[norm.name],
        norm.centred,
        tuple(filter(None, (tensor(i, node.inputs) for i in norm.summands))),
        tensor(norm.scale, node.inputs),
        tensor(norm.bias, node.inputs),
        norm.epsilon_of(node.proto),
        tensor(norm.total, node.outputs),
    )


def _decomposed(solution: Solution) -> Iterator[Normalization]:
    """Yield the normalisations that several nodes are."""
    graph, shapes = solution.graph, solution.shapes
    around = Surroundings(
        graph,
        shapes,
        lambda name: shapes.known(name) if name in graph.derived else None,
        graph.model.weights.__contains__,
    )
    for fusion in fusions(around, NORMS):
        if not all(node.position in solution.applied for node in fusion.nodes):
            continue
        names = fusion.names
        addition = graph.producer[names["variance"]]
        nodes = {node.position for node in fusion.nodes}
        scale, bias = (_stored(solution, names.get(key, ""), nodes) for key in ("w", "b"))
        yield Normalization(
            fusion.nodes[0],
            frozenset(nodes),
            solution.axes[names["x"]][fusion.attributes["axis"]],
            "mean" in names,
            (names["x"],),
            scale,
            bias,
            fusion.attributes["epsilon"],
            epsilon_input=(addition, addition.inputs.index(names["eps"])),
        )


def _stored(solution: Solution, name: str, nodes: set[int]) -> str:
    """Return the weight that ``name`` is a reshaped copy of, for these ``nodes`` alone.

    The nodes that reshape it are added to them. Return ``name`` where there is no such weight.
    """
    graph, tensor, moves = solution.graph, name, set[int]()
    while tensor in graph.derived and tensor not in graph.model.weights:
        applied = solution.applied.get(graph.producer[tensor].position)
        readers = {node.position for node, _ in graph.consumers[tensor]}
        if applied is None or applied.rule.kind is not Kind.MOVE or not readers <= nodes | moves:
            return name
        moves.add(applied.node.position)
        tensor = applied.node.inputs[0]
    if tensor not in graph.model.weights:
        return name
    nodes |= moves
    return tensor
