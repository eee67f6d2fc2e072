"""Sizes chosen for the dynamic dimensions of a network's inputs.

>>> size("past + 1", {"past": 7})
8
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import TensorShapeProto, ValueInfoProto

from onnx_net2net.verification.sizes import computed, made_of, size_name

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)
# Sizes to try for dynamic dimensions where primes do not do: multiples that windows, strides and
# patches accept.
MULTIPLES = ((32, 96, 160, 224), (224, 448, 672, 896))
# Sizes so far apart that strides, pads and windows seldom make one of another, tried where they do.
APART = ((37, 61, 101, 167, 277, 457), (17, 416, 608, 736, 928, 992), (19, 1009, 1523, 2039, 3001))
LARGEST = 2**31  # a larger number is no size: "to the end"


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
    dims = [
        symbol(value.name, axis, dim)
        for value in inputs
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
    ]
    names = dict.fromkeys(filter(None, dims))
    free = (n for key in names for n in sorted(made_of(key, names)) if n == key or n not in names)
    return {name: sizes[i % len(sizes)] for i, name in enumerate(dict.fromkeys(free))}


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
    return size_name(name, axis, dim.dim_param)


def size(key: str, binding: Mapping[str, int]) -> int | None:
    """The size of a symbol, or of an expression of symbols such as ``past + 1``."""
    if key in binding:
        return binding[key]
    try:
        return computed(key, binding) or None
    except ValueError:
        return None
