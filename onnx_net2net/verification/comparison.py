"""Are two arrays equal, up to the rounding noise of the model that made them?

>>> noise = [np.abs(double - single)]                    # one array per trial
>>> limits = tolerances([single], noise)
>>> compare(single, other, limits[0]).problem is None
True

For every element of an output,

    tolerance = FACTOR * noise + FLOOR * eps * size + grid

where *noise* is how far the model's own re-runs lie apart (unoptimised against optimised, float64,
inputs and weights moved by one ulp both ways, functions as inexact as their kernels), *grid* is
the grid or the flush to zero of the smallest numbers, *eps* is that of the output's type, and
*size* the magnitude of the output. Noise and size are the largest value over the elements: per
index of an axis where at least POOL elements share the index (so that scores in [0, 1] beside boxes
in pixels keep their own scale), otherwise over the whole output and all trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from onnx_net2net.verification.statistics import Statistics

NOISE = "rounding noise"
FACTOR = 5.0
FLOOR = 1.0
POOL = 64
# Whole-number outputs (an argmax, a mask) may flip where the model's own re-runs flip.
FLIPS = 4
MOST_FLIPS = 0.5  # of all elements: where more may differ, anything would do


@dataclass(kw_only=True)
class Difference:
    """How far apart one output of two models is, and what is wrong, if anything.

    ``max_abs`` and ``max_rel`` are the largest difference, the latter relative to the largest
    element of the output; ``tolerance`` is what was allowed there, by the ``rule`` that held:
    rounding noise, ``rtol``, ``atol`` or both. ``used`` is the largest difference counted in
    tolerances (above 1 is a problem). ``top1`` is the share of equal best classes, or
    None where the output does not look like class scores. ``statistics`` are None where no element
    could be compared.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    tolerance: float = 0.0
    rule: str = NOISE
    used: float = 0.0
    top1: float | None = None
    problem: str | None = None
    warnings: list[str] = field(default_factory=list)
    statistics: Statistics | None = None


def epsilon(dtype: np.dtype) -> float:
    """Return the relative distance of neighbouring numbers of a float type, 0 for other types."""
    known = dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))  # ml_dtypes: kind V
    return float(ml_dtypes.finfo(dtype).eps) if known else 0.0


def is_float(dtype: np.dtype) -> bool:
    """Return whether it is a float type, bfloat16 and float8 included, which NumPy leaves out."""
    return epsilon(dtype) > 0


def wide(array: np.ndarray) -> np.ndarray:
    """Return it as float64 where it holds numbers, those of ml_dtypes included."""
    return array if array.dtype.kind in "OUSMmc" else array.astype(np.float64)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Return |a - b| in float64, 0 where either is not finite; None if they are not comparable.

    For whole numbers 1 where they differ.
    """
    if a.shape != b.shape or is_float(a.dtype) != is_float(b.dtype):
        return None
    if not is_float(a.dtype):
        return np.asarray(a != b, np.float64)
    return apart(a, b)


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a - b| in float64, 0 where either is not finite."""
    if a.dtype.kind in "iu":  # float64 does not know all 64-bit numbers, but their distances
        between = np.maximum(a, b) - np.minimum(a, b)
        return np.asarray(between.view(f"u{between.itemsize}"), np.float64)
    left, right = wide(a), wide(b)
    finite = np.isfinite(left) & np.isfinite(right)
    with np.errstate(invalid="ignore"):
        return np.where(finite, np.abs(left - right), 0.0)


def larger(noise: np.ndarray, more: np.ndarray | None) -> np.ndarray:
    """Return the elementwise larger noise, of the measurements that can be used."""
    return noise if more is None or more.shape != noise.shape else np.maximum(noise, more)


def pooled(values: np.ndarray, overall: float) -> np.ndarray:
    """Return an upper limit of every element, from those that share an index with it."""
    limit = np.full((1,) * values.ndim, overall)
    for axis, size in enumerate(values.shape):
        if size > 1 and values.size // size >= POOL:
            others = tuple(i for i in range(values.ndim) if i != axis)
            limit = np.minimum(limit, values.max(axis=others, keepdims=True))
    return limit


