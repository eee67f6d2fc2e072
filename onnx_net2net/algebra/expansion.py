"""Source maps and shares: which unit each new unit copies, and how copies share a weight.

    >>> source = draw(3, 5, seed=0, mapping="round-robin")
    >>> source
    array([0, 1, 2, 0, 1])
    >>> multiplicity(source)
    array([2, 2, 1, 2, 2])

Growing a dimension from n to n' chooses ``source``, n' entries in 0..n-1 (``PAD`` for a
padded entry). Whoever writes the dimension is gathered by ``source``; whoever sums over
it shares (:func:`share_copies`), so that the copies of unit i add up to the weight of unit i
(Net2WiderNet: Chen, Goodfellow, Shlens, ICLR 2016, section 3.2, eq. 5).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from ml_dtypes import finfo
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]
Mapping = Literal["random", "round-robin"]

PAD = -1

BLOCK = 1 << 18  # entries: what the processor's caches hold
# As many as this process may use at once. What is computed does not depend on it.
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw(width: int, new: int, *, seed: int | list[int], mapping: str = "random") -> Index:
    """Return ``new`` sources in 0..width-1: all old units first, then copies.

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
    """Return for every new unit how many copies its source has (1 for a padded entry)."""
    kept = source != PAD
    counts = np.bincount(source[kept], minlength=1)
    result = np.ones(len(source), np.int64)
    result[kept] = counts[source[kept]]
    return result


def shares(source: Index, *, seed: int | list[int], amplitude: float = 1.0) -> Array:
    """Return positive factors that sum to 1 over the copies of each unit, and 0 where padded.

    They are equal for ``amplitude`` 0, and no further apart than for 1 whatever it is. A share of a
    unit, unlike those of its weights, is a single number: were it near zero, what meets the copy
    would get no gradient, and second moments too small for the gradients that come later.
    """
    kept = source != PAD
    half = min(amplitude, 1.0) / 2
    parts = np.random.default_rng(seed).uniform(1 - half, 1 + half, len(source))
    sums = np.bincount(source[kept], weights=parts[kept], minlength=1)
    parts[kept] /= sums[source[kept]]
    parts[~kept] = 0.0
    return parts


def gather(array: Array, axis: int, source: Index, pads: Array | float = 0.0) -> Array:
    """Return ``array`` with its entries along ``axis`` taken by ``source``, as a new array.

    Padded entries hold ``pads``: a number, or a weighting of the old entries along ``axis``.
    """
    return fill_pads(gather_axes(array, {axis: source}), axis, source, pads)


