"""New contents: computed as they are written, by name, the source untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import Net2NetError
from onnx_net2net.model.model import Computed, Model, load
from tests.small_models import (
    DTYPES,
    dense,
    proto_of,
    random_array,
)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source.onnx"
    onnx.save(dense(), path)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before, "the source was written to"


def widened(model: Model, rows: int = 50) -> Model:
    """The dense model with ``rows`` rows in its weight, and a bias cloned under a new name."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    clone = proto.graph.initializer.add()
    clone.name = "b_clone"
    old = model.weights["w"]

    def grow() -> np.ndarray:
        return np.pad(old.array(), ((0, rows - 40), (0, 0)), mode="edge")

    changes = {"w": Computed("w", old.dtype, (rows, 30), grow), "b_clone": model.weights["b"]}
    return model.with_changes(proto, changes, ["w wider"])


def test_changes_give_a_new_model(saved: Path, tmp_path: Path) -> None:
    model = load(saved)
    before = model.to_bytes()
    grown = widened(model)
    assert grown.changes == ["w wider"] and grown.path is None
    assert list(grown.proto.graph.initializer[0].dims) == [50, 30]
    written = onnx.load(grown.save(tmp_path / "grown.onnx"))
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in written.graph.initializer}
    expected = np.pad(random_array(1, (40, 30)), ((0, 10), (0, 0)), mode="edge")
    np.testing.assert_array_equal(arrays["w"], expected)
    np.testing.assert_array_equal(arrays["b_clone"], np.arange(30, dtype=np.float32))
    np.testing.assert_array_equal(arrays["b"], np.arange(30, dtype=np.float32))
    assert model.to_bytes() == before, "the model was changed in place"
    written_bytes = (tmp_path / "grown.onnx").read_bytes()
    assert grown.to_bytes() == written_bytes
    assert grown.sha256() == hashlib.sha256(written_bytes).hexdigest() != model.sha256()
    assert load(grown.to_bytes()).to_bytes() == written_bytes


def test_changes_can_be_stacked(saved: Path) -> None:
    first = widened(load(saved))
    proto = onnx.ModelProto()
    proto.CopyFrom(first.proto)
    doubled = Computed("w", 1, (50, 30), lambda: first.weights["w"].array() * np.float32(2))
    second = first.with_changes(proto, {"w": doubled})
    np.testing.assert_array_equal(second.weights["w"].array(), first.weights["w"].array() * 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=TensorProto.DataType.Name)
def test_computed_contents_of_every_type(dtype: int) -> None:
    model = load(dense(dtype, (67, 71)))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    values = random_array(dtype, (71, 67), seed=1)
    # A transposed view, so that contents in another memory order are covered too.
    grown = model.with_changes(proto, {"w": Computed("w", dtype, (67, 71), lambda: values.T)})
    found = numpy_helper.to_array(onnx.ModelProto.FromString(grown.to_bytes()).graph.initializer[0])
    assert found.dtype == values.dtype and found.tobytes() == values.T.tobytes()


def test_computed_is_called_when_written_and_not_kept() -> None:
    calls = []

    def fn() -> np.ndarray:
        calls.append(1)
        return random_array(1, (40, 30))

    model = load(dense())
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    grown = model.with_changes(proto, {"w": Computed("w", 1, (40, 30), fn)})
    assert not calls
    grown.to_bytes()
    grown.weights["w"].array()
    assert len(calls) == 2


def test_small_computed_contents_are_in_the_skeleton() -> None:
    """Shape inference of the grown model needs to see them."""
    model = load(dense())
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    shape = Computed("shape", TensorProto.INT64, (2,), lambda: np.array([-1, 45]))
    grown = model.with_changes(proto, {"shape": shape})
    np.testing.assert_array_equal(numpy_helper.to_array(grown.proto.graph.initializer[2]), [-1, 45])


@pytest.mark.parametrize(
    "wrong", [np.zeros((40, 31), np.float32), np.zeros((40, 30)), np.zeros(1200, np.float32)]
)
def test_contents_other_than_declared_are_refused(wrong: np.ndarray, tmp_path: Path) -> None:
    model = load(dense())
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    grown = model.with_changes(proto, {"w": Computed("w", 1, (40, 30), lambda: wrong)})
    with pytest.raises(
        Net2NetError, match=r"w: computed contents .* declared were float32 \(40, 30\)"
    ):
        grown.save(tmp_path / "grown.onnx")
    assert not list(tmp_path.iterdir())


def test_constants_and_subgraphs_can_be_changed() -> None:
    make = helper.make_node
    inner = helper.make_graph(
        [make("Identity", ["k"], ["o"])], "body", [], [helper.make_tensor_value_info("o", 1, None)],
        initializer=[helper.make_tensor("k", 1, [1], [3.0])],
    )  # fmt: skip
    empty = helper.make_graph([], "empty", [], [])
    model = load(
        proto_of(
            nodes=[
                make("Constant", [], ["c"], value_floats=[1.0, 2.0]),
                make("If", ["c"], ["z"], then_branch=inner, else_branch=empty),
            ]
        )
    )  # fmt: skip
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    new = {
        "c": Computed("c", 1, (3,), lambda: np.float32([4, 5, 6])),
        "k": Computed("k", 1, (2,), lambda: np.float32([7, 8])),
    }
    grown = load(model.with_changes(proto, new).to_bytes())
    assert grown.weights["c"].array().tolist() == [4, 5, 6]
    assert grown.weights["k"].array().tolist() == [7, 8]
    assert model.weights["c"].array().tolist() == [1, 2]


def test_contents_without_a_place_are_an_error() -> None:
    model = load(dense())
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    with pytest.raises(KeyError, match="nowhere"):
        model.with_changes(proto, {"nowhere": model.weights["w"]})
    proto.graph.initializer.add(name="empty", data_type=1, dims=[3])
    with pytest.raises(KeyError, match="empty"):
        model.with_changes(proto, {})


def test_initializers_can_be_removed_and_renamed() -> None:
    model = load(dense())
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.initializer[0].name = "renamed"
    del proto.graph.initializer[1]
    grown = load(model.with_changes(proto, {"renamed": model.weights["w"]}).to_bytes())
    assert list(grown.weights) == ["renamed", "shape"]
    np.testing.assert_array_equal(grown.weights["renamed"].array(), model.weights["w"].array())


def test_typed_contents_can_be_shared_under_another_name() -> None:
    values = np.arange(500)
    model = load(proto_of(helper.make_tensor("w", TensorProto.INT64, [500], values)))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.initializer.add(name="twin")
    grown = load(model.with_changes(proto, {"twin": model.weights["w"]}).to_bytes())
    np.testing.assert_array_equal(grown.weights["twin"].array(), values)
    np.testing.assert_array_equal(grown.weights["w"].array(), values)