def largest(arrays: Sequence[np.ndarray]) -> float:
    """Return the largest element of all arrays, 0 if there is none."""
    return max((float(array.max(initial=0.0)) for array in arrays), default=0.0)


def magnitude(array: np.ndarray) -> np.ndarray:
    """Return |array| with 0 in place of NaN and infinity."""
    values = np.abs(wide(array))
    return np.where(np.isfinite(values), values, 0.0)


def tolerances(
    expected: Sequence[np.ndarray],
    noise: Sequence[np.ndarray],
    factor: float = FACTOR,
    unit: float | None = None,
) -> list[np.ndarray]:
    """Return the tolerance of every element (broadcastable), one array per trial.

    For whole numbers: the share of elements that may differ. ``unit`` is the eps of the coarser
    type, where the other model has one.
    """
    if not all(is_float(array.dtype) for array in expected):
        share = max((float(n.mean()) for n in noise if n.size), default=0.0)
        return [np.array(FLIPS * share) for _ in expected]
    sizes = [magnitude(array) for array in expected]
    top_noise, top_size = largest(noise), largest(sizes)
    return [
        factor * pooled(n, top_noise)
        + FLOOR * (unit or epsilon(y.dtype)) * pooled(size, top_size)
        + grid(y.dtype)
        for y, n, size in zip(expected, noise, sizes, strict=True)
    ]


def grid(dtype: np.dtype) -> float:
    """Return below what numbers are rounded to a grid, or to 0 by processors that flush them."""
    info, single = ml_dtypes.finfo(dtype), np.finfo(np.float32)
    return max(float(info.smallest_subnormal), min(float(info.tiny), float(single.tiny)))


def compare(
    expected: np.ndarray,
    actual: np.ndarray,
    tolerance: np.ndarray,
    rtol: float | None = None,
    atol: float | None = None,
    *,
    cast: bool = False,
) -> Difference:
    """Judge one output of one trial, by a tolerance that :func:`tolerances` returned.

    The user's ``rtol`` or ``atol`` alone widens it where it is larger, both together replace it by
    atol + rtol * abs(expected), as ``numpy.allclose`` has it. ``cast`` permits another precision.
    """
    inexact = is_float(expected.dtype)
    alike = cast and (expected.dtype.kind, inexact) == (actual.dtype.kind, is_float(actual.dtype))
    if expected.dtype != actual.dtype and not alike:
        return Difference(problem=f"its type is {actual.dtype}, not {expected.dtype}")
    if expected.shape != actual.shape:
        return Difference(problem=f"its shape is {actual.shape}, not {expected.shape}")
    stated = [name for name, value in (("rtol", rtol), ("atol", atol)) if value is not None]
    if not inexact:
        exact = _compare_exact(expected, actual, tolerance)
        decided = exact.problem is None and len(stated) < 2
        if decided or not stated or expected.dtype.kind in "OUS":
            return exact
    elif not stated:
        return _compare_near(expected, actual, tolerance, NOISE)
    own = (atol or 0.0) + (rtol or 0.0) * magnitude(expected)
    if len(stated) == 2 or not inexact:
        return _compare_near(expected, actual, own, " and ".join(stated))
    noise = np.broadcast_to(tolerance, own.shape)
    rule = np.where(own > noise, stated[0], NOISE)
    return _compare_near(expected, actual, np.maximum(own, noise), rule)


def _compare_near(
    expected: np.ndarray, actual: np.ndarray, tolerance: np.ndarray, rule: str | np.ndarray
) -> Difference:
    left, right = wide(expected), wide(actual)
    problem, warnings = _compare_not_finite(left, right)
    error = apart(expected, actual)
    limit = np.broadcast_to(tolerance, error.shape)
    used = np.where(error > limit, np.inf, 0.0)
    np.divide(error, limit, out=used, where=limit > 0)
    at = int(np.argmax(error)) if error.size else 0
    if (used > 1).any():
        # The worst by its own measure, which need not be the largest difference.
        at = int(np.argmax(used))
    rules = np.broadcast_to(rule, error.shape)
    held = str(rules.flat[at]) if error.size else NOISE
    if problem is None and (used > 1).any():
        problem = (
            f"{int((used > 1).sum())} of {left.size} elements differ by more than {held}, worst"
            f"{_place(left.shape, at)}: {right.flat[at]:.7g} instead of {left.flat[at]:.7g} "
            f"(difference {abs(left.flat[at] - right.flat[at]):.3g}, "
            f"tolerance {limit.flat[at]:.3g})"
        )
    max_abs = float(error.max(initial=0.0))
    return Difference(
        max_abs=max_abs,
        max_rel=relative(max_abs, expected),
        tolerance=float(limit.flat[at]) if limit.size else 0.0,
        rule=held,
        used=float(used.max(initial=0.0)),
        top1=top1_agreement(left, right),
        problem=problem,
        warnings=warnings,
    )


