"""The axis algebra: what an axis is made of, and when two axes are the same.

    >>> heads, size = atom(12), atom(64)
    >>> hidden = atom(768)
    >>> unify(hidden, product(heads, size))      # reshape (b, 768) -> (b, 12, 64)
    True
    >>> str(canonical(hidden))
    '(12 64)'

An axis is an :class:`Atom` (indivisible), a :class:`Product` (row-major merge of
factors, as Reshape makes it) or a :class:`Sum` (consecutive segments, as Concat
makes it). Nothing here knows an operator, a graph or ONNX.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any, Union

from onnx_net2net.algebra.cuts import Cuts
from onnx_net2net.algebra.sizes import AnySize, exact, exceeds

# No counter on the class: setting it would make Python forget what it knows of the class.
_serials = count()


class Atom:
    """A factor with a size; after unification perhaps ``bound`` to something finer."""

    __slots__ = ("bound", "pins", "serial", "size")

    def __init__(self, size: AnySize) -> None:
        self.size = size
        self.bound: Axis | None = None
        self.pins: tuple[Pin, ...] = ()
        self.serial = next(_serials)

    def __str__(self) -> str:
        return str(self.size)


@dataclass(slots=True, eq=False)
class Product:
    """Row-major merge: index = (i0 * size1 + i1) * size2 + i2 ..."""

    factors: tuple[Axis, ...]
    size: AnySize
    bound: Axis | None = None  # its canonical form, as far as that is known

    def __str__(self) -> str:
        return "(" + " ".join(map(str, self.factors)) + ")" if self.factors else "1"


@dataclass(slots=True, eq=False)
class Sum:
    """Concatenation of segments: a stretch of the list that all share who cut the same axis."""

    cuts: Cuts
    start: AnySize
    size: AnySize
    bound: Axis | None = None  # its canonical form, as far as that is known
    several: bool = False  # whether it was seen to have more than one part: it keeps them

    @property
    def span(self) -> tuple[int, int]:
        """The indices of its first part, and of the first behind it."""
        return self.cuts.beginning(self.start), self.cuts.beginning(self.start + self.size)

    @property
    def parts(self) -> list[Axis]:
        """What it consists of as far as its list is cut; a part may be bound to something finer."""
        return self.cuts.parts[slice(*self.span)]

    @property
    def segments(self) -> tuple[Axis, ...]:
        """Its segments in canonical form: none of them is a Sum."""
        return tuple(flattened(self.parts))

    def stretch(self, at: AnySize, size: AnySize) -> Sum:
        """Return ``size`` entries of it, behind the first ``at``: always the same object."""
        key = self.start + at, size
        return self.cuts.stretches.setdefault(key, Sum(self.cuts, *key))

    def __str__(self) -> str:
        return "(" + " + ".join(map(str, self.segments)) + ")"


Axis = Union[Atom, Product, Sum]  # noqa: UP007 (a runtime alias of forward-declared classes)

Steps = Generator["Axis", Any, "Axis"]

ONE = Product((), 1)


@dataclass(frozen=True, slots=True)
class Pin:
    """Why an atom may not grow: the node that says so, and the reason."""

    node: str | None
    reason: str = field(compare=False)
    remedy: str | None = field(default=None, compare=False)


# One atom keeps a few reasons only: more would not help a reader, and cost linear time.
MOST_PINS = 4


def atom(size: AnySize) -> Axis:
    """Return a new atom of ``size``; size 1 is the unit, which never grows."""
    return ONE if size == 1 else Atom(size)


def product(*factors: Axis) -> Axis:
    """Return the row-major merge of ``factors``."""
    return factors[0] if len(factors) == 1 else Product(factors, prod(f.size for f in factors))


def total(*segments: Axis) -> Axis:
    """Return the concatenation of ``segments``, those without entries left out."""
    parts = [s for s in segments if s.size != 0] or segments[:1]
    return parts[0] if len(parts) == 1 else Sum(Cuts(parts), 0, sum(s.size for s in parts))


def canonical(axis: Axis) -> Axis:
    """Return ``axis`` with bindings followed, nesting flattened, units dropped, Sums distributed.

    In the result a Sum stands alone or as the last factor of a Product, so the
    first factor of a Product is always an Atom.
    """
    known = axis.bound or axis
    if known.bound is None and (type(known) is Atom or (type(known) is Sum and known.several)):
        return known
    # Bindings may follow one another as often as the graph is long: no recursion.
    stack = [_canonical(axis)]
    result: Axis | None = None
    while stack:
        try:
            part = stack[-1].send(result)
        except StopIteration as done:
            stack.pop()
            result = done.value
        else:
            stack.append(_canonical(part))
            result = None
    assert result is not None
    return result


def _canonical(axis: Axis) -> Steps:
    """Yield the parts whose canonical form :func:`canonical` needs; return that of ``axis``."""
    result = axis
    if axis.bound is not None:
        result = yield axis.bound
    elif isinstance(axis, Atom):
        return axis
    elif isinstance(axis, Sum):
        first, last = axis.span
        if last == first + 1:
            part: Axis = yield axis.cuts.parts[first]
            return part  # taken down nowhere, for it may be cut
        axis.several = True
        return axis
    else:
        result = (yield from _canonical_product(axis)) if axis.factors else ONE
    if result is not axis:
        axis.bound = result
    return result


def flattened(parts: Sequence[Axis]) -> Iterator[Axis]:
    """Yield the canonical forms of ``parts``, of a Sum among them those of its own parts."""
    pending = list(reversed(parts))
    while pending:
        part = canonical(pending.pop())
        if isinstance(part, Sum):
            pending += reversed(part.parts)
        else:
            yield part


def _canonical_product(axis: Product) -> Steps:
    """Do so for a Product: a Sum ends up as its last factor, or outside."""
    *leading, last = axis.factors
    if leading and all(type(f) is Atom and f.bound is None for f in leading):
        tail = yield last
        if tail is last and tail.size not in (0, 1) and not isinstance(tail, Product):
            return axis
    factors: list[Axis] = []
    pending = list(reversed(axis.factors))
    while pending:
        part = yield pending.pop()
        if isinstance(part, Product):
            pending.extend(reversed(part.factors))
        elif isinstance(part, Sum):
            rest = tuple(reversed(pending))
            if any(factor.size != 1 for factor in rest):
                segments = (product(segment, *rest) for segment in part.segments)
                part = yield total(*segments)
            factors.append(part)
            break
        elif part.size != 1:
            factors.append(part)
    if not factors:
        return ONE
    return factors[0] if len(factors) == 1 else Product(tuple(factors), axis.size)


def atoms(axis: Axis) -> tuple[Atom, ...]:
    """Return the free atoms of ``axis``, in order, repeated as often as they occur."""
    return _atoms(canonical(axis))


def _atoms(axis: Axis) -> tuple[Atom, ...]:
    """Return those of a canonical axis, whose parts are canonical as well."""
    if isinstance(axis, Atom):
        return (axis,)
    leaves: list[Atom] = []
    for part in axis.factors if isinstance(axis, Product) else axis.segments:
        if isinstance(part, Atom):
            leaves.append(part)
        else:
            leaves.extend(_atoms(part))
    return tuple(leaves)


def pin(axis: Axis, why: Pin) -> None:
    """Forbid every atom of ``axis`` to grow."""
    for free in atoms(axis):
        _add_pins(free, (why,))


def _add_pins(free: Atom, pins: Iterable[Pin]) -> None:
    for why in pins:
        if len(free.pins) < MOST_PINS and why not in free.pins:
            free.pins = (*free.pins, why)


def unify(a: Axis, b: Axis, why: Pin | None = None) -> bool:
    """Make two axes equal; where they cannot be, pin both with ``why`` and return False."""
    a, b = canonical(a), canonical(b)
    if a is b:
        return True
    if a.size == b.size and _unify(a, b, why):
        return True
    return _pin_all(why or Pin(None, f"axes {a} and {b} do not fit"), a, b)


def _unify(a: Axis, b: Axis, why: Pin | None) -> bool:
    """Make two canonical axes of equal size equal."""
    if a.size == 1:
        return True
    if isinstance(a, Atom) and (not isinstance(b, Atom) or b.serial < a.serial):
        return _bind(a, b)
    if isinstance(b, Atom):
        return _bind(b, a)
    if isinstance(a, Sum) and isinstance(b, Sum):
        return _unify_sums(a, b, why)
    if isinstance(a, Product) and isinstance(b, Product):
        return _unify_products(list(a.factors), list(b.factors), why)
    if isinstance(a, Sum):
        a, b = b, a
    return _unify_product_with_sum(a, b, why)  # type: ignore[arg-type]


def _bind(free: Atom, to: Axis) -> bool:
    """Let an atom be ``to`` from now on, and hand its pins on; False where it is a part of it."""
    # Parts of canonical axes are smaller than the whole; but symbols may all be empty.
    if type(free.size) is not int and free in atoms(to):
        return False
    free.bound = to
    if free.pins:
        for leaf in atoms(to):
            _add_pins(leaf, free.pins)
    return True


def _unify_sums(a: Sum, b: Sum, why: Pin | None) -> bool:
    """Walk along the one of fewer parts, and cut each where the other has a boundary."""
    few, many = sorted((a, b), key=lambda s: s.span[1] - s.span[0])
    at, same = 0, True
    while at != few.size:
        x, y = _part(few, at), _part(many, at)
        if x.size == y.size:
            same &= unify(x, y, why)
            at += x.size
        elif (
            (longer := exceeds(x.size, y.size)) and isinstance(x, Atom) and _cut(many, at + x.size)
        ):
            if x.bound is None:  # else ``many`` holds it as well, and has just cut it
                same &= _bind(x, many.stretch(at, x.size))
                at += x.size
        elif longer is None or not (_cut(few, at + y.size) if longer else _cut(many, at + x.size)):
            return _pin_all(why, *(s.stretch(at, s.size - at) for s in (few, many)))
    if same:
        few.bound = many
    return True


def _part(axis: Sum, at: AnySize) -> Axis:
    """Return the segment that begins behind the first ``at`` entries."""
    cuts = axis.cuts
    index = cuts.beginning(axis.start + at)
    while isinstance(part := canonical(cuts.parts[index]), Sum):
        cuts.replace(index, part.parts)
    return part


def _cut(axis: Sum, at: AnySize) -> bool:
    """Let a segment end behind the first ``at`` entries; False where none can."""
    cuts, place = axis.cuts, axis.start + at
    while place not in cuts:
        index = cuts.holding(place)
        if index is None:
            return False
        start = cuts.starts[index]
        part = canonical(cuts.parts[index])
        if isinstance(part, Sum):
            cuts.replace(index, part.parts)
        elif halves := _split(part, place - start):
            cuts.replace(index, halves)
            part.bound = axis.stretch(start - axis.start, part.size)
        else:
            return False
    return True


def _split(axis: Axis, at: AnySize) -> tuple[Axis, Axis] | None:
    """Cut canonical ``axis`` (no Sum) behind its first ``at`` entries, refining its first atom."""
    if isinstance(axis, Atom):
        head, tail = atom(at), atom(axis.size - at)
        _bind(axis, total(head, tail))
        return head, tail
    assert isinstance(axis, Product) and axis.factors
    first, rest = axis.factors[0], axis.factors[1:]
    place = exact(at, exact(axis.size, first.size))
    if place is None or not isinstance(first, Atom):
        return None
    halves = _split(first, place)
    return halves and (product(halves[0], *rest), product(halves[1], *rest))


def _unify_product_with_sum(a: Product, b: Sum, why: Pin | None) -> bool:
    """Split the leading atom of ``a`` where groups of ``b``'s segments end on its boundaries."""
    first, rest = a.factors[0], a.factors[1:]
    inner = exact(a.size, first.size)
    groups = _groups(b.segments, inner)
    if groups is None or len(groups) == 1 or not isinstance(first, Atom):
        return False
    heads = [atom(exact(sum(s.size for s in group), inner)) for group in groups]
    _bind(first, total(*heads))
    results = [
        unify(product(head, *rest), total(*group), why)
        for head, group in zip(heads, groups, strict=True)
    ]
    if all(results):
        a.bound = b
    return all(results)


