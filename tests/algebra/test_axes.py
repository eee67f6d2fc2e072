"""The axis algebra by example, and against brute force: what an axis enumerates.

An axis of size n stands for indices 0 .. n-1, each made of the indices of its atoms. After
``unify`` both sides must enumerate the same, whatever the atoms were bound to.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_net2net.algebra import axes
from onnx_net2net.algebra.axes import (
    ONE,
    Atom,
    Axis,
    Pin,
    Product,
    Sum,
    atom,
    atoms,
    canonical,
    pin,
    product,
    total,
    unify,
)
from onnx_net2net.algebra.measures import Measure

Entry = tuple[tuple[int, int], ...]


def enumerate_axis(axis: Axis) -> list[Entry]:
    """For each index of ``axis``, (atom, index within it) of every free atom it is made of."""
    if isinstance(axis, Atom):
        if axis.bound is not None:
            return enumerate_axis(axis.bound)
        return [((axis.serial, i),) for i in range(axis.size)]
    if isinstance(axis, Sum):
        return [entry for segment in axis.segments for entry in enumerate_axis(segment)]
    entries: list[Entry] = [()]
    for factor in axis.factors:
        inner = enumerate_axis(factor)
        entries = [a + b for a in entries for b in inner]
    return entries


def agree(a: Axis, b: Axis) -> bool:
    """Whether two axes enumerate alike, but for parts in which every atom is pinned.

    A pinned part keeps its size, so what is before, behind and around it still fits.
    """
    pinned = {free.serial for free in (*atoms(a), *atoms(b)) if free.pins}
    for left, right in zip(enumerate_axis(a), enumerate_axis(b), strict=True):
        x, y = list(left), list(right)
        for end in (0, -1):
            while x and y and x[end] == y[end]:
                del x[end], y[end]
        if not pinned.issuperset(serial for serial, _ in (*x, *y)):
            return False
    return True


def shape(axis: Axis) -> str:
    """The structure of an axis, atoms lettered in order of first appearance."""
    letters: dict[Atom, str] = {}

    def text(part: Axis) -> str:
        if isinstance(part, Atom):
            return letters.setdefault(part, chr(ord("a") + len(letters))) + str(part.size)
        if isinstance(part, Product):
            return "(" + " ".join(map(text, part.factors)) + ")"
        return "(" + " + ".join(map(text, part.segments)) + ")"

    return text(canonical(axis))


def test_reshape_into_heads_refines_the_hidden_axis() -> None:
    hidden, heads, size = atom(768), atom(12), atom(64)
    assert unify(hidden, product(heads, size))
    assert str(canonical(hidden)) == "(12 64)"


def test_group_then_channels_refines_the_larger_atom() -> None:
    channels, groups, rest = atom(24), atom(4), atom(6)
    unify(channels, product(groups, rest))
    finer = product(atom(2), atom(12))
    assert unify(channels, finer)
    assert shape(channels) == "(a2 b2 c6)"


def test_concat_then_split_refines_at_every_boundary() -> None:
    left = total(atom(5), atom(7))
    right = total(atom(3), atom(9))
    assert unify(left, right)
    assert shape(left) == shape(right) == "(a3 + b2 + c7)"


def test_fused_projection_ties_query_key_and_value_to_one_width() -> None:
    fused = product(atom(3), atom(8))
    query, key, value = atom(8), atom(8), atom(8)
    assert unify(fused, total(query, key, value))
    assert canonical(query) is canonical(key) is canonical(value)


def test_flatten_behind_concat_splits_channels_and_keeps_the_window() -> None:
    first, second, height = atom(4), atom(6), atom(9)
    flat = product(total(first, second), height)
    assert shape(flat) == "((a4 b9) + (c6 b9))"
    fully_connected = atom(90)
    assert unify(fully_connected, flat)
    assert shape(fully_connected) == "((a4 b9) + (c6 b9))"


def test_interleaved_halves() -> None:
    size, half = atom(8), atom(4)
    assert unify(size, product(half, atom(2)))
    assert unify(size, total(atom(4), atom(4)))
    assert shape(size) in ("(a4 + b4)", "((a2 b2) + (c2 b2))", "((a2 b2) + (a2 b2))")


def test_units_vanish() -> None:
    channels = atom(5)
    assert atom(1) is ONE
    assert canonical(product(ONE, channels, ONE)) is channels
    assert canonical(product(ONE, ONE)) is ONE


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda: atom(5), lambda: atom(6)),
        (lambda: product(atom(4), atom(6)), lambda: product(atom(3), atom(8))),
        (lambda: product(atom(2), atom(5)), lambda: total(atom(3), atom(7))),
    ],
    ids=["sizes differ", "no common refinement", "no boundary fits"],
)
def test_what_does_not_fit_is_pinned_with_the_reason(
    left: Callable[[], Axis], right: Callable[[], Axis]
) -> None:
    a, b, why = left(), right(), Pin("Reshape 'r'", "axes do not fit")
    assert not unify(a, b, why)
    for free in (*atoms(a), *atoms(b)):
        assert why in free.pins


def test_pins_reach_all_that_an_axis_is_refined_into() -> None:
    hidden = atom(12)
    pin(hidden, Pin(None, "interface"))
    unify(hidden, product(atom(3), atom(4)))
    unify(hidden, total(atom(4), atom(8)))
    assert all(free.pins for free in atoms(hidden))


def test_one_atom_keeps_few_reasons() -> None:
    free = atom(4)
    for index in range(50):
        pin(free, Pin(f"node {index}", "reason"))
    assert [why.node for why in atoms(free)[0].pins] == [f"node {i}" for i in range(4)]


def test_sizes_after_growth() -> None:
    heads, size, other = Atom(3), Atom(4), Atom(5)
    axis = total(product(heads, size), other)
    grown = {heads: 6, size: 4, other: 7}
    assert Measure(grown.__getitem__, prod)(axis) == 31


# Brute force. Expressions are trees over a pool of atoms; sizes stay small.
brute_force = settings(deadline=None, max_examples=60)


Template = int | tuple[str, "Template", "Template"]


@st.composite
def templates(draw: st.DrawFn, size: int, depth: int = 3) -> Template:
    """A plan of an axis of exactly ``size``, from which it is built any number of times."""
    divisors = [d for d in range(2, size) if size % d == 0]
    kinds = ["atom"]
    if depth and divisors:
        kinds += ["product"] * 2
    if depth and size > 1:
        kinds.append("sum")
    kind = draw(st.sampled_from(kinds))
    if kind == "atom":
        return size
    first = draw(st.sampled_from(divisors) if kind == "product" else st.integers(1, size - 1))
    rest = size // first if kind == "product" else size - first
    return kind, draw(templates(first, depth - 1)), draw(templates(rest, depth - 1))


def build(template: Template) -> Axis:
    """Fresh atoms in the structure of ``template``."""
    if isinstance(template, int):
        return atom(template)
    kind, left, right = template
    return (product if kind == "product" else total)(build(left), build(right))


def expressions(size: int) -> st.SearchStrategy[Axis]:
    """An axis of exactly ``size``."""
    return templates(size).map(build)


SIZES = st.sampled_from([1, 2, 4, 6, 8, 12, 24])
PAIRS = SIZES.flatmap(lambda n: st.tuples(expressions(n), expressions(n)))
TRIPLES = SIZES.flatmap(lambda n: st.tuples(*[expressions(n)] * 3))


@brute_force
@given(SIZES.flatmap(expressions))
def test_canonical_form_enumerates_the_same_and_is_stable(axis: Axis) -> None:
    before = enumerate_axis(axis)
    found = canonical(axis)
    assert enumerate_axis(found) == before
    assert found.size == axis.size == len(before)
    assert canonical(found) is found
    assert [a.serial for a in atoms(axis)] == [a.serial for a in atoms(found)]


@brute_force
@given(SIZES.flatmap(expressions))
def test_in_canonical_form_a_sum_stands_alone_or_last(axis: Axis) -> None:
    def check(part: Axis, inside: type | None) -> None:
        if isinstance(part, Product):
            assert inside is not Product
            assert len(part.factors) > 1 or part is ONE
            assert not any(isinstance(f, Sum) for f in part.factors[:-1])
            for factor in part.factors:
                check(factor, Product)
        elif isinstance(part, Sum):
            assert inside is not Sum and len(part.segments) > 1
            for segment in part.segments:
                check(segment, Sum)
        else:
            assert (part.bound is None and part.size > 1) or inside is None or inside is Sum

    check(canonical(axis), None)


@brute_force
@given(PAIRS)
def test_what_is_unified_enumerates_alike(pair: tuple[Axis, Axis]) -> None:
    a, b = pair
    unify(a, b, Pin("n", "why"))
    assert agree(a, b)
    assert a.size == len(enumerate_axis(a))
    assert b.size == len(enumerate_axis(b))


@brute_force
@given(TRIPLES, st.sampled_from(list(permutations(range(3)))))
def test_unified_axes_stay_equal_whatever_follows(
    triple: tuple[Axis, Axis, Axis], order: tuple[int, ...]
) -> None:
    x, y, z = (triple[i] for i in order)
    unify(x, y)
    unify(y, z)
    assert agree(x, y)
    assert agree(x, z)


@brute_force
@given(st.data(), SIZES)
def test_the_order_of_unification_does_not_matter(data: st.DataObject, size: int) -> None:
    plans = [data.draw(templates(size)) for _ in range(3)]
    found = set()
    for order in permutations(range(3)):
        built = [build(plan) for plan in plans]
        first, second, third = order
        unify(built[first], built[second])
        unify(built[second], built[third])
        if not any(free.pins for axis in built for free in atoms(axis)):
            found.add(tuple(shape(axis) for axis in built))
    assert len(found) <= 1


@brute_force
@given(st.data(), SIZES)
def test_unification_is_symmetric(data: st.DataObject, size: int) -> None:
    left, right = data.draw(templates(size)), data.draw(templates(size))
    a, b, c, d = build(left), build(right), build(left), build(right)
    assert unify(a, b) == unify(d, c)
    assert shape(a) == shape(c)
    assert shape(b) == shape(d)


@pytest.mark.parametrize("fault", ["swapped factors", "lost boundary"])
def test_a_planted_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "swapped factors":
        bind = axes._bind

        def wrong(free: Atom, to: Axis) -> bool:
            turned = Product(to.factors[::-1], to.size) if isinstance(to, Product) else to
            return bind(free, turned)

        monkeypatch.setattr(axes, "_bind", wrong)
    else:
        monkeypatch.setattr(axes, "_unify_sums", lambda left, right, why: True)
    with pytest.raises(AssertionError):
        test_what_is_unified_enumerates_alike()
