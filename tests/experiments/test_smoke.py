"""Every experiment runs: with next to no training, in one process and a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console import ROOT, environment

for package in ("torch", "onnxscript", "sklearn", "matplotlib"):
    pytest.importorskip(package, reason="needs the extra [experiments]")

from everything import EXPERIMENTS  # noqa: E402

HERE = Path(__file__).parent


def test_all_experiments_are_among_everything() -> None:
    scripts = {path.stem for path in HERE.glob("*.py") if "\nCONTEST = " in path.read_text()}
    assert scripts == set(EXPERIMENTS)


def test_smoke(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "everything.py", "--smoke", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--folder", tmp_path],
        cwd=ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in EXPERIMENTS:
        results = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        for entrant, result in results["entrants"].items():
            assert f"| {entrant} |" in done.stdout
            assert result["runs"], entrant
        assert (tmp_path / "results" / f"{name}.png").stat().st_size > 10_000
