"""What is no model gives one clear error; what cannot be written leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import InvalidModel, OutputError
from onnx_net2net.model import Computed, Model, load
from onnx_net2net.saving import _check_written
from onnx_net2net.wire import WireError, fields

ROOT = Path(__file__).parent.parent


def small_model() -> onnx.ModelProto:
    """A model with every kind of thing in it, in about 2 KiB."""
    value = helper.make_tensor_value_info
    weights = [
        numpy_helper.from_array(np.linspace(-1, 1, 280, dtype=np.float32).reshape(20, 14), "w"),
        numpy_helper.from_array(np.arange(14, dtype=np.float16), "b"),
        helper.make_tensor("typed", TensorProto.INT64, [3], [1, -1, 1 << 40]),
        helper.make_tensor("packed", TensorProto.INT4, [3], [1, -2, 3]),
        helper.make_tensor("text", TensorProto.STRING, [2], ["a", "b"]),
    ]
    inner = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["o"])], "inner", [], [value("o", 1, None)],
        initializer=[helper.make_tensor("k", 1, [1], [3.0])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="dense"),
        helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(
        nodes, "net", [value("x", 1, ["n", 20])], [value("y", 1, ["n", 14])], initializer=weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"key": "value"})
    return model


def big_weight(array: np.ndarray | None = None) -> TensorProto:
    return numpy_helper.from_array(np.ones((40, 30), np.float32) if array is None else array, "w")


def with_initializer(*tensors: TensorProto) -> onnx.ModelProto:
    model = small_model()
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return model


def refusal(source: object) -> InvalidModel:
    """The error of loading ``source``: one line for the problem, one for the remedy."""
    with pytest.raises(InvalidModel) as caught:
        load(source)  # type: ignore[arg-type]
    error = caught.value
    assert error.remedy and "\n" not in error.problem and "\n" not in error.remedy
    assert error.__cause__ is None and error.__suppress_context__, "the traceback would show more"
    return error


# ---- no model at all ----------------------------------------------------------------------------


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


# ---- truncated and damaged ----------------------------------------------------------------------


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
    assert "not an ONNX model" in refusal(b"\x08\x08" + field(7, graph)).problem


# ---- sound protobuf, unsound model --------------------------------------------------------------


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
    assert "tensor 'v'" in refusal(model).problem


def test_duplicate_initializers() -> None:
    assert (
        "two initializers named 'w'"
        in refusal(with_initializer(big_weight(), big_weight())).problem
    )


# ---- external data ------------------------------------------------------------------------------


def external_model(folder: Path, size: int = 40 * 30 * 4, **keys: object) -> Path:
    """A model whose weight lies in ``data.bin``; ``keys`` override what it says of it."""
    (folder / "data.bin").write_bytes(bytes(range(250)) * (size // 250) + bytes(size % 250))
    tensor = TensorProto(name="w", data_type=1, dims=[40, 30], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "data.bin", **keys}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(with_initializer(tensor).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"location": "missing.bin"}, "its file missing.bin is missing"),
        ({"location": None}, "without a usable location"),
        ({"location": ""}, "without a usable location"),
        ({"location": "nul\0.bin"}, "without a usable location"),
        ({"location": "../data.bin"}, "outside the model's folder"),
        ({"location": "sub/../../data.bin"}, "outside the model's folder"),
        ({"location": "..\\data.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "C:\\data.bin"}, "outside the model's folder"),
        ({"location": "\\\\host\\share\\data.bin"}, "outside the model's folder"),
        ({"location": "x" * 300}, "cannot be read"),
        ({"location": "."}, "not a regular file"),
        ({"offset": 4}, "needs bytes 4 to 4804 of data.bin, which has 4800"),
        ({"offset": 1 << 62}, "needs bytes"),
        ({"offset": -4}, "offset '-4'"),
        ({"offset": "9" * 5000}, "offset '999"),
        ({"offset": "four"}, "offset 'four'"),
        ({"length": 4796}, "4796 bytes of external data, but FLOAT (40, 30) takes 4800"),
        ({"length": 4804}, "takes 4800"),
        ({"length": "1e3"}, "length '1e3'"),
    ],
    ids=str,
)
def test_external_data_that_is_refused(keys: dict, said: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(9000))
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    error = refusal(external_model(folder, **keys))
    assert said in error.problem and "'w'" in error.problem


def test_external_data_that_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for keys in ({}, {"offset": 0}, {"length": 4800}, {"checksum": "00"}):
        assert load(external_model(tmp_path, **keys)).weights["w"].array().shape == (40, 30)
    shutil.copy(tmp_path / "data.bin", tmp_path / "sub" / "inner.bin")
    assert load(external_model(tmp_path, location="sub/inner.bin")).weights["w"].nbytes == 4800
    (tmp_path / "link.bin").symlink_to(tmp_path / "sub" / "inner.bin")
    assert load(external_model(tmp_path, location="link.bin")).weights["w"].nbytes == 4800


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(4800))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "deep.bin").write_bytes(bytes(4800))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder / "loop")
    # A folder whose name merely begins the same is outside as well.
    (tmp_path / "models2").mkdir()
    shutil.copy(tmp_path / "secret.bin", tmp_path / "models2" / "near.bin")
    (folder / "near.bin").symlink_to(tmp_path / "models2" / "near.bin")
    for location in ("link.bin", "away/deep.bin", "near.bin"):
        assert (
            "outside the model's folder"
            in refusal(external_model(folder, location=location)).problem
        )
    assert "cannot be read" in refusal(external_model(folder, location="loop")).problem


def test_a_model_given_as_an_object_has_no_folder(tmp_path: Path) -> None:
    contents = external_model(tmp_path).read_bytes()
    for source in (contents, onnx.ModelProto.FromString(contents)):
        assert "load the model by its path" in str(refusal(source))


def test_external_data_of_attributes_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, referred to again and again, must not fill the memory."""
    monkeypatch.setattr("onnx_net2net.model.SINGLE_FILE_LIMIT", 8 << 20)
    size = 1 << 20
    (tmp_path / "data.bin").write_bytes(bytes(size))
    model = with_initializer()
    for index in range(9):
        tensor = TensorProto(data_type=TensorProto.UINT8, dims=[size])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data.bin")
        model.graph.node.append(helper.make_node("Constant", [], [f"c{index}"], value=tensor))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert "over 2 GiB" in refusal(path).problem
    del model.graph.node[-1]
    path.write_bytes(model.SerializeToString())
    assert load(path).weights["c7"].nbytes == size


