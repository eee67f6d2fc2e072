"""Small integer chains with symbols in them: what an element is at all sizes of the inputs.

    Shape(x)  ->  [batch, 3, height]     Gather, Mul, Concat  ->  [3*batch, -1]

Operators that move elements do so whatever these are (:mod:`values`); arithmetic is that of
:mod:`onnx_net2net.algebra.sizes`. What has no formula is an unknown of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from onnx_net2net.algebra.sizes import (
    AnySize,
    Size,
    Undecided,
    bounds,
    exact,
    least,
    most,
    opaque,
    same,
    trial,
)
from onnx_net2net.analysis.values import ELEMENTWISE, Array, attribute_value, evaluate

NONE = None
# Types that hold every size as it is.
EXACT = {TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE}
Elements = Sequence[Any]


def symbols(array: Array | None) -> bool:
    """Whether an array holds a symbol."""
    return array is not None and array.dtype == object


def shape_value(node: NodeProto, sizes: Sequence[AnySize]) -> Array:
    """What Shape or Size yields for a tensor of these sizes."""
    given = {a.name: a.i for a in node.attribute}
    part = sizes[given.get("start", 0) : given.get("end", len(sizes))]
    kind = object if any(isinstance(size, Size) for size in sizes) else np.int64
    return np.asarray(prod(sizes) if node.op_type == "Size" else list(part), kind)


def formulas(
    node: NodeProto, inputs: Sequence[Array | None], outputs: Sequence[Array], opset: int
) -> list[Array] | None:
    """The elements of ``outputs``, the numbers at the trial values, as formulas.

    ``inputs`` are arrays of numbers, or of objects where they hold symbols. None where the length
    of an output, or what is moved, depends on these.
    """
    try:
        if node.op_type in ELEMENTWISE:
            return [_elementwise(node, inputs, outputs[0])]
        found = evaluate(node, inputs, opset)
    except Undecided:
        return None
    if found is None or any(a.shape != b.shape for a, b in zip(found, outputs, strict=True)):
        return None
    return [_agreeing(node, a, b) for a, b in zip(found, outputs, strict=True)]


def _agreeing(node: NodeProto, found: Array, output: Array) -> Array:
    """``found`` as numbers where no symbol is left in it, and true at the trial values."""
    flat = [
        item if isinstance(item, Size) and item.trial == number else number
        for item, number in zip(found.ravel().tolist(), output.ravel().tolist(), strict=True)
    ]
    if not any(isinstance(item, Size) for item in flat):
        return output
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(output.shape)


def _elementwise(node: NodeProto, inputs: Sequence[Array | None], output: Array) -> Array:
    given = [np.broadcast_to(i, output.shape).ravel().tolist() for i in inputs if i is not None]
    attributes = {a.name: attribute_value(a) for a in node.attribute}
    floats = output.dtype.kind == "f"
    name = f"{node.op_type}{attributes or ''}"
    function = FORMULAS.get(node.op_type, _unknown)
    flat: list[Any] = []
    for items, number in zip(zip(*given, strict=True), output.ravel().tolist(), strict=True):
        if not any(isinstance(item, Size) for item in items):
            flat.append(number)
            continue
        whole = [i if isinstance(i, Size) or i != int(i) else int(i) for i in items]
        fractions = any(isinstance(item, float) for item in whole)
        try:
            found = None if fractions else function(whole, attributes, floats)
        except Undecided:
            found = None
        if found is None or trial(found) != number:
            truth = output.dtype.kind == "b"
            found = opaque(name, items, number, *((0, 1) if truth else ()))
        flat.append(found)
    return _agreeing(node, np.array([*flat, NONE], object)[:-1].reshape(output.shape), output)


Formula = Callable[[Elements, dict[str, Any], bool], Any]


def _fold(function: Callable[[Any, Any], Any]) -> Formula:
    def apply(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
        result = items[0]
        for item in items[1:]:
            result = function(result, item)
        return result

    return apply


def _unknown(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
    return None


def _natural(left: Any, right: Any) -> bool:
    """Whether a quotient is rounded down, whichever way it is said to be rounded."""
    return bounds(left)[0] >= 0 < bounds(right)[0]


def _divide(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
    """ONNX rounds integers towards zero; floats wait for what rounds them."""
    left, right = items
    found = exact(left, right)
    if found is None and floats:
        return opaque("ratio", [left, right], trial(left) / trial(right))
    return left // right if found is None and _natural(left, right) else found


def _ratio(item: Size) -> tuple[Any, Any] | None:
    """What a quotient that is yet to be rounded is made of."""
    (monomial, factor), *more = item.terms.items()
    if more or factor != 1 or len(monomial) != 1 or monomial[0].operator != "ratio":
        return None
    left, right = monomial[0].operands
    return left, right


def _rounded(upwards: bool) -> Formula:
    def apply(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
        ratio = _ratio(items[0])
        if ratio is not None:
            return -(-ratio[0] // ratio[1]) if upwards else ratio[0] // ratio[1]
        return items[0] if isinstance(items[0].trial, int) else None

    return apply


def _cast(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
    item = items[0]
    if attributes.get("to", TensorProto.INT64) not in EXACT:
        return None
    if floats or isinstance(trial(item), int):
        return item
    ratio = _ratio(item)
    return ratio[0] // ratio[1] if ratio is not None and _natural(*ratio) else None


def _remainder(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
    left, right = items
    if floats or (attributes.get("fmod") and not _natural(left, right)):
        return None
    return left - right * (left // right)


def _clip(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
    low, high = [*items[1:], NONE, NONE][:2]
    found = items[0] if low is None else most(items[0], low)
    return found if high is None else least(found, high)


def _compared(holds: Callable[[Any, Any], bool]) -> Formula:
    def apply(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
        return holds(*items)

    return apply


def _chosen(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
    condition, left, right = items
    if isinstance(condition, Size):
        return left if left == right else None
    return left if condition else right


def _joined(absorbing: bool) -> Formula:
    def apply(items: Elements, attributes: dict[str, Any], floats: bool) -> Any:
        known = [bool(i) for i in items if not isinstance(i, Size)]
        open_items = [i for i in items if isinstance(i, Size)]
        if absorbing in known:
            return absorbing
        return open_items[0] if len(open_items) == 1 else None

    return apply


FORMULAS: dict[str, Formula] = {
    "Abs": lambda items, a, f: most(items[0], -items[0]),
    "Add": _fold(lambda a, b: a + b),
    "And": _joined(False),
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": _rounded(True),
    "Clip": _clip,
    "Div": _divide,
    "Equal": _compared(same),
    "Floor": _rounded(False),
    "Greater": _compared(lambda a, b: a > b),
    "GreaterOrEqual": _compared(lambda a, b: a >= b),
    "Less": _compared(lambda a, b: a < b),
    "LessOrEqual": _compared(lambda a, b: a <= b),
    "Max": _fold(most),
    "Min": _fold(least),
    "Mod": _remainder,
    "Mul": _fold(lambda a, b: a * b),
    "Neg": lambda items, a, f: -items[0],
    "Or": _joined(True),
    "Sub": _fold(lambda a, b: a - b),
    "Where": _chosen,
}
