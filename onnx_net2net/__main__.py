"""The command ``onnx-net2net``: runs it, and turns what went wrong into a message and an exit code.

0 done; 1 not equivalent, or refused; 2 bad usage or bad input; 70 a defect of this program;
130 interrupted; 141 whoever read the output went away. ``ONNX_NET2NET_DEBUG=1`` shows the
traceback of a defect.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from onnx_net2net.cli.terminal import Terminal, message
from onnx_net2net.errors import Net2NetError, Refused

UNEQUAL, BAD, DEFECT, CLOSED = 1, 2, 70, 141


def main() -> int:
    """Run the command line of this process and return the exit code."""
    _open_streams()
    interruption = Interruption()
    try:
        interruption.install()
        from onnx_net2net.cli.main import run

        return run(sys.argv[1:])
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and interruption.number is None:
            return CLOSED  # rich, on a pipe whose reader has gone: nobody is left to be told
        problem = "interrupted; no partial file is left"
        return _report(interruption.code, "Interrupted", problem, None)
    except Net2NetError as error:
        return _known(error)
    except MemoryError:
        remedy = "close other programs, or use a machine with more memory"
        return _report(BAD, "MemoryError", "there is not enough memory", remedy)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        problem = f"{place}{error.strerror or error}"
        return _report(BAD, "OSError", problem, "check the file, its folder and their permissions")
    # Whatever else comes here is a defect of ours, and the user shall be told so in one line.
    except Exception as error:
        if os.environ.get("ONNX_NET2NET_DEBUG") == "1":
            raise
        problem = f"this is a bug, please report it: {type(error).__name__}: {_first_line(error)}"
        remedy = "set ONNX_NET2NET_DEBUG=1 for the details that a report needs"
        return _report(DEFECT, "Defect", problem, remedy)


def _open_streams() -> None:
    """Make stdout and stderr take all that may be said, and obey nothing of it.

    A model's names are arbitrary.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
            continue
        if stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Terminal(stream))


class Interruption:
    """Ctrl-C, and the request to terminate, end the program in order: what is temporary goes away.

    Not in the middle of an import, though: modules written in C do not survive that.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def code(self) -> int:
        """The exit code, as shells have it."""
        return 128 + (self.number or signal.SIGINT)

    def install(self) -> None:
        """Take over the signals of this process."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._arrived)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if hasattr(signal, "setitimer") and _importing(frame):
            signal.signal(signal.SIGALRM, self._again)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            return
        # Not KeyboardInterrupt: Python itself takes note of that, and overrules the exit code.
        raise SystemExit(self.code)

    def _again(self, number: int, frame: FrameType | None) -> None:
        self._arrived(self.number or number, frame)


def _importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _known(error: Net2NetError) -> int:
    """Say what is wrong with a request or a model, and return the exit code."""
    code, more = BAD, {}
    if isinstance(error, Refused):
        code, more = UNEQUAL, {"node": error.node, "reason": error.reason}
    return _report(code, type(error).__name__, error.problem, error.remedy, **more)


def _report(code: int, kind: str, problem: str, remedy: str | None, **more: Any) -> int:
    """Say what is wrong: to people on stderr, to programs (``--json``) on stdout."""
    if "--json" in sys.argv:
        import json

        error = {"kind": kind, "problem": problem, **more, "remedy": remedy, "exit": code}
        print(json.dumps({"error": error}, indent=2))
        return code
    label = "refused" if kind == "Refused" else "error"
    remedies = "" if remedy is None else f"\n  remedy: {remedy}"
    print(f"{label}: {message(problem)}{message(remedies)}", file=sys.stderr)
    return code


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


if __name__ == "__main__":
    sys.exit(main())
