"""One growth: the new size of every atom, and which old unit each new unit copies.

The invariant: for every tensor T and every axis, T'[..., j, ...] = T[..., source[j], ...].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from math import prod

import numpy as np

from onnx_net2net.algebra.axes import Atom, Axis, Product, Sum, canonical
from onnx_net2net.algebra.expansion import PAD, Index, shares
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.algebra.sizes import AnySize, trial
from onnx_net2net.analysis.solver import Env
from onnx_net2net.operators.notation import Group, Term

Fill = tuple[Index, np.ndarray]  # new places, and the weighting of old entries that they hold


@dataclass
class Growth:
    """``sources[atom]`` is the source map of a grown atom; other atoms keep their size.

    Units that are padded in ``sources`` and have a place in ``models`` are fresh: what writes them
    has the weights of that old unit, shuffled, and what reads them has zeros.
    """

    sources: dict[Atom, Index]
    models: dict[Atom, Index] = field(default_factory=dict)
    _flat: dict[Axis, Index] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sources = self.sources
        self._size = Measure(lambda a: len(sources[a]) if a in sources else a.size, prod)
        self._grown = Measure(self.sources.__contains__, sum)
        self._modelled = Growth(self.sources | self.models) if self.models else self

    @property
    def atoms(self) -> set[Atom]:
        """Return the grown atoms."""
        return set(self.sources)

    def padded(self, free: Atom) -> bool:
        """Return whether some new entries copy no unit."""
        return free in self.sources and bool((self.sources[free] == PAD).any())

    def touches(self, axis: Axis) -> bool:
        """Return whether ``axis`` grows."""
        return bool(self._grown(axis))

    def size(self, axis: Axis) -> AnySize:
        """Return the new size of ``axis``."""
        return self._size(axis)  # type: ignore[no-any-return]

    def shape(self, axes: list[Axis]) -> tuple[AnySize, ...]:
        """Return the new shape of a tensor with these axes."""
        return tuple(self.size(axis) for axis in axes)

    def source(self, axis: Axis) -> Index:
        """Return for every new entry along ``axis`` the old one it copies (PAD for none)."""
        axis = canonical(axis)
        if isinstance(axis, Atom):
            return self.sources[axis] if axis in self.sources else np.arange(trial(axis.size))
        if axis not in self._flat:
            self._flat[axis] = self._composed(axis)
        return self._flat[axis]

    def drawn(self, axis: Axis) -> Index:
        """Return :meth:`source`, with the models of fresh units in their places."""
        return self._modelled.source(axis)

    def _composed(self, axis: Product | Sum) -> Index:
        """Compute the source map of an axis from those of its parts."""
        if isinstance(axis, Product):
            merged = np.zeros(1, np.int64)
            for factor in axis.factors:
                outer, inner = merged[:, None], self.source(factor)[None, :]
                place = outer * trial(factor.size) + inner
                merged = np.where((outer == PAD) | (inner == PAD), PAD, place).reshape(-1)
            return merged
        parts, offset = [], 0
        for segment in axis.segments:
            part = self.source(segment)
            parts.append(np.where(part == PAD, PAD, part + offset))
            offset += trial(segment.size)
        return np.concatenate(parts)

    def fills(self, axis: Axis, weightings: Mapping[Atom, np.ndarray]) -> Iterator[Fill]:
        """Yield what padded entries along ``axis`` hold, where those of each atom hold what
        ``weightings`` says of its old ones: 0 where it says nothing.
        """
        axis = canonical(axis)
        if isinstance(axis, Atom):
            places = np.flatnonzero(self.source(axis) == PAD)
            if axis in weightings and len(places):
                yield places, weightings[axis]
        elif isinstance(axis, Sum):
            old, new = 0, 0
            for segment in axis.segments:
                for places, weights in self.fills(segment, weightings):
                    behind = axis.size - old - segment.size
                    yield places + new, np.pad(weights, (old, behind))
                old, new = old + segment.size, new + self.size(segment)
        else:
            yield from self._merged_fills(axis, weightings)

    def _merged_fills(self, axis: Product, weightings: Mapping[Atom, np.ndarray]) -> Iterator[Fill]:
        """Yield one for each unit of the factors that are not padded."""
        sizes = [self.size(factor) for factor in axis.factors]
        parts = [list(self.fills(factor, weightings)) for factor in axis.factors]
        counts = [len(fills) for fills in parts]
        for factor, fills in zip(axis.factors, parts, strict=True):
            # Each old entry stands at its copies, and is 1 for itself alone.
            source, units = self.source(factor), np.eye(int(factor.size))
            fills += [(np.flatnonzero(source == i), unit) for i, unit in enumerate(units)]
        for chosen in np.ndindex(*map(len, parts)):
            if any(index < count for index, count in zip(chosen, counts, strict=True)):
                rows = [part[index] for part, index in zip(parts, chosen, strict=True)]
                places = np.ravel_multi_index(np.ix_(*(row[0] for row in rows)), sizes)
                yield places.ravel(), reduce(np.kron, (row[1] for row in rows))

    def vector(
        self, term: Term, name: str, env: Env, seed: list[int], amplitude: float
    ) -> np.ndarray:
        """Lay out shares of ``name`` along ``term``, an axis that holds it; 1 for other names."""
        if isinstance(term, str):
            bare = term.lstrip("~")
            if bare == name:
                return self._shares(canonical(env[name]), {}, seed, amplitude)
            return np.ones(trial(self.size(env[bare])) if bare in env else 1)
        parts = [self.vector(part, name, env, seed, amplitude) for part in term.terms]
        return reduce(np.kron, parts) if isinstance(term, Group) else np.concatenate(parts)

    def _shares(
        self, axis: Axis, drawn: dict[Atom, np.ndarray], seed: list[int], amplitude: float
    ) -> np.ndarray:
        """Draw shares along canonical ``axis``: the same where an atom recurs (RoPE's halves)."""
        if isinstance(axis, Atom):
            if axis not in drawn:
                source = self.source(axis)
                drawn[axis] = shares(source, seed=[*seed, len(drawn)], amplitude=amplitude)
            return drawn[axis]
        if isinstance(axis, Product):
            parts = [self._shares(factor, drawn, seed, amplitude) for factor in axis.factors]
            return reduce(np.kron, parts, np.ones(1))
        return np.concatenate([self._shares(s, drawn, seed, amplitude) for s in axis.segments])
