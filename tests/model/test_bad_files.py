"""What is no model gives one clear error: problem, place, remedy."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import Model, load
from onnx_net2net.model.wire import WireError, fields
from tests.small_models import (
    big_weight,
    refusal,
    small_model,
    with_initializer,
)


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    assert str(refusal(missing)) == f"{missing}: no such file\n  remedy: check the path"
    assert "is a folder" in refusal(tmp_path).problem
    assert "no such file" in refusal(str(missing)).problem
    assert "no possible path" in refusal("nul\0byte").problem
    assert "cannot be read" in refusal(tmp_path / ("x" * 300)).problem
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe").problem
    (tmp_path / "empty.onnx").touch()
    assert "is empty" in refusal(tmp_path / "empty.onnx").problem
    assert "is empty" in refusal(b"").problem


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
        (b"PK\x03\x04\x14\x00", "zip archive"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x80\x02\x8a\nl\xfcF", "pickle"),
        (b"<!DOCTYPE html><html>404", "HTML"),
        (b'{"irVersion": "8"}', "JSON"),
        (b"ir_version: 8\ngraph {", "as text"),
        (b"\x1c\x00\x00\x00ORTM\x00\x00", "onnxruntime's own format"),
        (b"This is a text file, not a network.\n" * 40, "not an ONNX model"),
        (b"\xff" * 100, "not an ONNX model"),
    ],
)  # fmt: skip
def test_other_formats_are_named(start: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(start)
    assert said in str(refusal(path))


def test_a_protobuf_that_is_no_model() -> None:
    tensor = numpy_helper.from_array(np.zeros((3, 4), np.float32))
    assert "not an ONNX model" in refusal(tensor.SerializeToString()).problem
    graph = small_model()
    graph.ClearField("graph")
    assert "there is no graph in it" in refusal(graph).problem
    assert "not an ONNX model" in refusal(onnx.ModelProto(ir_version=8)).problem


def test_truncation_at_every_byte() -> None:
    """Only at the end of a whole field behind the operator sets is a prefix a model of its own."""
    contents = small_model().SerializeToString()
    view = memoryview(contents)
    ends = {end: number for number, _, _, _, end in fields(view, 0, len(view))}
    loaded = []
    for length in range(len(contents)):
        try:
            load(contents[:length])
        except InvalidModel as error:
            assert error.remedy and "\n" not in error.problem
        else:
            loaded.append(length)
    assert all(ends[length] == 8 for length in loaded), "a partial model was accepted"
    assert len(loaded) == 1


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"\x0a\x03hi", "ends 1 bytes past its message"),
        (b"\x0d\x00\x00\x00", "ends 1 bytes past its message"),
        (b"\x09" + b"\x00" * 7, "ends 1 bytes past its message"),
        (b"\x08", "ends within a number, at byte 1"),
        (b"\x08\xff\xff", "ends within a number, at byte 3"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "endless number before byte 11"),
        (b"\x00\x00", "impossible field number at byte 0"),
        (b"\x0b", "impossible wire type 3 at byte 0"),
    ],
)
def test_wire_format_errors(contents: bytes, said: str) -> None:
    with pytest.raises(WireError, match=said):
        list(fields(memoryview(contents), 0, len(contents)))


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_initializer(big_weight()).SerializeToString()[:-700])
    assert "truncated" in refusal(path).problem


def read_everything(model: Model) -> None:
    for weight in model.weights.values():
        assert weight.array().shape == weight.shape
    load(model.to_bytes())


def test_damage_at_every_byte() -> None:
    """A changed byte may make another model, or none; never a crash."""
    contents = small_model().SerializeToString()
    rng = random.Random(1)
    for position in range(len(contents)):
        damaged = bytearray(contents)
        damaged[position] ^= rng.randrange(1, 256)
        try:
            model = load(bytes(damaged))
        except InvalidModel:
            continue
        read_everything(model)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(contents: bytes) -> None:
    refusal(contents)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_random_insertions(data: st.DataObject) -> None:
    contents = bytearray(small_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(contents) - 1))
        contents[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        model = load(bytes(contents))
    except InvalidModel:
        return
    read_everything(model)


def test_names_must_be_text() -> None:
    contents = small_model().SerializeToString().replace(b"dense", b"\xff\xfe\xfd\xfc\xfb")
    assert "no UTF-8" in refusal(contents).problem


def test_nesting_is_bounded() -> None:
    """Graph in attribute in node in graph, a thousand times: written by hand, no library would."""

    def field(number: int, contents: bytes) -> bytes:
        size, length = len(contents), bytearray()
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([number << 3 | 2, *length, size]) + contents

    graph = b""
    for _ in range(1000):
        graph = field(1, field(5, field(6, graph)))
    assert "nested over" in refusal(b"\x08\x08" + field(7, graph)).problem


@pytest.mark.parametrize(
    ("version", "said"), [(1, "too old"), (6, "too old"), (999, "newer than onnx")]
)
def test_opsets_out_of_range(version: int, said: str) -> None:
    model = small_model()
    model.opset_import[0].version = version
    error = refusal(model)
    assert f"opset {version} is {said}" in error.problem


@pytest.mark.parametrize("version", [7, onnx.defs.onnx_opset_version()])
def test_opsets_in_range(version: int) -> None:
    model = small_model()
    model.opset_import[0].version = version
    assert load(model).opset[""] == version


def test_versions_that_contradict_or_are_missing() -> None:
    model = small_model()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    assert "two versions" in refusal(model).problem
    del model.opset_import[:]
    assert "no operator set" in refusal(model).problem
    model = small_model()
    model.ir_version = 999
    assert "IR version 999 is newer" in refusal(model).problem
    model.ClearField("ir_version")
    assert "no IR version" in refusal(model).problem


def edited(edit: Callable[[TensorProto], object], array: np.ndarray | None = None) -> TensorProto:
    tensor = big_weight(array)
    edit(tensor)
    return tensor


@pytest.mark.parametrize("rows", [40, 3], ids=["big", "small"])
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.dims.append(2), "bytes of data, but FLOAT"),
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "bytes of data, but FLOAT"),
        (lambda t: setattr(t, "data_type", TensorProto.INT4), "bytes of data, but INT4"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "cannot be raw data"),
        (lambda t: setattr(t, "data_type", 0), "unknown data type 0"),
        (lambda t: setattr(t, "data_type", 99), "unknown data type 99"),
        (lambda t: t.dims.__setitem__(0, -5), "negative size"),
        (lambda t: t.dims.__setitem__(0, 1 << 62), "bytes of data, but FLOAT"),
        (lambda t: t.ClearField("raw_data"), "holds nothing"),
        (lambda t: t.float_data.append(1), "contents given twice"),
        (lambda t: t.int32_data.append(1), "contents given twice"),
        (lambda t: t.ClearField("name"), "without a name"),
    ],
)
def test_contents_that_do_not_fit(
    edit: Callable[[TensorProto], object], said: str, rows: int
) -> None:
    error = refusal(with_initializer(edited(edit, np.ones((rows, 30), np.float32))))
    assert said in error.problem
    assert "name" in said or "'w'" in error.problem


def test_typed_contents_that_do_not_fit() -> None:
    tensor = helper.make_tensor("t", TensorProto.INT64, [500], list(range(500)))
    tensor.dims[0] = 501
    problem = refusal(with_initializer(tensor)).problem
    assert problem.endswith("holds 500 in int64_data, but INT64 (501,) takes 501 in int64_data")
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [500], [1.0] * 500)
    tensor.data_type = TensorProto.FLOAT16
    assert "FLOAT16" in refusal(with_initializer(tensor)).problem


def test_float_data_of_another_type_is_refused() -> None:
    """An int32 takes the bytes of a float: the size alone would fit."""
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [500], [1.0] * 500)
    tensor.data_type, tensor.dims[0] = TensorProto.INT32, 500
    assert "'t': contents in a field of another" in refusal(with_initializer(tensor)).problem


def test_constants_are_checked_too() -> None:
    model = small_model()
    model.graph.node.append(helper.make_node("Constant", [], ["v"], value=big_weight()))
    model.graph.node[-1].attribute[0].t.dims[0] = 41
    assert "node 'v' (Constant): attribute 'value'" in refusal(model).problem


def test_duplicate_initializers() -> None:
    assert (
        "two initializers named 'w'"
        in refusal(with_initializer(big_weight(), big_weight())).problem
    )


def with_functions(bodies: dict[str, list[str]], called: str) -> onnx.ModelProto:
    """Each function calls those in its list, one after another."""
    model = small_model()
    model.opset_import.append(helper.make_opsetid("custom", 1))
    for name, callees in bodies.items():
        nodes, last = [], "a"
        for index, callee in enumerate(callees):
            domain = "" if callee == "Relu" else "custom"
            nodes.append(helper.make_node(callee, [last], [f"t{index}"], domain=domain))
            last = f"t{index}"
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
        model.functions.append(helper.make_function("custom", name, ["a"], [last], nodes, opsets))
    model.graph.node.append(helper.make_node(called, ["y"], ["last"], domain="custom"))
    return model


def test_functions_that_call_themselves() -> None:
    assert "calls itself" in refusal(with_functions({"F": ["F"]}, "F")).problem
    assert "calls itself" in refusal(with_functions({"F": ["G"], "G": ["F"]}, "F")).problem


def test_functions_that_explode() -> None:
    bodies = {f"F{i}": [f"F{i + 1}", f"F{i + 1}"] for i in range(40)} | {"F40": ["Relu"]}
    assert "expand to 10995" in refusal(with_functions(bodies, "F0")).problem


def test_nested_functions_are_fine() -> None:
    model = load(with_functions({"F": ["G", "G"], "G": ["Relu", "Relu", "Relu"]}, "F"))
    assert [node.op_type for node in model.proto.graph.node].count("Relu") == 6


def test_functions_that_expand_beyond_bounds() -> None:
    """Bounded by bytes before anything is inlined: bodies, and attributes that they repeat."""
    megabyte = numpy_helper.from_array(np.zeros(1 << 18, np.float32))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    holds = helper.make_node("Constant", [], ["k"], value=megabyte)
    repeats = []
    for index in range(20):
        node = helper.make_node("Constant", [], [f"k{index}"])
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, ref_attr_name="given")
        repeats.append(node)
    add = helper.make_node("Add", ["a", "a"], ["b"])
    for body, calls, passed in ((holds, 200, {}), (repeats, 10, {"given": megabyte})):
        nodes = [*body, add] if isinstance(body, list) else [body, add]
        function = helper.make_function(
            "local", "F", ["a"], ["b"], nodes, imports, attributes=list(passed)
        )
        proto = small_model()
        proto.opset_import.add(domain="local", version=1)
        proto.functions.append(function)
        for index in range(calls):
            call = helper.make_node("F", ["x"], [f"t{index}"], domain="local", **passed)
            proto.graph.node.append(call)
        assert "expand to" in refusal(proto).problem


def test_operator_sets_beyond_every_version() -> None:
    for version in (2**40, -1, 2**31):
        proto = small_model()
        proto.opset_import.add(domain="ai.onnx.ml", version=version)
        assert f"version {version} is none" in refusal(proto).problem


@pytest.mark.parametrize("dims", [[0, 2**63 - 1], [2**31, 2**31, 2**31, 0], [0] * 65])
def test_an_empty_tensor_of_impossible_sizes(dims: list[int]) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    assert "no tensor has dims" in refusal(with_initializer(tensor)).problem
