"""Loading: nothing lost, nothing read that was not asked for; a copy is byte for byte the same."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.model.model import Computed, load
from onnx_net2net.model.weights import Inline, Stored
from onnx_net2net.model.wire import THRESHOLD, fields, splice, strip
from tests.small_models import (
    DTYPES,
    ROOT,
    dense,
    proto_of,
    random_array,
    wire_length,
)

ONNX_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
REAL_FILES = [
    *sorted((ONNX_DATA / "light").glob("*.onnx")),
    *sorted((ONNX_DATA / "simple").glob("*/model.onnx")),
]


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source.onnx"
    onnx.save(dense(), path)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before, "the source was written to"


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_files_come_back_byte_for_byte(path: Path, tmp_path: Path) -> None:
    copy = load(path).save(tmp_path / "copy.onnx")
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=TensorProto.DataType.Name)
def test_every_type_comes_back_byte_for_byte(dtype: int, tmp_path: Path) -> None:
    proto = dense(dtype, (67, 71))
    model = load(proto.SerializeToString())
    assert isinstance(model.weights["w"], Stored)
    assert model.to_bytes() == proto.SerializeToString()
    copy = model.save(tmp_path / "copy.onnx")
    assert copy.read_bytes() == proto.SerializeToString()


@pytest.mark.parametrize("dtype", DTYPES, ids=TensorProto.DataType.Name)
def test_contents_are_what_onnx_reads(dtype: int, tmp_path: Path) -> None:
    proto = dense(dtype, (67, 71))
    onnx.save(proto, tmp_path / "m.onnx")
    weight = load(tmp_path / "m.onnx").weights["w"]
    expected = numpy_helper.to_array(proto.graph.initializer[0])
    assert (weight.dtype, weight.shape, weight.size) == (dtype, (67, 71), 67 * 71)
    assert weight.nbytes == len(proto.graph.initializer[0].raw_data)
    assert weight.array().dtype == expected.dtype
    assert weight.array().tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        weight.array()[0, 0] = 1


def test_fields_that_onnx_does_not_know_survive(tmp_path: Path) -> None:
    proto = dense()
    unknown = b"\xc2\x3e\x05hello"  # field 1000, length-delimited
    for message in (proto, proto.graph, proto.graph.node[0], proto.graph.initializer[0]):
        message.MergeFromString(unknown)
    contents = proto.SerializeToString()
    assert contents.count(unknown) == 4
    assert load(contents).to_bytes() == contents


def test_what_is_rarely_there_survives(tmp_path: Path) -> None:
    proto = dense()
    proto.doc_string, proto.producer_name, proto.model_version = "documented", "test", 3
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['dense']")
    proto.graph.metadata_props.add(key="k", value="v")
    proto.graph.initializer[0].doc_string = "after the payload"
    proto.graph.quantization_annotation.add(tensor_name="w")
    proto.graph.sparse_initializer.add(
        values=helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0]),
        indices=helper.make_tensor("indices", TensorProto.INT64, [2], [3, 5]),
        dims=[900],
    )
    proto.training_info.add()
    contents = proto.SerializeToString()
    model = load(contents)
    assert model.save(tmp_path / "m.onnx").read_bytes() == contents
    assert np.flatnonzero(model.weights["sparse"].array()).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("dtype", "field"), [(TensorProto.FLOAT, "float_data"), (TensorProto.DOUBLE, "double_data")]
)
def test_packed_floats_are_lifted_like_raw_data(dtype: int, field: str) -> None:
    values = random_array(dtype, (40, 30))
    proto = proto_of(helper.make_tensor("w", dtype, (40, 30), values.ravel().tolist()))
    model = load(proto)
    assert isinstance(model.weights["w"], Stored)
    assert not getattr(model.proto.graph.initializer[0], field)
    np.testing.assert_array_equal(model.weights["w"].array(), values)
    assert model.to_bytes() == proto.SerializeToString()


@pytest.mark.parametrize(
    "dtype", [TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT16, TensorProto.BFLOAT16,
              TensorProto.UINT64, TensorProto.INT4, TensorProto.BOOL, TensorProto.COMPLEX64],
    ids=TensorProto.DataType.Name,
)  # fmt: skip
def test_typed_fields_are_decoded(dtype: int) -> None:
    values = random_array(dtype, (41, 33))
    proto = proto_of(helper.make_tensor("w", dtype, (41, 33), values.ravel()))
    model = load(proto)
    assert model.weights["w"].array().tobytes() == values.tobytes()
    assert model.to_bytes() == proto.SerializeToString()


def test_big_payloads_are_not_in_the_skeleton(saved: Path) -> None:
    model = load(saved)
    big, small, shape = model.proto.graph.initializer
    assert list(big.dims) == [40, 30] and not big.HasField("raw_data")
    assert small.HasField("raw_data") and shape.HasField("raw_data")
    assert isinstance(model.weights["w"], Stored) and isinstance(model.weights["b"], Inline)
    assert model.path == saved


def test_threshold_is_exact() -> None:
    def lifted(nbytes: int) -> bool:
        tensor = numpy_helper.from_array(np.ones(nbytes, np.uint8), "w")
        return isinstance(load(proto_of(tensor)).weights["w"], Stored)

    assert not lifted(THRESHOLD)
    assert lifted(THRESHOLD + 1)


def test_splice_is_the_inverse_of_strip() -> None:
    contents = dense().SerializeToString()
    skeleton, spans = strip(memoryview(contents))
    assert [span.index for span in spans] == [0]
    payloads = {
        span.index: (span.field, memoryview(contents)[span.offset : span.offset + span.length])
        for span in spans
    }
    assert b"".join(splice(skeleton, payloads)) == contents


def test_graph_in_two_parts_is_merged_as_protobuf_does() -> None:
    """Protobuf merges a message that occurs twice; writers never do so, but files may."""
    first, second = dense(), onnx.ModelProto()
    tensor = numpy_helper.from_array(random_array(1, (50, 60), seed=5), "second")
    second.graph.initializer.append(tensor)
    model = load(first.SerializeToString() + second.SerializeToString())
    assert list(model.weights) == ["w", "b", "shape", "second"]
    np.testing.assert_array_equal(model.weights["second"].array(), numpy_helper.to_array(tensor))


def test_payload_given_twice_is_read_as_protobuf_does() -> None:
    """The last one counts; there is no single run of bytes to map."""
    tensor = numpy_helper.from_array(random_array(1, (40, 30)), "w")
    other = TensorProto(raw_data=random_array(1, (40, 30), seed=9).tobytes())
    both = tensor.SerializeToString() + other.SerializeToString()
    proto = proto_of()
    graph = proto_of().graph.SerializeToString() + b"\x2a" + wire_length(both) + both
    proto.ClearField("graph")
    contents = proto.SerializeToString() + b"\x3a" + wire_length(graph) + graph
    weight = load(contents).weights["w"]
    assert isinstance(weight, Inline)
    np.testing.assert_array_equal(weight.array(), random_array(1, (40, 30), seed=9))


def test_facts_about_the_model(saved: Path) -> None:
    model = load(saved)
    assert model.opset == {"": 17, "com.microsoft": 1}
    assert model.metadata == {"origin": "test", "history": "none"}
    assert model.parameters == 40 * 30 + 30 + 2
    assert model.sha256() == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert load(saved.read_bytes()).sha256() == model.sha256()
    assert not model.inlined and model.changes == []
    assert "1232 parameters" in repr(model)


def test_domain_name_of_the_standard_operators_is_normalised() -> None:
    proto = dense()
    proto.opset_import[0].domain = "ai.onnx"
    assert load(proto).opset == {"": 17, "com.microsoft": 1}


def test_model_proto_is_not_modified() -> None:
    proto = dense()
    before = proto.SerializeToString()
    model = load(proto)
    model.proto.graph.name = "edited"
    assert proto.SerializeToString() == before
    assert model.path is None


def test_constants_and_subgraph_tensors_are_weights() -> None:
    kernel = numpy_helper.from_array(random_array(1, (40, 30)), "")
    make = helper.make_node
    branch = [
        helper.make_graph(
            [
                make("Constant", [], [f"{name}_c"], value_float=1.5),
                make("Add", [f"{name}_c", "shared"], ["o"]),
            ],
            name, [], [helper.make_tensor_value_info("o", 1, None)],
            initializer=[helper.make_tensor("shared", 1, [1], [float(len(name))])],
        )
        for name in ("then", "otherwise")
    ]  # fmt: skip
    proto = proto_of(
        nodes=[
            make("Constant", [], ["w"], value=kernel),
            make("Constant", [], ["f"], value_floats=[1.0, 2.0]),
            make("Constant", [], ["i"], value_int=7),
            make("Constant", [], ["s"], value_string="text"),
            make("MatMul", ["x", "w"], ["y"]),
            make("If", ["cond"], ["z"], then_branch=branch[0], else_branch=branch[1]),
        ]
    )
    model = load(proto)
    # "shared" names two tensors, so neither can be asked for.
    assert set(model.weights) == {"w", "f", "i", "then_c", "otherwise_c"}
    np.testing.assert_array_equal(model.weights["w"].array(), random_array(1, (40, 30)))
    np.testing.assert_array_equal(model.weights["f"].array(), np.float32([1, 2]))
    assert model.weights["i"].array() == 7 and model.weights["i"].shape == ()
    assert model.parameters == 1200 + 2 + 2 + 2  # the integer is no weight
    assert model.to_bytes() == proto.SerializeToString()


def test_local_functions_are_inlined() -> None:
    make = helper.make_node
    body = helper.make_function(
        "custom",
        "Twice",
        ["a"],
        ["r"],
        [make("Add", ["a", "a"], ["r"])],
        [helper.make_opsetid("", 17)],
    )
    body.node[0].metadata_props.add(key="scope", value="layer1")
    proto = dense()
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    proto.graph.node[0].metadata_props.add(key="scope", value="dense")
    proto.graph.node.append(make("Twice", ["y"], ["z"], domain="custom"))
    proto.graph.output[0].name = "z"
    model = load(proto)
    assert model.inlined
    assert [node.op_type for node in model.proto.graph.node] == ["MatMul", "Add"]
    scopes = [node.metadata_props[0].value for node in model.proto.graph.node]
    assert scopes == ["dense", "layer1"]
    assert not model.proto.functions
    whole = onnx.ModelProto.FromString(model.to_bytes())
    onnx.checker.check_model(whole, full_check=True)
    assert whole.graph.initializer == proto.graph.initializer
    assert model.metadata == {"origin": "test", "history": "none"}


_BIG = """
import sys
from pathlib import Path
from onnx_net2net.model.model import load
model = load(sys.argv[1])
weight = model.weights["w"]
assert weight.nbytes == 3 << 30 and not any(bytes(next(weight.chunks())))
# Not ru_maxrss: a process inherits that from the one that started it.
used = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
sys.exit(0 if used < 600 << 20 else f"{used >> 20} MiB")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("where", ["external", "single"])
def test_a_model_larger_than_protobuf_allows_takes_no_memory(where: str, tmp_path: Path) -> None:
    """3 GiB of zeros, as a hole in the file: neither read nor parsed."""
    path = tmp_path / "m.onnx"
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3 << 10, 1 << 18])
    size = 3 << 30
    if where == "external":
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": 4096}.items():
            tensor.external_data.add(key=key, value=str(value))
        path.write_bytes(proto_of(tensor).SerializeToString())
        with open(tmp_path / "w.bin", "wb") as file:
            file.truncate(size + 4096)
    else:

        class Hole:
            nbytes = size

        pieces = splice(proto_of(tensor).SerializeToString(), {0: (9, Hole())})
        with open(path, "wb") as file:
            for piece in pieces:
                if isinstance(piece, Hole):
                    file.seek(size, 1)
                else:
                    file.write(piece)
    done = subprocess.run(
        [sys.executable, "-c", _BIG, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_saving_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    """Twenty computed tensors of 8 MiB each: a writer that collected them would need 160."""
    live, peak = [0], [0]

    class Counted(np.ndarray):
        def __del__(self) -> None:
            if self.base is None:
                live[0] -= 1

    def fn() -> np.ndarray:
        array = np.ndarray.__new__(Counted, (1 << 20,), np.float64)
        array[:] = 1
        live[0] += 1
        peak[0] = max(peak[0], live[0])
        return array

    model = load(dense())
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    new = {}
    for index in range(20):
        proto.graph.initializer.add(name=f"n{index}")
        new[f"n{index}"] = Computed(f"n{index}", TensorProto.DOUBLE, (1 << 20,), fn)
    model.with_changes(proto, new).save(tmp_path / "big.onnx")
    assert (tmp_path / "big.onnx").stat().st_size > 160 << 20
    assert 1 <= peak[0] <= 2


def test_wire_fields_of_a_real_model(saved: Path) -> None:
    view = memoryview(saved.read_bytes())
    numbers = [number for number, *_ in fields(view, 0, len(view))]
    assert numbers == [1, 7, 8, 8, 14, 14]
