"""Where an axis is cut: one list of parts, shared by all that cut it.

    >>> cuts = Cuts([atom(4), atom(6)])
    >>> cuts.replace(1, [atom(1), atom(5)])
    >>> cuts.starts
    [0, 4, 5, 10]

Thousands of Slices of one tensor name as many stretches of it. Each stretch says where it begins
and how long it is (:class:`~onnx_net2net.algebra.axes.Sum`), so that another cut changes one place
of one list, and none of the stretches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from onnx_net2net.algebra.sizes import AnySize

if TYPE_CHECKING:
    from onnx_net2net.algebra.axes import Axis, Sum


class Cuts:
    """``parts``, in order, and where each of them starts; the end of the last one comes last."""

    __slots__ = ("_ordered", "parts", "starts", "stretches")

    def __init__(self, parts: Sequence[Axis]) -> None:
        self.parts = list(parts)
        self.starts: list[Any] = [0, *accumulate(part.size for part in parts)]
        self.stretches: dict[tuple[AnySize, AnySize], Sum] = {}  # by start and size
        self._ordered = all(type(part.size) is int for part in parts)  # no symbols

    def __contains__(self, place: AnySize) -> bool:
        """Return whether a part starts at ``place``, or the last one ends there."""
        if not self._ordered:
            return place in self.starts
        index = bisect_left(self.starts, place)
        return index < len(self.starts) and bool(self.starts[index] == place)

    def beginning(self, place: AnySize) -> int:
        """Return the index of the part that starts at ``place``."""
        return bisect_left(self.starts, place) if self._ordered else self.starts.index(place)

    def holding(self, place: AnySize) -> int | None:
        """Return the index of the part in which ``place`` is.

        None where symbols hide it, and behind the end.
        """
        known = self._ordered and type(place) is int and place < self.starts[-1]
        return bisect_right(self.starts, place) - 1 if known else None

    def replace(self, index: int, parts: Sequence[Axis]) -> None:
        """Put finer ``parts`` in the place of one."""
        self._ordered &= all(type(part.size) is int for part in parts)
        sizes = (part.size for part in parts[:-1])
        self.starts[index : index + 1] = accumulate(sizes, initial=self.starts[index])
        self.parts[index : index + 1] = parts
