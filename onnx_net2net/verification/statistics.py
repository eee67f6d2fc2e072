"""How far apart two arrays are, in the numbers that people compare networks by.

>>> measured = statistics(np.array([3.0, 4.0]), np.array([3.0, 4.1]))
>>> round(measured.max, 3), round(measured.cosine, 6), round(measured.sqnr, 1)
(0.1, 0.999959, 34.0)

They are computed in float64, over the elements that are finite in both arrays. With x the expected
array and e the difference, the signal-to-quantisation-noise ratio is 10 log10(sum x^2 / sum e^2)
decibels, and the peak signal-to-noise ratio 10 log10(max x^2 / mean e^2). Equal arrays have both
infinite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_net2net.verification.comparison import (
    apart,
    is_float,
    relative,
    top1_agreement,
    wide,
)

__all__ = ["LIKENESSES", "Statistics", "statistics", "worst"]

# These are the larger, the more alike two arrays are; all others are distances.
LIKENESSES = frozenset({"cosine", "sqnr", "psnr", "top1"})


@dataclass(frozen=True)
class Statistics:
    """Measures of the difference between an output of two models.

    ``max``, ``mean``, ``median``, ``p90`` and ``p99`` (quantiles) are of absolute differences;
    ``relative`` is the largest difference in parts of the largest element. ``cosine`` is the cosine
    of the angle between the arrays, ``sqnr`` and ``psnr`` are in decibels, ``top1`` is the share of
    equal best classes. A measure is None where it has no value: of an output that is zero in both
    models there is no angle and no signal.
    """

    max: float
    mean: float
    median: float
    p90: float
    p99: float
    relative: float
    cosine: float | None = None
    sqnr: float | None = None
    psnr: float | None = None
    top1: float | None = None


def statistics(expected: np.ndarray, actual: np.ndarray) -> Statistics | None:
    """Measure how far two arrays are apart; None where no element of theirs can be compared."""
    numbers = all(array.dtype.kind not in "OUSMmc" for array in (expected, actual))
    if not numbers or expected.shape != actual.shape:
        return None
    if is_float(expected.dtype) != is_float(actual.dtype):
        return None
    left, right = wide(expected), wide(actual)
    finite = np.isfinite(left) & np.isfinite(right)
    if not finite.any():
        return None
    error, x, y = apart(expected, actual)[finite], left[finite], right[finite]
    largest = float(error.max())
    median, p90, p99 = map(float, np.quantile(error, [0.5, 0.9, 0.99]))
    cosine, sqnr, psnr = _likeness(x, y, error)
    return Statistics(
        largest,
        float(error.mean()),
        median,
        p90,
        p99,
        relative(largest, expected),
        cosine,
        sqnr,
        psnr,
        top1_agreement(left, right),
    )


def _likeness(
    x: np.ndarray, y: np.ndarray, error: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """Return cosine, SQNR and PSNR. Of what is zero in one array only, the cosine is 0."""
    scale = max(np.abs(x).max(), np.abs(y).max())
    if scale == 0:
        return None, None, None
    if not error.any():  # by their formulas a rounding error away from this
        return 1.0, float("inf"), float("inf")
    x, y, error = x / scale, y / scale, error / scale  # squares of large numbers overflow
    signal, power = float(x @ x), float(error @ error)
    lengths = np.sqrt(signal) * np.sqrt(float(y @ y))
    cosine = float(x @ y) / lengths if lengths else 0.0
    with np.errstate(divide="ignore"):
        sqnr = 10 * np.log10(signal / power) if power else np.inf
        psnr = 10 * np.log10(float(np.abs(x).max()) ** 2 * x.size / power) if power else np.inf
    return float(np.clip(cosine, -1, 1)), float(sqnr), float(psnr)


def worst(several: Sequence[Statistics | None]) -> Statistics | None:
    """Return of each measure the worst value, of the trials that have one."""
    known = [one for one in several if one is not None]
    if not known:
        return None
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Statistics):
        numbers = [getattr(one, field.name) for one in known]
        numbers = [number for number in numbers if number is not None]
        choose = min if field.name in LIKENESSES else max
        values[field.name] = choose(numbers, default=None)
    return Statistics(**values)
