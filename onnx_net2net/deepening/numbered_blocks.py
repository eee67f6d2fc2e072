"""Blocks by the numbers in the names of their parameters: ``layer3.1``, ``encoder.layer.3``.

series = Series(analysis)
series.members                # {"h.0": its nodes, "h.1": ...}
series.block("h.0").exact
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from onnx_net2net.deepening.paths import between, trained_behind, upstream
from onnx_net2net.deepening.segments import Block, carries, judged, leaks, plain, related
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
        """The names of a node's parameters, and of its module if it has any."""
        if node.position not in self._names:
            names = list(trained_behind(self.analysis, node.inputs))
            path = module_path(node) if names else None
            if path:  # a weight that several read bears the name of one of them only
                consumers = self.analysis.graph.consumers
                names = [*(name for name in names if len(consumers[name]) == 1), path + "."]
            self._names[node.position] = names
        return self._names[node.position]

    def _members(self) -> dict[str, list[Node]]:
        """For every numbered part of a name the nodes that have parameters under it."""
        graph = self.analysis.graph
        found: dict[str, dict[int, Node]] = defaultdict(dict)
        for node in graph.main:
            if node.position in self.analysis.solution.shapes.computed:
                continue
            if all(name in graph.derived for name in node.outputs if name):
                continue
            for name in self.names(node):
                for prefix in _numbered(name):
                    found[prefix][node.position] = node
        return {prefix: list(nodes.values()) for prefix, nodes in found.items()}

    def contents(self, name: str) -> frozenset[str]:
        """What the parameters of a member are called within it."""
        start = name + "."
        names = (other for node in self.members[name] for other in self.names(node))
        return frozenset(other.removeprefix(start) for other in names if other.startswith(start))

    def block(self, name: str) -> Block:
        """The segment around a member, which a copy can follow if any segment can."""
        core = self.members[name]
        own = {node.position for node in core}
        entries, outputs = _entries(self.analysis, core), _outputs(self.analysis, core)
        for output in outputs:
            before = set(upstream(self.analysis, output))
            for entry in [e for e in entries if e in before]:
                found = judged(self.analysis, name, _series(name), entry, output)
                inside = set(found.positions)
                aside = own - inside  # what all of a series share, such as T5's position bias
                if not found.exact or len(aside) == len(own) or self._foreign(name, inside):
                    continue
                if not aside or aside.isdisjoint(related(self.analysis, entry)):
                    return found
        return self._judged(name, (next(iter(entries), ""), next(iter(outputs), "")))

    def closed(self, name: str) -> Block:
        """The segment around a member past which least leads: into it, and out of it."""
        core = self.members[name]
        own = {node.position for node in core}
        entries, outputs = _entries(self.analysis, core), _outputs(self.analysis, core)
        shapes = self.analysis.solution.shapes
        pairs = [(entry, output) for output in outputs for entry in entries]
        fitting = [(e, o) for e, o in pairs if shapes.of(e) == shapes.of(o) is not None]
        best, found = None, (next(iter(entries), ""), next(iter(outputs), ""))
        for entry, output in fitting + pairs:
            inside = between(self.analysis, entry, output)
            missing = len(own - inside)
            if 2 * missing >= len(own) or self._foreign(name, inside):
                continue  # most of its nodes lie elsewhere, or some are another's
            lost = missing, leaks(self.analysis, inside, entry, output)
            if best is None or lost < best:
                best, found = lost, (entry, output)
        return self._judged(name, found)

    def _judged(self, name: str, ends: tuple[str, str]) -> Block:
        own = {node.position for node in self.members[name]}
        inside = own | between(self.analysis, *ends)
        return judged(self.analysis, name, _series(name), *ends, inside)

    def _foreign(self, name: str, positions: set[int]) -> bool:
        """Whether weights of other numbered names lie in between."""
        nodes = self.analysis.graph.nodes
        for other in (other for at in positions for other in self.names(nodes[at])):
            if not other.startswith(name + ".") and any(_numbered(other)):
                return True
        return False


def _series(name: str) -> str:
    return name.rpartition(".")[0]


def _numbered(name: str) -> Iterator[str]:
    """``a.0`` and ``a.0.b.1`` for ``a.0.b.1.weight``; none for ``/a/a.0/Conv_output``, which names
    no parameter but what a node gave before it was folded.
    """
    parts = name.split(".") if "/" not in name else []
    for end in range(2, len(parts)):
        if parts[end - 1].isdigit() and not parts[0].isdigit():
            yield ".".join(parts[:end])


def _entries(analysis: Analysis, core: list[Node]) -> list[str]:
    """Tensors that the segment may begin with, the last one first: those that its first nodes
    read, and before them those that nodes without weights read.
    """
    graph, own = analysis.graph, {node.position for node in core}
    found: dict[str, None] = {}
    pending = [name for node in core for name in node.inputs]
    for _ in range(_AROUND):
        names = [n for n in dict.fromkeys(pending) if carries(analysis, n) and n not in found]
        found.update(dict.fromkeys(names))
        sources = [graph.producer.get(name) for name in names]
        pending = [
            name
            for node in sources
            if node is not None and (node.position in own or _leads(analysis, node))
            for name in node.inputs
        ]
    last = min(node.position for node in core)
    at = {name: graph.producer[name].position if name in graph.producer else -1 for name in found}
    return sorted((n for n in found if at[n] < last), key=lambda n: at[n], reverse=True)


def _leads(analysis: Analysis, node: Node) -> bool:
    """Whether a node may come before the first layer of a block: not the sum that ends another."""
    if len(node.facts.summands) < 2:
        return plain(analysis, node)
    producer = analysis.graph.producer
    sources = [producer.get(name) for name in node.inputs if carries(analysis, name)]
    return all(plain(analysis, source) for source in sources if source is not None)


def _outputs(analysis: Analysis, core: list[Node]) -> list[str]:
    """Tensors that the segment may end with, the last one first."""
    graph = analysis.graph
    last = max(core, key=lambda node: node.position)
    found = dict.fromkeys(o for o in last.outputs if o)

    def follows(node: Node) -> bool:
        """Whether a node has no weights, and reads nothing that other blocks give later."""
        later = [n for n in node.inputs if n not in found and carries(analysis, n)]
        late = any(n in graph.producer and graph.producer[n].position > at for n in later)
        return node.parent is None and not late and plain(analysis, node)

    pending, at = list(found), last.position
    for _ in range(_AROUND):
        readers = [node for name in pending for node, _ in graph.consumers.get(name, [])]
        outputs = (output for node in readers if follows(node) for output in node.outputs)
        pending = [o for o in outputs if o and o not in found and carries(analysis, o)]
        found.update(dict.fromkeys(pending))
    return sorted(found, key=lambda name: graph.producer[name].position, reverse=True)
