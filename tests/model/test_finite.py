"""NaN and infinity are seen by their bits, in every type of floats, wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.model import finite
from onnx_net2net.model.finite import is_always_finite, is_finite
from onnx_net2net.model.model import Computed, load

TYPES: list[np.dtype[Any]] = sorted(
    {
        np.dtype(helper.tensor_dtype_to_np_dtype(kind))
        for kind in TensorProto.DataType.values()
        if kind not in (TensorProto.UNDEFINED, TensorProto.STRING)
    },
    key=str,
)


def codes(dtype: np.dtype[Any]) -> np.ndarray:
    """All numbers of a type where they are few, else random bits: one in 250 at least is none."""
    if dtype.itemsize == 1:
        return np.arange(2 if dtype.kind == "b" else 256, dtype=np.uint8).view(dtype)
    bits = np.random.default_rng(0).integers(0, 256, 16 << 10, np.uint8)
    return np.concatenate([bits.view(dtype), np.array([0, 1, -1], np.int8).astype(dtype)])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_number_is_told_by_its_bits(dtype: np.dtype[Any]) -> None:
    numbers = codes(dtype)
    with np.errstate(invalid="ignore"):  # signalling ones are heard of
        always = is_always_finite(dtype)
        known = np.ones(len(numbers), bool) if always else np.isfinite(numbers)
    assert is_finite(numbers[known]) and is_finite(numbers[:0])
    assert all(
        is_finite(number[None]) == whole for number, whole in zip(numbers, known, strict=True)
    )
    assert always == (dtype.kind in "biu" or "int" in dtype.name or known.all())


@pytest.mark.parametrize("dtype", [t for t in TYPES if not is_always_finite(t)], ids=str)
def test_one_number_anywhere_is_seen(dtype: np.dtype[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "_BLOCK", 8)
    numbers = codes(dtype)
    with np.errstate(invalid="ignore"):
        wrong = numbers[~np.isfinite(numbers)]
    for place in range(21):
        array = np.ones((3, 7), np.float32).astype(dtype)
        array.flat[place] = wrong[place % len(wrong)]
        assert not is_finite(array)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
def test_the_digest_of_a_model_tells_of_its_weights(
    external: bool, value: float, tmp_path: Path
) -> None:
    weight = np.ones((300, 400), np.float16)
    weight[299, 399] = value
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 10, [1, 300])],
        [helper.make_tensor_value_info("y", 10, [1, 400])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx", save_as_external_data=external)
    model = load(tmp_path / "m.onnx")
    model.sha256()
    twin = model.weights["w"].renamed("other")
    object.__setattr__(twin, "chunks", None)  # it is not read again
    assert twin.is_finite() == np.isfinite(value)
    assert Computed("w", 10, weight.shape, lambda: weight).is_finite() == np.isfinite(value)
