"""One order of entries read as two shapes: the factors that Reshape takes apart and merges.

>>> factors((5, 768), (5, 12, 64)).text
'a (b c) -> a b c'

Sizes may be symbols. That two shapes are cut at the same places is then shown from both ends:
by sizes that are equal, that divide one another, or whose products do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise, product
from math import prod

from onnx_net2net.algebra.sizes import AT_RUN_TIME, AnySize, exact, trial
from onnx_net2net.operators.language import Unsupported, line

APART = "reshape does not keep its factors apart"
CUT = f"where it is cut {AT_RUN_TIME}"


@dataclass(frozen=True)
class Factors:
    """One row-major order of entries, read as two shapes."""

    before: list[str]
    after: list[str]
    sizes: Mapping[str, AnySize] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the rule that takes ``before`` to ``after``."""
        return line([self.before], [self.after])


def factors(before: Sequence[AnySize], after: Sequence[AnySize]) -> Factors:
    """Return the factors that the axes of both shapes are merges of, as far as they are certain."""
    if 0 in before or 0 in after:
        raise Unsupported("it has no entries")
    if trial(prod(before)) != trial(prod(after)):
        raise Unsupported(f"shapes {tuple(before)} and {tuple(after)} hold unequal numbers")
    left = [n for n in before if isinstance(n, int)]
    right = [n for n in after if isinstance(n, int)]
    if len(left) == len(before) and len(right) == len(after):
        return _of_numbers(left, right)
    return _Alignment(before, after).factors()


def _of_numbers(before: Sequence[int], after: Sequence[int]) -> Factors:
    """Return the coarsest factors that the axes of both shapes are merges of.

    An axis reaches from one suffix product of its shape to the next. Where the suffix
    products of both shapes divide one another, their quotients are the factors; where they do
    not, the axes between the nearest common ones stay whole and fixed.
    """
    cuts = sorted({*_cuts(before), *_cuts(after)})
    common = sorted({*_cuts(before)} & {*_cuts(after)})
    apart = [
        (low, high)
        for low, high in pairwise(common)
        if any(b % a for a, b in pairwise(c for c in cuts if low <= c <= high))
    ]
    letters = map(_letter, range(len(cuts) - 1 + len(before) + len(after)))
    name = dict(zip(reversed(list(pairwise(cuts))), letters, strict=False))
    sizes = {letter: high // low for (low, high), letter in name.items()}
    fixed: dict[str, str] = {}

    def side(shape: Sequence[int], mark: str) -> list[str]:
        terms = []
        for index, (high, low) in enumerate(pairwise(reversed(_cuts(shape)))):
            if any(a <= low < high <= b for a, b in apart):
                terms.append(f"{mark}{index}")
                sizes[terms[-1]] = high // low
                fixed[terms[-1]] = APART
            else:
                inside = [n for (a, b), n in name.items() if low <= a < b <= high]
                terms.append(group(inside))
        return terms

    left, right = side(before, "in"), side(after, "out")
    used = set(" ".join(left + right).replace("(", " ").replace(")", " ").split())
    return Factors(left, right, {n: s for n, s in sizes.items() if n in used}, fixed)


def _cuts(shape: Sequence[int]) -> list[int]:
    """Return suffix products, from 1 to the number of entries."""
    return [prod(shape[i:]) for i in range(len(shape), -1, -1)]


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")


@dataclass(eq=False)
class _Part:
    """An axis: the factors taken off its ends, and the size of what is left between them."""

    rest: AnySize
    front: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)

    def take(self, name: str, rest: AnySize, end: int) -> None:
        """Take factor ``name`` off one end, 0 or -1, of what is left."""
        self.rest = rest
        if end == 0:
            self.front.append(name)
        else:
            self.back.insert(0, name)


class _Alignment:
    """Two shapes of the same entries, compared from both ends."""

    def __init__(self, before: Sequence[AnySize], after: Sequence[AnySize]) -> None:
        self.shapes = [[_Part(size) for size in shape] for shape in (before, after)]
        self.left, self.right = ([p for p in side if p.rest != 1] for side in self.shapes)
        self.sizes: dict[str, AnySize] = {}
        self.fixed: dict[str, str] = {}
        self._letters = map(_letter, count())

    def factors(self) -> Factors:
        """Return what is certain; the axes between stay whole and fixed."""
        steps = (self._strip, 0), (self._strip, -1), (self._group, 0), (self._group, -1)
        while any(step(end) for step, end in steps):
            pass
        if len(self.left) == len(self.right) == 1:  # both are all that is left
            rests = [self.left[0].rest, self.right[0].rest]
            self._share(next((n for n in rests if isinstance(n, int)), rests[0]), 0)
        self._fix(self.left, self.right)
        before, after = ([group([*p.front, *p.back]) for p in side] for side in self.shapes)
        return Factors(before, after, self.sizes, self.fixed)

    def _strip(self, end: int) -> bool:
        """Take factors that are certain from one end of both shapes, if there are any."""
        taken = False
        while self.left and self.right:
            a, b = self.left[end].rest, self.right[end].rest
            if a != b and exact(a, b) is None and exact(b, a) is None:
                break
            self._share(b if exact(a, b) is not None else a, end)
            taken = True
        return taken

    def _share(self, size: AnySize, end: int) -> None:
        """Take a factor of this size off the axes at one end, which have it in common."""
        name = self._named(size)
        for side in (self.left, self.right):
            part = side[end]
            rest = exact(part.rest, size)
            part.take(name, 1 if rest is None else rest, end)
            if part.rest == 1:
                del side[end]

    def _group(self, end: int) -> bool:
        """Leave the fewest axes at one end whole that have one product in both shapes."""
        left, right = (side if end == 0 else side[::-1] for side in (self.left, self.right))
        ends = product(range(1, len(left) + 1), range(1, len(right) + 1))
        for i, j in sorted(ends, key=sum):
            if _product(left[:i]) == _product(right[:j]) and (i, j) != (len(left), len(right)):
                self._fix(left[:i], right[:j])
                return True
        return False

    def _fix(self, left: list[_Part], right: list[_Part]) -> None:
        """Leave these axes whole."""
        parts = [*left, *right]
        numbers = all(isinstance(part.rest, int) for part in parts)
        for part in parts:
            name = self._named(part.rest)
            self.fixed[name] = APART if numbers else CUT
            part.take(name, 1, 0)
        self.left = [part for part in self.left if part not in parts]
        self.right = [part for part in self.right if part not in parts]

    def _named(self, size: AnySize) -> str:
        name = next(self._letters)
        self.sizes[name] = size
        return name


def _product(parts: Sequence[_Part]) -> AnySize:
    return prod(part.rest for part in parts)


def group(parts: Sequence[str]) -> str:
    """Write a row-major merge."""
    return "1" if not parts else parts[0] if len(parts) == 1 else f"({' '.join(parts)})"


def segments(parts: Sequence[str]) -> str:
    """Write a concatenation."""
    return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
