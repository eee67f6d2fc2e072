"""Symbolic sizes: what their normal forms and bounds say holds at all values of the unknowns."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from onnx_net2net.algebra import sizes
from onnx_net2net.algebra.sizes import (
    Size,
    Undecided,
    bounds,
    differ,
    exact,
    maximum,
    minimum,
    opaque,
    same,
    unknown,
)

NAMES = ("batch", "length", "height")
X, Y, Z = (unknown(name, n) for name, n in zip(NAMES, (5, 7, 11), strict=True))
CHOICES = [
    {name: random.Random(f"{seed}{name}").choice((1, 2, 3, 4, 6, 7, 12, 25)) for name in NAMES}
    for seed in range(24)
]
Expression = Callable[[Callable[[str], Any]], Any]
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "quotient": lambda a, b: a // maximum(b, 1),
    "remainder": lambda a, b: a % maximum(b, 1),
    "minimum": minimum,
    "maximum": maximum,
}


def expression(rng: random.Random, depth: int = 0) -> Expression:
    """Random arithmetic, of symbols and of numbers alike."""
    if depth > 3 or rng.random() < 0.2:
        name, number = rng.choice(NAMES), rng.choice((0, 1, 2, 3, 4, 8, 12))
        return (lambda of: of(name)) if rng.random() < 0.6 else (lambda of: number)
    left, right = expression(rng, depth + 1), expression(rng, depth + 1)
    function = OPERATORS[rng.choice(list(OPERATORS))]
    return lambda of: function(left(of), right(of))


def value(size: Any, at: Mapping[str, int]) -> Any:
    """What a normal form is where the unknowns have these values."""
    if not isinstance(size, Size):
        return size
    total = 0
    for monomial, factor in size.terms.items():
        total += factor * math.prod(_value_of(one, at) for one in monomial)
    return total


def _value_of(one: sizes.Unknown, at: Mapping[str, int]) -> Any:
    given = [value(operand, at) for operand in one.operands]
    if one.operator == "floordiv":
        return given[0] // given[1]
    if one.operator == "size":
        return given[0]
    return min(given[0], 0) if one.operator == "min0" else at[one.operator]


def broken(seed: int) -> list[str]:
    """What is untrue of the normal form of a random expression."""
    rng = random.Random(seed)
    one, other = expression(rng), expression(rng)
    symbols = {name: unknown(name, n) for name, n in zip(NAMES, (5, 7, 11), strict=True)}
    a, b = one(symbols.__getitem__), other(symbols.__getitem__)
    low, high = bounds(a)
    found = []
    for at in (*CHOICES, {"batch": 5, "length": 7, "height": 11}):
        expected, beside = one(at.__getitem__), other(at.__getitem__)
        if value(a, at) != expected:
            found.append(f"{a} is {value(a, at)}, not {expected} at {at}")
        if not low <= expected <= high:
            found.append(f"{expected} is not in {low} to {high}: {a} at {at}")
        if (a == b and expected != beside) or (differ(a, b) and expected == beside):
            found.append(f"{a} and {b} at {at}")
        quotient = exact(a, b)
        if quotient is not None and value(quotient, at) * beside != expected:
            found.append(f"{a} divided by {b} is not {quotient} at {at}")
    if sizes.trial(a) != value(a, {"batch": 5, "length": 7, "height": 11}):
        found.append(f"{a} has the trial value {sizes.trial(a)}")
    return found


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_normal_forms_hold_at_all_values(start: int) -> None:
    assert not [problem for seed in range(start, start + 100) for problem in broken(seed)]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_rounded", lambda dividend, divisor: exact(dividend - dividend.trial, 1)),
        ("_negative_part", lambda size: 0),
        ("_bounds_with_minimum", lambda *given: (-2, 3)),
        ("_shifted", lambda size: dict.fromkeys(size.terms, 1)),
    ],
)
def test_wrong_algebra_is_caught(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, name, wrong)
    monkeypatch.setattr(sizes, "_CASES", {"min0": sizes._bounds_with_minimum})
    monkeypatch.setattr(f"{__name__}.exact", sizes.exact)
    assert any(broken(seed) for seed in range(60))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((X * Y * 64) // (Y * 8), 8 * X),
        ((Y + 2 - 3) // 1 + 1, Y),
        ((Y // 2) // 3, Y // 6),
        ((2 * Y - 1) // 2, Y - 1),
        ((Y - 16) // 16 + 1, Y // 16),
        (minimum(Y, 3) + maximum(Y - 3, 0), Y),
        (minimum(Y, 3), 3 - maximum(3 - Y, 0)),
        ((Y + (-Y) % 7) // 7 * 7, Y + (7 - Y % 7) % 7),
        (minimum(2 * Y, 8), 2 * minimum(4, Y)),
        (maximum(Y, 1), Y),
        ((X * Z + X) // (Z + 1), X),
        ((X * Y) // (X * Z), Y // Z),
        (unknown("batch", 5), X),
    ],
)
def test_equal_sizes_have_one_normal_form(left: Any, right: Any) -> None:
    assert left == right
    assert hash(left) == hash(right)
    assert same(left, right)


@pytest.mark.parametrize(
    "question",
    [
        lambda: Y > X,
        lambda: Y >= 2,
        lambda: same(Y, 7),
        lambda: bool(Y - 1),
        lambda: int(Y),
        lambda: [1, 2, 3][Y],
        lambda: range(Y),
        lambda: Y % 2 == 0 or bool(Y % 2),
        lambda: float(Y),
    ],
)
def test_what_depends_on_the_unknowns_is_undecided(question: Callable[[], Any]) -> None:
    with pytest.raises(Undecided, match="known at run time only"):
        question()


def test_what_holds_always_is_decided() -> None:
    assert Y > 0 and Y >= 1 and not Y < 1 and bool(Y) and Y % 4 < 4 and minimum(Y, 8) <= 8
    assert X + Y > X and 2 * X * Y >= X and maximum(Y, 3) >= 3
    assert differ(Y, 0) and differ(Y, -1) and differ(X + Y, X) and not differ(X, Y)
    none = unknown("found", 5, low=0)
    assert none >= 0 and not differ(none, 0)


def test_an_opaque_size_is_the_same_wherever_it_is_computed() -> None:
    assert opaque("round", [Y], 7) == opaque("round", [Y], 7)
    assert opaque("round", [Y], 7) != opaque("round", [X], 7)
    assert str(2 * X * Y - opaque("round", [Y], 7) + 1) == "2*batch*length - round(length) + 1"
