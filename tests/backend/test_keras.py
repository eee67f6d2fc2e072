"""ONNX's own backend tests, and other forms of operators, through ``to_keras``.

Here run a share of the first and some of the second; all of them by hand:

    python -m tests.backend keras                  # --update writes the list of refusals anew
    python -m tests.backend.differential keras
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.backend.cases import by_name
from tests.backend.differential import FAMILIES
from tests.backend.forms import some
from tests.backend.outcome import expected, outcome
from tests.backend.runners import keras_runner
from tests.keras_models import keras

from onnx_net2net.frameworks.keras import windows  # isort: skip
from onnx_net2net.frameworks.keras.operators import (  # isort: skip
    attention,
    convolution,
    movement,
    reduction,
    resizing,
)

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others refuse more"),
    pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # cases that divide by zero on purpose
    pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning"),
]

SHARE = 11  # one case in so many
PARTS = 4
PER_FAMILY = 4
NAMES = list(by_name())[::SHARE]
LINES = (Path(__file__).parent / "refused_keras.txt").read_text("utf-8").splitlines()
REFUSED = dict(line.split(": ", 1) for line in LINES)


def test_list_of_refusals_names_cases() -> None:
    assert not REFUSED.keys() - by_name().keys()


@pytest.mark.parametrize("part", range(PARTS))
def test_right_or_refused_as_listed(part: int) -> None:
    problems = []
    for name in NAMES[part::PARTS]:
        found = outcome(by_name()[name], keras_runner)
        wanted = ("refused", REFUSED[name]) if name in REFUSED else ("right", "")
        if (found.word.replace("stated", "right"), found.why) != wanted:
            problems.append(f"{name}: {found}")
    assert problems == []


@pytest.mark.parametrize("family", FAMILIES)
def test_forms_are_right_or_refused(family: str) -> None:
    words = {}
    for open_sizes in (False, True):
        run = (c for c in some(family, 8 * PER_FAMILY, open_sizes) if expected(c) is not None)
        for case in islice(run, 0, 4 * PER_FAMILY, 4):
            words[case.name] = outcome(case, keras_runner)
    assert [f"{n}: {o}" for n, o in words.items() if o.word not in ("right", "refused")] == []
    assert "right" in {result.word for result in words.values()}


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "attention": (attention, "lowest", lambda kind: -1.0),
    "convolution": (windows, "same_pads", lambda length, span, *_, **__: (span - 1, 0)),
    "transposed": (convolution, "_spaced", lambda x, axis, stride: x),
    "pooling": (windows, "_overhang", lambda *_: 0),
    "reductions": (reduction, "axis_of", lambda axis, value: max(axis, 0)),
    "resizing": (resizing, "_rounded", lambda xp, place, mode: xp.floor(place)),
    "moving": (movement, "_picked", lambda start, end, step, size: range(size)),
}


@pytest.mark.parametrize("family", FAULTS)
def test_planted_faults_are_seen(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, fault = FAULTS[family]
    monkeypatch.setattr(module, name, fault)
    assert any(outcome(case, keras_runner).word == "wrong" for case in some(family, 300))
