"""Blocks by the numbers in the names of their parameters: ``layer3.1``, ``encoder.layer.3``.

series = Series(analysis)
series.members                # {"h.0": its nodes, "h.1": ...}
series.block("h.0").exact
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from onnx_net2net.deepening.paths import between, trained_behind, upstream
from onnx_net2net.deepening.segments import (
    Block,
    ancestors_and_descendants,
    assess,
    crossings,
    is_activation,
    is_weightless,
)
from onnx_net2net.model.graph import Node
from onnx_net2net.widening.dimensions import Analysis, module_path

# How far a block reaches beyond its nodes with weights: sums, activations, decomposed norms.
_AROUND = 12


class Series:
    """The numbered parts of the names in one network."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self._names: dict[int, list[str]] = {}
        self.members = self._members()

    def names(self, node: Node) -> list[str]:
        """Return the names of a node's parameters, and of its module if it has any."""
        if node.position not in self._names:
            names = list(trained_behind(self.analysis, node.inputs))
            path = module_path(node) if names else None
            if path:  # a weight that several read bears the name of one of them only
                consumers = self.analysis.graph.consumers
                names = [*(name for name in names if len(consumers[name]) == 1), path + "."]
            self._names[node.position] = names
        return self._names[node.position]

    def _members(self) -> dict[str, list[Node]]:
        """Return for every numbered part of a name the nodes that have parameters under it."""
        graph = self.analysis.graph
        members: dict[str, dict[int, Node]] = defaultdict(dict)
        for node in graph.main:
            if node.position in self.analysis.solution.shapes.computed:
                continue
            if all(name in graph.derived for name in node.outputs if name):
                continue
            for name in self.names(node):
                for prefix in _numbered(name):
                    members[prefix][node.position] = node
        return {prefix: list(nodes.values()) for prefix, nodes in members.items()}

    def contents(self, name: str) -> frozenset[str]:
        """Return what the parameters of a member are called within it."""
        start = name + "."
        names = (other for node in self.members[name] for other in self.names(node))
        return frozenset(other.removeprefix(start) for other in names if other.startswith(start))

    def block(self, name: str) -> Block:
        """Return the segment around a member, one that a copy can follow if there is any."""
        core = self.members[name]
        own = {node.position for node in core}
        entries, outputs = _entries(self.analysis, core), _outputs(self.analysis, core)
        for output in outputs:
            before = set(upstream(self.analysis, output))
            for entry in [e for e in entries if e in before]:
                block = assess(self.analysis, name, name.rpartition(".")[0], entry, output)
                inside = set(block.positions)
                aside = own - inside  # what all of a series share, such as T5's position bias
                if not block.exact or len(aside) == len(own) or self._foreign(name, inside):
                    continue
                if not aside or aside.isdisjoint(ancestors_and_descendants(self.analysis, entry)):
                    return block
        return self._between(name, next(iter(entries), ""), next(iter(outputs), ""))

    def tightest(self, name: str) -> Block:
        """Return the segment around a member that the fewest tensors lead into or out of aside."""
        core = self.members[name]
        own = {node.position for node in core}
        entries, outputs = _entries(self.analysis, core), _outputs(self.analysis, core)
        shapes = self.analysis.solution.shapes
        pairs = [(entry, output) for output in outputs for entry in entries]
        fitting = [(e, o) for e, o in pairs if shapes.of(e) == shapes.of(o) is not None]
        best, ends = None, (next(iter(entries), ""), next(iter(outputs), ""))
        for entry, output in fitting + pairs:
            inside = between(self.analysis, entry, output)
            missing = len(own - inside)
            if 2 * missing >= len(own) or self._foreign(name, inside):
                continue  # most of its nodes lie elsewhere, or some are another's
            lost = missing, crossings(self.analysis, inside, entry, output)
            if best is None or lost < best:
                best, ends = lost, (entry, output)
        return self._between(name, *ends)

    def _between(self, name: str, entry: str, output: str) -> Block:
        """Return the block between two tensors with all nodes of the member, wherever they lie."""
        own = {node.position for node in self.members[name]}
        inside = own | between(self.analysis, entry, output)
        return assess(self.analysis, name, name.rpartition(".")[0], entry, output, inside)

    def _foreign(self, name: str, positions: set[int]) -> bool:
        """Return whether weights of other numbered names lie in between."""
        nodes = self.analysis.graph.nodes
        for other in (other for at in positions for other in self.names(nodes[at])):
            if not other.startswith(name + ".") and any(_numbered(other)):
                return True
        return False


def _numbered(name: str) -> Iterator[str]:
    """Yield ``a.0`` and ``a.0.b.1`` for ``a.0.b.1.weight``; nothing for ``/a/a.0/Conv_output``,
    which names no parameter but the output of a node that was folded.
    """
    parts = name.split(".") if "/" not in name else []
    for end in range(2, len(parts)):
        if parts[end - 1].isdigit():
            yield ".".join(parts[:end])


def _entries(analysis: Analysis, core: list[Node]) -> list[str]:
    """Return the tensors that the segment may begin with, the last one first.

    They are the inputs of its first nodes, and of the nodes without weights before these.
    """
    graph, own = analysis.graph, {node.position for node in core}
    entries: dict[str, None] = {}
    pending = [name for node in core for name in node.inputs]
    for _ in range(_AROUND):
        names = [n for n in pending if is_activation(analysis, n) and n not in entries]
        entries.update(dict.fromkeys(names))
        sources = [graph.producer.get(name) for name in names]
        pending = [
            name
            for node in sources
            if node is not None and (node.position in own or _leads(analysis, node))
            for name in node.inputs
        ]
    last = min(node.position for node in core)
    at = {n: graph.producer[n].position if n in graph.producer else -1 for n in entries}
    return sorted((n for n in entries if at[n] < last), key=lambda n: at[n], reverse=True)


def _leads(analysis: Analysis, node: Node) -> bool:
    """Return whether a node may come before the first layer: not the sum that ends a block."""
    if len(node.facts.summands) < 2:
        return is_weightless(analysis, node)
    producer = analysis.graph.producer
    sources = [producer.get(name) for name in node.inputs if is_activation(analysis, name)]
    return all(is_weightless(analysis, source) for source in sources if source is not None)


def _outputs(analysis: Analysis, core: list[Node]) -> list[str]:
    """Return the tensors that the segment may end with, the last one first."""
    graph = analysis.graph
    last = max(core, key=lambda node: node.position)
    ends = dict.fromkeys(o for o in last.outputs if o)

    def follows(node: Node) -> bool:
        """Return whether a node has no weights, and no input that other blocks give later."""
        others = [n for n in node.inputs if n not in ends and is_activation(analysis, n)]
        late = any(n in graph.producer and graph.producer[n].position > at for n in others)
        return node.parent is None and not late and is_weightless(analysis, node)

    pending, at = list(ends), last.position
    for _ in range(_AROUND):
        readers = [node for name in pending for node, _ in graph.consumers.get(name, [])]
        outputs = (output for node in readers if follows(node) for output in node.outputs)
        pending = [o for o in outputs if o not in ends and is_activation(analysis, o)]
        ends.update(dict.fromkeys(pending))
    return sorted(ends, key=lambda name: graph.producer[name].position, reverse=True)
