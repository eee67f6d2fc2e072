"""Axes cut in any order, against brute force: entry by entry, who is the same and where it is cut.

In the model every entry of every axis belongs to a class, and a class says whether the next entry
belongs to the same atom. Unifying merges classes. The atoms of an axis are its longest runs.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_net2net.algebra import axes
from onnx_net2net.algebra.axes import Axis, Pin, Sum, atom, atoms, canonical, product, total, unify
from onnx_net2net.algebra.measures import Measure
from tests.algebra.test_axes import SIZES, agree, enumerate_axis, expressions, shape

Runs = list[list[tuple[int, int]]]  # of each axis the atoms: their numbers and their sizes


class Entries:
    """The model: an axis is a list of entries."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.joined: list[bool] = []  # whether the next entry belongs to the same atom

    def fresh(self, size: int) -> list[int]:
        first = len(self.parent)
        self.parent += range(first, first + size)
        self.joined += [True] * (size - 1) + [False]
        return self.parent[first:]

    def root(self, entry: int) -> int:
        while self.parent[entry] != entry:
            entry = self.parent[entry]
        return entry

    def cut(self, axis: list[int], start: int, stop: int) -> list[int]:
        for last in (start - 1, stop - 1):
            if last >= 0:
                self.joined[self.root(axis[last])] = False
        return axis[start:stop]

    def unify(self, one: list[int], other: list[int]) -> None:
        for a, b in zip(map(self.root, one), map(self.root, other), strict=True):
            a, b = self.root(a), self.root(b)
            self.joined[b] &= self.joined[a]
            self.parent[a] = b

    def runs(self, known: list[list[int]]) -> Runs:
        numbers: dict[int, int] = {}
        found: Runs = []
        for axis in known:
            roots = [self.root(entry) for entry in axis]
            ends = [0, *(i + 1 for i, root in enumerate(roots) if not self.joined[root])]
            found.append([_run(numbers, roots[a], b - a) for a, b in pairwise(ends)])
        return found


def _run(numbers: dict[int, int], key: int, size: int) -> tuple[int, int]:
    """Size 1 is one and the same everywhere."""
    return (-1, 1) if size == 1 else (numbers.setdefault(key, len(numbers)), size)


def runs(known: list[Axis]) -> Runs:
    """The same of the algebra."""
    numbers: dict[int, int] = {}
    found: Runs = []
    for axis in map(canonical, known):
        segments = axis.segments if isinstance(axis, Sum) else (axis,)
        found.append([_run(numbers, id(segment), segment.size) for segment in segments])
    return found


def cut(axis: Axis, start: int, stop: int) -> tuple[Axis, Axis]:
    """What Slice keeps, and the axis as its rule writes it."""
    sizes = (start, stop - start, axis.size - stop)
    parts = [atom(size) for size in sizes]
    whole = total(*parts)
    unify(axis, whole, Pin("Slice", "axes do not fit"))
    return parts[1], whole


@st.composite
def stretches(draw: st.DrawFn, size: int) -> tuple[int, int]:
    """Where a part of an axis starts and stops."""
    start = draw(st.integers(0, size - 1))
    return start, draw(st.integers(start + 1, size))


def build(data: st.DataObject, steps: int) -> tuple[list[Axis], list[list[int]]]:
    """Some axes, cut, joined and made equal at random, in the algebra and in the model."""
    model = Entries()
    real: list[Axis] = [atom(24), atom(24)]
    known = [model.fresh(24), model.fresh(24)]
    for _ in range(data.draw(st.integers(1, steps))):
        kind = data.draw(st.sampled_from(["cut", "cut", "cut", "unify", "join", "look"]))
        at = data.draw(st.integers(0, len(real) - 1))
        alike = [i for i, axis in enumerate(real) if axis.size == real[at].size]
        other = data.draw(st.sampled_from(alike))
        if kind == "cut":
            start, stop = data.draw(stretches(real[at].size))
            real.append(cut(real[at], start, stop)[0])
            known.append(model.cut(known[at], start, stop))
        elif kind == "unify":
            assert unify(real[at], real[other])
            model.unify(known[at], known[other])
        elif kind == "join" and real[at].size <= 24:
            real.append(total(real[other], real[at]))
            known.append(known[other] + known[at])
        else:
            atoms(real[at])
    return real, model.runs(known)  # type: ignore[return-value]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_axes_consist_of_the_same_atoms_as_entry_by_entry(data: st.DataObject) -> None:
    real, expected = build(data, 25)
    assert runs(real) == expected


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_numbers_add_up_along_axes(data: st.DataObject) -> None:
    real, _ = build(data, 25)
    grown = {free: free.size + free.serial % 7 for axis in real for free in atoms(axis)}
    size = Measure(grown.__getitem__, prod)
    for axis in real:
        ones = sum(segment[1] == 1 for segment in runs([axis])[0])
        assert size(axis) == ones + sum(map(grown.__getitem__, atoms(axis)))


@settings(deadline=None, max_examples=60)
@given(st.data(), SIZES.flatmap(expressions).filter(lambda axis: axis.size > 1))
def test_products_stay_equal_to_what_they_are_cut_into(data: st.DataObject, axis: Axis) -> None:
    """Also where a cut does not fit, and pins what is left."""
    pairs = []
    for _ in range(8):
        start, stop = data.draw(stretches(axis.size))
        part, whole = cut(axis, start, stop)
        pairs.append((axis, whole))
        if not any(free.pins for free in atoms(axis)):
            assert enumerate_axis(canonical(part)) == enumerate_axis(axis)[start:stop]
        if part.size > 1 and data.draw(st.booleans()):
            axis = part
    for one, other in pairs:
        assert agree(one, other)


def test_a_cut_that_fits_follows_one_that_does_not() -> None:
    axis, fits = product(atom(6), atom(4)), [(8, 24), (8, 12), (16, 20)]
    kept = [cut(axis, *each)[0] for each in (fits[0], (8, 14), *fits[1:])]
    del kept[1]
    assert shape(axis) == "((a2 b4) + b4 + b4 + b4 + b4)"
    for part, (start, stop) in zip(kept, fits, strict=True):
        assert enumerate_axis(canonical(part)) == enumerate_axis(axis)[start:stop]


def test_a_stretch_is_known_by_its_place() -> None:
    base = atom(30)
    for start in range(0, 30, 3):
        cut(base, start, start + 3)
    whole = canonical(base)
    assert isinstance(whole, Sum)
    assert whole.stretch(3, 9) is whole.stretch(3, 9)
    assert [segment.size for segment in whole.segments] == [3] * 10
    assert list(accumulate(part.size for part in whole.parts)) == whole.cuts.starts[1:]


@pytest.mark.parametrize("fault", ["lost cut", "lost equality", "wrong place"])
def test_a_planted_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = axes.Cuts.replace
    if fault == "lost cut":
        monkeypatch.setattr(axes, "_bind", lambda free, to: True)
    elif fault == "lost equality":
        monkeypatch.setattr(axes.Sum, "stretch", lambda self, at, size: atom(size))
    else:
        monkeypatch.setattr(
            axes.Cuts, "replace", lambda self, index, parts: replace(self, index, parts[::-1])
        )
    with pytest.raises(Exception):  # noqa: B017 (whichever check sees it first)
        test_axes_consist_of_the_same_atoms_as_entry_by_entry()
