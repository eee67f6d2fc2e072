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
    """``sources[atom]`` is the source map of a grown atom; other atoms keep their size."""

    sources: dict[Atom, Index]
    _flat: dict[Axis, Index] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._size = Measure(self._width, prod)
        self._grown = Measure(self.sources.__contains__, sum)

    @property
    def atoms(self) -> set[Atom]:
        """The grown atoms."""
        return set(self.sources)

    def padded(self, free: Atom) -> bool:
        """Whether some new entries copy no unit."""
        return free in self.sources and bool((self.sources[free] == PAD).any())

    def touches(self, axis: Axis) -> bool:
        """Whether ``axis`` grows."""
        return bool(self._grown(axis))

    def size(self, axis: Axis) -> AnySize:
        """The new size of ``axis``."""
        return self._size(axis)  # type: ignore[no-any-return]

    def _width(self, free: Atom) -> AnySize:
        source = self.sources.get(free)
        return free.size if source is None else len(source)

    def shape(self, axes: list[Axis]) -> tuple[AnySize, ...]:
        """The new shape of a tensor with these axes."""
        return tuple(self.size(axis) for axis in axes)

    def source(self, axis: Axis) -> Index:
        """For every new entry along ``axis`` the old one it copies (PAD for none)."""
        axis = canonical(axis)
        if isinstance(axis, Atom):
            found = self.sources.get(axis)
            return np.arange(trial(axis.size)) if found is None else found
        if axis not in self._flat:
            if isinstance(axis, Product):
                self._flat[axis] = self._merged(axis)
            else:
                self._flat[axis] = self._joined(axis.segments)
        return self._flat[axis]

    def _merged(self, axis: Product) -> Index:
        def step(done: tuple[Index, int], factor: Axis) -> tuple[Index, int]:
            outer, size = done
            inner = self.source(factor)
            merged = outer[:, None] * trial(factor.size) + inner[None, :]
            merged[(outer == PAD)[:, None] | (inner == PAD)[None, :]] = PAD
            return merged.reshape(-1), size * trial(factor.size)

        return reduce(step, axis.factors, (np.zeros(1, np.int64), 1))[0]

    def _joined(self, segments: tuple[Axis, ...]) -> Index:
        parts, offset = [], 0
        for segment in segments:
            part = self.source(segment)
            parts.append(np.where(part == PAD, PAD, part + offset))
            offset += trial(segment.size)
        return np.concatenate(parts)

    def fills(self, axis: Axis, weightings: Mapping[Atom, np.ndarray]) -> Iterator[Fill]:
        """What padded entries along ``axis`` hold, where those of each atom hold what
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
        """One for each unit of the factors that are not padded."""
        sizes = [self.size(factor) for factor in axis.factors]
        padded = [list(self.fills(factor, weightings)) for factor in axis.factors]
        copied = [self._copies(factor) for factor in axis.factors]
        parts = [fills + copies for fills, copies in zip(padded, copied, strict=True)]
        counts = [len(fills) for fills in padded]
        for chosen in np.ndindex(*map(len, parts)):
            if any(index < count for index, count in zip(chosen, counts, strict=True)):
                rows = [part[index] for part, index in zip(parts, chosen, strict=True)]
                places = np.ravel_multi_index(np.ix_(*(row[0] for row in rows)), sizes)
                yield places.ravel(), reduce(np.kron, (row[1] for row in rows))

    def _copies(self, axis: Axis) -> list[Fill]:
        """For each old entry along ``axis`` its copies, and 1 for itself alone."""
        source = self.source(axis)
        units = np.eye(int(axis.size))
        return [(np.flatnonzero(source == unit), units[unit]) for unit in range(len(units))]

    def vector(self, term: Term, name: str, env: Env, seed: list[int], split: str) -> np.ndarray:
        """Shares of ``name`` laid out along ``term``, an axis that holds it; 1 for other names."""
        if isinstance(term, str):
            plain = term.lstrip("~")
            if plain == name:
                return self._shares(canonical(env[name]), {}, seed, split)
            return np.ones(self.size(env[plain]) if plain in env else 1)
        parts = [self.vector(part, name, env, seed, split) for part in term.terms]
        return reduce(np.kron, parts) if isinstance(term, Group) else np.concatenate(parts)

    def _shares(
        self, axis: Axis, drawn: dict[Atom, np.ndarray], seed: list[int], split: str
    ) -> np.ndarray:
        """Shares along canonical ``axis``: the same wherever an atom occurs (RoPE's halves)."""
        if isinstance(axis, Atom):
            if axis not in drawn:
                source = self.source(axis)
                drawn[axis] = shares(source, seed=[*seed, len(drawn)], split=split)
            return drawn[axis]
        if isinstance(axis, Product):
            parts = [self._shares(factor, drawn, seed, split) for factor in axis.factors]
            return reduce(np.kron, parts, np.ones(1))
        return np.concatenate([self._shares(s, drawn, seed, split) for s in axis.segments])
