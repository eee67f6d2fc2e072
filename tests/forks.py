"""Commands in forks of one process, which has imported what they use: no start-up for each.

``python -m tests.forks`` reads a pickled request after the other, and answers with exit codes.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import pkgutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPORTED = ("cli", "deepening", "plan", "verification", "widening")  # with all their modules


class Forks:
    """The process that forks, and how to ask it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            cwd=ROOT,
        )
        atexit.register(self._process.communicate)

    def run(
        self, arguments: Sequence[str], cwd: Path | None, environment: Mapping[str, str]
    ) -> tuple[int, str, str]:
        """The exit code of a command, and what it wrote to stdout and stderr."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder, name) for name in ("out", "err")]
            request = (list(arguments), str(cwd or Path.cwd()), dict(environment), streams)
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            code: int = pickle.load(self._process.stdout)
            out, err = (stream.read_text(encoding="utf-8") for stream in streams)
        return code, out, err


@cache
def forks(start: tuple[tuple[str, str], ...]) -> Forks:
    """Return the process for what an environment says to Python itself."""
    return Forks({**os.environ, **dict(start)})


def finished(
    arguments: Sequence[str], cwd: Path | None, environment: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run a command to its end: exit code, stdout and stderr."""
    start = tuple(sorted((k, v) for k, v in environment.items() if k.startswith("PYTHON")))
    return forks(start).run(arguments, cwd, environment)


# In the process that forks ------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until there are no more."""
    for name in IMPORTED:
        package = import_module(f"onnx_net2net.{name}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    gc.freeze()
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forks beside threads, which wait for NumPy's work
            child = os.fork()
        if not child:
            _command(*request)
        _, status = os.waitpid(child, 0)
        pickle.dump(os.waitstatus_to_exitcode(status), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _command(
    arguments: list[str], cwd: str, environment: dict[str, str], streams: list[Path]
) -> None:
    """Become a command. Does not return."""
    code = 1
    try:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, 1):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = ["onnx-net2net", *arguments]
        from onnx_net2net.__main__ import main

        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
