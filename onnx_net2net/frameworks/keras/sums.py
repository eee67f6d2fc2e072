"""Sums of symbolic tensors that TensorFlow takes for no bias.

``keras.ops.add`` hands an operand of one long axis to TensorFlow as a bias of the channels, along
the last axis of that size or along axis 1, wherever it lies in truth. Where an operand could be
taken so, x - (-y) is written, which is the same number.
"""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["added", "is_plain_sum"]


def added(x: Any, y: Any) -> Any:
    """Return the sum of two tensors, of which one at least is symbolic."""
    if is_plain_sum(x, y):
        return ops.add(x, y)
    return ops.add(y, x) if is_plain_sum(y, x) else ops.subtract(x, ops.negative(y))


def is_plain_sum(x: Any, y: Any) -> bool:
    """Return whether ``keras.ops.add(x, y)`` broadcasts as NumPy does."""
    own, other = (tuple(getattr(value, "shape", ())) for value in (x, y))
    if len([size for size in other if size not in (1, None)]) > 1 or set(other) <= {1}:
        return True
    return len(other) <= len(own) and other[-1] not in (1, None) and own[-1] == other[-1]
