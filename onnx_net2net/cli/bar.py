"""A bar on the terminal for work that takes more than a second: what, how much, time left.

follow(Bar(sys.stderr))
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TextIO

from onnx_net2net.cli.terminal import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from onnx_net2net.progress import Work

__all__ = ["Bar"]

_PATIENCE, _EVERY = 1.0, 0.1  # seconds until it is shown, and between looks at the work


class Bar:
    """Shows the work that it is called with; None: it is done, and the bar goes away.

    A thread of its own draws, so that whoever works is not held up, and time goes on where native
    code runs for long. It draws with rich, which is imported only then.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._work: Work | None = None
        self._since = 0.0
        self._progress: Progress | None = None
        self._shown: Work | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, work: Work | None) -> None:
        """Show ``work`` from now on."""
        with self._lock:
            if self._work is None:
                self._since = time.monotonic()
            self._work = work
            if work is None and self._progress is not None:
                self._progress.stop()
                self._progress = self._shown = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(_EVERY)
            with self._lock:
                if self._work is not None and time.monotonic() - self._since > _PATIENCE:
                    self._draw(self._work)

    def _draw(self, work: Work) -> None:
        if self._progress is None:
            self._progress = _progress(self._stream)
            self._progress.start()
        if self._shown is not work:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            self._progress.add_task(one_line(work.what), total=work.total, amount="")
            self._shown = work
        [task] = self._progress.task_ids
        amount = ""
        if work.in_bytes and work.total:
            amount = f"{work.done / 1e6:,.0f} of {work.total / 1e6:,.0f} MB"
        self._progress.update(task, completed=work.done, total=work.total, amount=amount)
        self._progress.refresh()


def _progress(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(file=stream, force_terminal=True, markup=False, highlight=False),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
