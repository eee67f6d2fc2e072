"""Blocks: the repeated segments of a network, named as their author named them.

    >>> for block in blocks(model):
    ...     print(block.name, block.exact)
    encoder.layer.0 True

A block is found by the numbers in the names of its parameters (``layer3.1``, ``h.5``). Where an
identity path leads from its input to its output, a copy of it can be put behind it whose last
projections are zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from onnx_net2net.contraction import FLOATS
from onnx_net2net.dimensions import Analysis, analyse, module_path
from onnx_net2net.graph import Node
from onnx_net2net.model import Model
from onnx_net2net.vanishing import Vanishing, Weights, trained_behind

# How far a block reaches beyond its nodes with weights: sums, activations, decomposed norms.
_AROUND = 12
NO_SUM = "no sum leads from its input to its output past weights that could be zero"


@dataclass(frozen=True)
class Block:
    """A segment of the graph from tensor ``input`` to tensor ``output``.

    ``series`` is the name its number counts in (``encoder.layer``). ``exact`` tells whether a
    copy of it can begin as the identity, ``reason`` why not, or that it is so but for epsilon;
    ``values`` are the parameters that are zero (or one) then, ``parameters`` all of them. Where
    the block ends in a norm (BERT), ``affine`` is its scale and bias, which move to the copy.
    """

    name: str
    nodes: list[str]
    input: str
    output: str
    series: str
    exact: bool
    reason: str | None = None
    values: tuple[tuple[str, float], ...] = ()
    affine: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    positions: frozenset[int] = field(default=frozenset(), repr=False)

    @property
    def index(self) -> int:
        """Its number in the series."""
        return int(self.name.rpartition(".")[2])


def blocks(model: Model) -> list[Block]:
    """The blocks of a network, in graph order: those that can be copied exactly, and others
    that are repeated, with the reason why they cannot.
    """
    return found_blocks(analyse(model))


def found_blocks(analysis: Analysis) -> list[Block]:
    """The same, of a network that was analysed."""
    members = _members(analysis)
    found = {name: _block(analysis, name, nodes) for name, nodes in members.items()}
    for name in [n for n, b in found.items() if _same_inside(b, found)]:
        del found[name]
    motifs = set(_motifs(analysis, found.values()))
    repeated = {name for name, b in found.items() if _signature(analysis, b) in motifs}
    kept = [block for block in found.values() if _chosen(block, found, repeated)]
    return sorted(kept, key=lambda block: min(block.positions))


def block_named(analysis: Analysis, name: str) -> Block:
    """The block of one name, which is known to be there."""
    return _block(analysis, name, _members(analysis)[name])


def _motifs(analysis: Analysis, found: Iterable[Block]) -> Iterator[tuple]:
    """The structures of which two follow each other in one series."""
    entered: dict[tuple[str, str], list[Block]] = defaultdict(list)
    for block in found:
        entered[block.series, block.input].append(block)
    for blocks_here in list(entered.values()):
        for block in blocks_here:
            signature = _signature(analysis, block)
            for other in entered.get((block.series, block.output), []):
                if _signature(analysis, other) == signature:
                    yield signature


def _same_inside(block: Block, found: dict[str, Block]) -> bool:
    """Whether a nested block is all there is of ``block``: a stage of one block."""
    inner = (b for name, b in found.items() if name.startswith(block.name + "."))
    return any(b.exact and b.positions == block.positions for b in inner)


def _chosen(block: Block, found: dict[str, Block], repeated: set[str]) -> bool:
    """Of nested blocks the outermost that is exact and repeated, else the outermost exact."""
    outer = [b for name, b in found.items() if block.name.startswith(name + ".")]
    inner = [b for name, b in found.items() if name.startswith(block.name + ".")]
    if block.exact and block.name in repeated:
        return not any(b.exact and b.name in repeated for b in outer)
    if any(b.exact and b.name in repeated for b in (*outer, *inner)):
        return False
    if block.exact:
        return not any(b.exact for b in outer)
    if block.name not in repeated or any(b.exact for b in (*inner, *outer)):
        return False
    return block.reason == NO_SUM and not any(b.name in repeated for b in outer)


def _members(analysis: Analysis) -> dict[str, list[Node]]:
    """For every numbered part of a name the nodes that have parameters under it."""
    graph = analysis.solution.graph
    found: dict[str, dict[int, Node]] = defaultdict(dict)
    for node in graph.main:
        if node.position in analysis.solution.shapes.computed:
            continue
        if all(name in graph.derived for name in node.outputs if name):
            continue
        for name in _names(analysis, node):
            for prefix in _numbered(name):
                found[prefix][node.position] = node
    return {prefix: list(nodes.values()) for prefix, nodes in found.items()}


def _numbered(name: str) -> Iterator[str]:
    """``a.0`` and ``a.0.b.1`` for ``a.0.b.1.weight``."""
    parts = name.split(".")
    for end in range(2, len(parts)):
        if parts[end - 1].isdigit() and not parts[0].isdigit():
            yield ".".join(parts[:end])


def _block(analysis: Analysis, name: str, core: list[Node]) -> Block:
    """The segment around the nodes of one name: from an entry that is kept, to an output."""
    entries, outputs = _entries(analysis, core), _outputs(analysis, core)
    own = {node.position for node in core}
    for output in outputs:
        for entry in entries:
            vanishing = Vanishing(analysis, entry, output)
            values = vanishing.kept_at(output)
            if not values:
                continue
            between = _between(analysis, entry, output)
            aside = own - between  # what all blocks of a series share, such as T5's position bias
            if aside and not aside.isdisjoint(_related(analysis, entry)):
                continue
            if len(aside) < len(own) and not _foreign(analysis, name, between):
                made = _made(analysis, name, between, entry, output)
                return _exact(analysis, made, values, vanishing)
    entry, output = (found[0] if found else "" for found in (entries, outputs))
    between = own | _between(analysis, entry, output)
    return _made(analysis, name, between, entry, output)


def _exact(
    analysis: Analysis, block: Block, values: Weights, vanishing: Vanishing
) -> Block:
    """``block`` with what its copies take to be the identity."""
    if not any(value for _, value in values):
        return replace(block, exact=True, reason=None, values=tuple(sorted(values)))
    norm = vanishing.norm_of(block.output)
    assert norm is not None, "a norm was kept that the block does not end in"
    graph = analysis.solution.graph
    inputs = graph.producer[block.output].inputs
    places = [norm.scale] if norm.bias is None else [norm.scale, norm.bias]
    affine = tuple(inputs[at] for at in places if inputs[at:] and inputs[at])
    readers = [n for at in block.positions for n in graph.nodes[at].inputs if n in affine]
    if len(readers) > len(affine) or any(name not in graph.model.weights for name in affine):
        return replace(block, reason="its last norm shares its scale or bias with others")
    return replace(
        block,
        exact=True,
        reason="exact up to the epsilon of its norms",
        values=tuple(sorted((name, value) for name, value in values if name not in affine)),
        affine=affine,
    )


def _made(
    analysis: Analysis, name: str, positions: set[int], entry: str, output: str
) -> Block:
    return Block(
        name,
        [analysis.solution.graph.nodes[at].name for at in sorted(positions)],
        entry,
        output,
        name.rpartition(".")[0],
        False,
        _why(analysis, entry, output),
        parameters=_parameters(analysis, positions),
        positions=frozenset(positions),
    )


def _why(analysis: Analysis, entry: str, output: str) -> str:
    before, behind = (analysis.solution.shapes.of(name) for name in (entry, output))
    if before != behind:
        return f"its output is of another shape than its input: {behind} and {before}"
    return NO_SUM


def _entries(analysis: Analysis, core: list[Node]) -> list[str]:
    """Tensors that the segment may begin with, the last one first: those that its first nodes
    read, and before them those that nodes without weights read.
    """
    graph, own = analysis.solution.graph, {node.position for node in core}
    found: dict[str, None] = {}
    pending = [name for node in core for name in node.inputs]
    for _ in range(_AROUND):
        names = [n for n in dict.fromkeys(pending) if _carries(analysis, n) and n not in found]
        found.update(dict.fromkeys(names))
        sources = [graph.producer.get(name) for name in names]
        pending = [
            name
            for node in sources
            if node is not None and (node.position in own or _plain(analysis, node))
            for name in node.inputs
        ]
    last = min(node.position for node in core)
    at = {name: graph.producer[name].position if name in graph.producer else -1 for name in found}
    return sorted((n for n in found if at[n] < last), key=lambda n: at[n], reverse=True)


def _outputs(analysis: Analysis, core: list[Node]) -> list[str]:
    """Tensors that the segment may end with, the last one first."""
    graph = analysis.solution.graph
    last = max(core, key=lambda node: node.position)
    found = dict.fromkeys(o for o in last.outputs if o)
    pending = list(found)
    for _ in range(_AROUND):
        readers = [node for name in pending for node, _ in graph.consumers.get(name, [])]
        pending = [
            output
            for node in readers
            if node.parent is None and _plain(analysis, node)
            for output in node.outputs
            if output and output not in found and _carries(analysis, output)
        ]
        found.update(dict.fromkeys(pending))
    return sorted(found, key=lambda name: graph.producer[name].position, reverse=True)


def _carries(analysis: Analysis, name: str) -> bool:
    """Whether a tensor is one that the network computes with, not a weight or a size."""
    solution = analysis.solution
    if not name or name in solution.graph.derived:
        return False
    return solution.shapes.dtype.get(name) in FLOATS


def _plain(analysis: Analysis, node: Node) -> bool:
    """Whether a node has no weights and no body."""
    return not node.bodies and not any(trained_behind(analysis, node.inputs))


def _between(analysis: Analysis, entry: str, output: str) -> set[int]:
    """The nodes on the ways from ``entry`` to ``output``."""
    graph = analysis.solution.graph
    start = graph.producer[entry].position if entry in graph.producer else -1
    above, pending = set(), [output]
    while pending:
        name = pending.pop()
        node = graph.producer.get(name)
        new = node is not None and node.position > start and node.position not in above
        if node is not None and new and name != entry and node.parent is None:
            above.add(node.position)
            pending += [i for i in node.inputs if i]
    reached, found = {entry}, set()
    for at in sorted(above):
        if not reached.isdisjoint(graph.nodes[at].inputs):
            reached.update(graph.nodes[at].outputs)
            found.add(at)
    return found


def _related(analysis: Analysis, entry: str) -> set[int]:
    """The nodes that ``entry`` is computed by, and those that it leads to."""
    graph = analysis.solution.graph
    found, pending = set(), [entry]
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.position not in found:
            found.add(node.position)
            pending += [i for i in node.inputs if i and i not in graph.derived]
    reached = {entry}
    for node in graph.main:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
            found.add(node.position)
    return found


def _foreign(analysis: Analysis, name: str, positions: set[int]) -> bool:
    """Whether weights of other numbered names lie in between."""
    for at in positions:
        for other in _names(analysis, analysis.solution.graph.nodes[at]):
            if list(_numbered(other)) and not other.startswith(name + "."):
                return True
    return False


def _names(analysis: Analysis, node: Node) -> list[str]:
    """The names of a node's parameters, and of its module if it has any."""
    names = list(trained_behind(analysis, node.inputs))
    path = module_path(node)
    return [*names, path + "."] if path and names else names


def _parameters(analysis: Analysis, positions: set[int] | frozenset[int]) -> tuple[str, ...]:
    nodes = analysis.solution.graph.nodes
    names = (n for at in sorted(positions) for n in trained_behind(analysis, nodes[at].inputs))
    return tuple(dict.fromkeys(names))


def _signature(analysis: Analysis, block: Block) -> tuple:
    """Equal for blocks of one structure, whatever their widths."""
    nodes = (analysis.solution.graph.nodes[at] for at in sorted(block.positions))
    return tuple((node.domain, node.op, len(node.inputs)) for node in nodes)
