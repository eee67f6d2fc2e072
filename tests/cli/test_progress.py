"""A bar on the terminal, on stderr only, for what takes long; silence everywhere else."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnx_net2net.progress import Work, follow, work
from tests.console import FIXTURES, ROOT, command, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

# As long as a large model would take: each work takes two seconds more.
SLOW = """
import sys, time
from contextlib import contextmanager
import onnx_net2net.progress as progress
work = progress.work
@contextmanager
def slow(what, total=None, **options):
    with work(what, total, **options) as begun:
        yield begun
        time.sleep(2)
progress.work = slow
sys.argv[1:] = {arguments!r}
from onnx_net2net.__main__ import main
sys.exit(main())
"""


def on_a_terminal(*arguments: object, slow: bool = True) -> tuple[int, str, str]:
    """Run a command whose stderr is a terminal; return its exit code, stdout and stderr."""
    code = SLOW.format(arguments=tuple(map(str, arguments)))
    started = [sys.executable, "-c", code] if slow else command(*arguments)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        started, cwd=ROOT, env=environment(TERM="xterm"), stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.2)
        try:
            piece = os.read(ours, 1 << 16) if ready else b""
        except OSError:  # closed at the other end
            break
        shown += piece
        if not piece and process.poll() is not None:
            break
    os.close(ours)
    out, _ = process.communicate(timeout=10)
    return process.returncode, out.decode(), shown.decode()


def test_long_work_is_shown_and_goes_away(tmp_path: Path) -> None:
    target = tmp_path / "a\x1b[2Jb.onnx"
    code, out, shown = on_a_terminal(
        "widen", FIXTURES / "mlp.ts17.onnx", "--factor", 2, "--all", "-o", target
    )
    assert code == 0 and "wrote" in out and "verifying" not in out
    for text in ("reading mlp.ts17.onnx", "writing a\\u001b[2Jb.onnx", "verifying", "MB", "left"):
        assert text in shown, text
    assert "\x1b[2Jb" not in shown, "a file's name steers no terminal"
    assert shown.rindex("\x1b[2K") > shown.rindex("verifying"), "its line is erased"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is there again"


def test_quiet(tmp_path: Path) -> None:
    model = FIXTURES / "mlp.ts17.onnx"
    target = tmp_path / "wide.onnx"
    code, _, shown = on_a_terminal("widen", model, "--factor", 2, "--all", "-q", "-o", target)
    assert code == 0 and shown == ""


def test_what_is_quick_shows_nothing() -> None:
    code, _, shown = on_a_terminal("history", FIXTURES / "mlp.ts17.onnx", slow=False)
    assert code == 0 and shown == ""


def test_nothing_is_shown_in_a_pipe(tmp_path: Path) -> None:
    arguments = ("widen", str(FIXTURES / "mlp.ts17.onnx"), "--factor", "2", "--all", "-o")
    code = SLOW.format(arguments=(*arguments, str(tmp_path / "wide.onnx")))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == b""


def test_work_within_work() -> None:
    told: list[Work | None] = []
    follow(told.append)
    try:
        with work("outer", 10) as outer:
            outer.advance(3)
            with pytest.raises(ZeroDivisionError), work("inner") as inner:
                1 / 0  # noqa: B018
        assert told == [outer, inner, outer, None] and outer.done == 3
    finally:
        follow(None)
    with work("untold"):
        assert len(told) == 4