def gather_axes(array: Array, sources: dict[int, Index]) -> Array:
    """Return a new array, gathered along several axes at once; padded entries are left open."""
    shape = tuple(len(sources.get(i, range(size))) for i, size in enumerate(array.shape))
    result = np.empty(shape, array.dtype)
    rows = np.maximum(sources.get(0, np.arange(array.shape[0])), 0)
    inner = sorted(axis for axis in sources if axis)
    old, new = _bits(array), _bits(result)

    def gather_rows(number: int, block: slice, _: slice) -> None:
        part, target = rows[block], new[block]
        straight = (np.diff(part) == 1).all()
        piece = old[part[0] : part[-1] + 1] if straight else old[part]
        for axis in inner:
            size = (*piece.shape[:axis], len(sources[axis]), *piece.shape[axis + 1 :])
            taken = target if axis == inner[-1] else np.empty(size, piece.dtype)
            _take(piece, axis, sources[axis], taken)
            piece = taken
        if not inner:
            target[...] = piece

    step = max(1, BLOCK * len(rows) // max(1, result.size))
    starts = range(0, len(rows), step)
    _each([(slice(start, start + step), slice(None)) for start in starts], gather_rows)
    return result


def _bits(array: Array) -> Array:
    """Return an array's numbers as integers, which NumPy moves without holding the interpreter."""
    return array.view(f"u{array.itemsize}") if array.itemsize in (1, 2, 4, 8) else array


def _take(array: Array, axis: int, source: Index, out: Array) -> None:
    """Do as ``np.take``, but copy at once the old units that come first and in order."""
    most = min(array.shape[axis], len(source))
    differs = source[:most] != np.arange(most)
    same = int(differs.argmax()) if differs.any() else most
    # To clip is to write to ``out`` at once, and padded entries are in range then.
    if same * 2 < len(source):
        np.take(array, source, axis, out, mode="clip")
        return
    head, tail = _at(axis, slice(same)), _at(axis, slice(same, None))
    out[head] = array[head]
    if same < len(source):
        out[tail] = np.take(array, source[same:], axis, mode="clip")


def fill_pads(
    array: Array, axis: int, source: Index, pads: Array | float, places: Index | None = None
) -> Array:
    """Fill the padded entries of an array that was gathered by ``source``; see :func:`gather`.

    Fill only those at ``places``, if these are given.
    """
    padded = source == PAD
    if not padded.any():
        return array
    value = np.asarray(pads, np.float64)
    if value.ndim:
        weights = np.zeros(len(source))
        units, first = np.unique(source[~padded], return_index=True)
        weights[np.flatnonzero(~padded)[first]] = value[units]
        value = np.expand_dims(_weighted(array, axis, weights), axis)
    array[_at(axis, padded if places is None else places)] = value.astype(array.dtype)
    return array


def scale_axis(array: Array, axis: int, factors: Array) -> Array:
    """Multiply ``array`` by ``factors`` along ``axis``, in place."""
    flat = _flat(array, axis)

    def scale(number: int, rows: slice, columns: slice) -> None:
        flat[rows, :, columns] = flat[rows, :, columns] * factors[:, None]

    _each(_blocks(flat.shape), scale)
    return array


def _weighted(array: Array, axis: int, weights: Array) -> Array:
    """Return the sum over ``axis`` of entries times ``weights``, in float64."""
    flat = _flat(array, axis)
    result = np.empty((flat.shape[0], flat.shape[2]))
    for rows, columns in _blocks(flat.shape):
        result[rows, columns] = np.einsum(
            "anb,n->ab", flat[rows, :, columns].astype(float), weights
        )
    return result.reshape(array.shape[:axis] + array.shape[axis + 1 :])


def random_pads(array: Array, axis: int, source: Index, seed: int | list[int]) -> Array:
    """Fill padded entries with random ones as large as the others: they meet zeros only."""
    padded = np.flatnonzero(source == PAD)
    flat = _flat(array, axis)

    def squares(number: int, rows: slice, columns: slice) -> float:
        return float(np.square(flat[rows, :, columns], dtype=_wide(array)).sum(dtype=float))

    spread = np.sqrt(sum(_each(_blocks(flat.shape), squares)) / array.size * 12)

    def fill(number: int, rows: slice, columns: slice) -> None:
        shape = flat[rows, :1, columns].shape
        parts = _random(seed, number).random((shape[0], len(padded), shape[2]), dtype=np.float32)
        parts -= 0.5
        parts *= spread
        flat[rows, padded, columns] = parts.astype(array.dtype)

    _each(_blocks((flat.shape[0], len(padded), flat.shape[2])), fill)
    return array


def shuffle_units(array: Array, axis: int, units: Index, seed: int | list[int]) -> Array:
    """Shuffle what each of these ``units`` along ``axis`` holds, in place."""
    rng = np.random.default_rng(seed)
    for unit in units:
        part = np.take(array, unit, axis)
        array[_at(axis, unit)] = part.ravel()[rng.permutation(part.size)].reshape(part.shape)
    return array


def share_copies(
    array: Array,
    axis: int,
    source: Index,
    *,
    amplitude: float = 1.0,
    noise: float = 0.0,
    seed: int | list[int],
) -> Array:
    """Make the copies in an array that was gathered by ``source`` add up to the unit, in place.

    The m copies of a unit whose weights w have the root mean square sigma get

        w / m + z_j - mean(z),    z_j normal, of deviation amplitude * sigma / sqrt(m),

    so that for amplitude 1 each of them has the root mean square sigma / sqrt(m), as a fresh layer
    m times as wide would have, and for 0 they are equal. With ``noise`` they are equal but for
    relative noise of that deviation, which does not cancel (Net2Net's own, not exact).
    """
    copies = _Copies.of(source)
    if not len(copies.units):
        return array
    flat, first = _flat(array, axis), copies.places[0]
    spread = None if noise or not amplitude else _spread(flat, copies, amplitude)

    def share(number: int, rows: slice, columns: slice) -> None:
        target, rng = flat[rows, :, columns], _random(seed, number)
        whole = np.take(target, first, axis=1).astype(_wide(array), copy=False)
        if noise:
            _scatter_noisy(whole, target, copies, noise, rng)
        else:
            _scatter(whole, target, copies, spread, rng)

    _each(_blocks((flat.shape[0], len(first), flat.shape[2])), share)
    return array


@dataclass(frozen=True)
class _Copies:
    """Copied ``units``, most copies first, and ``places[r]``, where their r-th copies stand.

    A unit with fewer copies is missing at the end of ``places[r]``.
    """

    units: Index
    counts: Index
    places: list[Index]

    @classmethod
    def of(cls, source: Index) -> _Copies:
        """Read off a source map."""
        kept = np.flatnonzero(source != PAD)
        order = kept[np.argsort(source[kept], kind="stable")]
        counts = np.bincount(source[kept], minlength=1)
        starts = np.cumsum(counts) - counts
        units = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts > 1)]
        counts, starts = counts[units], starts[units]
        most = int(counts[0]) if len(units) else 0
        places = [order[starts[counts > rank] + rank] for rank in range(most)]
        return cls(units, counts, places)


