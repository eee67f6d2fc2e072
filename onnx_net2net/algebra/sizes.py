"""Sizes that are known at run time only, as polynomials over named unknowns.

    >>> batch, length = unknown("batch", 5), unknown("length", 7)
    >>> print(2 * batch * length + batch)
    2*batch*length + batch
    >>> (batch * length * 64) // (length * 8) == 8 * batch
    True
    >>> length + (-length) % 4 == 4 * -(-length // 4)     # padded to a multiple of 4
    True
    >>> batch < length
    Traceback (most recent call last):
    onnx_net2net.algebra.sizes.Undecided: whether batch < length is known at run time only

What does not simplify (a rounded quotient, a minimum) becomes an unknown itself, the same one
wherever it is computed. Two sizes are ``==`` where their normal forms are, so that equality holds
at all values of the unknowns. Ordering, truth and conversion to a number raise :class:`Undecided`
where they would depend on these. A size that is a number is a plain ``int``.

Every unknown has a ``trial`` value, a choice among its possible ones; sizes are computed with it
by whoever needs numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, Union

from onnx_net2net.algebra.unknowns import Monomial, Number, Terms, Unknown, intern, merged, order

AT_RUN_TIME = "is known at run time only"  # how reasons end that fixed input sizes would lift
MOST_TERMS = 64  # of a product; a longer one is an unknown
LONGEST = 60  # characters of a formula that are shown
DEPTH = 2  # of cases within cases that bounds are told apart by
MOST_CASED = 8  # terms of a polynomial whose bounds are told apart by cases
MOST_CASES = 3  # unknowns of a polynomial that are looked into for its bounds

Interval = tuple[Number, Number]


class Undecided(Exception):
    """The answer depends on sizes that are known at run time only."""


class Size:
    """A polynomial that is no number. Made by :func:`unknown` and by arithmetic."""

    __slots__ = ("_bounds", "_hash", "terms", "trial")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._bounds: Interval | None = None
        self.trial: Number = sum(c * math.prod([u.trial for u in m]) for m, c in terms.items())
        self._hash = hash(frozenset(terms.items()))

    @property
    def unknowns(self) -> set[Unknown]:
        """The unknowns that it is a polynomial of."""
        return {u for monomial in self.terms for u in monomial}

    def __str__(self) -> str:
        """Its formula; of a long one the beginning."""
        parts = []
        for monomial, factor in sorted(self.terms.items(), key=order, reverse=True):
            text = "*".join(map(str, monomial))
            head = "" if text and abs(factor) == 1 else str(abs(factor))
            joined = "*".join(filter(None, (head, text)))
            parts.append(f"{'-' if factor < 0 else '+'} {joined}")
        text = " ".join(parts).removeprefix("+ ")
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

    __repr__ = __str__

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Size) and self._hash == other._hash and self.terms == other.terms

    def __add__(self, other: Any) -> Any:
        return _sum(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _sum(self, other, -1)

    def __rsub__(self, other: Any) -> Any:
        return _sum(-self, other, 1)

    def __neg__(self) -> Any:
        return self * -1

    def __mul__(self, other: Any) -> Any:
        terms: Counter[Monomial] = Counter()
        for left, a in self.terms.items():
            for right, b in _terms(other).items():
                terms[merged(left, right)] += a * b  # type: ignore[assignment]
        size = _made(terms)
        return size if len(terms) <= MOST_TERMS else opaque("size", [size], trial(size))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return quotient(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return quotient(other, self)

    def __mod__(self, other: Any) -> Any:
        return self - other * quotient(self, other)

    def __rmod__(self, other: Any) -> Any:
        return other - self * quotient(other, self)

    def __lt__(self, other: Any) -> bool:
        return _decided(self, "<", other)

    def __le__(self, other: Any) -> bool:
        return _decided(self, "<=", other)

    def __gt__(self, other: Any) -> bool:
        return _decided(other, "<", self)

    def __ge__(self, other: Any) -> bool:
        return _decided(other, "<=", self)

    def __bool__(self) -> bool:
        if differ(self, 0):
            return True
        raise Undecided(f"whether {self} is 0 {AT_RUN_TIME}")

    def __index__(self) -> int:
        raise Undecided(f"the number {self} {AT_RUN_TIME}")


AnySize = Union[int, Size]  # noqa: UP007 (a runtime alias)


def unknown(name: str, trial: int, low: int = 1) -> Size:
    """Return the size called ``name``, at least ``low``: for equal arguments the same unknown."""
    return opaque(name, (), trial, low)


def opaque(
    operator: str,
    operands: Iterable[Any],
    trial: Number,
    low: Number = -math.inf,
    high: Number = math.inf,
) -> Size:
    """Return what ``operator`` makes of ``operands``, of which nothing but bounds is known."""
    return Size({(intern(operator, tuple(operands), trial, low, high),): 1})


def _terms(size: Any) -> Terms:
    """Return the terms of a size, also of one that is a number."""
    if isinstance(size, Size):
        return size.terms
    plain = size if type(size) is int else size.item() if hasattr(size, "item") else size
    return {(): plain} if plain else {}


def _made(terms: Terms) -> Any:
    """Return the sum of these terms, as a number where it is one."""
    kept = {monomial: factor for monomial, factor in terms.items() if factor}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Size(kept)


def _sum(left: Size, right: Any, sign: int) -> Any:
    """Return ``left + sign * right``."""
    terms = dict(left.terms)
    for monomial, factor in _terms(right).items():
        terms[monomial] = terms.get(monomial, 0) + sign * factor
    return _made(terms)


def trial(size: Any) -> Any:
    """Return the number that a size is at the trial values of its unknowns."""
    return size.trial if isinstance(size, Size) else size


# --- division -----------------------------------------------------------------------------------


def exact(dividend: Any, divisor: Any) -> Any:
    """Return ``dividend / divisor`` where that is a polynomial of whole coefficients, else None."""
    if not isinstance(dividend, Size) and not isinstance(divisor, Size):
        return dividend // divisor if divisor and dividend % divisor == 0 else None
    parts = {} if divisor is None else _terms(divisor)
    if not parts:
        return None
    lead, by = max(parts.items(), key=order)
    rest, result = dividend, 0
    while rest != 0:
        monomial, factor = max(_terms(rest).items(), key=order)
        left = Counter(monomial)
        left.subtract(lead)
        if factor % by or min(left.values(), default=0) < 0:
            return None
        step = _made({tuple(sorted(left.elements(), key=lambda u: u.serial)): factor // by})
        result, rest = result + step, rest - step * divisor
        if isinstance(rest, Size) and len(rest.terms) > MOST_TERMS:
            return None
    return result


def quotient(dividend: Any, divisor: Any) -> Any:
    """Return ``dividend // divisor``, rounded down as in Python."""
    if not isinstance(dividend, Size) and not isinstance(divisor, Size):
        return dividend // divisor
    whole = exact(dividend, divisor)
    if whole is not None:
        return whole
    if isinstance(divisor, Size):
        dividend, divisor = _reduced(dividend, divisor)
    if isinstance(divisor, Size):
        natural = bounds(dividend)[0] >= 0 < bounds(divisor)[0]
        low, high = (0, bounds(dividend)[1]) if natural else (-math.inf, math.inf)
        result = trial(dividend) // (divisor.trial or 1)
        return opaque("floordiv", [dividend, divisor], result, low, high)
    if not isinstance(dividend, Size):
        return dividend // divisor
    return _rounded(dividend, divisor) if divisor > 0 else _rounded(-dividend, -divisor)


