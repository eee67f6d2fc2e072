"""What is being done at the moment, for whoever wants to show it. Nothing here knows a terminal.

with work("verifying", total=runs) as verifying:
    verifying.advance()
follow(print)       # is called with the work that begins, and with None when all is done
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Listener", "Work", "follow", "work"]


@dataclass(eq=False)
class Work:
    """Something that may take long: ``total`` is what there is to do, in bytes or in steps.

    What is done is counted by :meth:`advance`, or else measured when somebody asks.
    """

    what: str
    total: int | None = None
    in_bytes: bool = False
    measure: Callable[[], int] | None = None
    counted: int = 0

    def advance(self, amount: int = 1) -> None:
        """Count what is done."""
        self.counted += amount

    @property
    def done(self) -> int:
        """How much is done."""
        try:
            return self.counted if self.measure is None else self.measure()
        except OSError:  # a file that is not there yet, or not any more
            return 0


Listener = Callable[[Work | None], object]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_current: ContextVar[Work | None] = ContextVar("work", default=None)


def follow(listener: Listener | None) -> None:
    """Let ``listener`` know of work that begins and ends; None: nobody is told."""
    _listener.set(listener)


@contextmanager
def work(
    what: str,
    total: int | None = None,
    *,
    in_bytes: bool = False,
    measure: Callable[[], int] | None = None,
) -> Iterator[Work]:
    """Tell the listener what is done within this context."""
    begun = Work(what, total, in_bytes, measure)
    outer = _current.set(begun)
    _tell()
    try:
        yield begun
    finally:
        _current.reset(outer)
        _tell()


def _tell() -> None:
    listener = _listener.get()
    if listener is not None:
        listener(_current.get())
