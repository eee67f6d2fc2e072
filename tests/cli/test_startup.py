"""What starts quickly stays quick: nothing heavy is imported before it is needed.

``tests/benchmarks/startup.py`` measures the time itself.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.console import ROOT, environment

HEAVY = {
    "google.protobuf", "ml_dtypes", "numpy", "onnx", "onnx_graphsurgeon", "onnxruntime", "rich",
    "tensorflow", "torch",
}  # fmt: skip
# The whole package in a first command; these belong to its second half.
NEEDED_FOR_INSPECT = {"google.protobuf", "ml_dtypes", "numpy", "onnx", "rich"}


def imported(code: str) -> set[str]:
    """The heavy packages that are loaded after a fresh interpreter has run ``code``."""
    report = f"{code}\nimport sys; print('|'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", report],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stderr.strip().splitlines()[-1].split("|"))
    return {name for name in HEAVY if name in modules}


def called(*arguments: str) -> str:
    start = f"import sys; sys.argv[1:] = {arguments!r}"
    return f"{start}\nfrom onnx_net2net.__main__ import main; main()"


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("widen", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(called(*arguments)) == set()


def test_bad_usage_imports_nothing_heavy() -> None:
    assert imported(called("widen")) == set()


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported("import onnx_net2net") == set()
    assert imported("import onnx_net2net; onnx_net2net.Refused; dir(onnx_net2net)") == set()


def test_inspect_does_not_import_onnxruntime() -> None:
    found = imported(called("inspect", "fixtures/mlp.ts17.onnx"))
    assert found <= NEEDED_FOR_INSPECT and "onnx" in found, "or this test sees nothing"
