"""The command line as a user has it: a process of its own, and what it said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import forks

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
# At most two lines: the problem with its place, and what would help.
MESSAGE = re.compile(r"(?:error|refused): (?P<problem>[^\n]+)(?:\n  remedy: (?P<remedy>[^\n]+))?\n")


@dataclass(frozen=True)
class Result:
    """What a finished process left behind."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the checkout importable from anywhere."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def command(*arguments: object) -> list[str]:
    """The argument list of the command line in this interpreter."""
    return [sys.executable, "-m", "onnx_net2net", *map(str, arguments)]


def finished(
    *arguments: object, cwd: Path | None = None, limit: int | None = None, **more: str
) -> Result:
    """Run to the end. ``limit``: the largest file, in bytes, that the process may write."""
    if limit is None and not more and hasattr(os, "fork"):
        return Result(*forks.finished([*map(str, arguments)], cwd, environment()))

    def restrict() -> None:
        import resource

        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=restrict if limit is not None else None,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def complaint(result: Result, code: int) -> tuple[str, str]:
    """Problem and remedy of a run that failed as it should: one clear error, and nothing else."""
    assert result.code == code, result
    assert "Traceback" not in result.err and "Warning" not in result.err
    found = MESSAGE.fullmatch(result.err)
    assert found, f"not one clear error: {result.err!r}"
    return found["problem"], found["remedy"] or ""


def left_behind(folder: Path, known: Sequence[str] = ()) -> list[str]:
    """Everything in the folder but what was there before."""
    return sorted(path.name for path in folder.iterdir() if path.name not in known)
