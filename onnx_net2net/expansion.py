"""Source maps and shares: which unit each new unit copies, and how copies share a weight.

    >>> source = draw(3, 5, seed=0, mapping="round-robin")
    >>> source
    array([0, 1, 2, 0, 1])
    >>> multiplicity(source)
    array([2, 2, 1, 2, 2])

Growing a dimension from n to n' chooses ``source``, n' entries in 0..n-1 (``PAD`` for a
padded entry). Whoever writes the dimension is gathered by ``source``; whoever sums over
it is :func:`split`, so that the copies of unit i add up to the weight of unit i
(Net2WiderNet: Chen, Goodfellow, Shlens, ICLR 2016, section 3.2, eq. 5).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]
Split = Literal["project", "even", "noise"]
Mapping = Literal["random", "round-robin"]
SPLITS: tuple[str, ...] = get_args(Split)
MAPPINGS: tuple[str, ...] = get_args(Mapping)

PAD = -1

# The random part of ``project`` relative to the weight it splits: large enough that copies
# part at the first step, small enough that summing them costs no more than a rounding.
AMPLITUDE = 0.5


def draw(width: int, new: int, *, seed: int | list[int], mapping: str = "random") -> Index:
    """``new`` sources in 0..width-1: all old units first, then copies.

    ``random`` draws the copies without replacement until every unit was drawn once, then
    again; ``round-robin`` takes them in order. Either way multiplicities differ by one at most.
    """
    extra = new - width
    if mapping == "round-robin":
        copies = np.arange(extra) % width
    else:
        rng = np.random.default_rng(seed)
        rounds = [rng.permutation(width) for _ in range(-(-extra // width))]
        copies = np.concatenate([np.empty(0, np.int64), *rounds])[:extra]
    return np.concatenate([np.arange(width), copies]).astype(np.int64)


def multiplicity(source: Index) -> Index:
    """For every new unit, how many copies its source has (1 for a padded entry)."""
    kept = source != PAD
    counts = np.bincount(source[kept], minlength=1)
    result = np.ones(len(source), np.int64)
    result[kept] = counts[source[kept]]
    return result


def shares(source: Index, *, seed: int | list[int], split: str = "project") -> Array:
    """Positive float64 factors that sum to 1 over the copies of each unit; 0 where padded."""
    kept = source != PAD
    parts = np.ones(len(source))
    if split != "even":
        parts = np.random.default_rng(seed).uniform(0.5, 1.5, len(source))
    sums = np.bincount(source[kept], weights=parts[kept], minlength=1)
    parts[kept] /= sums[source[kept]]
    parts[~kept] = 0.0
    return parts


def gather(array: Array, axis: int, source: Index, pads: Array | float = 0.0) -> Array:
    """``array`` with its entries along ``axis`` taken by ``source``.

    Padded entries hold ``pads``: a number, or a weighting of the old entries along ``axis``.
    """
    result = np.take(array, np.maximum(source, 0), axis=axis)
    if (padded := source == PAD).any():
        value = np.asarray(pads, np.float64)
        if value.ndim:
            value = np.expand_dims(np.tensordot(array.astype(np.float64), value, (axis, 0)), axis)
        result[_at(axis, padded)] = value.astype(result.dtype)
    return result


def random_pads(array: Array, axis: int, source: Index, seed: int | list[int]) -> Array:
    """``array`` with random padded entries as large as the others: they meet zeros only."""
    padded = np.flatnonzero(source == PAD)
    rng = np.random.default_rng(seed)
    shape = (*array.shape[:axis], len(padded), *array.shape[axis + 1 :])
    wide = array.astype(np.float32)
    spread = float(np.sqrt(np.mean(np.square(wide)))) * np.sqrt(12)
    array[_at(axis, padded)] = ((rng.random(shape) - 0.5) * spread).astype(array.dtype)
    return array


def split_copies(
    array: Array,
    axis: int,
    source: Index,
    *,
    split: str = "project",
    noise: float = 0.01,
    seed: int | list[int] = 0,
) -> Array:
    """``array`` gathered along ``axis`` so that the copies of an entry add up to that entry.

    ``even`` divides, ``project`` adds random parts that cancel exactly, ``noise`` adds
    relative noise of standard deviation ``noise`` that does not (Net2Net's own, not exact).
    """
    result = gather(array, axis, source)
    counts = multiplicity(source)
    chosen = np.flatnonzero(counts > 1)
    if not len(chosen):
        return result
    wide = np.float64 if array.dtype == np.float64 else np.float32
    whole: Array = np.moveaxis(np.take(result, chosen, axis=axis), axis, 0).astype(wide)
    parts: Array = whole / counts[chosen].astype(wide).reshape(-1, *[1] * (whole.ndim - 1))
    rng = np.random.default_rng(seed)
    if split == "noise":
        parts *= 1 + noise * rng.standard_normal(parts.shape, dtype=wide)
    elif split == "project":
        parts += _random_like(whole, rng)
    if split != "noise":
        parts = _balanced(parts.astype(array.dtype), whole, source[chosen], wide)
    result[_at(axis, chosen)] = np.moveaxis(parts.astype(array.dtype), 0, axis)
    return result


def _random_like(whole: Array, rng: np.random.Generator) -> Array:
    """Uniform parts whose scale is that of each unit's own weights."""
    flat = whole.reshape(len(whole), -1)
    scale = np.sqrt(np.mean(np.square(flat), axis=1))
    scale[scale == 0] = scale.mean()
    parts = rng.random(whole.shape, dtype=whole.dtype)
    parts -= 0.5
    parts *= (AMPLITUDE * np.sqrt(12) * scale / 2).reshape(-1, *[1] * (whole.ndim - 1))
    return parts


def _balanced(parts: Array, whole: Array, source: Index, wide: type) -> Array:
    """Correct one copy of each unit, so that the *rounded* parts add up to ``whole``."""
    order = np.argsort(source, kind="stable")
    starts = np.flatnonzero(np.diff(source[order], prepend=PAD - 1))
    sums = np.add.reduceat(parts[order].astype(wide), starts, axis=0)
    # The originals stand first; the correction goes to the last copy of each unit.
    ends = order[np.append(starts[1:], len(order)) - 1]
    parts[ends] = (parts[ends].astype(wide) + (whole[ends] - sums)).astype(parts.dtype)
    return parts


def _at(axis: int, index: Array) -> tuple[slice | Array, ...]:
    return (*[slice(None)] * axis, index)
