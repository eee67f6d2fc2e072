"""Axis names of an operand that is broadcast to another.

>>> broadcast(["m", "n"], (1, 8))
['1', 'n']
>>> broadcast(["m", "n"], (8,))
['n']
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_net2net.algebra.sizes import AnySize, bounds, maximum, opaque, trial
from onnx_net2net.operators.language import Unsupported


def broadcast(names: Sequence[str], shape: Sequence[AnySize]) -> list[str]:
    """Return ``names`` as a tensor of ``shape`` has them, aligned right, 1 where it is repeated."""
    if len(shape) > len(names):
        raise Unsupported(f"an operand of rank {len(shape)} is broadcast to rank {len(names)}")
    kept = names[len(names) - len(shape) :]
    return ["1" if size == 1 else name for name, size in zip(kept, shape, strict=True)]


def repeated(one: AnySize, other: AnySize) -> AnySize:
    """Return the size of an axis of two operands, either of which is repeated if it has size 1."""
    if one == other or other == 1:
        return one
    if one == 1 or bounds(other)[0] > 1:
        return other
    if bounds(one)[0] > 1:
        return one
    if bounds(one)[0] == bounds(other)[0] == 1:
        return maximum(one, other)  # type: ignore[no-any-return]
    pair = sorted((one, other), key=hash)
    return opaque("broadcast", pair, max(trial(one), trial(other)), 0)
