"""Small integer chains with symbols in them give what they give with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_net2net.algebra.sizes import Size, trial, unknown
from onnx_net2net.analysis.values import evaluate, evaluate_symbols, is_symbolic
from onnx_net2net.operators import facts, registry
from tests.algebra.test_sizes import value
from tests.operators.test_values import CASES, OPERATORS, Sample, _node

PLAIN = {"floordiv", "min0"}


def symbolic(array: np.ndarray, index: int) -> np.ndarray:
    """An array whose positive whole numbers are symbols."""
    flat = [
        unknown(f"{index}.{place}", int(n)) if n > 0 and int(n) == n and array.dtype != bool else n
        for place, n in enumerate(array.ravel().tolist())
    ]
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(array.shape)


def is_plain(size: Any) -> bool:
    """Whether a size is made of symbols by arithmetic alone."""
    if not isinstance(size, Size):
        return True
    return all(
        not one.operands or (one.operator in PLAIN and all(map(is_plain, one.operands)))
        for one in size.unknowns
    )


def numbers(array: np.ndarray, at: Mapping[str, int]) -> np.ndarray:
    return np.array([value(item, at) for item in array.ravel().tolist()]).reshape(array.shape)


def broken(operator: str, sample: Sample, turned: int) -> list[str]:
    """What a formula gives at other values than it was made at, and the operator does not."""
    node, given = _node(operator, sample), sample.arrays()
    if turned >= len(given) or given[turned] is None or given[turned].dtype.kind == "f":
        return []
    outputs = evaluate(node, given, sample.opset)
    terms: list[Any] = list(given)
    terms[turned] = symbolic(given[turned], turned)
    found = None if outputs is None else evaluate_symbols(node, terms, outputs, sample.opset)
    problems = []
    for step in (0, 1, 2, 5) if found is not None else ():
        moved = [item.trial + step if isinstance(item, Size) else item
                 for item in terms[turned].ravel().tolist()]  # fmt: skip
        other: list[Any] = list(given)
        other[turned] = np.array(moved, given[turned].dtype).reshape(given[turned].shape)
        at = {f"{turned}.{place}": int(n) for place, n in enumerate(moved)}
        for array, expected in zip(found, evaluate(node, other, sample.opset) or (), strict=True):
            if not all(map(is_plain, array.ravel().tolist())):
                continue
            actual = numbers(array, at)
            if actual.shape != expected.shape or not np.array_equal(actual, expected):
                problems.append(f"{operator} gives {expected}, its formula {array} {actual}")
    return problems


@pytest.mark.parametrize(("operator", "sample"), CASES)
def test_formulas_hold_at_other_values(operator: str, sample: Sample) -> None:
    assert not [p for turned in range(3) for p in broken(operator, sample, turned)]


def test_many_operators_have_formulas() -> None:
    seen = set()
    for case in CASES:
        operator, sample = case.values
        node, given = _node(operator, sample), sample.arrays()
        outputs = evaluate(node, given, sample.opset)
        terms = [a if a is None else symbolic(a, i) for i, a in enumerate(given)]
        for turned in range(len(given)):
            some = [terms[i] if i == turned else a for i, a in enumerate(given)]
            found = (
                evaluate_symbols(node, some, outputs or [], sample.opset)
                if is_symbolic(some[turned])
                else None
            )
            if found and any(isinstance(n, Size) and is_plain(n) for a in found for n in a.ravel()):
                seen.add(operator)
    assert seen >= set(OPERATORS) - {
        "And", "Ceil", "ConstantOfShape", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less",
        "LessOrEqual", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMin", "Round", "Sqrt",
    }  # fmt: skip


@pytest.mark.parametrize("operator", ["Mul", "Max", "Where", "Sub"])
def test_a_wrong_formula_is_caught(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = facts(operator)
    assert record.formula is not None
    kept = record.formula
    wrong = replace(record, formula=lambda *given: trial(kept(*given)))
    monkeypatch.setitem(registry(), ("", operator), wrong)
    cases = [case.values for case in CASES if case.values[0] == operator]
    assert any(broken(*case, turned) for case in cases for turned in range(3))
