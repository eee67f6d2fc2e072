"""Whether floats are finite, told by their bits, many times faster than by their values.

>>> is_finite(np.float16([1, 2])), is_finite(np.float16([1, np.nan]))
(True, False)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from ml_dtypes import finfo

__all__ = ["is_always_finite", "is_finite"]

Array = np.ndarray[Any, Any]
_BLOCK = 1 << 16  # elements: what the processor's caches hold


def is_finite(array: Array) -> bool:
    """Return whether no element of a contiguous array is NaN or infinite."""
    if array.dtype.kind == "c":
        array = array.reshape(-1).view(array.real.dtype)
    codes = _codes(array.dtype)
    if codes is None:
        return True
    bits = array.reshape(-1).view(f"u{array.itemsize}")
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        if len(codes) == 256:
            if codes[block].any():
                return False
        elif block.view(f"i{array.itemsize}").max() >= codes[0] or block.max() >= codes[1]:
            return False
    return True


def is_always_finite(dtype: np.dtype[Any]) -> bool:
    """Return whether a type has neither NaN nor infinity, as integers and float4."""
    return dtype.kind != "c" and _codes(dtype) is None


@cache
def _codes(dtype: np.dtype[Any]) -> Array | None:
    """Return which of its 256 codes are not finite for a type of one byte; else infinity's two.

    With the larger codes, NaNs, each is the last of its sign: as signed and as unsigned integers.
    None stands for a type that has no such numbers.
    """
    try:
        finfo(dtype)
    except ValueError:
        return None
    if dtype.itemsize == 1:
        table = ~np.isfinite(np.arange(256, dtype=np.uint8).view(dtype))
        return table if table.any() else None
    return np.array([np.inf, -np.inf], dtype).view(f"u{dtype.itemsize}")
