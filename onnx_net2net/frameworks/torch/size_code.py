"""Small integers that the graph computes from shapes, as Python numbers of the written code.

    shape = sizes of x           [Size(value(3)), 12]         x.shape[0], 12
    Concat, Gather, Mul, ...     the same on lists of numbers and expressions

An entry takes arrays of objects: numbers, or :class:`Size` for what is known at run time only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from onnx_net2net.frameworks.step import ProgramStep as Step

Array = np.ndarray[Any, Any]
Emit = Callable[[str, str], str]  # expression, hint -> name
MOST = 64  # elements; what is longer is data


@dataclass(frozen=True)
class Size:
    """A number known at run time: its expression, and whether it is never negative."""

    code: str
    natural: bool = True

    def __str__(self) -> str:
        return self.code


class Unhosted(Exception):
    """The step is not one of sizes; it is computed with tensors."""


def natural(item: Any) -> bool:
    """Whether a number is never negative."""
    return item.natural if isinstance(item, Size) else item >= 0


def number(item: Any) -> str:
    """A number or an expression, as code."""
    return item.code if isinstance(item, Size) else repr(item)


def array(items: Any) -> Array:
    """An array of objects; numbers of NumPy as Python's."""
    found = np.asarray(items, dtype=object)
    flat = [i.item() if isinstance(i, np.generic) else i for i in found.reshape(-1)]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(found.shape)


def known(items: Array) -> bool:
    """Whether all elements are numbers."""
    return not any(isinstance(item, Size) for item in items.reshape(-1))


class Hosted:
    """Evaluates steps on arrays of numbers and sizes, writing expressions with ``emit``."""

    def __init__(self, emit: Emit, opset: int) -> None:
        self.emit = emit
        self.opset = opset

    def evaluate(self, step: Step, inputs: Sequence[Array | None]) -> list[Array]:
        """What the step gives. Raises Unhosted."""
        entry = OPERATORS.get(step.op)
        given = [i for i in inputs if i is not None]
        if entry is None or step.domain or any(i.size > MOST for i in given):
            raise Unhosted
        if any(isinstance(item, float) for i in given for item in i.reshape(-1)):
            raise Unhosted
        try:
            found = entry(self, step.attributes, list(inputs))
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise Unhosted from None
        results = found if isinstance(found, list) else [found]
        if any(result.size > MOST for result in results):
            raise Unhosted
        return [array(result) for result in results]

    def size(self, code: str, natural: bool) -> Size:
        """A new expression."""
        return Size(self.emit(code, "size"), natural)

    def each(self, function: Callable[..., Any], *operands: Array) -> Array:
        """``function`` of corresponding elements."""
        operands = tuple(np.broadcast_arrays(*operands))
        flat = [
            function(self, *items) for items in zip(*(o.reshape(-1) for o in operands), strict=True)
        ]
        result = np.empty(len(flat), dtype=object)
        result[:] = flat
        return result.reshape(operands[0].shape)


def _add(host: Hosted, a: Any, b: Any) -> Any:
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a + b
    if a == 0 or b == 0:
        return b if a == 0 else a
    return host.size(f"{number(a)} + {number(b)}", natural(a) and natural(b))


def _sub(host: Hosted, a: Any, b: Any) -> Any:
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a - b
    if b == 0:
        return a
    return host.size(f"{number(a)} - ({number(b)})", False)


def _mul(host: Hosted, a: Any, b: Any) -> Any:
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a * b
    if a == 1 or b == 1:
        return b if a == 1 else a
    return host.size(f"({number(a)}) * ({number(b)})", natural(a) and natural(b))


def _div(host: Hosted, a: Any, b: Any) -> Any:
    if b == 1:
        return a
    if not natural(a) or not natural(b) or b == 0:
        raise Unhosted  # ONNX rounds towards zero, Python down
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a // b
    return host.size(f"({number(a)}) // ({number(b)})", True)


def _mod(host: Hosted, a: Any, b: Any) -> Any:
    if not natural(a) or not natural(b) or b == 0:
        raise Unhosted
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a % b
    return host.size(f"({number(a)}) % ({number(b)})", True)


def _extreme(name: str) -> Callable[..., Any]:
    chosen = max if name == "max" else min

    def apply(host: Hosted, a: Any, b: Any) -> Any:
        if not isinstance(a, Size) and not isinstance(b, Size):
            return chosen(a, b)
        both = natural(a) and natural(b)
        either = natural(a) or natural(b)
        return host.size(f"{name}({number(a)}, {number(b)})", either if name == "max" else both)

    return apply


def _compared(sign: str) -> Callable[..., Any]:
    def apply(host: Hosted, a: Any, b: Any) -> Any:
        if not isinstance(a, Size) and not isinstance(b, Size):
            return {"==": a == b, ">": a > b, ">=": a >= b, "<": a < b, "<=": a <= b}[sign]
        literal, other = (b, a) if isinstance(a, Size) else (a, b)
        known = not isinstance(literal, Size)
        if sign == "==" and known and not natural(literal) and natural(other):
            return False  # a size is never -1
        return host.size(f"({number(a)}) {sign} ({number(b)})", True)

    return apply