# ---- local functions ----------------------------------------------------------------------------


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


# ---- writing ------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "m.onnx"
    onnx.save(with_initializer(big_weight()), path)
    return path


def unwritable(model: Model, path: Path, **options: bool) -> OutputError:
    with pytest.raises(OutputError) as caught:
        model.save(path, **options)
    assert caught.value.remedy and str(path) in caught.value.problem
    return caught.value


def grown(model: Model, fn: Callable[[], np.ndarray]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return model.with_changes(proto, {"w": Computed("w", TensorProto.FLOAT, (40, 30), fn)})


def test_targets_that_are_refused(source: Path, tmp_path: Path) -> None:
    model, before = load(source), source.read_bytes()
    assert "exists already" in unwritable(model, source).problem
    assert "is a folder" in unwritable(model, tmp_path, force=True).problem
    assert "does not exist" in unwritable(model, tmp_path / "no" / "m.onnx").problem
    assert "is not a folder" in unwritable(model, source / "m.onnx").problem
    assert "cannot be written" in unwritable(model, tmp_path / ("x" * 300)).problem
    # A pipe or a device (/dev/null!) must not be replaced by a file, not even with force.
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in unwritable(model, tmp_path / "pipe", force=True).problem
    (tmp_path / "pipe").unlink()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "nowhere.onnx")
    assert "exists already" in unwritable(model, tmp_path / "link.onnx").problem
    (tmp_path / "out.onnx.data").write_bytes(b"precious")
    assert "out.onnx.data: exists" in str(unwritable_data(model, tmp_path / "out.onnx"))
    assert (tmp_path / "out.onnx.data").read_bytes() == b"precious"
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "link.onnx", "out.onnx.data"]


def unwritable_data(model: Model, path: Path) -> OutputError:
    with pytest.raises(OutputError) as caught:
        model.save(path, external=True)
    return caught.value


def test_saving_over_the_source(source: Path) -> None:
    model, before = load(source), source.read_bytes()
    old = model.weights["w"]
    grown(model, lambda: old.array() * np.float32(3)).save(source, force=True)
    assert load(source).weights["w"].array()[0, 0] == 3
    assert old.array()[0, 0] == 1, "the mapped source changed under its reader"
    model.save(source, force=True)
    assert source.read_bytes() == before
    assert [path.name for path in source.parent.iterdir()] == ["m.onnx"]


