"""What sizes are made of: unknowns, each one object wherever it is computed, and their products."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

Number = int | float  # a float where a chain of sizes runs through floats


class Unknown:
    """A size without a formula: of an input, or what ``operator`` makes of ``operands``."""

    __slots__ = ("__weakref__", "high", "low", "operands", "operator", "serial", "trial")

    def __init__(
        self, operator: str, operands: tuple[Any, ...], trial: Number, low: Number, high: Number
    ) -> None:
        self.operator, self.operands, self.trial = operator, operands, trial
        self.low, self.high = low, high
        self.serial = next(_serials)

    def __str__(self) -> str:
        if not self.operands:
            return self.operator
        return f"{self.operator}({', '.join(map(str, self.operands))})"


_serials = count()
_interned: WeakValueDictionary[Hashable, Unknown] = WeakValueDictionary()

Monomial = tuple[Unknown, ...]  # a product, in order of their serial numbers
Terms = Mapping[Monomial, Number]


def intern(
    operator: str, operands: tuple[Any, ...], trial: Number, low: Number, high: Number
) -> Unknown:
    """Return the unknown that these arguments describe, always the same object."""
    key = (operator, operands, trial, low, high)
    return _interned.get(key) or _interned.setdefault(key, Unknown(*key))


def order(term: tuple[Monomial, Number]) -> tuple[int, tuple[int, ...]]:
    """Return the sort key of a term: its degree, then its unknowns. Products keep this order."""
    return len(term[0]), tuple([-u.serial for u in term[0]])


def merged(left: Monomial, right: Monomial) -> Monomial:
    """Return the product of two products."""
    if not left or not right:
        return left or right
    return tuple(sorted(left + right, key=lambda u: u.serial))
