"""The examples that grow between two trainings run, and go on where the smaller one was."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.console import ROOT, environment

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
# What an example needs besides this package, and what runs it.
EXAMPLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "loop_fsdp": (("torch", "onnxscript"), TORCHRUN),
    "loop_lightning": (("torch", "onnxscript", "lightning"), ()),
    "loop_trainer": (("torch", "onnxscript", "transformers", "accelerate"), ()),
}


def test_every_example_is_run() -> None:
    folder = ROOT / "tests" / "experiments"
    assert {path.stem for path in folder.glob("loop_*.py")} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_go_on_where_the_smaller_one_was(name: str, tmp_path: Path) -> None:
    needed, launcher = EXAMPLES[name]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    script = ROOT / "tests" / "experiments" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, *launcher, str(script), "--smoke"],
        cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = {
        what: float(loss)
        for what, loss in re.findall(r"^(\w+): ([\d.]+)$", done.stdout, re.MULTILINE)
    }
    assert losses["grown"] == pytest.approx(losses["small"], abs=2e-4), done.stdout
    assert losses["trained"] < losses["grown"], "it has learnt nothing"
    if "loaded" in losses:
        assert losses["loaded"] == losses["trained"]