class Faulty(Computed):
    """Announces one size and hands out another, as a failing disk would."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        super().__init__("w", TensorProto.FLOAT, (40, 30), lambda: np.ones((40, 30), np.float32))
        self.change = change

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self.change(bytes(self.payload())))


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b""], ids=["short", "long", "none"]
)
def test_a_file_other_than_planned_is_never_renamed(
    source: Path, change: Callable[[bytes], bytes], external: bool
) -> None:
    model = load(source)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    faulty = model.with_changes(proto, {"w": Faulty(change)})
    target = source.parent / "out.onnx"
    with pytest.raises(OutputError, match="does not read back"):
        faulty.save(target, external=external)
    assert [path.name for path in source.parent.iterdir()] == ["m.onnx"]


def test_a_file_of_another_structure_is_never_renamed(source: Path) -> None:
    """Right size, wrong nesting: seen by reading the written file again."""
    proto = load(source).proto
    skeleton = proto.SerializeToString()
    written = source.parent / "written"
    written.write_bytes(skeleton)
    _check_written(written, skeleton, source)
    for position in range(len(skeleton)):
        damaged = bytearray(skeleton)
        damaged[position] ^= 5
        written.write_bytes(damaged)
        with pytest.raises(OutputError, match="does not read back"):
            _check_written(written, skeleton, source)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left")])
def test_interrupted_while_writing(source: Path, error: BaseException, external: bool) -> None:
    def fn() -> np.ndarray:
        raise error

    target = source.parent / "out.onnx"
    wanted = OutputError if isinstance(error, OSError) else error
    model = grown(load(source), fn)
    with pytest.raises(wanted):
        model.save(target, external=external)
    assert [path.name for path in source.parent.iterdir()] == ["m.onnx"]
    target.write_bytes(b"old")
    with pytest.raises(wanted):
        model.save(target, external=external, force=True)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in source.parent.iterdir()) == ["m.onnx", "out.onnx"]


def test_a_failed_second_rename_undoes_the_first(source: Path) -> None:
    """External data: the model appears in the middle of saving, and both old files must stay."""
    target = source.parent / "out.onnx"
    data = source.parent / "out.onnx.data"

    def fn() -> np.ndarray:
        target.mkdir(exist_ok=True)
        return np.ones((40, 30), np.float32)

    model = grown(load(source), fn)
    assert "is a folder" in str(unwritable(model, target, external=True))
    assert sorted(path.name for path in source.parent.iterdir()) == ["m.onnx", "out.onnx"]
    target.rmdir()
    data.write_bytes(b"old")
    assert "is a folder" in str(unwritable(model, target, external=True, force=True))
    assert data.read_bytes() == b"old"
    assert len(list(source.parent.iterdir())) == 3


_SAVE = """
import resource, sys, time
import numpy as np, onnx
from onnx_net2net.errors import OutputError
from onnx_net2net.model import Computed, load
source, target, what = sys.argv[1:]
model = load(source)
proto = onnx.ModelProto()
proto.CopyFrom(model.proto)
def fn():
    if what == "wait":
        print("writing", flush=True)
        time.sleep(60)
    return np.ones((1 << 20,), np.float32)
grown = model.with_changes(proto, {"w": Computed("w", 1, (1 << 20,), fn)})
if what == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    grown.save(target)
except OutputError as error:
    sys.exit(f"OutputError: {error}")
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def save_elsewhere(source: Path, target: Path, what: str, prefix: tuple[str, ...] = ()) -> str:
    """Save a 4 MiB model from another process and give what it complained of."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _SAVE, str(source), str(target), what],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.stderr.strip()


def test_a_file_size_limit(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    said = save_elsewhere(source, out / "m.onnx", "limit")
    assert said == f"OutputError: {out / 'm.onnx'}: cannot be written: File too large\n" + (
        "  remedy: raise the file size limit (ulimit -f) or choose another file system"
    )
    assert not list(out.iterdir())


def in_namespace(tmp_path: Path, options: str) -> tuple[str, ...]:
    """A prefix that runs a command where ``tmp_path/disk`` is a file system of 1 MiB of its own."""
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs -o {options} none {tmp_path}/disk && "$@" 2>&1; ls -A {tmp_path}/disk'
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", f"{{ {script}; }} >&2", "sh")
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("no private mounts here")
    probe = subprocess.run([*prefix, "echo", "ok"], capture_output=True, text=True, check=False)
    if probe.stderr.strip() != "ok":
        pytest.skip("no private mounts here")
    return prefix


def test_a_full_disk(source: Path, tmp_path: Path) -> None:
    prefix = in_namespace(tmp_path, "size=1m")
    said = save_elsewhere(source, tmp_path / "disk" / "m.onnx", "full", prefix)
    # The listing of the folder comes last: nothing may follow the remedy.
    assert said == f"OutputError: {tmp_path}/disk/m.onnx: cannot be written: " + (
        "No space left on device\n  remedy: free some space or choose another folder"
    )


def test_a_read_only_folder(source: Path, tmp_path: Path) -> None:
    prefix = in_namespace(tmp_path, "ro")
    said = save_elsewhere(source, tmp_path / "disk" / "m.onnx", "read-only", prefix)
    assert said.startswith(f"OutputError: {tmp_path}/disk/m.onnx: cannot be written: Read-only")
    assert said.endswith("remedy: choose another folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(source: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    assert "Permission denied" in unwritable(load(source), locked / "m.onnx").problem


def test_ctrl_c(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", _SAVE, str(source), str(out / "m.onnx"), "wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout and process.stdout.readline() == "writing\n"
        assert [path.suffix for path in out.iterdir()] == [".tmp"]
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert complaint.strip() == "interrupted"
    assert not list(out.iterdir())


def test_permissions_are_those_of_any_new_file(source: Path, tmp_path: Path) -> None:
    """Not the 0600 of temporary files."""
    (tmp_path / "ordinary").touch()
    written = load(source).save(tmp_path / "m.onnx")
    assert written.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
