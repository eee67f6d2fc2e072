"""Weights of the file in the places where a layer of Keras holds them.

    kernel = Moved.whole("conv1.weight", (8, 3, 5, 5), "float32").permuted(2, 3, 1, 0)
    kernel.read({"conv1.weight": array}.get)           # what the layer's variable holds
    given_back([(kernel,)], [trained], weights)        # what the initializer holds after training

What moves elements alone (Transpose, Concat, Split, Slice, Reshape) is a function that is called
with the weights, or with the numbers of their elements: so the way back follows from the way there.
Elements are numbered from 1 on, since zeros may be put between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Array", "Get", "Moved", "Terms", "given_back", "sum_of"]

Array = np.ndarray[Any, Any]
Get = Callable[[str], Array]


@dataclass(frozen=True, eq=False)
class Moved:
    """An array made of elements of initializers: ``read`` makes it of a function that has them.

    ``whole`` says that each element of its sources is there once, for certain.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[Get], Array]
    whole: bool = True

    @classmethod
    def of(cls, name: str, shape: Sequence[int], dtype: str) -> Moved:
        """Return an initializer as it is."""
        return cls((name,), tuple(shape), dtype, lambda get: get(name))

    def moved(self, shape: Sequence[int], move: Callable[[Array], Array]) -> Moved:
        """Return what a function makes of it that puts each element elsewhere."""
        read = self.read
        return replace(self, shape=tuple(shape), read=lambda get: move(read(get)))

    def permuted(self, *perm: int) -> Moved:
        """Return it with its axes permuted."""
        shape = [self.shape[axis] for axis in perm]
        return self.moved(shape, lambda array: array.transpose(perm))

    def reshaped(self, *shape: int) -> Moved:
        """Return it in another shape of as many elements."""
        return self.moved(shape, lambda array: array.reshape(shape))

    def part(self, *index: Any) -> Moved:
        """Return a part of it, as NumPy indexes."""
        shape = np.broadcast_to(np.empty((), bool), self.shape)[index].shape
        return replace(self.moved(shape, lambda array: array[index]), whole=False)

    def reordered(self, order: Sequence[int], axis: int) -> Moved:
        """Return it with as many blocks along an axis as ``order`` is long, in that order."""

        def take(array: Array) -> Array:
            parts = np.split(array, len(order), axis)
            return np.concatenate([parts[place] for place in order], axis)

        return self.moved(self.shape, take)

    def is_whole(self, shapes: Mapping[str, Sequence[int]], *, zeros: bool = False) -> bool:
        """Return whether it holds each element of its sources, of these shapes, once.

        With ``zeros``, zeros may stand beside them.
        """
        if self.whole:
            return True
        count = sum(math.prod(shapes[name]) for name in self.sources)
        size = math.prod(self.shape)
        if size < count or (size > count and not zeros):
            return False
        counts = np.bincount(self.numbers(shapes).reshape(-1), minlength=count + 1)
        return bool((counts[1:] == 1).all())

    def numbers(self, shapes: Mapping[str, Sequence[int]]) -> Array:
        """Return the number of each of its elements, 0 where it is a constant zero."""
        return self.read(_numbered(self.sources, shapes))


Terms = tuple[Moved, ...]  # a variable holds their sum: the two biases of an LSTM


def _numbered(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> Get:
    """Return a function that has arrays of the numbers of all elements, those of one name first."""
    arrays, first = {}, 1
    for name in names:
        count = math.prod(shapes[name])
        arrays[name] = np.arange(first, first + count).reshape(tuple(shapes[name]))
        first += count
    return arrays.__getitem__


def sum_of(terms: Terms, get: Get) -> Array:
    """Return what a variable holds."""
    first, *others = (term.read(get) for term in terms)
    for other in others:
        first = first + other
    return np.ascontiguousarray(first).reshape(terms[0].shape)


def given_back(
    table: Sequence[Terms], values: Sequence[Array], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """Return the initializers for variables of these values, and for ``weights`` as they were.

    Where a variable is a sum, its first term takes what changed.
    """
    names = list(dict.fromkeys(name for terms in table for t in terms for name in t.sources))
    arrays = {name: np.array(weights[name]) for name in names}
    shapes = {name: array.shape for name, array in arrays.items()}
    for terms, value in zip(table, values, strict=True):
        first, *others = terms
        if others:
            value = value - sum_of(tuple(others), weights.__getitem__)
        flat = [arrays[name].reshape(-1) for name in first.sources]
        numbers, start = first.numbers(shapes).reshape(-1), 1
        for part in flat:
            own = (numbers >= start) & (numbers < start + part.size)
            part[numbers[own] - start] = np.asarray(value).reshape(-1)[own].astype(part.dtype)
            start += part.size
    return arrays
