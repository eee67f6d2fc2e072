"""The plugin of pytest, in runs of pytest of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.verification.assertion import NotEquivalent
from tests.cli.test_startup import HEAVY
from tests.console import FIXTURES, environment
from tests.verify_networks import edited, scale_one

LENET = FIXTURES / "lenet.ts17.onnx"
# As the entry point of an installed package has it, whether it is installed here or not.
PLUGIN = ("-p", "no:onnx_net2net", "-p", "onnx_net2net.pytest_plugin")


def ran(folder: Path, code: str, *options: str) -> tuple[int, str]:
    """Run pytest on a file of tests; return its exit code, and what it printed."""
    (folder / "test_models.py").write_text(textwrap.dedent(code))
    plain = ("-p", "no:cacheprovider", "-o", "addopts=", "--rootdir", folder)
    command = [sys.executable, "-m", "pytest", *plain, *PLUGIN, *options, folder]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.onnx").write_bytes(LENET.read_bytes())
    proto = onnx.load(LENET)
    name = next(t.name for t in proto.graph.initializer if "fc1.weight" in t.name)
    onnx.save(edited(proto, name, scale_one), tmp_path / "b.onnx")
    return tmp_path


def test_a_fixture_and_a_function(folder: Path) -> None:
    code, out = ran(
        folder,
        """
        import onnx_net2net
        def test_equal(assert_equivalent):
            report = assert_equivalent("a.onnx", "a.onnx")
            assert len(report.trials) == 5 and report.provider == "CPUExecutionProvider"
        def test_own_option_wins(assert_equivalent):
            assert len(assert_equivalent("a.onnx", "a.onnx", seeds=1).trials) == 1 + 1
        def test_differs(assert_equivalent):
            assert_equivalent("a.onnx", "b.onnx")
        def test_function():
            alike = {"require": "cosine>=0.9", "require_only": True}
            onnx_net2net.assert_equivalent("a.onnx", "b.onnx", **alike)
        """,
        "--onnx-seeds=5", "--onnx-provider=cpu",
    )  # fmt: skip
    assert code == 1 and "1 failed, 3 passed" in out, out
    failure = out[out.index("test_differs") :]
    for text in (
        "not equivalent: ", "elements differ by more than rounding noise, worst at [",
        " instead of ", "tolerance ", "cosine 0.99", "the models part at node ", "(Gemm)",
    ):  # fmt: skip
        assert text in failure, text
    assert 'assert_equivalent("a.onnx", "b.onnx")' in failure
    assert "raise NotEquivalent" not in failure, "the line of the test is shown, not ours"


def test_it_costs_nothing_where_no_test_asks_for_it(folder: Path) -> None:
    code, out = ran(
        folder,
        f"""
        import sys
        def test_modules():
            assert "onnx_net2net.pytest_plugin" in sys.modules
            heavy = {sorted(HEAVY)!r}
            assert not [name for name in heavy if name in sys.modules and name != "rich"]
        """,
    )
    assert code == 0, out


def test_the_assertion_carries_what_it_knows(folder: Path) -> None:
    assert n2n.assert_equivalent(folder / "a.onnx", folder / "a.onnx", seeds=1)
    with pytest.raises(NotEquivalent) as caught:
        n2n.assert_equivalent(folder / "a.onnx", folder / "b.onnx", seeds=1)
    assert not caught.value.report and caught.value.divergence is not None
    assert caught.value.divergence.operator == "Gemm"
    report = n2n.verify(folder / "a.onnx", folder / "a.onnx", seeds=1)
    recorded = {"inputs": report.feeds, "against": report.expected[0]}
    if len(report.feeds) == 1:
        n2n.assert_equivalent(folder / "a.onnx", **recorded)
    with pytest.raises(n2n.UsageError):
        n2n.assert_equivalent(folder / "a.onnx")


def test_a_name_cannot_speak_to_the_terminal(folder: Path) -> None:
    proto = onnx.load(folder / "a.onnx")
    other = onnx.load(folder / "b.onnx")
    for one in (proto, other):
        name = one.graph.output[0].name
        one.graph.output[0].name = "\x1b[2J"
        one.graph.node.append(onnx.helper.make_node("Identity", [name], ["\x1b[2J"]))
    with pytest.raises(NotEquivalent) as caught:
        n2n.assert_equivalent(proto, other, seeds=1)
    assert "\x1b" not in str(caught.value) and "[2J" in str(caught.value)
    with pytest.raises(KeyError):
        caught.value.report["another"]
