"""Native code in a process of its own: where it crashes, hangs or takes all memory, that ends.

    process = Isolated(memory=1 << 30)
    process.call("infer_shapes", seconds=10, model=contents)     # raises Failed

onnx's shape inference and onnxruntime are C++: absurd operands end the whole process (a failed
assertion, a division by zero), or ask for any amount of memory. :mod:`onnx_net2net.model.hazards`
tells for which models that may be.
"""

from __future__ import annotations

import importlib
import os
import pickle
import selectors
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["Died", "Failed", "Isolated"]

_LENGTH = struct.Struct("<Q")
_PIECE = 1 << 20


class Failed(RuntimeError):
    """What was asked for failed, or took its process along."""


class Died(Failed):
    """It took its process along, or too long."""


class Isolated:
    """A process that makes calls for this one. ``module`` offers them, as ``CALLS`` by name, and
    says which ``ERRORS`` come back as Failed.

    ``memory``: bytes that it may take beyond what it starts with (not on Windows). It is started
    by the first call, and again by the first one after it died.
    """

    def __init__(self, module: str, memory: int) -> None:
        self.module, self.memory = module, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def call(self, name: str, seconds: float, **arguments: Any) -> Any:
        """Return the result of ``CALLS[name](**arguments)`` there. Raises Failed."""
        with self._lock:
            process = self._started()
            answer: tuple[bool, Any] | None = None
            try:
                answer = _exchange(process, (name, arguments), seconds)
            except (OSError, EOFError):
                raise Died(_last_words(process)) from None
            finally:
                if answer is None:  # dead, late, or interrupted: of no use any more
                    self._end()
        assert answer is not None
        done, value = answer
        if not done:
            raise Failed(value)
        return value

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            root = str(Path(__file__).parents[2])
            paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            code = f"from {__name__} import serve; serve({self.module!r}, {self.memory})"
            self._process = subprocess.Popen(
                # -P: nothing from the current folder, where a stranger's files may lie.
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
                bufsize=0,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def __del__(self) -> None:
        self._end()


def _last_words(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        return "it took too long"
    return f"it crashes (signal {-code})" if code < 0 else "it takes too much memory, or crashes"


def _exchange(
    process: subprocess.Popen[bytes], question: Any, seconds: float
) -> tuple[bool, Any] | None:
    """Send a question and read the answer; TimeoutError (an OSError) after ``seconds``."""
    assert process.stdin is not None and process.stdout is not None
    data = pickle.dumps(question)
    process.stdin.write(_LENGTH.pack(len(data)))
    for start in range(0, len(data), _PIECE):
        process.stdin.write(data[start : start + _PIECE])
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)

        def read(length: int) -> bytes:
            pieces = bytearray()
            while len(pieces) < length:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                assert process.stdout is not None
                piece = os.read(process.stdout.fileno(), min(_PIECE, length - len(pieces)))
                if not piece:
                    raise EOFError
                pieces += piece
            return bytes(pieces)

        answer: tuple[bool, Any] = pickle.loads(read(_LENGTH.unpack(read(_LENGTH.size))[0]))
        return answer


# In the child ------------------------------------------------------------------------------------


def serve(module: str, memory: int) -> None:
    """Answer questions on the standard streams until they end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints is no answer
    offered = importlib.import_module(module)
    calls, known = offered.CALLS, (MemoryError, *offered.ERRORS)
    _limit(memory)
    while len(head := sys.stdin.buffer.read(_LENGTH.size)) == _LENGTH.size:
        name, arguments = pickle.loads(sys.stdin.buffer.read(_LENGTH.unpack(head)[0]))
        try:
            answer: tuple[bool, Any] = True, calls[name](**arguments)
        except known as error:
            answer = False, str(error) or "it takes too much memory"
        data = pickle.dumps(answer)
        answers.write(_LENGTH.pack(len(data)) + data)
        answers.flush()


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    status = Path("/proc/self/statm")
    taken = int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 0
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
