"""What a table of numbers is: learned, or computed by a formula.

    >>> steps = np.arange(8)[:, None] * np.float32([1.0, 0.1])
    >>> computed(np.cos(steps)), computed(np.random.default_rng(0).normal(size=(8, 2)))
    (True, False)

An exporter that folds constants leaves masks, grids and sinusoids beside the weights, without
a name. Trained numbers obey no formula, so that these are told apart by what they hold.
"""

from __future__ import annotations

import numpy as np
from ml_dtypes import finfo

LARGE = 1e4  # what fills a mask before a softmax; no trained weight is as large
SAMPLE = 1 << 22  # entries: more are not looked at
LINES = 64  # lines of a table, and entries of each, that a formula is tried on
FEWEST = 6  # entries of a line: four equations for one unknown cannot hold by chance
TOLERANCE = 1e-3


def extended(array: np.ndarray) -> int:
    """Return the number of axes longer than 1."""
    return sum(size > 1 for size in array.shape)


def uniform(array: np.ndarray) -> bool:
    """Return whether all entries are equal."""
    return array.size == 0 or bool((array == array.reshape(-1)[0]).all())


def computed(array: np.ndarray) -> bool:
    """Return whether a formula explains the entries: a mask, a grid, a series, sinusoids.

    Entries that are all equal are no evidence: weights start like that.
    """
    sample = _sample(array)
    if not np.isfinite(sample).all() or np.abs(sample).max(initial=0) >= LARGE:
        return True
    if uniform(sample):
        return False
    if (sample * 2 == np.rint(sample * 2)).all():
        return True
    if extended(array) > 1 and _two_valued(sample):
        return True
    return follows_formula(array)


def follows_formula(array: np.ndarray) -> bool:
    """Return whether its lines are arithmetic or geometric series, sines or cosines."""
    if extended(array) == 0:
        return False
    matrix = _matrix(array)
    slack = max(TOLERANCE, 8 * float(finfo(array.dtype).eps))
    some = matrix[:, :LINES]
    return any(
        f(m, slack)
        for f, m in (
            (_recurrent, some),
            (_recurrent, some.T),
            (_paired, matrix),
            (_paired, matrix.T),
        )
    )


def counted(array: np.ndarray) -> bool:
    """Return whether it holds whole numbers beyond 0 and 1: distances, positions."""
    sample = _sample(array)
    return bool((sample == np.rint(sample)).all()) and sample.size > 0 and np.ptp(sample) > 1


def triangular(array: np.ndarray) -> bool:
    """Return whether it is a square of one value on one side of the diagonal, and 0 elsewhere."""
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        return False
    corner = np.asarray(array[:LINES, :LINES], np.float64)
    one = corner[0, 0]
    lower = np.tril(np.ones_like(corner)) * one
    return one != 0 and bool((corner == lower).all() or (corner == lower.T).all())


def _sample(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    return np.asarray(flat[:: max(1, flat.size // SAMPLE)], np.float64)


def _matrix(array: np.ndarray) -> np.ndarray:
    """Return the first rows of the array, seen as a matrix along its last long axis."""
    sizes = [size for size in array.shape if size > 1]
    return np.asarray(array.reshape(-1, sizes[-1])[:LINES], np.float64)


def _two_valued(sample: np.ndarray) -> bool:
    """Return whether it holds 0 and one other value: a mask."""
    rest = sample[sample != 0]
    return rest.size < sample.size and uniform(rest)


def _recurrent(matrix: np.ndarray, slack: float) -> bool:
    """Return whether columns x obey x[t-1] + x[t+1] = c x[t], as series and sinusoids do."""
    if len(matrix) < FEWEST:
        return False
    middle, ends = matrix[1:-1], matrix[:-2] + matrix[2:]
    squares = np.einsum("tn,tn->n", middle, middle)
    factor = np.einsum("tn,tn->n", middle, ends) / np.where(squares == 0, 1, squares)
    error = np.abs(ends - factor * middle).max(axis=0)
    scale = np.abs(matrix).max(axis=0)
    varies = (matrix != matrix[0]).any(axis=0)
    return bool(varies.any() and (error <= slack * np.where(scale == 0, 1, scale)).all())


def _paired(matrix: np.ndarray, slack: float) -> bool:
    """Return whether the columns are sines with their cosines, side by side or in halves."""
    rows, width = matrix.shape
    if rows < 2 or width < 2 or width % 2 or np.abs(matrix).max() > 1 + slack:
        return False
    squares = matrix * matrix
    pairings = [(squares[:, 0::2], squares[:, 1::2])]
    for parts in (2, 4):
        if width % parts == 0:
            split = squares.reshape(rows, parts, -1)
            pairings.append((split[:, 0::2], split[:, 1::2]))
    return any(bool((np.abs(a + b - 1) <= slack).all()) for a, b in pairings)
