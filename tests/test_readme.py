"""The README tells the truth: its commands run, its Python runs, its output is what comes out.

Only what installs and what runs the tests is left to ``.ci/run``, which does both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.console import FIXTURES, ROOT, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
INSTALL = "pip install . && "
TESTS = "pip install '.[test]' && python -m pytest\n"
# What transformers says of its own work.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
NUMBER = re.compile(r"\d[\d.,e+-]*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the reader has it: the fixtures, and the command on the path."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "fixtures").symlink_to(FIXTURES)
    (folder / "bin").mkdir()
    command = folder / "bin" / "onnx-net2net"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnx_net2net "$@"\n')
    command.chmod(0o755)
    return folder


def ran(folder: Path, *arguments: str) -> str:
    """What a program printed; it must not fail."""
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        arguments, cwd=folder, env=environment(PATH=path, **QUIET), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def masked(text: str) -> list[str]:
    """Lines without their numbers and column widths, which depend on the machine."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.strip().splitlines()]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "text", "python"}
    assert len(BLOCKS) == README.count("```") // 2
    assert BLOCKS[0][1].startswith(INSTALL) and TESTS in [text for _, text in BLOCKS]


def missing(text: str) -> bool:
    """Whether a block needs a framework that is not installed."""
    needed = {
        "transformers": ("transformers",),
        "torch": ("import torch", "--to torch", "gpt2/"),
        "safetensors": ("safetensors",),
    }
    return any(
        find_spec(package) is None and any(mark in text for mark in marks)
        for package, marks in needed.items()
    )


def test_commands_run_and_print_what_the_readme_says(folder: Path) -> None:
    printed = ""
    for kind, text in BLOCKS:
        if kind == "sh" and text != TESTS and not missing(text):
            printed = ran(folder, "bash", "-euc", text.removeprefix(INSTALL))
        elif kind == "text":
            assert masked(printed) == masked(text)
    assert (folder / "wide.onnx").exists() and (folder / "report.xml").exists()


def test_python_runs(folder: Path) -> None:
    code = "".join(text for kind, text in BLOCKS if kind == "python" and not missing(text))
    out = ran(folder, sys.executable, "-W", "error", "-c", code)
    assert "layer1.0.conv1 8 any" in out and "fc" in out


def test_ci_calls_exactly_the_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    install, test = TESTS.strip().split(" && ")
    assert f"\n{install.replace('pip install', 'pip install --quiet')}\n" in script
    assert f"\n{test}\n" in script
    first = BLOCKS[0][1].removeprefix(INSTALL).strip().replace("fixtures/", '"$root/fixtures/')
    assert first.replace(".onnx --node", '.onnx" --node') in script


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
