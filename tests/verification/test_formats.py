"""Reports for those who run tests: what fails is a failure in each of their languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from onnx_net2net.verification.report import Report
from onnx_net2net.verification.verify import verify
from tests.console import finished
from tests.verify_networks import edited, layers, mlp, not_a_number, scale_one

RNG = np.random.default_rng(7)
STACK = layers(RNG, [5, 9, 4])


def nan() -> onnx.ModelProto:
    return edited(mlp(STACK), "b1", lambda array: array.fill(np.nan))


CASES: dict[str, Callable[[], Report]] = {
    "equal": lambda: verify(mlp(STACK), mlp(STACK)),
    "scaled": lambda: verify(mlp(STACK), edited(mlp(STACK), "w0", scale_one)),
    "nan in one": lambda: verify(mlp(STACK), edited(mlp(STACK), "w0", not_a_number)),
    "nan in both": lambda: verify(nan(), nan()),
    "required": lambda: verify(mlp(STACK), mlp(STACK), require="sqnr>=1e9", require_only=True),
    "shape": lambda: verify(mlp(STACK), mlp(layers(RNG, [5, 3]))),
    "input": lambda: verify(mlp(STACK), mlp(layers(RNG, [6, 4]))),
    "name": lambda: verify(mlp(STACK), mlp(STACK, output="z")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_verdict_is_the_same_in_every_language(case: str) -> None:
    report = CASES[case]()
    assert bool(report) is (case in ("equal", "required"))
    suite = ElementTree.fromstring(report.junit())
    assert bool(suite.findall("testcase/failure")) is not bool(report)
    assert len(suite.findall("testcase/failure")) == int(suite.get("failures", -1))
    assert len(suite.findall("testcase")) == int(suite.get("tests", -1))
    assert ("::error " in report.github()) is not bool(report)
    assert report.markdown().startswith("### \u2705" if report else "### \u274c")
    assert ("**differs**" in report.markdown()) is not all(report.outputs)


def test_names_break_out_of_no_line_and_no_cell() -> None:
    name = "a|b\n::error::c<script>`%,:"
    report = verify(mlp(STACK, output=name), edited(mlp(STACK, output=name), "w0", scale_one))
    lines = report.github().splitlines()
    assert len(lines) == 1 and lines[0].startswith("::error title=a|b%0A%3A%3Aerror")
    assert "%25%2C%3A differs::" in lines[0]
    rows = [line for line in report.markdown().splitlines() if line.startswith("|")]
    assert len(rows) == 3 and r"a\|b ::error::c\<script\>\`%,:" in rows[2]


def test_the_command_writes_them(tmp_path: Path) -> None:
    onnx.save(mlp(STACK), tmp_path / "a.onnx")
    onnx.save(edited(mlp(STACK), "w0", scale_one), tmp_path / "b.onnx")
    asked = ("verify", tmp_path / "a.onnx", tmp_path / "b.onnx", "--github", "--markdown")
    result = finished(*asked, tmp_path / "summary.md")
    assert result.code == 1 and "\n::error title=y differs::" in result.out
    assert (tmp_path / "summary.md").read_text().startswith("### \u274c not equivalent")
