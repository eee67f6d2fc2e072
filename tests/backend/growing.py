"""Widen what a backend test says can grow: each dimension alone, then all at once.

    for name, result in growths(case):       # "4 -> 5 of 'w'", Outcome("right")

Judged twice: by ``verify``, with inputs of its own ("rejected"), and by what onnxruntime computes
before and after from the inputs of the test ("wrong").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnx import ModelProto

import onnx_net2net as n2n
from tests.backend.cases import Case
from tests.backend.outcome import Outcome, difference, expected
from tests.judging import Subject, everything, wider


def growths(case: Case) -> Iterator[tuple[str, Outcome]]:
    """What becomes of every growth of the case; none where nothing of it can grow."""
    try:
        subject = Subject(n2n.load(case.model))
    except n2n.Net2NetError:
        return  # refused when read: the tests of the imports list those
    wanted = [{d.name: wider(d)} for d in subject.growable]
    if len(wanted) > 1:
        wanted.append(everything(subject.growable))
    for widths in wanted:
        yield (
            ", ".join(f"{name}={width}" for name, width in widths.items()),
            _grown(case, subject, widths),
        )


def _grown(case: Case, subject: Subject, widths: dict[str, int]) -> Outcome:
    try:
        grown = n2n.widen(subject.model, widths)
        report = subject.judge(grown)
    except n2n.Net2NetError as error:
        return Outcome("refused", " ".join(str(error).split()))
    except Exception as error:
        return Outcome("crash", f"{type(error).__name__}: {error}"[:300])
    if not report:
        return Outcome("rejected", report.verdict)
    before, after = (
        expected(case),
        expected(replace(case, model=ModelProto.FromString(grown.to_bytes()))),
    )
    if before is None or after is None:
        return Outcome("not run") if before is after else Outcome("wrong", "it does not run")
    problem = difference(case, before, after, 10.0)  # sums of more parts, in another order
    return Outcome("wrong", problem) if problem else Outcome("right")