def _reduced(dividend: Any, divisor: Size) -> tuple[Any, Any]:
    """Return both, divided by the number and by the unknowns that all of their terms have."""
    terms = [*_terms(dividend).items(), *divisor.terms.items()]
    number = math.gcd(*(int(factor) for _, factor in terms))
    shared = reduce(lambda a, b: a & b, (Counter(monomial) for monomial, _ in terms))
    by = _made({tuple(sorted(shared.elements(), key=lambda u: u.serial)): number or 1})
    return exact(dividend, by), exact(divisor, by)


def _rounded(dividend: Size, divisor: int) -> Any:
    """Return the quotient by a positive number, multiples of it taken out of the rounding."""
    whole = _made({m: factor // divisor for m, factor in dividend.terms.items()})
    rest = dividend - whole * divisor
    if not isinstance(rest, Size):
        return whole + rest // divisor
    low, high = (n // divisor if math.isfinite(n) else n for n in bounds(rest))
    if low == high:
        return whole + low
    inner = [m for m in rest.terms if m]
    if len(inner) == 1 and rest.terms[inner[0]] == 1 and len(inner[0]) == 1:
        (one,) = inner[0]
        if one.operator == "floordiv" and isinstance(by := one.operands[1], int):
            return whole + (one.operands[0] + rest.terms.get((), 0) * by) // (by * divisor)
    common = math.gcd(divisor, *(int(factor) for factor in rest.terms.values()))
    rest, divisor = exact(rest, common), divisor // common
    return whole + opaque("floordiv", [rest, divisor], rest.trial // divisor, low, high)


# --- order --------------------------------------------------------------------------------------


def minimum(left: Any, right: Any) -> Any:
    """Return the smaller of two sizes."""
    if not isinstance(left, Size) and not isinstance(right, Size):
        return min(left, right)
    return right + _negative_part(left - right)


def maximum(left: Any, right: Any) -> Any:
    """Return the larger of two sizes."""
    if not isinstance(left, Size) and not isinstance(right, Size):
        return max(left, right)
    return left - _negative_part(left - right)


def _negative_part(size: Any) -> Any:
    """Return ``min(size, 0)``: one unknown for all sizes that differ by sign or by a factor."""
    low, high = bounds(size)
    if low >= 0 or high <= 0:
        return 0 if low >= 0 else size
    if max(size.terms.items(), key=order)[1] < 0:
        return size + _negative_part(-size)
    factor = math.gcd(*(int(n) for n in size.terms.values()))
    part = exact(size, factor)
    low = low / factor if math.isinf(low) else low // factor
    return factor * opaque("min0", [part], min(part.trial, 0), low, 0)


def bounds(size: Any, depth: int = DEPTH) -> Interval:
    """Return the smallest and largest value of a size as far as is known, perhaps infinite."""
    if not isinstance(size, Size):
        return size, size
    if size._bounds is not None:
        return size._bounds
    low: Number = 0
    high: Number = 0
    for monomial, factor in _shifted(size).items():
        part: Interval = (factor, factor)
        for one in monomial:
            free = one.low == -math.inf and one.high == math.inf
            width = (-math.inf if free else 0, one.high - one.low)
            corners = [x * y if x and y else 0 for x in part for y in width]
            part = min(corners), max(corners)
        low, high = low + part[0], high + part[1]
    if depth and len(size.terms) <= MOST_CASED:
        looked_into = [u for u in size.unknowns if u.operator in _CASES and (u,) in size.terms]
        for one in sorted(looked_into, key=lambda u: -u.serial)[:MOST_CASES]:
            times = size.terms[one,]
            rest = size - times * Size({(one,): 1})
            if not isinstance(rest, Size) or one not in rest.unknowns:
                below, above = _CASES[one.operator](one, times, rest, depth - 1)
                low, high = max(low, below), min(high, above)
    if depth == DEPTH:
        size._bounds = low, high
    return low, high


def _shifted(size: Size) -> Counter[Monomial]:
    """Return the terms of ``size`` in unknowns counted from a bound: most of them have one sign."""
    shifted: Counter[Monomial] = Counter()
    for monomial, factor in size.terms.items():
        parts: dict[Monomial, Number] = {(): factor}
        for one in monomial:
            start, sign = (one.low, 1) if one.low > -math.inf else (one.high, -1)
            start, sign = (start, sign) if math.isfinite(start) else (0, 1)
            if start == 0 < sign:
                parts = {merged(known, (one,)): n for known, n in parts.items()}
                continue
            grown = Counter({m: n * start for m, n in parts.items()})
            for known, n in parts.items():
                grown[merged(known, (one,))] += n * sign  # type: ignore[assignment]
            parts = grown  # type: ignore[assignment]
        for known, n in parts.items():
            shifted[known] += n  # type: ignore[assignment]
    return shifted


def _bounds_with_minimum(one: Unknown, factor: Number, rest: Any, depth: int) -> Interval:
    """Return those of ``rest + factor * min(part, 0)``: of both cases, with what each says."""
    part = one.operands[0]
    cases = []
    for sign, size in ((1, rest), (-1, rest + factor * part)):
        below = [bounds(size - sign * k * part, depth)[0] for k in {0, 1, abs(factor)}]
        above = [bounds(size + sign * k * part, depth)[1] for k in {0, 1, abs(factor)}]
        cases.append((max(below), min(above)))
    return min(low for low, _ in cases), max(high for _, high in cases)


def _bounds_with_quotient(one: Unknown, factor: Number, rest: Any, depth: int) -> Interval:
    """Return those of ``rest + factor * (dividend // divisor)``: what is rounded off is bounded."""
    dividend, divisor = one.operands
    if not isinstance(divisor, int):
        return -math.inf, math.inf
    low, high = bounds(divisor * rest + factor * dividend, depth)
    off = sorted((-factor * (divisor - 1), 0))
    low, high = low + off[0], high + off[1]
    return (
        low if math.isinf(low) else -(-low // divisor),
        high if math.isinf(high) else high // divisor,
    )


_CASES: dict[str, Callable[[Unknown, Number, Any, int], Interval]] = {
    "floordiv": _bounds_with_quotient,
    "min0": _bounds_with_minimum,
}


def _decided(left: Any, sign: str, right: Any) -> bool:
    """Return whether ``left < right``, or ``<=``. Raise Undecided where that varies."""
    low, high = bounds(right - left)
    if low > 0 or (sign == "<=" and low == 0):
        return True
    if high < 0 or (sign == "<" and high == 0):
        return False
    raise Undecided(f"whether {left} {sign} {right} {AT_RUN_TIME}")


def differ(left: Any, right: Any) -> bool:
    """Return whether two sizes are different at all values of the unknowns."""
    if not isinstance(left, Size) and not isinstance(right, Size):
        return bool(left != right)
    low, high = bounds(left - right)
    return low > 0 or high < 0


def same(left: Any, right: Any) -> bool:
    """Return whether two sizes are equal. Raise Undecided where they are at some values only."""
    if left == right:
        return True
    if differ(left, right):
        return False
    raise Undecided(f"whether {left} is {right} {AT_RUN_TIME}")


def exceeds(left: Any, right: Any) -> bool | None:
    """Return whether the first size is larger; None where that depends on the unknowns."""
    try:
        return bool(left > right)
    except Undecided:
        return None
