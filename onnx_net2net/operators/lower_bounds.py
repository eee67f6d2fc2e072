"""A number that no element of a result is below, by such numbers for the operands.

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
    """Nothing is below zero; what is too small to be told from zero may be it."""
    return 0.0


def first(op: Op, given: Sequence[float]) -> float:
    """Nothing is below the first operand."""
    return given[0]


def rectified(op: Op, given: Sequence[float]) -> float:
    """Nothing is below the first operand, or below zero."""
    return max(given[0], 0.0)


def lowest(op: Op, given: Sequence[float]) -> float:
    """Every element is one of an operand's."""
    return min(given)


def highest(op: Op, given: Sequence[float]) -> float:
    """No element is below that of any operand."""
    return max(given)


def total(op: Op, given: Sequence[float]) -> float:
    """Operands are added."""
    return sum(given)


def summed(op: Op, given: Sequence[float]) -> float:
    """Elements of one operand are added."""
    return given[0] if given[0] >= 0 else -inf


def clipped(op: Op, given: Sequence[float]) -> float:
    """The first operand, brought between the others."""
    return min([max(given[:2]), *given[2:]]) if len(op.node.input) == len(given) > 1 else -inf


def product(op: Op, given: Sequence[float]) -> float:
    """Two operands are multiplied; a square is not below zero."""
    if min(given) >= 0:
        return _representable(prod(given))
    return 0.0 if op.node.input[0] == op.node.input[1] else -inf


def quotient(op: Op, given: Sequence[float]) -> float:
    """What is not negative is divided by what is not."""
    return 0.0 if min(given) >= 0 else -inf


def root(op: Op, given: Sequence[float]) -> float:
    """The square root."""
    return sqrt(given[0]) if given[0] >= 0 else -inf


def power(op: Op, given: Sequence[float]) -> float:
    """Raised to an exponent that is known, or not."""
    exponent, least = op.value(1), given[0]
    if exponent is not None and least > 0 and (exponent >= 0).all():
        return _representable(min(least ** float(e) for e in exponent.flat))
    even = exponent is not None and bool((exponent % 2 == 0).all())
    return 0.0 if even or least >= 0 else -inf


def cast(op: Op, given: Sequence[float]) -> float:
    """In another type, which may round towards zero."""
    to = op.attr("to")
    if to in FLOATS - {TensorProto.FLOAT16} or given[0] == -inf:
        return given[0]
    return _representable(given[0]) if to == TensorProto.FLOAT16 else float(floor(given[0]))


def _representable(least: float) -> float:
    """A bound of what is computed: zero if it is too small to be told from it."""
    return least if least >= _TINY else min(least, 0.0)
