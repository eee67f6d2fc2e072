"""Sizes that the graph computes from those of tensors, as Python numbers of the written code.

    Shape(x)                    [read("x.shape[0]"), 12]
    Gather, Mul, Concat, ...    "x.shape[0] * 2 + 12"

The unknowns of :mod:`onnx_net2net.algebra.sizes` are called by the code that reads them as the
network runs; what operators make of them is computed as the analysis does it. A size is written
where Python has an expression for it; whatever has none is computed with tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from onnx_net2net.algebra.sizes import AnySize, Size, bounds, opaque, trial
from onnx_net2net.algebra.unknowns import Monomial, Number, Unknown, order
from onnx_net2net.analysis.values import evaluate, evaluate_symbols, is_symbolic

Array = np.ndarray[Any, Any]
MOST = 64  # elements; what is longer is data
TRIAL = 7  # of everything that is read: no formula depends on it
# What Python computes of operands, by the operator of an unknown.
EXPRESSIONS = {
    "And": "({}) and ({})",
    "Div": "({}) // ({})",
    "Equal": "({}) == ({})",
    "Greater": "({}) > ({})",
    "GreaterOrEqual": "({}) >= ({})",
    "Less": "({}) < ({})",
    "LessOrEqual": "({}) <= ({})",
    "Not": "not ({})",
    "Or": "({}) or ({})",
    "Where": "({1}) if ({0}) else ({2})",
    "floordiv": "({}) // ({})",
    "min0": "min({}, 0)",
}


class Unwritten(Exception):
    """There is no Python expression for a size."""


def read(code: str, *, natural: bool = True) -> Size:
    """Return the size that ``code`` reads as the network runs, perhaps never a negative one."""
    return opaque(code, (), TRIAL, 0 if natural else -math.inf)


def array(sizes: Any) -> Array:
    """Return a size, or some, as an array of numbers, or of objects where any is no number."""
    objects = np.asarray(sizes, object)
    varies = any(isinstance(item, Size) for item in objects.ravel())
    return objects if varies else objects.astype(np.int64)


def is_natural(size: AnySize) -> bool:
    """Return whether a size is never negative."""
    if isinstance(size, Size) and len(size.unknowns) == 1:
        (one,) = size.unknowns
        if one.operator == "Where" and list(size.terms.items()) == [((one,), 1)]:
            return all(map(is_natural, one.operands[1:]))
    return bounds(size)[0] >= 0


def evaluated(
    node: NodeProto, inputs: Sequence[Array | None], opset: int
) -> Sequence[Array] | None:
    """Return the sizes that ``node`` computes, or None where it computes nothing of that kind.

    Arrays hold numbers, or objects where any of them is a :class:`Size`.
    """
    if any(array is not None and array.size > MOST for array in inputs):
        return None
    trials = [
        np.reshape([trial(i) for i in a.flat], a.shape) if is_symbolic(a) else a for a in inputs
    ]
    numbers = evaluate(node, trials, opset)
    if numbers is None or any(n.dtype.kind not in "iub" or n.size > MOST for n in numbers):
        return None
    varies = any(map(is_symbolic, inputs))
    results = evaluate_symbols(node, inputs, numbers, opset) if varies else numbers
    try:
        for item in (item for array in results or () for item in array.ravel().tolist()):
            written(item)
    except Unwritten:
        return None
    return results


def written(size: AnySize) -> str:
    """Return a size as Python code. Raises Unwritten."""
    if not isinstance(size, Size):
        return repr(size)
    for one, factor in ((m[0], f) for m, f in size.terms.items() if len(m) == 1):
        rest = size - Size({(one,): factor})
        if one.operator == "min0":
            other = rest + factor * one.operands[0]
            parts = sorted((other, rest), key=lambda part: not isinstance(part, Size))
            return f"{'min' if factor > 0 else 'max'}({', '.join(map(written, parts))})"
        if one.operator == "floordiv" and isinstance(divisor := one.operands[1], int):
            times, left = divmod(-factor, divisor)
            if left == 0 and rest == times * one.operands[0]:
                remainder = f"({written(_near_zero(one.operands[0], divisor))}) % {divisor}"
                return remainder if times == 1 else f"{remainder} * {times}"
    ordered = sorted(size.terms.items(), key=order, reverse=True)
    positive = [_product(m, f) for m, f in ordered if f > 0]
    negative = [_product(m, -f) for m, f in ordered if f < 0]
    return " - ".join([" + ".join(positive), *negative]).strip()


def _near_zero(dividend: Size, divisor: int) -> AnySize:
    """Return what leaves the same remainder, with factors that are as small as can be."""
    below = {m: f % divisor for m, f in dividend.terms.items()}
    return Size({m: f - divisor if f > divisor // 2 else f for m, f in below.items()})


def _product(monomial: Monomial, factor: Number) -> str:
    numbers = [repr(factor)] if factor != 1 or not monomial else []
    return " * ".join([*map(_factor, monomial), *numbers])


def _factor(one: Unknown) -> str:
    if not one.operands:
        return one.operator
    template = EXPRESSIONS.get(one.operator)
    rounds_otherwise = one.operator == "Div" and not all(map(is_natural, one.operands))
    if template is None or rounds_otherwise:  # ONNX rounds towards zero, Python down
        raise Unwritten
    return f"({template.format(*map(written, one.operands))})"