def _scatter(
    whole: Array, target: Array, copies: _Copies, spread: Array | None, rng: np.random.Generator
) -> None:
    """Write shares rank by rank: of what is left of a unit, the mean and a random part.

    Normal parts that cancel among k copies have the variance (1 - 1/k) each; given the first one,
    the others cancel it among k - 1. The last copy has no random part of its own: it is what is
    left, and as all others in distribution.
    """
    ends = [len(place) for place in copies.places[1:]] + [0]
    for rank, (place, end) in enumerate(zip(copies.places, ends, strict=True)):
        target[:, place[end:]] = whole[:, end : len(place)].astype(target.dtype, copy=False)
        left = (copies.counts[:end] - rank).astype(whole.dtype)[:, None]
        part = whole[:, :end] / left
        if spread is not None and end:
            random = rng.standard_normal(part.shape, dtype=whole.dtype.type)
            random *= spread[:end, None] * np.sqrt(1 - 1 / left)
            part += random
        part = part.astype(target.dtype, copy=False)
        target[:, place[:end]] = part
        whole[:, :end] -= part.astype(whole.dtype, copy=False)  # as rounded


def _scatter_noisy(
    whole: Array, target: Array, copies: _Copies, noise: float, rng: np.random.Generator
) -> None:
    """Write equal parts, each times one plus noise."""
    mean = whole / copies.counts.astype(whole.dtype)[:, None]
    for place in copies.places:
        part = rng.standard_normal(mean[:, : len(place)].shape, dtype=whole.dtype.type)
        part *= noise
        part += 1
        part *= mean[:, : len(place)]
        target[:, place] = part.astype(target.dtype, copy=False)


def _spread(flat: Array, copies: _Copies, amplitude: float) -> Array:
    """Return the deviation of the random parts of each copied unit, by the RMS of its weights."""
    units = copies.places[0]

    def squares(number: int, rows: slice, columns: slice) -> Any:
        part = np.take(flat[rows, :, columns], units, axis=1).astype(_wide(flat), copy=False)
        return np.einsum("anb,anb->n", part, part, dtype=np.float64)

    blocks = _blocks((flat.shape[0], len(units), flat.shape[2]))
    total = sum(_each(blocks, squares), start=np.zeros(len(units)))
    scale = np.sqrt(total / max(1, flat.shape[0] * flat.shape[2]))
    scale[scale == 0] = scale.mean()
    most = float(finfo(flat.dtype).max) / 16  # no share shall overflow
    return np.asarray(np.minimum(amplitude * scale / np.sqrt(copies.counts), most), _wide(flat))


def _wide(array: Array) -> type[np.floating[Any]]:
    """Return the type to compute in: half precision would lose the shares."""
    return np.float64 if array.dtype == np.float64 else np.float32


def _flat(array: Array, axis: int) -> Array:
    """Return a view of three axes, ``axis`` in the middle."""
    before, after = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
    return array.reshape(before, array.shape[axis], after)


def _random(seed: int | list[int], number: int) -> np.random.Generator:
    """Return random numbers for one block, the same whichever thread computes it, and when."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


T = TypeVar("T")


def _each(blocks: Iterable[tuple[slice, slice]], work: Callable[[int, slice, slice], T]) -> list[T]:
    """Return, in order, what ``work`` does for the number and place of each block, in threads."""
    places = [*blocks]
    if min(len(places), THREADS) <= 1:
        return [work(number, *place) for number, place in enumerate(places)]
    with ThreadPoolExecutor(min(len(places), THREADS)) as pool:
        return [*pool.map(lambda number: work(number, *places[number]), range(len(places)))]


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield pieces of the outer axes of about ``BLOCK`` entries: scratch memory stays small."""
    before, width, after = shape
    if width * after <= BLOCK:
        step = max(1, BLOCK // max(1, width * after))
        for start in range(0, before, step):
            yield slice(start, start + step), slice(None)
        return
    step = max(64, BLOCK // width)
    for row in range(before):
        for start in range(0, after, step):
            yield slice(row, row + 1), slice(start, start + step)


def _at(axis: int, index: Array | slice | int) -> tuple[slice | Array | int, ...]:
    return (*[slice(None)] * axis, index)
