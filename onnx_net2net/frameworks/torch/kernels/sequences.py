"""Lists that are changed in one place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def inserted(items: Sequence[Tensor], item: Tensor, place: int) -> list[Tensor]:
    """Return a list with one more tensor; negative places count from the end."""
    place = place + len(items) if place < 0 else place
    return [*items[:place], item, *items[place:]]


def erased(items: Sequence[Tensor], place: int) -> list[Tensor]:
    """Return a list with one tensor less; negative places count from the end."""
    place = place + len(items) if place < 0 else place
    return [*items[:place], *items[place + 1 :]]
