"""What adds up along axes: sizes after growth, how many atoms are of some kind.

>>> axis = total(atom(3), product(atom(2), atom(4)))
>>> Measure(lambda free: 10 * free.size, prod)(axis)
830
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from onnx_net2net.algebra.axes import Atom, Axis, Product, canonical, flattened
from onnx_net2net.algebra.cuts import Cuts
from onnx_net2net.algebra.sizes import AnySize


class Measure:
    """A number for every axis: ``leaf`` tells an atom's, that of a Sum is the sum over its
    segments, that of a Product what ``merged`` makes of its factors'.

    A list that many axes are stretches of is walked once: nothing may be unified afterwards.
    """

    def __init__(self, leaf: Callable[[Atom], Any], merged: Callable[[Iterable[Any]], Any]) -> None:
        self._leaf, self._merged = leaf, merged
        self._until: dict[Cuts, dict[AnySize, Any]] = {}  # the number of all before each boundary

    def __call__(self, axis: Axis) -> Any:
        number: Any = 0
        pending = [axis]
        while pending:
            part = canonical(pending.pop())
            if isinstance(part, Atom):
                number += self._leaf(part)
            elif isinstance(part, Product):
                number += self._merged(map(self, part.factors))
            elif part.cuts.stretches:
                until = self._until.get(part.cuts) or self._walk(part.cuts)
                number += until[part.start + part.size] - until[part.start]
            else:
                pending += part.parts
        return number

    def _walk(self, cuts: Cuts) -> dict[AnySize, Any]:
        segments = list(flattened(cuts.parts))
        places = accumulate((s.size for s in segments), initial=0)
        numbers = accumulate(map(self, segments), initial=0)
        self._until[cuts] = dict(zip(places, numbers, strict=True))
        return self._until[cuts]
