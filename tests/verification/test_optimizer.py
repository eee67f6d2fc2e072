"""Which of onnxruntime's optimiser passes changes a result, found by leaving passes out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from onnx_net2net.cli.render_report import report_text
from onnx_net2net.verification.optimizer import PASSES, guilty_passes
from onnx_net2net.verification.verify import verify
from tests.console import FIXTURES


@pytest.mark.parametrize("guilty", [[0], [40], [len(PASSES) - 1], [3, 50], [7, 8, 9]])
def test_the_guilty_are_found_and_nobody_else(guilty: list[int]) -> None:
    """All of them have to be left out before the difference goes."""
    names = {PASSES[at] for at in guilty}
    asked: list[int] = []

    def difference(without: Sequence[str]) -> float:
        asked.append(len(without))
        return 0.001 if names <= {*without} else 1.0

    assert {*guilty_passes(difference, 1.0)} == names
    assert len(asked) <= 60


@pytest.mark.parametrize("left", [1.0, None, float("nan")])
def test_nobody_is_blamed_without_evidence(left: float | None) -> None:
    assert guilty_passes(lambda without: left, 1.0) == []


def test_a_quantised_network_names_the_pass() -> None:
    model = FIXTURES / "mlp.int8.onnx"
    report = verify(model, model)
    assert report and {fault.model for fault in report.optimizer_faults} == {"a", "b"}
    for fault in report.optimizer_faults:
        assert fault.passes == ("QDQSelectorActionTransformer",)
    assert "optimiser (QDQSelectorActionTransformer) changes what a and b" in report.verdict
    assert "not without QDQSelectorActionTransformer" in report_text(report)
    assert report.as_dict()["optimizer_faults"][0]["passes"] == ["QDQSelectorActionTransformer"]
