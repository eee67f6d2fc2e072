"""Which blocks are copied, and how often: names, globs, numbers of copies.

>>> evenly(8, 2)
[0, 0, 0, 1, 0, 0, 0, 1]
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from onnx_net2net.deepening.blocks import Block
from onnx_net2net.errors import UsageError

MOST = 1000  # layers or copies at one place
Named = dict[str, int | None]  # names of blocks; copies of their own, where given


def check_number(what: str, number: object, remedy: str) -> None:
    """UsageError unless ``number`` is one from 1 to MOST."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST:
        raise UsageError(f"{what} {number!r} is not a number from 1 to {MOST}", remedy)


def named(
    block: str | Sequence[str] | Mapping[str, int], copies: int, every: int, spread: bool
) -> Named:
    """Names of blocks, with numbers of copies where they have their own."""
    if not isinstance(block, Mapping):
        return dict.fromkeys([block] if isinstance(block, str) else block)
    if (copies, every, spread) != (1, 1, False):
        problem = "blocks that have numbers of copies of their own take no copies, every or spread"
        raise UsageError(problem, "give names of blocks, or numbers of copies by name")
    for name, number in block.items():
        check_number(f"copies of '{name}'", number, "give the number of copies")
    return dict(block)


def repetitions(
    known: list[Block], wanted: Named, copies: int, every: int, spread: bool
) -> list[tuple[Block, int]]:
    """The blocks meant, in graph order, and how many copies come behind each of them."""
    chosen = _wanted(known, wanted)
    if spread:
        counts = evenly(len(chosen), copies)
    else:
        counts = [copies * (i % every == 0) for i in range(1, len(chosen) + 1)]
    if not any(counts):
        problem = f"every {every} of {len(chosen)} blocks is none of them"
        raise UsageError(problem, f"use --every {len(chosen)}, or less")
    pairs = zip(chosen, counts, strict=True)
    return [(block, count if own is None else own) for (block, own), count in pairs]


def evenly(blocks: int, copies: int) -> list[int]:
    """How many copies come behind each of the blocks, spread evenly."""
    each, rest = divmod(copies, blocks)
    # Those that are not for all end equal groups of blocks, as in LLaMA-Pro.
    ends = [(i + 1) * blocks / rest for i in range(rest)]
    places = [max(round(end), 1) - 1 for end in ends]
    return [each + places.count(i) for i in range(blocks)]


def _wanted(known: list[Block], wanted: Named) -> list[tuple[Block, int | None]]:
    """The blocks that names, ends of names and globs mean, in graph order."""
    found: Named = {}
    for name, copies in wanted.items():
        ends = [b for b in known if b.name == name] or [b for b in known if matches(b.name, name)]
        if not ends:
            raise UsageError(f"there is no block '{name}'", _near([b.name for b in known], name))
        for end in ends:
            if found.setdefault(end.name, copies) != copies:
                problem = f"'{name}' means block '{end.name}', which is named before"
                raise UsageError(problem, "give one number of copies for each block")
    return [(b, found[b.name]) for b in known if b.name in found]


def matches(name: str, pattern: str) -> bool:
    """Whether a name, or its end behind a dot, matches a glob, or is the same text."""
    return name == pattern or fnmatchcase(name, pattern) or fnmatchcase(name, "*." + pattern)


def _near(known: list[str], name: str) -> str:
    if not known:
        return "this network has no blocks; insert single layers (--after)"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "'onnx-net2net inspect MODEL --blocks' lists them"
