"""What can go wrong, as values: problem, place and remedy.

Every exception of this package is a :class:`Net2NetError`. The command line
shows ``str(error)``; programs read the attributes.
"""

from __future__ import annotations

import copyreg
from typing import Any, Self


class Net2NetError(Exception):
    """Base class. ``problem`` says what is wrong, ``remedy`` what would help."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem if remedy is None else f"{problem}\n  remedy: {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process builds it again, whatever ``__init__`` takes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def within(self, place: str) -> Self:
        """Return the same error, its place said to be in ``place``."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        Net2NetError.__init__(twin, f"{place}: {self.problem}", self.remedy)
        return twin


class InvalidModel(Net2NetError):
    """The file is not a model that can be read: truncated, malformed, unsafe external data."""


class UsageError(Net2NetError):
    """The request cannot be understood: unknown name, width 0, a width below the present one."""


class OutputError(Net2NetError):
    """The result cannot be written: existing file, read-only folder, full disk."""


class Refused(Net2NetError):
    """The request is understood, but growing would not provably keep the function.

    ``node`` names the place in the graph (or ``None``), ``reason`` says why,
    ``remedy`` what would work instead (or ``None``).
    """

    def __init__(self, node: str | None, reason: str, remedy: str | None = None) -> None:
        self.node = node
        self.reason = reason
        super().__init__(reason if node is None else f"{node}: {reason}", remedy)
