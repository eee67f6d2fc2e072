"""Weights that stay as they are go from file to file in the system, however well that can copy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.errors import InvalidModel
from onnx_net2net.model import reading

Copier = Callable[[int, int, int, int], int]


def refuse(*_: int) -> int:
    raise OSError(errno.EXDEV, "not between these")


def end_at_once(*_: int) -> int:
    return 0


def stop_half_way() -> Iterator[Copier]:
    """Copy ten bytes, twice; then no more."""
    left = [10, 10]

    def copy(out: int, file: int, start: int, _: int) -> int:
        return os.write(out, os.pread(file, left.pop(), start)) if left else refuse()

    return copy


WAYS: dict[str, Callable[[], list[Copier]]] = {
    "as it can": lambda: reading._COPIERS,
    "the second": lambda: [refuse, *reading._COPIERS[1:]],
    "read and written": list,
    "refused": lambda: [refuse, refuse],
    "nothing": lambda: [end_at_once],
    "a part": lambda: [stop_half_way(), stop_half_way()],
}


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Five layers, in one file or with external data."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.random((48, 48), np.float32), f"w{i}") for i in range(5)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(5)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 48])],
        [helper.make_tensor_value_info("x5", TensorProto.FLOAT, [1, 48])],
        weights,
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx", save_as_external_data=request.param)
    return tmp_path / "m.onnx"


both = pytest.mark.parametrize("source", [False, True], indirect=True, ids=["one", "external"])


def written(source: Path, name: str) -> dict[str, bytes]:
    """Grow one layer and write it; return the bytes of each file."""
    folder = source.parent / name
    folder.mkdir()
    n2n.widen(source, {"x2": 60}).save(folder / "grown.onnx")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@both
@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes_whatever_the_system_can(
    way: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(source, "expected")
    monkeypatch.setattr(reading, "_COPIERS", WAYS[way]())
    assert written(source, "other") == expected
    grown = onnx.load(source.parent / "other" / "grown.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in grown.graph.initializer}
    for tensor in onnx.load(source).graph.initializer:
        if tensor.name not in ("w1", "w2"):
            assert (arrays[tensor.name] == numpy_helper.to_array(tensor)).all()


@both
def test_neighbours_are_copied_at_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untouched are w0, and behind the two that grow w3 and w4."""
    copied: list[int] = []

    def copy(out: int, file: int, start: int, most: int) -> int:
        copied.append(most)
        return os.write(out, os.pread(file, most, start))

    monkeypatch.setattr(reading, "_COPIERS", [copy])
    written(source, "grown")
    one, header = 48 * 48 * 4, 64
    assert one <= copied[0] < one + header and 2 * one <= copied[1] < 2 * one + header
    assert len(copied) == 2


def test_what_lies_between_may_differ(tmp_path: Path) -> None:
    """Of the same size as in the source, but another name."""
    for source in (False, True):
        weights = [
            numpy_helper.from_array(np.full((40, 40), i, np.float32), f"w{i}") for i in (0, 1)
        ]
        nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in (0, 1)]
        ends = [helper.make_tensor_value_info(name, 1, [1, 40]) for name in ("x0", "x2")]
        model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=source)
        model = n2n.load(tmp_path / "m.onnx")
        proto = model.editable()
        proto.graph.initializer[1].name = proto.graph.node[1].input[1] = "v1"
        model.with_changes(proto, {"v1": model.weights["w1"]}).save(tmp_path / "out.onnx")
        renamed = onnx.load(tmp_path / "out.onnx").graph.initializer[1]
        assert renamed.name == "v1" and (numpy_helper.to_array(renamed) == 1).all()


@both
def test_a_file_that_changes_meanwhile_is_noticed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = n2n.widen(source, {"x2": 60})
    (data,) = n2n.load(source).files - ({source} if len(n2n.load(source).files) > 1 else set())

    def copy(out: int, file: int, start: int, most: int) -> int:
        with open(data, "r+b") as other:
            other.seek(start)
            other.write(b"\0")
        return os.write(out, os.pread(file, most, start))

    monkeypatch.setattr(reading, "_COPIERS", [copy])
    before = set(source.parent.iterdir())
    with pytest.raises(InvalidModel, match="was changed by another program"):
        grown.save(source.parent / "grown.onnx")
    assert set(source.parent.iterdir()) == before
