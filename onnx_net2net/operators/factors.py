"""One order of entries read as two shapes: the factors that Reshape takes apart and merges.

>>> factors((5, 768), (5, 12, 64)).text
'a (b c) -> a b c'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

from onnx_net2net.operators.language import Unsupported, line


@dataclass(frozen=True)
class Factors:
    """One row-major order of entries, read as two shapes."""

    before: list[str]
    after: list[str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The rule that takes ``before`` to ``after``."""
        return line([self.before], [self.after])


def factors(before: Sequence[int], after: Sequence[int]) -> Factors:
    """The coarsest factors of which the axes of both shapes are merged.

    An axis reaches from one suffix product of its shape to the next. Where the suffix
    products of both shapes divide one another, their quotients are the factors; where they do
    not, the axes between the nearest common ones stay whole and fixed.
    """
    if 0 in before or 0 in after:
        raise Unsupported("it has no entries")
    if prod(before) != prod(after):
        raise Unsupported(f"shapes {tuple(before)} and {tuple(after)} hold unequal numbers")
    cuts = sorted({*_cuts(before), *_cuts(after)})
    common = sorted({*_cuts(before)} & {*_cuts(after)})
    apart = [
        (low, high)
        for low, high in pairwise(common)
        if any(b % a for a, b in pairwise(c for c in cuts if low <= c <= high))
    ]
    letters = _letters(len(cuts) - 1 + len(before) + len(after))
    name = dict(zip(reversed(list(pairwise(cuts))), letters, strict=False))
    sizes = {letter: high // low for (low, high), letter in name.items()}
    fixed: dict[str, str] = {}

    def side(shape: Sequence[int], mark: str) -> list[str]:
        terms = []
        for index, (high, low) in enumerate(pairwise(reversed(_cuts(shape)))):
            if any(a <= low < high <= b for a, b in apart):
                terms.append(f"{mark}{index}")
                sizes[terms[-1]] = high // low
                fixed[terms[-1]] = "reshape does not keep its factors apart"
            else:
                inside = [n for (a, b), n in name.items() if low <= a < b <= high]
                terms.append(group(inside))
        return terms

    left, right = side(before, "in"), side(after, "out")
    used = set(" ".join(left + right).replace("(", " ").replace(")", " ").split())
    return Factors(left, right, {n: s for n, s in sizes.items() if n in used}, fixed)


def _cuts(shape: Sequence[int]) -> list[int]:
    """Suffix products, from 1 to the number of entries."""
    return [prod(shape[i:]) for i in range(len(shape), -1, -1)]


def _letters(count: int) -> list[str]:
    return [chr(ord("a") + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(count)]


def group(parts: Sequence[str]) -> str:
    """The text of a row-major merge."""
    return "1" if not parts else parts[0] if len(parts) == 1 else f"({' '.join(parts)})"


def segments(parts: Sequence[str]) -> str:
    """The text of a concatenation."""
    return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
