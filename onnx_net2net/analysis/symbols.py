"""Sizes chosen for the dynamic dimensions of a network's inputs.

>>> size("past + 1", {"past": 7})
8
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping

from onnx import TensorShapeProto, ValueInfoProto

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)
# Sizes to try for dynamic dimensions where primes do not do: multiples that windows, strides and
# patches accept.
MULTIPLES = ((32, 96, 160, 224), (224, 448, 672, 896))
LARGEST = 2**31  # a larger number is no size: "to the end"

ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


def candidates(stated: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """Sizes to try in turn; ``stated`` are the numbers that the network itself states.

    >>> candidates([10, 64])[0][:3]
    (7, 11, 13)

    What divides a stated number could be taken for a part of it, so it comes last. Where two
    dimensions have two names and must be equal, all get one size; 1 shows the least, so it is the
    very last.
    """
    known = {abs(number) for number in stated if 0 < abs(number) < LARGEST}
    divides = [any(number % prime == 0 for number in known) for prime in PRIMES]
    order = sorted(range(len(PRIMES)), key=divides.__getitem__)
    first = tuple(PRIMES[index] for index in order)
    equal = ((size,) for size in (*first[:2], 1))
    return (*dict.fromkeys((first, PRIMES)), *MULTIPLES, *equal)


def bind(inputs: Iterable[ValueInfoProto], sizes: tuple[int, ...]) -> dict[str, int]:
    """A size for every symbolic dimension of the inputs, distinct while ``sizes`` last."""
    binding: dict[str, int] = {}
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            key = symbol(value.name, axis, dim)
            if key and key not in binding and key.isidentifier():
                binding[key] = sizes[len(binding) % len(sizes)]
    return binding


def bound(value: ValueInfoProto, binding: Mapping[str, int]) -> tuple[int, ...] | None:
    """The shape of an input under ``binding``, or None where it has none."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    found: list[int] = []
    for axis, dim in enumerate(tensor.shape.dim):
        key = symbol(value.name, axis, dim)
        known = dim.dim_value if key is None else size(key, binding)
        if not known:
            return None
        found.append(known)
    return tuple(found)


def symbol(name: str, axis: int, dim: TensorShapeProto.Dimension) -> str | None:
    """What an axis of input ``name`` is called where its size is not fixed, else None."""
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return None
    return dim.dim_param or f"{name}_{axis}".replace(".", "_").replace(":", "_")


def size(key: str, binding: Mapping[str, int]) -> int | None:
    """The size of a symbol, or of an expression of symbols such as ``past + 1``."""
    if key in binding:
        return binding[key]
    try:
        return _arithmetic(ast.parse(key, mode="eval").body, binding)
    except (SyntaxError, KeyError, ZeroDivisionError):
        return None


def _arithmetic(tree: ast.expr, binding: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp) and type(tree.op) in ARITHMETIC:
        left, right = _arithmetic(tree.left, binding), _arithmetic(tree.right, binding)
        return ARITHMETIC[type(tree.op)](left, right)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.Name):
        return binding[tree.id]
    raise KeyError(ast.dump(tree))
