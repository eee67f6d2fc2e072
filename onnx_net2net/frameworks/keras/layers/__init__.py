"""Which layer of Keras computes what a step does, one file a family.

maker(builder, step) -> [what it makes for each output], or None where no layer does
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from onnx_net2net.operators.assembly import assembled

__all__ = ["Maker", "makers"]

Maker = Callable[..., list[Any] | None]
FAMILIES = (
    "attention", "convolution", "elementwise", "indexing", "linear", "movement", "normalisation",
    "pooling", "recurrent", "reduction", "shaping",
)  # fmt: skip


@cache
def makers() -> dict[tuple[str, str], Maker]:
    """Return all by (domain, operator)."""
    return assembled(__name__, FAMILIES)
