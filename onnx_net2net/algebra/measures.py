"""What adds up along axes: sizes after growth, how many atoms are of some kind.

>>> axis = total(atom(3), product(atom(2), atom(4)))
>>> Measure(lambda free: 10 * free.size, prod)(axis)
830
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise

from onnx_net2net.algebra.axes import Atom, Axis, Product, Sum, canonical, flattened
from onnx_net2net.algebra.cuts import Cuts


class Measure:
    """A number for every axis: ``leaf`` tells an atom's, that of a Sum is the sum over its
    segments, that of a Product what ``merged`` makes of its factors'.

    A list that many axes are stretches of is walked once: nothing may be unified afterwards.
    """

    def __init__(self, leaf: Callable[[Atom], int], merged: Callable[[Iterable[int]], int]) -> None:
        self._leaf, self._merged = leaf, merged
        self._until: dict[Cuts, dict[int, int]] = {}  # the number of all before each boundary

    def __call__(self, axis: Axis) -> int:
        number, pending = 0, [axis]
        while pending:
            part = canonical(pending.pop())
            if isinstance(part, Atom):
                number += self._leaf(part)
            elif isinstance(part, Product):
                number += self._merged(map(self, part.factors))
            elif part.cuts.stretches:
                until = self._until.get(part.cuts) or self._walked(part.cuts)
                number += until[part.start + part.size] - until[part.start]
            else:
                pending += part.parts
        return number

    def _walked(self, cuts: Cuts) -> dict[int, int]:
        segments = list(flattened(cuts.parts))
        places = accumulate((s.size for s in segments), initial=0)
        numbers = accumulate(map(self, segments), initial=0)
        self._until[cuts] = dict(zip(places, numbers, strict=True))
        return self._until[cuts]


def shortest(sums: Iterable[Sum]) -> Iterator[Sum]:
    """The shortest stretches of which ``sums``, and the differences between them, consist.

    Two boundaries are joined where a Sum, or several of them, lead from one to the other.
    """
    joined: dict[Cuts, dict[int, list[int]]] = {}
    for each in dict.fromkeys(sums):
        groups = joined.setdefault(each.cuts, {})
        first, last = (groups.setdefault(p, [p]) for p in (each.start, each.start + each.size))
        if first is not last:
            small, large = sorted((first, last), key=len)
            large += small
            groups.update(dict.fromkeys(small, large))
    for cuts, groups in joined.items():
        for places in {id(group): sorted(group) for group in groups.values()}.values():
            yield from (Sum(cuts, start, stop - start) for start, stop in pairwise(places))
