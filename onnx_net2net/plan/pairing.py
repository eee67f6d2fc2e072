"""Two graphs of one structure, side by side: which nodes and which weights correspond.

    walk = Walk(own.graph, other.graph, leaf)
    for mine, theirs in walk.nodes(): ...
    walk.problems                   # where the structures differ

From the outputs back, whatever the names: exporters number those that they make up anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from onnx_net2net.model.graph import Graph, Node

__all__ = ["Leaf", "Walk", "original", "paired_weights"]

# Whether an operand of a pair of nodes, by its index, is not to be followed further back.
Leaf = Callable[[Node, Node, int], bool]


@dataclass
class Walk:
    """``own`` and ``other`` from their outputs back; ``problems`` say where they differ."""

    own: Graph
    other: Graph
    leaf: Leaf
    problems: list[str] = field(default_factory=list)
    _inputs: dict[str, str] = field(default_factory=dict)

    def nodes(self) -> Iterator[tuple[Node, Node]]:
        """Yield the pairs of nodes at the same place, each once."""
        own, other = self.own, self.other
        if len(own.inputs) != len(other.inputs) or len(own.outputs) != len(other.outputs):
            self.problems.append("it has other inputs or outputs")
        same = set(own.inputs) == set(other.inputs)
        self._inputs.update(zip(other.inputs, other.inputs if same else own.inputs, strict=False))
        pending = list(zip(own.outputs, other.outputs, strict=False))
        seen, done = set(pending), set[tuple[int, int]]()
        while pending:
            nodes = self._producers(*pending.pop())
            if nodes is None or (at := (nodes[0].position, nodes[1].position)) in done:
                continue
            done.add(at)
            yield nodes
            behind = [pair for pair in self._behind(*nodes) if pair not in seen]
            seen.update(behind)
            pending += behind

    def _producers(self, mine: str, theirs: str) -> tuple[Node, Node] | None:
        """Return the nodes that give two tensors, if they are alike."""
        if theirs in self._inputs or mine in self._inputs.values():
            if self._inputs.get(theirs) != mine:
                self.problems.append(f"it reads '{theirs}' in place of '{mine}'")
            return None
        first, second = self.own.producer.get(mine), self.other.producer.get(theirs)
        if first is None or second is None:
            self.problems.append(f"it has '{theirs}' in place of '{mine}'")
        elif _kind(first, mine) != _kind(second, theirs):
            self.problems.append(f"it has {second.label} in place of {first.label}")
        else:
            return first, second
        return None

    def _behind(self, first: Node, second: Node) -> Iterator[tuple[str, str]]:
        """Yield the pairs of tensors that two nodes read, and that their bodies give."""
        for inner, outer in zip(first.bodies, second.bodies, strict=True):
            names = ([v.name for v in body.proto.input] for body in (outer, inner))
            self._inputs.update(zip(*names, strict=False))
            ends = ([v.name for v in body.proto.output] for body in (inner, outer))
            yield from zip(*ends, strict=False)
        for index, pair in enumerate(zip(first.inputs, second.inputs, strict=True)):
            if any(pair) and not self.leaf(first, second, index):
                yield pair


def paired_weights(own: Graph, other: Graph) -> dict[str, str]:
    """Return the weights that stand at the same places, {of ``own``: of ``other``}, by the names
    of the analysis; those of which places say different things are left out.
    """
    pairs: dict[str, str | None] = {}

    def leaf(first: Node, second: Node, index: int) -> bool:
        mine, theirs = first.inputs[index], second.inputs[index]
        weights = mine in own.model.weights, theirs in other.model.weights
        if all(weights) and pairs.setdefault(mine, theirs) != theirs:
            pairs[mine] = None
        return any(weights)

    for _ in Walk(own, other, leaf).nodes():
        pass
    return {mine: theirs for mine, theirs in pairs.items() if theirs is not None}


def original(graph: Graph, name: str) -> str:
    """Return what the file calls a weight of which the analysis has a copy."""
    return graph.copies[name].original if name in graph.copies else name


def _kind(node: Node, output: str) -> tuple[str, str, int, int, int]:
    place = node.outputs.index(output)
    return node.op, node.domain, len(node.inputs), len(node.bodies), place
