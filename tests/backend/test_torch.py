"""ONNX's own tests of operators, and other forms of them, as PyTorch modules.

The refusals are listed in ``tests/backend/refused_torch.txt``, which ``python -m tests.backend
torch --update`` writes: one that is not listed fails here, and so does a listed one that is right.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from onnx_net2net.frameworks.torch.operation import Entry
from onnx_net2net.frameworks.torch.operators import translations
from tests.backend.cases import by_name
from tests.backend.differential import FAMILIES, forms
from tests.backend.outcome import expected, outcome
from tests.backend.runners import torch_runner

PARTS = 16
LISTED = Path(__file__).parent / "refused_torch.txt"
REFUSED = dict(line.split(": ", 1) for line in LISTED.read_text("utf-8").splitlines())
ONE_IN = 61  # of the forms; ``python -m tests.backend.differential torch`` runs all of them


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("part", range(PARTS))
def test_right_or_refused_by_name(part: int) -> None:
    problems = []
    for name in list(by_name())[part::PARTS]:
        result = outcome(by_name()[name], torch_runner)
        if result.word == "refused":
            if REFUSED.get(name) != result.why:
                problems.append(f"{name}: {result.why}\n  is not what is listed")
        elif result.word not in ("right", "stated"):
            problems.append(f"{name}: {result}")
        elif name in REFUSED:
            problems.append(f"{name}: listed as refused, and {result}")
    assert problems == []


def test_only_what_exists_is_listed() -> None:
    assert REFUSED.keys() - by_name().keys() == set()


def test_nearly_all_are_right() -> None:
    """Of the tests as they are; what is refused needs text, images, or types without tensors."""
    plain = [name for name in by_name() if not name.endswith("/weights")]
    assert len(plain) - len([name for name in plain if name in REFUSED]) > 1700


@pytest.mark.parametrize("family", FAMILIES)
def test_forms_are_right_or_refused(family: str) -> None:
    problems, right = [], 0
    for case in forms(family, one_in=ONE_IN):
        if expected(case) is None:
            continue
        result = outcome(case, torch_runner)
        right += result.word == "right"
        if result.word not in ("right", "refused"):
            problems.append(f"{case.name}: {result}")
    assert problems == []
    assert right


# Faults that a reviewer could make, and a case that must show each of them.
FAULTS: dict[str, tuple[str, Entry, str]] = {
    "operands swapped": ("Sub", "{1} - {0}", "test_sub"),
    "rounded down": ("Div", "{0} // {1}", "test_div_int32_trunc"),
    "another type": ("CumSum", "torch.cumsum({0}, int({t1}))", "test_cumsum_2d_int32"),
    "a tenth of a thousandth": ("Exp", "torch.exp({0}) * 1.0001", "test_exp"),
    "one bit": ("BitwiseXor", "({0} ^ {1}) ^ 1", "test_bitwise_xor_i32_2d"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, entry, name = FAULTS[fault]
    assert outcome(by_name()[name], torch_runner).word in ("right", "stated")
    monkeypatch.setitem(translations(), ("", op), entry)
    assert outcome(by_name()[name], torch_runner).word == "wrong"
