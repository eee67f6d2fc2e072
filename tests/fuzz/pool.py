"""Worker processes, watched: a crash, a hang or a greedy one costs one input, and is told.

A worker reads numbers from its standard input, and writes lines of JSON to its standard output:
``{"call": ...}`` before each call, the outcome after the last.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.fuzz.corpus import stored
from tests.fuzz.targets import SECONDS, Outcome, run_input

MEMORY = 2 << 30  # bytes that one input may take
PATIENCE = 4  # times SECONDS that may pass on a busy machine before a call counts as hanging
FEW = 400  # inputs; then a worker is replaced, for native libraries keep memory
PAGE = os.sysconf("SC_PAGE_SIZE")


PLANT = "FUZZ_PLANT"  # the environment variable that makes every `inspect` go wrong


def _hang(model: object) -> None:
    while True:
        pass


def _foreign(model: object) -> None:
    raise KeyError("planted")


def _memory(model: object) -> None:
    held = bytearray()
    while True:
        held += b"x" * (256 << 20)
        time.sleep(0.3)


FAULTS = {"crash": lambda model: os.abort(), "foreign": _foreign, "hang": _hang, "memory": _memory}


def serve(corpus_file: Path, frameworks: bool) -> None:
    """Be a worker."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints is no answer
    sys.setrecursionlimit(1000)
    corpus = stored(corpus_file)
    _warm_up(frameworks)
    if planted := os.environ.get(PLANT):
        import onnx_net2net

        setattr(onnx_net2net, "inspect", FAULTS[planted])  # noqa: B010
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE + 2 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def say(what: object) -> None:
        print(json.dumps(what), file=answers, flush=True)

    for line in sys.stdin:
        say(run_input(int(line), corpus, lambda call: say({"call": call}), frameworks))


def _warm_up(frameworks: bool) -> None:
    """Import what calls import, so that no input is charged for it."""
    import onnx_net2net as n2n
    from onnx_net2net import cli  # noqa: F401
    from tests.networks import Net

    net = Net()
    model = n2n.load(net.model(net("MatMul", net.input(2, 3), net.weight(3, 4))))
    n2n.inspect(model), n2n.costs(model), n2n.blocks(model), n2n.fold(model)
    n2n.verify(model, model, seeds=1, provider="cpu")
    if frameworks:
        n2n.to_torch(model)
        n2n.to_keras(model)


class _Worker:
    """A worker from outside."""

    def __init__(self, corpus_file: Path, frameworks: bool, errors: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--worker", str(corpus_file)]
        self.errors = open(errors, "w+b")  # noqa: SIM115
        self.process = subprocess.Popen(
            command + ["--frameworks"] * frameworks,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=0,
        )  # fmt: skip
        self.stat = Path(f"/proc/{self.process.pid}/stat")
        self.number: int | None = None
        self.done, self.call, self.left = 0, "starting", b""
        self.since, self.used = time.monotonic(), self.cpu()
        self.base = 0

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = self.stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes in memory."""
        return int(self.stat.read_text().rpartition(")")[2].split()[21]) * PAGE

    def give(self, number: int) -> None:
        """Let it run an input."""
        self.number = number
        self._begin("making")
        self.base = self.memory()
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n".encode())

    def _begin(self, call: str) -> None:
        self.call, self.since, self.used = call, time.monotonic(), self.cpu()

    def read(self) -> Outcome | None:
        """What it says; the outcome of its input, once it is there."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            return self._crashed()
        *lines, self.left = (self.left + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "seed" in said:
                self.done, self.number = self.done + 1, None
                return said
            self._begin(said["call"])
        return None

    def _wrong(self, kind: str, error: str) -> Outcome:
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 2000))
        text = self.errors.read().decode(errors="replace")
        outcome = {
            "seed": self.number,
            "wrong": kind,
            "call": self.call,
            "error": error,
            "text": text,
        }
        self.number = None
        return outcome

    def _crashed(self) -> Outcome:
        code = self.process.wait()
        return self._wrong("crash", f"exit code {code}")

    def excess(self) -> Outcome | None:
        """What it takes too much of."""
        if self.process.poll() is not None or self.number is None:
            return None
        if self.memory() - self.base > MEMORY:
            return self._wrong("memory", f"{self.memory() >> 20} MB")
        used, passed = self.cpu() - self.used, time.monotonic() - self.since
        if used > SECONDS + 1 or passed > SECONDS * PATIENCE * 3:
            return self._wrong("hang", f"{used:.1f} s of the processor, {passed:.1f} s in all")
        return None

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()


def outcomes(
    numbers: Iterable[int], corpus_file: Path, jobs: int = 1, frameworks: bool = False
) -> Iterator[Outcome]:
    """The outcome of every input, as they come in."""
    pending, names = iter(numbers), iter(range(10**9))
    workers: list[_Worker] = []
    selector = selectors.DefaultSelector()

    def start() -> None:
        number = next(pending, None)
        if number is None:
            return
        worker = _Worker(corpus_file, frameworks, corpus_file.with_name(f"errors-{next(names)}"))
        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        workers.append(worker)
        worker.give(number)

    def stop(worker: _Worker) -> None:
        selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        workers.remove(worker)
        worker.end()

    try:
        for _ in range(jobs):
            start()
        while workers:
            for key, _ in selector.select(timeout=0.2):
                worker = key.data
                outcome = worker.read()
                if outcome is None:
                    continue
                yield outcome
                if outcome.get("wrong") == "crash" or worker.done >= FEW:
                    stop(worker)
                    start()
                elif (number := next(pending, None)) is not None:
                    worker.give(number)
                else:
                    stop(worker)
            for worker in list(workers):
                outcome = worker.excess()
                if outcome is not None:
                    yield outcome
                    stop(worker)
                    start()
    finally:
        for worker in list(workers):
            worker.end()
