"""The public surface, as the documentation of the package promises it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import onnx_net2net as n2n


@pytest.mark.parametrize("first", ["n2n.Report", "import onnx_net2net.verify", "n2n.load"])
def test_submodules_do_not_hide_functions(first: str) -> None:
    """In a fresh interpreter, whatever was imported before, ``verify`` is the function."""
    code = f"import onnx_net2net as n2n; {first}; print(type(n2n.verify).__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "function\n"
