"""Every experiment runs: with next to no training, in a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console import ROOT, environment

for package in ("torch", "onnxscript", "sklearn", "matplotlib"):
    pytest.importorskip(package, reason="needs the extra [experiments]")

SCRIPTS = sorted(
    path for path in Path(__file__).parent.glob("*.py") if "\nCONTEST = " in path.read_text()
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that each network is exported once."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_smoke(script: Path, folder: Path) -> None:
    command = [sys.executable, script, "--smoke", "--jobs", "1", "--folder", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results" / f"{script.stem}.json").read_text())
    for name, result in results["entrants"].items():
        assert f"| {name} |" in done.stdout
        assert result["runs"], name
    assert (folder / "results" / f"{script.stem}.png").stat().st_size > 10_000
