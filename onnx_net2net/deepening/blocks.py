"""Blocks: the repeated segments of a network, named as their author named them.

    >>> for block in blocks(model):
    ...     print(block.name, block.exact)
    encoder.layer.0 True

A block is found by the numbers in the names of its parameters (``h.5``, ``denselayer5``), or where
these tell nothing in the graph itself, as a step of a residual stream or as branches that are
joined again; it is called what its names begin with (``conv2_block3``), else ``block.0``,
``block.1``, ... in graph order. Where an identity
path leads from its input to its output, a copy of it can be put behind it whose last projections
are zero.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from onnx_net2net.deepening.block_names import named
from onnx_net2net.deepening.concat_blocks import joined_blocks
from onnx_net2net.deepening.dense_blocks import beside
from onnx_net2net.deepening.numbered_blocks import Series, is_nested
from onnx_net2net.deepening.residual import streamed_blocks
from onnx_net2net.deepening.segments import Block, Signature, assess, signature
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.widening.dimensions import Analysis, analyse, uncollected


def blocks(model: AnyModel) -> list[Block]:
    """Return the blocks of a network, in graph order.

    These are those that can be copied exactly, and others that are repeated, with the reason why
    they cannot.
    """
    return list(load(model).derived(_blocks))


class _Members(dict[str, Block]):
    """Blocks by name, and which lie in which: ``layer1.0`` in ``layer1``."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__((block.name, block) for block in blocks)
        self._within: dict[str, list[str]] = defaultdict(list)
        for name in self:
            for outer in _beginnings(name):
                self._within[outer].append(name)

    def around(self, name: str) -> list[Block]:
        """Return the blocks that hold the one of that name."""
        return [self[outer] for outer in _beginnings(name) if outer in self]

    def within(self, name: str) -> list[Block]:
        """Return the blocks that the one of that name holds."""
        return [self[inner] for inner in self._within.get(name, ()) if inner in self]


@uncollected()
def _blocks(model: Model) -> list[Block]:
    analysis = analyse(model)
    series = Series(analysis)
    members = _Members(map(series.block, series.members))
    for name, block in [*members.items()]:
        # All there is of a stage of one block is the block.
        if any(b.exact and b.positions == block.positions for b in members.within(name)):
            del members[name]
    motifs = _motifs(analysis, members.values())
    repeated = {n for n, b in members.items() if (b.series, signature(analysis, b)) in motifs}
    stages = {n for n, b in members.items() if n not in repeated and _is_row(series, b, members)}
    single = _Members(block for name, block in members.items() if name not in stages)
    kept = [block for block in single.values() if _chosen(block, single, repeated)]
    steps = named(analysis, streamed_blocks(analysis, _positions(kept)), "block")
    kept += steps
    for block in _repeated_but_not_exact(analysis, series, members):
        if all(step.name != block.name for step in steps):
            parts = [step.name for step in steps if step.positions <= block.positions]
            within = f"copy '{parts[0]}' within it, or {block.remedy}" if parts else block.remedy
            kept.append(replace(block, remedy=within))
    kept += named(analysis, joined_blocks(analysis, _positions(kept)), "module")
    return sorted(kept, key=lambda block: min(block.positions))


def _positions(blocks: Iterable[Block]) -> set[int]:
    return {at for block in blocks for at in block.positions}


def block_named(analysis: Analysis, name: str) -> Block | None:
    """Return the part of a network of one name, whether it is listed as a block or not."""
    series = Series(analysis)
    if name not in series.members and not is_nested(series.contents.get(name, ())):
        return None
    block = series.block(name)
    return block if block.exact else series.tightest(name)


def block_again(analysis: Analysis, block: Block) -> Block:
    """Return a block, known before blocks behind it were copied, in the network of now."""
    again = assess(analysis, block.name, block.series, block.input, block.output)
    again = replace(again, stride=block.stride)
    return beside(analysis, again) if block.beside else again


def _motifs(analysis: Analysis, members: Collection[Block]) -> set[tuple[str, Signature]]:
    """Return the structures of which two follow each other in one series."""
    signatures: dict[tuple[str, str], set[Signature]] = defaultdict(set)
    for block in members:
        signatures[block.series, block.input].add(signature(analysis, block))
    return {
        (block.series, own)
        for block in members
        if (own := signature(analysis, block)) in signatures.get((block.series, block.output), ())
    }


def _is_row(series: Series, block: Block, members: _Members) -> bool:
    """Return whether exact blocks with parameters of the same names are all there is of one."""
    alike: dict[frozenset[str], set[int]] = defaultdict(set)
    for inner in members.within(block.name):
        if inner.exact:
            alike[series.contents[inner.name]] |= inner.positions
    return any(positions == block.positions for positions in alike.values())


def _chosen(block: Block, members: _Members, repeated: set[str]) -> bool:
    """Return whether a block is, of nested ones, the outermost exact and repeated, else exact."""
    if not block.exact:
        return False
    outer, inner = members.around(block.name), members.within(block.name)
    if block.name in repeated:
        return not any(b.exact and b.name in repeated for b in outer)
    if any(b.exact and b.name in repeated for b in (*outer, *inner)):
        return False
    return not any(b.exact for b in outer)


def _repeated_but_not_exact(analysis: Analysis, series: Series, members: _Members) -> list[Block]:
    """Return the outermost members of a series, not exact, of which two are made alike."""
    made = {name: (block.series, series.contents[name]) for name, block in members.items()}
    alike = Counter(made.values())
    shapes = analysis.solution.shapes
    segments: dict[str, Block] = {}
    fitting: Counter[tuple[str, frozenset[str]]] = Counter()
    for name, block in members.items():
        nested = (*members.around(name), *members.within(name))
        single = not is_nested(series.contents[name])
        if block.exact:
            fitting[made[name]] += 1
        elif alike[made[name]] > 1 and not single and not any(b.exact for b in nested):
            segment = series.tightest(name)
            if shapes.of(segment.input) == shapes.of(segment.output) is not None:
                fitting[made[name]] += 1
                segments[name] = segment
    kept = {name: block for name, block in segments.items() if fitting[made[name]] > 1}
    return [block for name, block in kept.items() if kept.keys().isdisjoint(_beginnings(name))]


def _beginnings(name: str) -> Iterator[str]:
    """Yield ``a`` and ``a.0`` for ``a.0.b``."""
    for dot in re.finditer(r"\.", name):
        yield name[: dot.start()]
