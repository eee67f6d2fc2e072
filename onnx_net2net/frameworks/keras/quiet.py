"""Keras, imported without what native code logs meanwhile: that is no output of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["import_keras"]


def import_keras() -> None:
    """Import Keras, and let nothing of what native code logs then reach the error stream.

    TensorFlow's remarks on the machine come before its own log levels apply. That Keras is not
    installed is said later, by what needs it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _errors_hidden(), suppress(ModuleNotFoundError):
        import keras  # noqa: F401


@contextmanager
def _errors_hidden() -> Iterator[None]:
    """Send the process's error stream nowhere."""
    if sys.stderr is None:  # it was closed
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
