"""The command ``onnx-net2net``: runs it, and turns what went wrong into a message and an exit code.

0 done; 1 not equivalent, or refused; 2 bad usage or bad input; 70 a defect of this program;
130 interrupted. ``ONNX_NET2NET_DEBUG=1`` shows the traceback of a defect.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from onnx_net2net.errors import Net2NetError, Refused

DONE, UNEQUAL, BAD, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130


def main() -> int:
    """Run the command line of this process; the exit code."""
    arguments = sys.argv[1:]
    try:
        # An orderly end also when asked to terminate: temporary files are removed on the way out.
        signal.signal(signal.SIGTERM, _terminated)
        from onnx_net2net.cli import run

        return run(arguments)
    except KeyboardInterrupt:
        return _report(INTERRUPTED, "Interrupted", "interrupted; nothing was written", None)
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


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _known(error: Net2NetError) -> int:
    refused = isinstance(error, Refused)
    problem = error.problem
    more: dict[str, Any] = {}
    if isinstance(error, Refused):
        more = {"node": error.node, "reason": error.reason}
    return _report(
        UNEQUAL if refused else BAD, type(error).__name__, problem, error.remedy, **more
    )


def _report(code: int, kind: str, problem: str, remedy: str | None, **more: Any) -> int:
    """Say what is wrong: to people on stderr, to programs (``--json``) on stdout."""
    if "--json" in sys.argv:
        import json

        error = {"kind": kind, "problem": problem, **more, "remedy": remedy, "exit": code}
        print(json.dumps({"error": error}, indent=2))
        return code
    label = "refused" if kind == "Refused" else "error"
    remedies = "" if remedy is None else f"\n  remedy: {remedy}"
    print(f"{label}: {problem}{remedies}", file=sys.stderr)
    return code


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


if __name__ == "__main__":
    sys.exit(main())