def _where(host: Hosted, c: Any, a: Any, b: Any) -> Any:
    if not isinstance(c, Size):
        return a if c else b
    if a == b:
        return a
    return host.size(f"({number(a)}) if {number(c)} else ({number(b)})", natural(a) and natural(b))


def _not(host: Hosted, a: Any) -> Any:
    return host.size(f"not {number(a)}", True) if isinstance(a, Size) else not a


def _joined(word: str) -> Callable[..., Any]:
    absorbing = word == "or"

    def apply(host: Hosted, a: Any, b: Any) -> Any:
        for one, other in ((a, b), (b, a)):
            if not isinstance(one, Size):
                return absorbing if bool(one) is absorbing else other
        return host.size(f"({number(a)}) {word} ({number(b)})", True)

    return apply


def _neg(host: Hosted, a: Any) -> Any:
    return host.size(f"-({number(a)})", False) if isinstance(a, Size) else -a


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(host: Hosted, a: Any, x: list[Any]) -> Array:
        result = x[0]
        for other in x[1:]:
            result = host.each(function, result, other)
        return result

    return apply


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda host, a, x: host.each(function, x[0])


def _axes(a: dict[str, Any], x: list[Any], index: int = 1) -> tuple[int, ...] | None:
    if "axes" in a:
        return tuple(a["axes"])
    given = x[index] if len(x) > index else None
    if given is None:
        return None
    if not known(given):
        raise Unhosted
    return tuple(int(i) for i in given.reshape(-1))


def _need(value: Array) -> list[int]:
    if not known(value):
        raise Unhosted
    return [int(i) for i in value.reshape(-1)]


def _squeeze(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    return np.squeeze(x[0], _axes(a, x))


def _unsqueeze(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    return np.expand_dims(x[0], _axes(a, x) or ())


def _cast(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    to = a["to"]

    if to not in (TensorProto.INT64, TensorProto.INT32):
        raise Unhosted  # floats would have another precision than the tensor's
    return host.each(lambda host, item: item if isinstance(item, Size) else int(item), x[0])


def _gather(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    index = np.asarray([int(i) for i in _need(x[1])]).reshape(x[1].shape)
    return np.asarray(np.take(x[0], index, axis=a.get("axis", 0)), dtype=object)


def _slice(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    if "starts" in a:
        starts, ends, steps = a["starts"], a["ends"], [1]
    else:
        starts, ends = _need(x[1]), _need(x[2])
        steps = _need(x[4]) if len(x) > 4 and x[4] is not None else [1]
    if x[0].ndim != 1:
        raise Unhosted
    stop = None if steps[0] < 0 and ends[0] < -x[0].size else ends[0]
    return x[0][slice(starts[0], stop, steps[0])]


def _split(host: Hosted, a: dict[str, Any], x: list[Any]) -> list[Array]:
    sizes = a.get("split") or (_need(x[1]) if len(x) > 1 and x[1] is not None else None)
    if sizes is None:
        raise Unhosted
    return list(np.split(x[0], np.cumsum(sizes)[:-1], axis=a.get("axis", 0)))


def _reshape(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    return x[0].reshape(_need(x[1]))


def _expand(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    return np.broadcast_to(x[0], np.broadcast_shapes(x[0].shape, tuple(_need(x[1]))))


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
        if x[0].ndim != 1 or _axes(a, x) not in (None, (0,), (-1,), ()) or not x[0].size:
            raise Unhosted
        if a.get("noop_with_empty_axes") and not _axes(a, x):
            return x[0]
        result = x[0][0]
        for item in x[0][1:]:
            result = function(host, result, item)
        return array([result] if a.get("keepdims", 1) else result)

    return apply


def _cast_like(host: Hosted, a: dict[str, Any], x: list[Any]) -> Array:
    if any(isinstance(item, bool) for operand in x for item in operand.reshape(-1)):
        raise Unhosted
    return x[0]


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": _binary(_add),
    "And": _binary(_joined("and")),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": lambda host, a, x: np.concatenate(x, axis=a.get("axis", 0)),
    "Div": _binary(_div),
    "Equal": _binary(_compared("==")),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _binary(_compared(">")),
    "GreaterOrEqual": _binary(_compared(">=")),
    "Identity": lambda host, a, x: x[0],
    "Less": _binary(_compared("<")),
    "LessOrEqual": _binary(_compared("<=")),
    "Max": _binary(_extreme("max")),
    "Min": _binary(_extreme("min")),
    "Mod": _binary(_mod),
    "Mul": _binary(_mul),
    "Neg": _unary(_neg),
    "Not": _unary(_not),
    "Or": _binary(_joined("or")),
    "ReduceMax": _reduced(_extreme("max")),
    "ReduceMin": _reduced(_extreme("min")),
    "ReduceProd": _reduced(_mul),
    "ReduceSum": _reduced(_add),
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _binary(_sub),
    "Unsqueeze": _unsqueeze,
    "Where": lambda host, a, x: host.each(_where, *x),
}
