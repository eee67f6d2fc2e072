"""What is called certain of two shapes of random symbols, tried at one size, holds at others."""

from __future__ import annotations

import random
from math import prod

import pytest

from onnx_net2net.operators.alignment import Part, Size, uncertain

SYMBOLS = ("batch", "rows", "columns", "heads")
TRIED = {"batch": 7, "rows": 32, "columns": 96, "heads": 1}  # where chance is likely
ELSEWHERE = [
    {
        name: random.Random(f"{seed}{name}").choice((1, 2, 3, 4, 6, 8, 12, 24, 96))
        for name in SYMBOLS
    }
    for seed in range(60)
]
Term = int | str  # a number, or a dynamic size


def measured(terms: list[Term], sizes: dict[str, int]) -> int:
    return prod(sizes[term] if isinstance(term, str) else term for term in terms)


def parts(terms: list[Term]) -> Size:
    return tuple(
        Part(TRIED[term], False, term) if isinstance(term, str) else Part(term, True)
        for term in terms
    )


def shapes(seed: int) -> tuple[list[list[Term]], list[list[Term] | None]]:
    """An input shape, and what Reshape makes of it; None is its -1."""
    rng = random.Random(seed)

    def axis(most: int) -> list[Term]:
        return [rng.choice([*SYMBOLS, 2, 3, 4, 8, 24]) for _ in range(rng.randint(1, most))]

    before = [axis(rng.choice((1, 1, 2))) for _ in range(rng.randint(1, 4))]
    flat = [term for terms in before for term in terms]
    after: list[list[Term] | None] = []
    while flat:  # the same terms in order, grouped otherwise; sometimes others, and one -1
        count = rng.randint(1, 2)
        after.append(flat[:count] if rng.random() < 0.8 else axis(1))
        flat = flat[count:]
    after[rng.randrange(len(after))] = None
    return before, after


def at(
    before: list[list[Term]], after: list[list[Term] | None], sizes: dict[str, int]
) -> tuple[list[int], list[int]] | None:
    """Both shapes at some sizes; None where there is no such Reshape."""
    left = [measured(terms, sizes) for terms in before]
    given = [None if terms is None else measured(terms, sizes) for terms in after]
    rest, odd = divmod(prod(left), prod(n for n in given if n is not None))
    return None if odd else (left, [rest if n is None else n for n in given])


def suffixes(shape: list[int]) -> list[int]:
    return [prod(shape[i:]) for i in range(len(shape) + 1)]


def wrong(seed: int) -> list[str]:
    """Cuts that both shapes have at the sizes tried, are called certain, and are not elsewhere.

    Beside an axis of size 1 there are two cuts at one place, so that they tell nothing.
    """
    before, after = shapes(seed)
    tried = at(before, after, TRIED)
    if tried is None:
        return []
    rest = all(not isinstance(t, str) for terms in (*before, *after) for t in terms or ())
    right = [
        (Part(size, rest),) if terms is None else parts(terms)
        for terms, size in zip(after, tried[1], strict=True)
    ]
    left_open, right_open = uncertain([parts(terms) for terms in before], right)
    found = []
    for sizes in ELSEWHERE:
        other = at(before, after, sizes)
        for i, here in enumerate(suffixes(tried[0])):
            for j, there in enumerate(suffixes(tried[1])):
                inside = {i - 1, i} <= left_open or {j - 1, j} <= right_open
                if here != there or inside or other is None or 1 in (*tried[0], *tried[1]):
                    continue
                if suffixes(other[0])[i] != suffixes(other[1])[j]:
                    found.append(f"{before} to {after} at {sizes}")
    return found


@pytest.mark.parametrize("start", range(0, 4000, 500))
def test_what_is_certain_holds_elsewhere(start: int) -> None:
    assert not [problem for seed in range(start, start + 500) for problem in wrong(seed)]


def test_something_is_certain_and_something_is_not() -> None:
    seen = set()
    for seed in range(300):
        before, after = shapes(seed)
        tried = at(before, after, TRIED)
        if tried is not None:
            given = [
                parts(t) if t else (Part(n, False),) for t, n in zip(after, tried[1], strict=True)
            ]
            seen.add(bool(uncertain([parts(terms) for terms in before], given)[0]))
    assert seen == {False, True}


def test_taking_all_for_certain_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.uncertain", lambda before, after: (set(), set()))
    assert any(wrong(seed) for seed in range(500))
