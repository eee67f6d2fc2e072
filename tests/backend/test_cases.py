"""ONNX's own tests of operators are read and inspected, or refused by name."""

from __future__ import annotations

import pytest

from tests.backend.cases import by_name
from tests.backend.outcome import loaded

PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_is_read_or_refused_by_name(part: int) -> None:
    problems = []
    for name in list(by_name())[part::PARTS]:
        result = loaded(by_name()[name])
        if result.word == "crash":
            problems.append(f"{name}: {result}")
    assert problems == []
