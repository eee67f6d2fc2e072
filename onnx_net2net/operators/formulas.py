"""What an element is whose operands' elements are symbols: arithmetic of sizes.

    quotient(op, [3 * batch, batch], np.dtype("int64"))      # 3

Each function gets the node, the elements at one place of its operands (None: an absent operand)
and the type of the result. It returns None where there is no formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from onnx_net2net.algebra.sizes import Size, bounds, exact, maximum, minimum, opaque, trial
from onnx_net2net.operators.language import Op

DType = np.dtype[Any]
Elements = Sequence[Any]
Formula = Callable[[Op, Elements, DType], Any]

_EXACT = ("int32", "int64", "float32", "float64")  # types that hold every size as it is


def unknown(op: Op, items: Elements, dtype: DType) -> None:
    """Return None: the result is an unknown of its own."""


def of(function: Callable[..., Any]) -> Formula:
    """Return the formula of an operator that applies ``function`` to its operands."""
    return lambda op, items, dtype: function(*items)


def folded(function: Callable[[Any, Any], Any]) -> Formula:
    """Return the formula of an operator that joins its operands two at a time."""
    return lambda op, items, dtype: reduce(function, items)


def joined(absorbing: bool) -> Formula:
    """Return the formula of And or Or, whatever else is joined with ``absorbing``."""

    def formula(op: Op, items: Elements, dtype: DType) -> Any:
        if any(not isinstance(item, Size) and bool(item) is absorbing for item in items):
            return absorbing
        symbols = [item for item in items if isinstance(item, Size)]
        return symbols[0] if len(symbols) == 1 else None

    return formula


def _natural(left: Any, right: Any) -> bool:
    """Return whether a quotient is rounded down, whichever way it is said to be rounded."""
    return bounds(left)[0] >= 0 < bounds(right)[0]


def quotient(op: Op, items: Elements, dtype: DType) -> Any:
    """Return the quotient: ONNX rounds integers towards zero, floats wait for what rounds them."""
    left, right = items
    whole = exact(left, right)
    if whole is None and dtype.kind == "f":
        return opaque("ratio", [left, right], trial(left) / trial(right))
    return left // right if whole is None and _natural(left, right) else whole


def _ratio(item: Size) -> tuple[Any, Any] | None:
    """Return what a quotient that is yet to be rounded is made of."""
    (monomial, factor), *more = item.terms.items()
    if more or factor != 1 or len(monomial) != 1 or monomial[0].operator != "ratio":
        return None
    left, right = monomial[0].operands
    return left, right


def rounded_up(op: Op, items: Elements, dtype: DType) -> Any:
    """Return the operand rounded up."""
    ratio = _ratio(items[0])
    return _whole(items[0]) if ratio is None else -(-ratio[0] // ratio[1])


def rounded_down(op: Op, items: Elements, dtype: DType) -> Any:
    """Return the operand rounded down."""
    ratio = _ratio(items[0])
    return _whole(items[0]) if ratio is None else ratio[0] // ratio[1]


def _whole(item: Size) -> Size | None:
    return item if isinstance(item.trial, int) else None


def cast(op: Op, items: Elements, dtype: DType) -> Any:
    """Return the first operand in another type, which rounds a quotient towards zero."""
    item = items[0]
    if dtype.name not in _EXACT:
        return None
    if dtype.kind == "f" or isinstance(trial(item), int):
        return item
    ratio = _ratio(item)
    return ratio[0] // ratio[1] if ratio is not None and _natural(*ratio) else None


def remainder(op: Op, items: Elements, dtype: DType) -> Any:
    """Return the remainder of integers."""
    left, right = items
    if dtype.kind == "f" or (op.attr("fmod") and not _natural(left, right)):
        return None
    return left - right * (left // right)


def clip(op: Op, items: Elements, dtype: DType) -> Any:
    """Return the first operand between the others, each of which may be absent."""
    if op.attr("min") is not None or op.attr("max") is not None:
        return None
    item, low, high = [*items, None, None][:3]
    item = item if low is None else maximum(item, low)
    return item if high is None else minimum(item, high)


def where(op: Op, items: Elements, dtype: DType) -> Any:
    """Return one of two operands, or what both are."""
    condition, left, right = items
    if isinstance(condition, Size):
        return left if left == right else None
    return left if condition else right
