"""Sizes chosen for the dynamic dimensions of a network's inputs.

>>> size("past + 1", {"past": 7})
8
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import TensorShapeProto, ValueInfoProto

from onnx_net2net.algebra.sizes import AnySize, Undecided, trial, unknown
from onnx_net2net.verification.sizes import computed, evaluated, made_of, size_name

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)
# Sizes to try for dynamic dimensions where primes do not do: multiples that windows, strides and
# patches accept.
MULTIPLES = ((32, 96, 160, 224), (224, 448, 672, 896))
# To try in turn. Where two dimensions have two names and must be equal, all get one size.
CANDIDATES = (PRIMES, *MULTIPLES, PRIMES[:1], PRIMES[1:2], (1,))


def bind(inputs: Iterable[ValueInfoProto], sizes: tuple[int, ...]) -> dict[str, int]:
    """Return a size for every symbolic dimension of the inputs, distinct while ``sizes`` last."""
    dims = [
        symbol(value.name, axis, dim)
        for value in inputs
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
    ]
    names = dict.fromkeys(filter(None, dims))
    free = (n for key in names for n in sorted(made_of(key, names)) if n == key or n not in names)
    return {name: sizes[i % len(sizes)] for i, name in enumerate(dict.fromkeys(free))}


def bound(value: ValueInfoProto, binding: Mapping[str, int]) -> tuple[int, ...] | None:
    """Return the shape of an input under ``binding``, or None where it has none."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    shape: list[int] = []
    for axis, dim in enumerate(tensor.shape.dim):
        key = symbol(value.name, axis, dim)
        known = dim.dim_value if key is None else size(key, binding)
        if not known:
            return None
        shape.append(known)
    return tuple(shape)


def sized(value: ValueInfoProto, binding: Mapping[str, int]) -> tuple[AnySize, ...] | None:
    """Return the shape of an input, with symbols for the sizes that vary."""
    shape = bound(value, binding)
    if shape is None:
        return None
    symbols = {name: unknown(name, number) for name, number in binding.items()}
    sizes: list[AnySize] = []
    for axis, (dim, number) in enumerate(zip(value.type.tensor_type.shape.dim, shape, strict=True)):
        key = symbol(value.name, axis, dim)
        if key is None:
            sizes.append(number)
            continue
        try:
            formula = symbols[key] if key in symbols else evaluated(key, symbols)
        except (ValueError, TypeError, ArithmeticError, Undecided):
            formula = None
        if formula is None or trial(formula) != number:
            formula = unknown(key, number)
        sizes.append(formula)
    return tuple(sizes)


def symbol(name: str, axis: int, dim: TensorShapeProto.Dimension) -> str | None:
    """Return what an axis of input ``name`` is called where its size is not fixed, else None."""
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return None
    return size_name(name, axis, dim.dim_param)


def size(key: str, binding: Mapping[str, int]) -> int | None:
    """Return the size of a symbol, or of an expression of symbols such as ``past + 1``."""
    if key in binding:
        return binding[key]
    try:
        return computed(key, binding) or None
    except ValueError:
        return None
