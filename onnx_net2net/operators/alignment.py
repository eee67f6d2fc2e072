"""Where two shapes of the same entries are cut alike, whatever the dynamic sizes.

That factors fit at the sizes that are tried may be chance: 96 rows of 24 entries are also 24 times
96. What is certain is found from both ends: sizes that are static and divide one another, and sizes
that are the same one. What is left between is certain only if it is one axis on either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from math import gcd, prod
from operator import mul


@dataclass(frozen=True, slots=True)
class Part:
    """A factor of a size: what it is where it is tried, and what is known of it.

    ``static`` tells that it is the same always, ``source`` is equal for sizes that are one.
    """

    size: int
    static: bool
    source: object = None


Size = tuple[Part, ...]  # whose product it is
Sizes = dict[int, Size]  # by axis


def uncertain(before: Sequence[Size], after: Sequence[Size]) -> tuple[set[int], set[int]]:
    """The axes of both shapes that may be cut otherwise at other sizes.

    >>> rows, width = Part(96, False, "rows"), Part(24, True)
    >>> uncertain([(rows,), (width,)], [(rows,), (Part(24, False),)])
    (set(), set())
    >>> uncertain([(rows,), (width,)], [(Part(24, False),), (Part(96, False),)])
    ({0, 1}, {0, 1})
    """
    left, right = ({i: s for i, s in enumerate(side) if _counts(s)} for side in (before, after))
    for end in (0, -1):
        _strip(left, right, end)
    hidden = any(map(_hides, (*left.values(), *right.values())))
    if not hidden and min(len(left), len(right)) <= 1:
        return set(), set()
    return set(left), set(right)


def _counts(size: Size) -> bool:
    """Whether it is not the 1 that may stand anywhere."""
    return any(part.size != 1 or not part.static for part in size)


def _hides(size: Size) -> bool:
    """Whether a dynamic factor is 1 where it is tried, which shows nothing of its place."""
    return any(part.size <= 1 and not part.static for part in size)


def _strip(left: Sizes, right: Sizes, end: int) -> None:
    """Remove from both what is certain to agree at one ``end``: 0 or -1."""
    while left and right and (_strip_numbers(left, right, end) or _strip_same(left, right, end)):
        pass


def _strip_numbers(left: Sizes, right: Sizes, end: int) -> bool:
    """Remove numbers from both ends that have one product: 8 times 7 and 7 times 8."""
    runs = _numbers(left, end), _numbers(right, end)
    products = [list(accumulate(run.values(), mul)) for run in runs]
    if not all(products):
        return False
    common: int = min(total[-1] for total in products)
    if not all(_fits(run.values(), common) for run in runs):
        common = max({1, *products[0]} & {1, *products[1]})
    for sizes, run in zip((left, right), runs, strict=True):
        rest = common
        for axis, number in run.items():
            if rest == 1:
                break
            taken = gcd(rest, number)
            rest //= taken
            sizes[axis] = (Part(number // taken, True),)
            if taken == number:
                del sizes[axis]
    return common > 1


def _numbers(sizes: Sizes, end: int) -> dict[int, int]:
    """The axes at one end that are numbers."""
    order = list(sizes) if end == 0 else list(sizes)[::-1]
    known = takewhile(lambda axis: all(part.static for part in sizes[axis]), order)
    return {axis: prod(part.size for part in sizes[axis]) for axis in known}


def _fits(run: Iterable[int], number: int) -> bool:
    """Whether a cut behind so many entries goes through one axis at most, and evenly."""
    for size in run:
        if number % size:
            return size % number == 0
        number //= size
    return number == 1


def _strip_same(left: Sizes, right: Sizes, end: int) -> bool:
    """Divide both ends by what is certain to be in both, if that leaves nothing of one."""
    here, there = list(left)[end], list(right)[end]
    a, b = _without_common(left[here], right[there])
    hidden = _hides(left[here]) or _hides(right[there])
    if (a and b) or (hidden and (a or b)):
        return False
    for sizes, axis, rest in ((left, here, a), (right, there, b)):
        sizes[axis] = rest
        if not rest:
            del sizes[axis]
    return True


def _without_common(a: Size, b: Size) -> tuple[Size, Size]:
    """What is left of each once it is divided by what is certain to be in both."""
    static = [prod(p.size for p in size if p.static) for size in (a, b)]
    common = gcd(*static) or 1
    rest = [[p for p in size if not p.static] for size in (a, b)]
    for part in list(rest[0]):
        same = (p for p in rest[1] if part.source is not None and p.source == part.source)
        if (other := next(same, None)) is not None:
            rest[0].remove(part)
            rest[1].remove(other)
    numbers = [[Part(n // common, True)] if n != common else [] for n in static]
    return (*rest[0], *numbers[0]), (*rest[1], *numbers[1])
