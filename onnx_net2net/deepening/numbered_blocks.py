"""Blocks by the numbers in the names of their parameters: ``h.3``, ``encoder_layer_12``.

series = Series(analysis)
series.members                # {"h.0": its nodes, "h.1": ...}
series.block("h.0").exact

A number that is a whole part of a name (``h.3``) counts the members of a series. One behind letters
may belong to a name (``conv1``, ``fc2``): it counts modules that hold others, two of them alike.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from onnx_net2net.deepening.dense_blocks import beside
from onnx_net2net.deepening.paths import between, trained_behind, upstream
from onnx_net2net.deepening.segments import (
    Block,
    ancestors_and_descendants,
    assess,
    crossings,
    is_activation,
    is_join,
    is_weightless,
)
from onnx_net2net.model.graph import Node
from onnx_net2net.model.numbers import between_dots, members_in, split, title
from onnx_net2net.widening.dimensions import Analysis, module_path

# How far a block reaches beyond its nodes with weights: sums, activations, decomposed norms.
_AROUND = 12


class Series:
    """The numbered parts of the names in one network.

    ``prefixes`` are those behind which numbers may count, ``members`` are of series for certain.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self._names: dict[int, list[str]] = {}
        self.nodes = self._nodes()  # of all that may be members, though they be alone
        self.contents = {name: self._contents(name) for name in self.nodes}
        kinds = Counter((split(name)[0], contents) for name, contents in self.contents.items())
        self.prefixes = {p for p, contents in kinds if between_dots(p) or is_nested(contents)}
        alike = {p for (p, _), count in kinds.items() if between_dots(p) or count > 1}
        self.members = [n for n in self.nodes if split(n)[0] in self.prefixes & alike]

        numbers: dict[str, list[int]] = defaultdict(list)
        for name in self.nodes:
            numbers[split(name)[0]].append(split(name)[1])
        # What has no parameters is counted along: every second one may be a Dropout.
        self.strides = {
            prefix: math.gcd(*(n - min(counted) for n in counted)) or 1
            for prefix, counted in numbers.items()
        }

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

    def _nodes(self) -> dict[str, list[Node]]:
        """Return for every numbered part of a name the nodes that have parameters under it."""
        graph = self.analysis.graph
        members: dict[str, dict[int, Node]] = defaultdict(dict)
        for node in graph.main:
            if node.position in self.analysis.solution.shapes.computed:
                continue
            if all(name in graph.derived for name in node.outputs if name):
                continue
            for name in self.names(node):
                for member in members_in(name):
                    members[member][node.position] = node
        return {member: list(nodes.values()) for member, nodes in members.items()}

    def _contents(self, name: str) -> frozenset[str]:
        """Return what the parameters of a member are called within it."""
        start = name + "."
        names = (other for node in self.nodes[name] for other in self.names(node))
        return frozenset(other.removeprefix(start) for other in names if other.startswith(start))

    def block(self, name: str) -> Block:
        """Return the segment around a member, one that a copy can follow if there is any."""
        core = self.nodes[name]
        own = {node.position for node in core}
        entries, outputs = _entries(self.analysis, core), _outputs(self.analysis, core)
        for output in outputs:
            before = set(upstream(self.analysis, output))
            for entry in [e for e in entries if e in before]:
                block = self._assess(name, entry, output)
                inside = set(block.positions)
                aside = own - inside  # what all of a series share, such as T5's position bias
                if not block.exact or len(aside) == len(own) or self._foreign(name, inside):
                    continue
                if not aside or aside.isdisjoint(ancestors_and_descendants(self.analysis, entry)):
                    return block
        return self._dense(name) or self._between(name, *_ends(entries, outputs))

    def _dense(self, name: str) -> Block | None:
        """Return the block from what a member's first node reads to what its last one gives, if a
        copy can be put beside it.
        """
        first, last = self.nodes[name][0], self.nodes[name][-1]
        readers = self.analysis.graph.consumers.get(last.outputs[0], [])
        entry = next((n for n in first.inputs if is_activation(self.analysis, n)), "")
        if not entry or not readers or not all(is_join(node) for node, _ in readers):
            return None
        block = beside(self.analysis, self._between(name, entry, last.outputs[0]))
        return block if block.exact else None

    def tightest(self, name: str) -> Block:
        """Return the segment around a member that the fewest tensors lead into or out of aside."""
        core = self.nodes[name]
        own = {node.position for node in core}
        entries, outputs = _entries(self.analysis, core), _outputs(self.analysis, core)
        shapes = self.analysis.solution.shapes
        pairs = [(entry, output) for output in outputs for entry in entries]
        fitting = [(e, o) for e, o in pairs if shapes.of(e) == shapes.of(o) is not None]
        best, ends = None, _ends(entries, outputs)
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
        own = {node.position for node in self.nodes[name]}
        inside = own | between(self.analysis, entry, output)
        return self._assess(name, entry, output, inside)

    def _assess(
        self, name: str, entry: str, output: str, positions: set[int] | None = None
    ) -> Block:
        prefix, _ = split(name)
        block = assess(self.analysis, name, title(prefix), entry, output, positions)
        return replace(block, stride=self.strides[prefix])

    def _foreign(self, name: str, positions: set[int]) -> bool:
        """Return whether weights of other members, of whatever series, lie in between."""
        nodes = self.analysis.graph.nodes
        own = {split(member)[0] for member in members_in(name + ".")}
        for other in (other for at in positions for other in self.names(nodes[at])):
            prefixes = (split(member)[0] for member in members_in(other))
            if not other.startswith(name + ".") and any(
                between_dots(prefix) or prefix in own for prefix in prefixes
            ):
                return True
        return False


def is_nested(contents: Iterable[str]) -> bool:
    """Return whether some of these parameters lie in modules of their own."""
    return any("." in name.rstrip(".") for name in contents)


def _ends(entries: list[str], outputs: list[str]) -> tuple[str, str]:
    return next(iter(entries), ""), next(iter(outputs), "")


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
