"""Blocks: the repeated segments of a network, named as their author named them.

    >>> for block in blocks(model):
    ...     print(block.name, block.exact)
    encoder.layer.0 True

A block is found by the numbers in the names of its parameters (``layer3.1``, ``h.5``), or where
these tell nothing in the graph itself, as a step of a residual stream or as branches that are
joined again; it is called what its names begin with (``conv2_block3``), else ``block.0``,
``block.1``, ... in graph order. Where an identity
path leads from its input to its output, a copy of it can be put behind it whose last projections
are zero.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from onnx_net2net.deepening.block_names import named
from onnx_net2net.deepening.concat_blocks import joined_blocks
from onnx_net2net.deepening.numbered_blocks import Series
from onnx_net2net.deepening.residual import streamed_blocks
from onnx_net2net.deepening.segments import Block, Signature, judged, signature
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.widening.dimensions import Analysis, analyse, uncollected


def blocks(model: AnyModel) -> list[Block]:
    """The blocks of a network, in graph order: those that can be copied exactly, and others
    that are repeated, with the reason why they cannot.
    """
    return list(load(model).derived(_blocks))


@uncollected()
def _blocks(model: Model) -> list[Block]:
    analysis = analyse(model)
    series = Series(analysis)
    found = {name: series.block(name) for name in series.members}
    for name in [n for n, b in found.items() if _same_inside(b, found)]:
        del found[name]
    motifs = set(_motifs(analysis, found.values()))
    repeated = {name for name, b in found.items() if (b.series, signature(analysis, b)) in motifs}
    stages = {name for name, b in found.items() if name not in repeated and _row(series, b, found)}
    chosen = {name: block for name, block in found.items() if name not in stages}
    kept = [block for block in chosen.values() if _chosen(block, chosen, repeated)]
    steps = named(analysis, streamed_blocks(analysis, _positions(kept)), "block")
    kept += steps
    for block in _repeated_but_not_exact(analysis, series, found):
        if any(step.name == block.name for step in steps):
            continue
        inner = [step.name for step in steps if step.positions <= block.positions]
        within = f"copy '{inner[0]}' within it, or {block.remedy}" if inner else block.remedy
        kept.append(replace(block, remedy=within))
    kept += named(analysis, joined_blocks(analysis, _positions(kept)), "module")
    return sorted(kept, key=lambda block: min(block.positions))


def _positions(blocks: Iterable[Block]) -> set[int]:
    return {at for block in blocks for at in block.positions}


def block_named(analysis: Analysis, name: str) -> Block | None:
    """The part of a network of one name, whether it is listed as a block or not."""
    series = Series(analysis)
    if name not in series.members:
        return None
    found = series.block(name)
    return found if found.exact else series.closed(name)


def block_again(analysis: Analysis, block: Block) -> Block:
    """A block of the network before blocks behind it were copied."""
    return judged(analysis, block.name, block.series, block.input, block.output)


def _motifs(analysis: Analysis, found: Iterable[Block]) -> Iterator[tuple[str, Signature]]:
    """The structures of which two follow each other in one series."""
    entered: dict[tuple[str, str], list[Block]] = defaultdict(list)
    for block in found:
        entered[block.series, block.input].append(block)
    for block in found:
        mine = signature(analysis, block)
        for other in entered.get((block.series, block.output), []):
            if signature(analysis, other) == mine:
                yield block.series, mine


def _same_inside(block: Block, found: dict[str, Block]) -> bool:
    """Whether a nested block is all there is of ``block``: a stage of one block."""
    inner = (b for name, b in found.items() if _holds(block.name, name))
    return any(b.exact and b.positions == block.positions for b in inner)


def _row(series: Series, block: Block, found: dict[str, Block]) -> bool:
    """Whether exact blocks with parameters of the same names are all there is of ``block``."""
    alike: dict[frozenset[str], set[int]] = defaultdict(set)
    for name, inner in found.items():
        if inner.exact and _holds(block.name, name):
            alike[series.contents(name)] |= inner.positions
    return any(positions == block.positions for positions in alike.values())


def _chosen(block: Block, found: dict[str, Block], repeated: set[str]) -> bool:
    """Of nested blocks the outermost that is exact and repeated, else the outermost exact."""
    if not block.exact:
        return False
    outer = [b for name, b in found.items() if _holds(name, block.name)]
    inner = [b for name, b in found.items() if _holds(block.name, name)]
    if block.name in repeated:
        return not any(b.exact and b.name in repeated for b in outer)
    if any(b.exact and b.name in repeated for b in (*outer, *inner)):
        return False
    return not any(b.exact for b in outer)


def _repeated_but_not_exact(
    analysis: Analysis, series: Series, found: dict[str, Block]
) -> list[Block]:
    """The outermost members of a series, not exact, of which two are made alike."""
    made = {name: (block.series, series.contents(name)) for name, block in found.items()}
    alike = Counter(made.values())
    shapes = analysis.solution.shapes
    closed: dict[str, Block] = {}
    fitting: Counter[tuple[str, frozenset[str]]] = Counter()
    for name, block in found.items():
        nested = (b for n, b in found.items() if _holds(n, name) or _holds(name, n))
        single = all("." not in part.rstrip(".") for part in made[name][1])
        if block.exact:
            fitting[made[name]] += 1
        elif alike[made[name]] > 1 and not single and not any(b.exact for b in nested):
            ends = series.closed(name)
            if shapes.of(ends.input) == shapes.of(ends.output) is not None:
                fitting[made[name]] += 1
                closed[name] = ends
    kept = {name: block for name, block in closed.items() if fitting[made[name]] > 1}
    return [block for name, block in kept.items() if not any(_holds(n, name) for n in kept)]


def _holds(outer: str, inner: str) -> bool:
    return inner.startswith(outer + ".")