def relative(max_abs: float, expected: np.ndarray) -> float:
    """Return the difference relative to the largest element."""
    size = float(magnitude(expected).max(initial=0.0))
    if size == 0:
        return 0.0 if max_abs == 0 else float("inf")
    return max_abs / size


def _compare_exact(expected: np.ndarray, actual: np.ndarray, share: np.ndarray) -> Difference:
    differ = expected != actual
    count, allowed = int(differ.sum()), min(float(share), MOST_FLIPS) * differ.size
    problem, warnings = None, []
    if count > allowed:
        at = int(np.argmax(differ))
        place = _place(differ.shape, at)
        problem = (
            f"{count} of {differ.size} elements differ, first{place}: "
            f"{actual.flat[at]} instead of {expected.flat[at]}"
        )
    elif count:
        warnings.append(
            f"{count} of {differ.size} whole numbers differ; up to {int(allowed)} may, "
            "for they flip between runs of the first model too"
        )
    max_abs = 0.0
    if count and expected.dtype.kind in "iub":
        max_abs = float(apart(expected, actual).max())
    used = count / allowed if allowed else float("inf") if count else 0.0
    max_rel = relative(max_abs, expected) if max_abs else 0.0
    return Difference(
        max_abs=max_abs, max_rel=max_rel, used=used, problem=problem, warnings=warnings
    )


def _compare_not_finite(left: np.ndarray, right: np.ndarray) -> tuple[str | None, list[str]]:
    for name, a, b in (
        ("NaN", np.isnan(left), np.isnan(right)),
        (
            "infinite",
            np.isposinf(left) * 1 - np.isneginf(left),
            np.isposinf(right) * 1 - np.isneginf(right),
        ),
    ):
        if (a != b).any():
            at = int(np.argmax(a != b))
            return (
                f"{int((a != b).sum())} of {a.size} elements are {name} in one model only, "
                f"first{_place(a.shape, at)}: {right.flat[at]} instead of {left.flat[at]}"
            ), []
    bad = int((~np.isfinite(left)).sum())
    warning = f"{bad} of {left.size} elements are NaN or infinite in both models"
    return None, [warning] if bad else []


def _place(shape: tuple[int, ...], at: int) -> str:
    """Say where the at-th element stands: `` at [0, 3]``, nothing for a single number."""
    return f" at {[int(i) for i in np.unravel_index(at, shape)]}" if shape else ""


def top1_agreement(left: np.ndarray, right: np.ndarray) -> float | None:
    """Return the share of places with the same best class; None if these are no class scores.

    Classes lie on the last axis of (batch, classes) and (batch, time, classes), and on axis 1
    of images and volumes.
    """
    if left.ndim < 2 or left.size == 0:
        return None
    axis = left.ndim - 1 if left.ndim <= 3 else 1
    if left.shape[axis] < 2:
        return None
    return float(np.mean(left.argmax(axis) == right.argmax(axis)))


def signal(expected: Sequence[np.ndarray]) -> float:
    """Return how much an output changes with the input.

    That is the largest change between trials of one shape, or within an output where no two trials
    share a shape.
    """
    values = [np.where(np.isfinite(wide(y)), wide(y), 0.0) for y in expected]
    same = [
        float(np.abs(y - z).max(initial=0.0))
        for i, y in enumerate(values)
        for z in values[:i]
        if y.shape == z.shape
    ]
    return max(same or [float(np.ptp(y)) if y.size else 0.0 for y in values], default=0.0)
