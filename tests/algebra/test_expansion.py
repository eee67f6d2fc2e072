"""Source maps and shares, on arrays alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_net2net.algebra import expansion
from onnx_net2net.algebra.expansion import (
    PAD,
    draw,
    gather,
    gather_axes,
    multiplicity,
    random_pads,
    scale_axis,
    share_copies,
    shares,
    shuffle_units,
)

TYPES: list[Any] = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SHAPES = [(5, 7, 3), (5, 1, 1), (1, 5, 6), (40, 5, 50)]


@pytest.fixture(params=[1 << 18, 64])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Arrays in one piece, and in many."""
    monkeypatch.setattr(expansion, "BLOCK", request.param)
    return int(request.param)


def normal(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def split_copies(array: np.ndarray, axis: int, source: np.ndarray, **options: Any) -> np.ndarray:
    return share_copies(gather(array, axis, source), axis, source, **{"seed": 0} | options)


def summed(array: np.ndarray, axis: int, source: np.ndarray, width: int) -> np.ndarray:
    """Copies added up, in float64."""
    result = np.zeros((*array.shape[:axis], width, *array.shape[axis + 1 :]))
    for place, unit in enumerate(source):
        if unit != PAD:
            result[(slice(None),) * axis + (unit,)] += np.take(array, place, axis).astype(float)
    return result


@given(st.integers(1, 40), st.integers(0, 100), st.sampled_from(["random", "round-robin"]))
def test_sources(width: int, more: int, mapping: str) -> None:
    source = draw(width, width + more, seed=3, mapping=mapping)
    assert (source[:width] == np.arange(width)).all() and len(source) == width + more
    counts = np.bincount(source, minlength=width)
    assert counts.max() - counts.min() <= 1
    assert (multiplicity(source) == counts[source]).all()
    for amplitude in (0, 1, 10):
        parts = shares(source, seed=1, amplitude=amplitude)
        assert np.allclose(np.bincount(source, parts), 1)
        assert (parts * counts[source] > 1 / 3).all(), "none is near zero"
        assert amplitude or np.allclose(parts * counts[source], 1, rtol=1e-15)


@pytest.mark.parametrize(
    "source", [[0, 1, 2, 3, 4, 1, 1], [4, 3, 0, 0, 2], [0, 1, 2], [3], list(range(5))]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_is_take(axis: int, source: list[int]) -> None:
    array = normal((5, 6, 7))
    found = gather(array, axis, np.array(source))
    assert (found == np.take(array, source, axis)).all()
    assert found.flags.c_contiguous and not np.shares_memory(found, array)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pads(dtype: Any, axis: int, block: int) -> None:
    array = normal((5, 6, 7), dtype)
    width = array.shape[axis]
    source = np.array([*range(width), PAD, PAD])
    weights = np.random.default_rng(1).random(width)
    expected = np.tensordot(array.astype(float), weights, (axis, 0)).astype(dtype)
    found = np.take(gather(array, axis, source, weights), [width, width + 1], axis)
    tolerance = 1e-12 if dtype == np.float64 else 1e-6 if dtype == np.float32 else 1e-2
    for place in (0, 1):
        np.testing.assert_allclose(
            np.take(found, place, axis).astype(float), expected.astype(float), tolerance, tolerance
        )
    assert (np.take(gather(array, axis, source, 1.5), width, axis) == 1.5).all()
    padded = random_pads(gather(array, axis, source), axis, source, 0)
    fresh = np.take(padded, [width, width + 1], axis).astype(float)
    assert (np.take(padded, np.arange(width), axis) == array).all()
    assert 0.5 < fresh.std() / array.astype(float).std() < 1.5
    assert len(np.unique(fresh)) > fresh.size * 0.5


@pytest.mark.parametrize("dtype", [*TYPES, np.int8, bool])
def test_shuffled_units_have_the_same_numbers(dtype: Any) -> None:
    array = (normal((5, 6, 7)) * 9 if dtype is not bool else normal((5, 6, 7)) > 0).astype(dtype)
    for axis in range(3):
        found = shuffle_units(array.copy(), axis, np.array([1, 4]), [0, 1])
        for unit in range(array.shape[axis]):
            before, after = (np.take(a, unit, axis).astype(float) for a in (array, found))
            assert (before == after).all() == (unit not in (1, 4))
            assert (np.sort(before, None) == np.sort(after, None)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("amplitude", [0, 1])
def test_copies_add_up(amplitude: float, shape: tuple[int, ...], dtype: Any, block: int) -> None:
    array = normal(shape, dtype)
    unit = float(ml_dtypes.finfo(dtype).eps)
    for axis, width in enumerate(shape):
        for new in (width, width + 1, 2 * width + 1, 5 * width):
            source = draw(width, new, seed=0)
            found = split_copies(array, axis, source, amplitude=amplitude, seed=7)
            assert found.dtype == array.dtype
            near = np.abs(summed(found, axis, source, width) - array.astype(float)).max()
            assert near <= 2 * unit * np.abs(array.astype(float)).max()


def test_copies_of_uneven_number_in_any_order() -> None:
    source = np.array([2, 0, 2, PAD, 1, 2, 0, 3, 2])
    array = normal((4, 3))
    found = split_copies(array, 0, source, seed=0)
    np.testing.assert_allclose(summed(found, 0, source, 4), array, atol=1e-6)
    assert (found[7] == array[3]).all() and (found[4] == array[1]).all()
    assert len(np.unique(found[[0, 2, 5, 8]])) == 12


def test_a_wrong_share_is_noticed() -> None:
    source = draw(5, 8, seed=0)
    array = normal((5, 7))
    found = split_copies(array, 0, source, seed=0)
    found[6] *= 1.01
    assert np.abs(summed(found, 0, source, 5) - array).max() > 1e-4


@pytest.mark.parametrize("amplitude", [0.5, 1, 3])
@pytest.mark.parametrize("copies", [2, 3, 5])
def test_every_share_has_the_scale_of_a_fresh_layer(
    copies: int, amplitude: float, block: int
) -> None:
    """No copy is special: all have the same deviation, and any two the same correlation."""
    scales = np.array([1, 2, 4, 8, 16], np.float32)
    array = normal((5, 40_000)) * scales[:, None]
    source = draw(5, 5 * copies, seed=0)
    parts = split_copies(array, 0, source, amplitude=amplitude)
    for unit, sigma in enumerate(scales):
        own = parts[source == unit].astype(float)
        whole, between = 1 / copies**2, amplitude**2 / copies  # variances, for sigma 1
        expected = np.full((copies, copies), whole - between / copies) + np.eye(copies) * between
        np.testing.assert_allclose(np.cov(own) / sigma**2, expected, atol=0.04 * (whole + between))
        if amplitude == 1:
            np.testing.assert_allclose(own.std(axis=1), sigma / np.sqrt(copies), rtol=0.02)
            kurtosis = ((own / own.std(axis=1, keepdims=True)) ** 4).mean(axis=1)
            np.testing.assert_allclose(kurtosis, 3, atol=0.2)


def test_units_without_weights_part_as_well() -> None:
    array = normal((6, 4000)) * np.array([1, 2, 4, 8, 16, 0], np.float32)[:, None]
    source = draw(6, 12, seed=0)
    assert split_copies(array, 0, source)[5].std() > 1


@pytest.mark.parametrize("dtype", TYPES)
def test_shares_of_the_largest_numbers_are_finite(dtype: Any) -> None:
    array = np.full((4, 500), ml_dtypes.finfo(dtype).max, dtype)
    array[1] *= -1
    with np.errstate(over="raise", invalid="raise"):
        parts = split_copies(array, 0, draw(4, 12, seed=0), amplitude=10)
    assert np.isfinite(parts.astype(float)).all()


@pytest.mark.parametrize("power", [-36, 25])
def test_scales_whose_squares_are_no_numbers(power: int) -> None:
    array = normal((4, 500)) * np.float32(10.0**power)
    parts = split_copies(array, 0, draw(4, 8, seed=0))
    assert 0.6 < parts.astype(float).std() / array.astype(float).std() < 0.8


def test_noise_is_relative(block: int) -> None:
    array = normal((6, 4000)) + 3
    source = draw(6, 18, seed=0)
    found = split_copies(array, 0, source, noise=0.02)
    relative = found * 3 / array[source]
    assert abs(relative.mean() - 1) < 1e-3 and 0.018 < relative.std() < 0.022


def test_the_seed_decides() -> None:
    array, source = normal((30, 40)), draw(40, 70, seed=0)
    first = split_copies(array, 1, source, seed=[1, 2])
    assert (first == split_copies(array, 1, source, seed=[1, 2])).all()
    assert (first != split_copies(array, 1, source, seed=[1, 3])).any()


def in_reverse(places: Iterable[Any], work: Callable[..., Any]) -> list[Any]:
    numbered = [*enumerate(places)]
    assert len(numbered) > 3
    return [work(number, *place) for number, place in reversed(numbered)][::-1]


DRAWN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "project": lambda a, source: share_copies(a, 1, source, seed=[0, 1]),
    "noise": lambda a, source: share_copies(a, 1, source, noise=0.1, seed=0),
    "pads": lambda a, source: random_pads(a, 1, source, 3),
    "scale": lambda a, source: scale_axis(a, 1, np.linspace(0, 1, len(source))),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", DRAWN)
def test_the_same_bytes_for_any_number_of_threads(
    kind: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "BLOCK", 64)
    source = np.array([*draw(40, 70, seed=0), PAD, PAD])

    def drawn() -> bytes:
        return DRAWN[kind](gather(normal((30, 40, 5), dtype), 1, source), source).tobytes()

    results = set()
    for threads in (1, 2, 7):
        monkeypatch.setattr(expansion, "THREADS", threads)
        results.add(drawn())
    monkeypatch.setattr(expansion, "_each", in_reverse)
    assert results == {drawn()}


def test_each_block_draws_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "BLOCK", 100)
    parts = split_copies(np.ones((50, 10)), 1, draw(10, 20, seed=0))
    assert len(np.unique(parts)) == parts.size


def test_the_source_is_never_written_to() -> None:
    array = normal((30, 40))
    array.flags.writeable = False
    source = np.array([*draw(40, 70, seed=0), PAD])
    random_pads(split_copies(array, 1, source), 1, source, 0)
    assert (array == normal((30, 40))).all()


def test_several_axes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "BLOCK", 100)
    array = normal((9, 4, 6))
    sources = {0: draw(9, 14, seed=0), 2: np.array([0, 1, 2, 3, 4, 5, 5, 0, 1])}
    found = gather_axes(array, sources)
    assert (found == np.take(np.take(array, sources[0], 0), sources[2], 2)).all()
