"""Axis names of an operand that is broadcast to another.

>>> broadcast(["m", "n"], (1, 8))
['1', 'n']
>>> broadcast(["m", "n"], (8,))
['n']
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_net2net.operators.language import Unsupported


def broadcast(names: Sequence[str], shape: Sequence[int]) -> list[str]:
    """``names`` as a tensor of ``shape`` has them, aligned right, 1 where it is repeated."""
    if len(shape) > len(names):
        raise Unsupported(f"an operand of rank {len(shape)} is broadcast to rank {len(names)}")
    kept = names[len(names) - len(shape) :]
    return [name if size > 1 else "1" for name, size in zip(kept, shape, strict=True)]
