"""Which blocks are copied, and how often: names, globs, numbers of copies.

>>> evenly(8, 2)
[0, 0, 0, 1, 0, 0, 0, 1]
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from onnx_net2net.deepening.segments import Block
from onnx_net2net.errors import UsageError
from onnx_net2net.step import Deepen, listed

Numbers = dict[str, int | None]  # copies by block; None where they have none of their own


def repetitions(known: list[Block], step: Deepen) -> list[tuple[Block, int]]:
    """Return the blocks meant, in graph order, and how many copies come behind each of them."""
    chosen = _named(known, step.block)
    if step.spread:
        counts = evenly(len(chosen), step.copies)
    else:
        counts = [step.copies * (i % step.every == 0) for i in range(1, len(chosen) + 1)]
    if not any(counts):
        problem = f"every {step.every} of {len(chosen)} blocks is none of them"
        raise UsageError(problem, f"use --every {len(chosen)}, or less")
    pairs = zip(chosen, counts, strict=True)
    return [(block, count if own is None else own) for (block, own), count in pairs]


def evenly(blocks: int, copies: int) -> list[int]:
    """Return how many copies come behind each of the blocks, spread evenly."""
    each, rest = divmod(copies, blocks)
    # Those that are not for all end equal groups of blocks, as in LLaMA-Pro.
    ends = [(i + 1) * blocks / rest for i in range(rest)]
    places = Counter(max(round(end), 1) - 1 for end in ends)
    return [each + places[i] for i in range(blocks)]


def _named(
    known: list[Block], names: str | Sequence[str] | Mapping[str, int]
) -> list[tuple[Block, int | None]]:
    """Return the blocks that names, ends of names and globs mean, in graph order."""
    chosen: Numbers = {}
    numbers = names if isinstance(names, Mapping) else dict.fromkeys(listed(names))
    by_name = {block.name: block for block in known}
    for name, copies in numbers.items():
        whole = by_name.get(name)
        ends = [whole] if whole else [b for b in known if matches(b.name, name)]
        if not ends:
            close = difflib.get_close_matches(name, [b.name for b in known], n=3, cutoff=0.5)
            remedy = "'onnx-net2net inspect MODEL --blocks' lists them"
            if close:
                remedy = "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
            elif not known:
                remedy = "this network has no blocks; insert single layers (--after)"
            raise UsageError(f"there is no block '{name}'", remedy)
        for end in ends:
            if chosen.setdefault(end.name, copies) != copies:
                problem = f"'{name}' means block '{end.name}', which is named before"
                raise UsageError(problem, "give one number of copies for each block")
    return [(b, chosen[b.name]) for b in known if b.name in chosen]


def matches(name: str, pattern: str) -> bool:
    """Return whether a name, or its end behind a dot, matches a glob, or is the same text."""
    return name == pattern or fnmatchcase(name, pattern) or fnmatchcase(name, "*." + pattern)
