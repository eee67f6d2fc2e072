"""Source maps and shares, on arrays alone."""

from __future__ import annotations

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
    share_copies,
    shares,
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


def split_copies(
    array: np.ndarray, axis: int, source: np.ndarray, split: str = "project", **options: Any
) -> np.ndarray:
    gathered = gather(array, axis, source)
    return share_copies(gathered, axis, source, split=split, **{"noise": 0.01, "seed": 0} | options)


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
    assert np.allclose(np.bincount(source, shares(source, seed=1)), 1)


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


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("split", ["project", "even"])
def test_copies_add_up(split: str, shape: tuple[int, ...], dtype: Any, block: int) -> None:
    array = normal(shape, dtype)
    unit = float(ml_dtypes.finfo(dtype).eps)
    for axis, width in enumerate(shape):
        for new in (width, width + 1, 2 * width + 1, 5 * width):
            source = draw(width, new, seed=0)
            found = split_copies(array, axis, source, split=split, seed=7)
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


def test_random_parts_have_the_scale_of_their_unit(block: int) -> None:
    array = normal((6, 4000)) * np.array([1, 2, 4, 8, 16, 0], np.float32)[:, None]
    found = split_copies(array, 0, draw(6, 12, seed=0), seed=0)
    for unit in range(5):
        difference = (found[unit] - array[unit] / 2).std()
        assert 0.2 < difference / array[unit].std() < 0.3  # half of AMPLITUDE
    assert found[5].std() > 0  # units without weights part as well


def test_noise_is_relative(block: int) -> None:
    array = normal((6, 4000)) + 3
    source = draw(6, 18, seed=0)
    found = split_copies(array, 0, source, split="noise", noise=0.02, seed=0)
    relative = found * 3 / array[source]
    assert abs(relative.mean() - 1) < 1e-3 and 0.018 < relative.std() < 0.022


def test_the_seed_decides() -> None:
    array, source = normal((30, 40)), draw(40, 70, seed=0)
    first = split_copies(array, 1, source, seed=[1, 2])
    assert (first == split_copies(array, 1, source, seed=[1, 2])).all()
    assert (first != split_copies(array, 1, source, seed=[1, 3])).any()


def test_the_source_is_never_written_to() -> None:
    array = normal((30, 40))
    array.flags.writeable = False
    source = np.array([*draw(40, 70, seed=0), PAD])
    random_pads(split_copies(array, 1, source), 1, source, 0)
    assert (array == normal((30, 40))).all()


def test_several_axes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "PIECE", 100)
    array = normal((9, 4, 6))
    sources = {0: draw(9, 14, seed=0), 2: np.array([0, 1, 2, 3, 4, 5, 5, 0, 1])}
    found = gather_axes(array, sources)
    assert (found == np.take(np.take(array, sources[0], 0), sources[2], 2)).all()
