"""Methods of Keras' classes, replaced while a model is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(kind: Any, name: str, method: Any) -> Iterator[None]:
    """Set another method for a while; one that was inherited is inherited again."""
    own = vars(kind).get(name)
    setattr(kind, name, method)
    try:
        yield
    finally:
        delattr(kind, name)
        if own is not None:
            setattr(kind, name, own)