def _groups(segments: Sequence[Axis], unit: AnySize | None) -> list[list[Axis]] | None:
    """Return the shortest consecutive groups of segments whose sizes are multiples of ``unit``."""
    groups: list[list[Axis]] = []
    size: AnySize = 0
    for segment in segments:
        if exact(size, unit) is not None:
            groups.append([])
        groups[-1].append(segment)
        size += segment.size
    return groups if exact(size, unit) is not None else None


def _unify_products(left: list[Axis], right: list[Axis], why: Pin | None) -> bool:
    """Walk along the factors of both, and refine the larger where they differ."""
    left.reverse()
    right.reverse()
    while left and right:
        x, y = canonical(left.pop()), canonical(right.pop())
        if isinstance(x, Product):
            left.extend(reversed(x.factors))
            right.append(y)
        elif isinstance(y, Product):
            right.extend(reversed(y.factors))
            left.append(x)
        elif x.size == y.size:
            unify(x, y, why)
        else:
            swap = exact(y.size, x.size) is not None
            large, small = (y, x) if swap else (x, y)
            mine, others = (right, left) if swap else (left, right)
            if not _refine(large, small, mine, others, why):
                return _pin_all(why, x, y, *left, *right)
    return True


def _refine(
    large: Axis, small: Axis, mine: list[Axis], others: list[Axis], why: Pin | None
) -> bool:
    """Make ``large`` a product of ``small`` and what remains; False where it is none."""
    if isinstance(large, Sum):  # a Sum is the last factor, so it equals all that is left over there
        rest = [small, *reversed(others)]
        others.clear()
        return not mine and unify(large, product(*rest), why)
    quotient = exact(large.size, small.size)
    if not isinstance(large, Atom) or quotient is None:
        return False
    remainder = atom(quotient)
    _bind(large, product(small, remainder))
    mine.append(remainder)
    return True


def _pin_all(why: Pin | None, *axes: Axis) -> bool:
    blame = why or Pin(None, "axes do not fit")
    for axis in axes:
        pin(axis, blame)
    return False
