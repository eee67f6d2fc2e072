"""One growth: the new size of every atom, and which old unit each new unit copies.

The invariant: for every tensor T and every axis, T'[..., j, ...] = T[..., source[j], ...].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from onnx_net2net.algebra.axes import Atom, Axis, Product, atoms, canonical, size_after
from onnx_net2net.algebra.expansion import PAD, Index, shares
from onnx_net2net.analysis.solver import Env
from onnx_net2net.rules.language import Group, Term


@dataclass
class Growth:
    """``sources[atom]`` is the source map of a grown atom; other atoms keep their size."""

    sources: dict[Atom, Index]
    _flat: dict[Axis, Index] = field(default_factory=dict)

    @property
    def atoms(self) -> set[Atom]:
        """The grown atoms."""
        return set(self.sources)

    def padded(self, free: Atom) -> bool:
        """Whether some new entries copy no unit."""
        return free in self.sources and bool((self.sources[free] == PAD).any())

    def touches(self, axis: Axis) -> bool:
        """Whether ``axis`` grows."""
        return any(free in self.sources for free in atoms(axis))

    def size(self, axis: Axis) -> int:
        """The new size of ``axis``."""
        return size_after(axis, self._width)

    def _width(self, free: Atom) -> int:
        source = self.sources.get(free)
        return free.size if source is None else len(source)

    def shape(self, axes: list[Axis]) -> tuple[int, ...]:
        """The new shape of a tensor with these axes."""
        return tuple(self.size(axis) for axis in axes)

    def source(self, axis: Axis) -> Index:
        """For every new entry along ``axis`` the old one it copies (PAD for none)."""
        axis = canonical(axis)
        if isinstance(axis, Atom):
            found = self.sources.get(axis)
            return np.arange(axis.size) if found is None else found
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
            merged = outer[:, None] * factor.size + inner[None, :]
            merged[(outer == PAD)[:, None] | (inner == PAD)[None, :]] = PAD
            return merged.reshape(-1), size * factor.size

        return reduce(step, axis.factors, (np.zeros(1, np.int64), 1))[0]

    def _joined(self, segments: tuple[Axis, ...]) -> Index:
        parts, offset = [], 0
        for segment in segments:
            part = self.source(segment)
            parts.append(np.where(part == PAD, PAD, part + offset))
            offset += segment.size
        return np.concatenate(parts)

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
