"""Lower bounds of a result's elements, by those of the operands.

    quotient(op, [0.0, 0.5])      # 0.0: nothing is below zero

Each function gets the node and the bounds of the operands that it has; -inf where none is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, inf, prod, sqrt

from onnx import TensorProto

from onnx_net2net.operators.language import Op
from onnx_net2net.operators.types import FLOATS

LowerBound = Callable[[Op, Sequence[float]], float]

_TINY = 6e-8  # less than this is zero in half precision


def zero(op: Op, given: Sequence[float]) -> float:
    """Return zero: what is too small to be told from zero may be it."""
    return 0.0


def first(op: Op, given: Sequence[float]) -> float:
    """Return the bound of the first operand."""
    return given[0]


def rectified(op: Op, given: Sequence[float]) -> float:
    """Return the bound of the first operand, or zero where that is higher."""
    return max(given[0], 0.0)


def lowest(op: Op, given: Sequence[float]) -> float:
    """Return the lowest bound: every element is one of an operand's."""
    return min(given)


def highest(op: Op, given: Sequence[float]) -> float:
    """Return the highest bound: no element is below that of any operand."""
    return max(given)


def total(op: Op, given: Sequence[float]) -> float:
    """Add the bounds of operands that are added."""
    return sum(given)


def summed(op: Op, given: Sequence[float]) -> float:
    """Bound a sum of elements of one operand."""
    return given[0] if given[0] >= 0 else -inf


def clipped(op: Op, given: Sequence[float]) -> float:
    """Bring the first bound between the others."""
    return min([max(given[:2]), *given[2:]]) if len(op.node.input) == len(given) > 1 else -inf


def product(op: Op, given: Sequence[float]) -> float:
    """Bound the product of two operands; a square is not below zero."""
    if min(given) >= 0:
        return _representable(prod(given))
    return 0.0 if op.node.input[0] == op.node.input[1] else -inf


def quotient(op: Op, given: Sequence[float]) -> float:
    """Bound a quotient: of two numbers that are not negative it is not negative."""
    return 0.0 if min(given) >= 0 else -inf


def root(op: Op, given: Sequence[float]) -> float:
    """Bound a square root."""
    return sqrt(given[0]) if given[0] >= 0 else -inf


def power(op: Op, given: Sequence[float]) -> float:
    """Bound a power whose exponent is known, or not."""
    exponent, least = op.value(1), given[0]
    if exponent is not None and least > 0 and (exponent >= 0).all():
        return _representable(min(least ** float(e) for e in exponent.flat))
    even = exponent is not None and bool((exponent % 2 == 0).all())
    return 0.0 if even or least >= 0 else -inf


def cast(op: Op, given: Sequence[float]) -> float:
    """Bound a cast, which may round towards zero."""
    to = op.attr("to")
    if to in FLOATS - {TensorProto.FLOAT16} or given[0] == -inf:
        return given[0]
    return _representable(given[0]) if to == TensorProto.FLOAT16 else float(floor(given[0]))


def _representable(least: float) -> float:
    """Return a bound of what is computed: zero if it is too small to be told from it."""
    return least if least >= _TINY else min(least, 0.0)
