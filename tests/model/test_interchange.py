"""Graphs of onnx_graphsurgeon and Models of onnx_ir: there and back, and surgery between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as surgeon
import pytest
from onnx import TensorProto

import onnx_net2net as n2n
from onnx_net2net.model.model import Computed
from onnx_net2net.verification.verify import run
from tests.console import FIXTURES

LIBRARIES = ("graphsurgeon", "ir")
# Branches and loops; the scopes of PyTorch in metadata; names that the order of weights decides.
CHOSEN = ("if.dynamo", "loop.ts17", "scan.dynamo", "resnet.dynamo", "keras-gru.tf2onnx", "mlp.int8")


def other(model: n2n.Model, library: str) -> Any:
    if library == "ir":
        pytest.importorskip("onnx_ir", reason="comes with the extra [torch]")
    return getattr(model, f"to_{library}")()


def described(model: n2n.Model) -> list[Any]:
    """All that a round trip may lose and nothing computes."""
    proto = model.proto
    stored = {entry.name for entry in proto.graph.initializer}  # IR 3 had them among the inputs
    values = [v for v in (*proto.graph.input, *proto.graph.output) if v.name not in stored]
    return [
        model.metadata, model.opset[""], proto.producer_name, proto.doc_string,
        *[(v.name, v.type.SerializeToString()) for v in values],
        *[
            (n.op_type, list(n.output), n.doc_string, str(n.metadata_props))
            for n in proto.graph.node
        ],
    ]  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_fixture_comes_back_unread_and_with_its_metadata(library: str) -> None:
    for path in sorted(FIXTURES.glob("*.onnx")):
        model = n2n.load(path)
        again = n2n.load(other(model, library))
        assert described(again) == described(model), path.name
        read = {name for node in model.proto.graph.node for name in node.input}
        for name, weight in model.weights.items():
            assert name in again.weights or name not in read, f"{path.name}: {name} is lost"
            if name in again.weights:
                mine = again.weights[name]
                assert mine is weight or weight.nbytes <= 1024, f"{path.name}: {name} was read"
                assert mine.array().tobytes() == weight.array().tobytes()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", CHOSEN)
def test_what_comes_back_grows_as_before(name: str, library: str) -> None:
    model = n2n.load(FIXTURES / f"{name}.onnx")
    again = n2n.load(other(model, library))
    for ask in (n2n.inspect, n2n.blocks):
        assert [str(item) for item in ask(again)] == [str(item) for item in ask(model)]
    assert n2n.verify(model, again, seeds=1, provider="cpu")


@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_that_are_still_to_be_computed_stay_so(library: str) -> None:
    def never() -> np.ndarray:
        raise AssertionError("read")

    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    weight = model.weights["layer1.0.conv1.weight"]
    computed = Computed(weight.name, weight.dtype, weight.shape, never)
    lazy = model.with_changes(model.editable(), {weight.name: computed})
    again = n2n.load(other(lazy, library))
    assert again.weights[weight.name] is computed
    with pytest.raises(AssertionError, match="read"):
        again.weights[weight.name].array()


@pytest.mark.parametrize("library", LIBRARIES)
def test_their_own_libraries_read_the_weights(library: str, tmp_path: Path) -> None:
    model = n2n.widen(FIXTURES / "resnet.dynamo.onnx", {"layer1.0.conv1": 13})
    theirs = other(model, library)
    if library == "ir":
        import onnx_ir

        proto = onnx_ir.to_proto(theirs)
    else:
        proto = surgeon.export_onnx(theirs)
    onnx.save(proto, tmp_path / "theirs.onnx")
    assert n2n.verify(model, tmp_path / "theirs.onnx", seeds=1, provider="cpu")
    assert n2n.verify(model, model.to_proto(), seeds=1, provider="cpu")


def test_a_head_is_cut_off_before_and_a_weight_changed_after() -> None:
    """Their surgery stands before and after ours, and its result is what onnxruntime computes."""
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    graph = model.to_graphsurgeon()
    node = next(node for node in graph.nodes if node.op == "Gemm")
    features = node.inputs[0]
    graph.outputs = [features.to_variable(np.float32, features.shape)]
    grown = n2n.widen(graph.cleanup().toposort(), {"layer1.0.conv1": 13})
    assert grown.proto.graph.output[0].name == features.name
    assert "fc.weight" not in grown.weights
    assert n2n.verify(graph, grown, seeds=1, provider="cpu")

    after = grown.to_graphsurgeon()
    bias = next(t for t in after.tensors().values() if t.name.endswith("conv1.weight"))
    bias.values = bias.values * 2
    changed = n2n.load(after)
    assert changed.history == grown.history
    assert np.array_equal(changed.weights[bias.name].array(), grown.weights[bias.name].array() * 2)
    assert not n2n.verify(grown, changed, seeds=1, provider="cpu")


def test_a_copy_of_a_graph_keeps_its_metadata() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    assert described(n2n.load(model.to_graphsurgeon().copy())) == described(model)


def branches() -> n2n.Model:
    """Two branches, of which each has a weight of its own, and one that both have from outside."""

    def body(name: str) -> onnx.GraphProto:
        own = onnx.numpy_helper.from_array(np.full((32, 32), len(name), np.float32), name)
        product = onnx.helper.make_node("MatMul", ["x", "both"], [f"{name}_h"])
        total = onnx.helper.make_node("MatMul", [f"{name}_h", name], [f"{name}_y"])
        out = onnx.helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["N", 32])
        return onnx.helper.make_graph([product, total], name, [], [out], [own])

    bodies = {"then_branch": body("own"), "else_branch": body("other")}
    node = onnx.helper.make_node("If", ["go"], ["y"], **bodies)
    go = onnx.helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    x, y = (onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 32]) for n in "xy")
    both = onnx.numpy_helper.from_array(np.eye(32, dtype=np.float32), "both")
    graph = onnx.helper.make_graph([node], "g", [go, x], [y], [both])
    return n2n.load(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
        )
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_bodies_read_from_outside_stays_there(library: str) -> None:
    model = branches()
    again = n2n.load(other(model, library))
    assert [entry.name for entry in again.proto.graph.initializer] == ["both"]
    assert again.weights["both"] is model.weights["both"]
    assert n2n.verify(model, again, seeds=2, provider="cpu")


@pytest.mark.parametrize("inner", ["ours", "theirs"])
@pytest.mark.parametrize("outer", ["ours", "theirs"])
def test_two_weights_of_one_name_are_not_mixed_up(outer: str, inner: str) -> None:
    """The name of a weight within a body is given to another one outside."""
    graph = branches().to_graphsurgeon()
    kept = next(body.tensors() for body in graph.subgraphs() if "own" in body.tensors())
    own, both = kept["own"], kept["both"]
    contents = {"ours": both._values, "theirs": np.full((32, 32), 5, np.float32)}
    own.values = contents[inner]
    graph.nodes[0].outputs[0].name = "z"
    weight = surgeon.Constant("own", contents[outer])
    out = surgeon.Variable("y", np.float32, ["N", 32])
    graph.nodes.append(surgeon.Node("MatMul", "last", {}, [graph.outputs[0], weight], [out]))
    graph.outputs = [out]
    numbers = {"ours": 1.0, "theirs": 5.0 * 32}  # rows of ones times the identity, or all fives
    found = run(n2n.load(graph), {"go": np.array(True), "x": np.ones((1, 32), np.float32)})
    np.testing.assert_array_equal(found["y"], np.full((1, 32), numbers[inner] * numbers[outer]))


def test_weights_of_two_models_meet_in_one_graph(tmp_path: Path) -> None:
    """Both files are what the result is read from: neither may be written over unseen."""
    for name in ("a", "b"):
        n2n.load(FIXTURES / "resnet.dynamo.onnx").save(tmp_path / f"{name}.onnx")
    first, second = (n2n.load(tmp_path / f"{name}.onnx") for name in ("a", "b"))
    graph, other = first.to_graphsurgeon(), second.to_graphsurgeon()
    name = max(first.weights, key=lambda name: first.weights[name].nbytes)
    graph.tensors()[name].values = other.tensors()[name]._values
    both = n2n.load(graph)
    assert both.weights[name] is second.weights[name]
    assert both.files == {tmp_path / "a.onnx", tmp_path / "b.onnx"}
    both.save(tmp_path / "a.onnx")
    assert n2n.verify(both, tmp_path / "a.onnx", seeds=1, provider="cpu")


def test_what_is_no_whole_model_is_refused() -> None:
    graph = n2n.load(FIXTURES / "mlp.ts17.onnx").to_graphsurgeon()
    graph.nodes.reverse()
    with pytest.raises(n2n.InvalidModel, match="sort its nodes"):
        n2n.inspect(graph)
    graph = n2n.load(FIXTURES / "mlp.ts17.onnx").to_graphsurgeon()
    graph.outputs[0].dtype = None
    with pytest.raises(n2n.InvalidModel, match="onnx_graphsurgeon cannot"):
        n2n.load(graph)


def test_what_is_no_model_is_refused_by_its_type() -> None:
    with pytest.raises(n2n.UsageError, match="a dict is no model"):
        n2n.load({})  # type: ignore[arg-type]


def test_files_of_onnx_ir_are_read_in_place(tmp_path: Path) -> None:
    onnx_ir = pytest.importorskip("onnx_ir", reason="comes with the extra [torch]")
    path = tmp_path / "model.onnx"
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    model.save(path, external=True)
    again = n2n.load(onnx_ir.load(path))
    assert again.files == n2n.load(path).files - {path}
    assert n2n.verify(model, again, seeds=1, provider="cpu")
    (data,) = again.files
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(n2n.InvalidModel, match="truncated"):
        n2n.load(onnx_ir.load(path))
    data.unlink()
    with pytest.raises(n2n.InvalidModel, match="initializer"):
        n2n.load(onnx_ir.load(path))


@pytest.mark.parametrize("change", [{"offset": -8}, {"length": 4}, {"location": "../other"}])
def test_files_of_onnx_ir_are_not_believed(change: dict[str, Any], tmp_path: Path) -> None:
    """What onnx_ir reads from a file is a stranger's word: where its weights lie, and how long."""
    onnx_ir = pytest.importorskip("onnx_ir", reason="comes with the extra [torch]")
    n2n.load(FIXTURES / "mlp.ts17.onnx").save(tmp_path / "model.onnx", external=True)
    (tmp_path.parent / "other").write_bytes(bytes(1 << 16))
    theirs = onnx_ir.load(tmp_path / "model.onnx")
    value = next(
        v
        for v in theirs.graph.initializers.values()
        if isinstance(v.const_value, onnx_ir.ExternalTensor)
    )
    old = value.const_value
    how = {"location": old.location, "offset": old.offset, "length": old.length} | change
    value.const_value = onnx_ir.ExternalTensor(
        **how, dtype=old.dtype, shape=old.shape, name=old.name, base_dir=old.base_dir
    )
    with pytest.raises(n2n.InvalidModel, match=f"initializer {old.name!r}"):
        n2n.load(theirs)


def test_elements_of_four_bits_are_right_or_refused() -> None:
    """onnx_graphsurgeon writes them one to a byte once they were looked at."""
    entry = TensorProto(name="w", dims=[4096], data_type=TensorProto.INT4, raw_data=b"\xe1" * 2048)
    node = onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    scale = onnx.helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    out = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [4096])
    graph = onnx.helper.make_graph([node], "g", [], [out], [entry, scale])
    model = n2n.load(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    )
    theirs = model.to_graphsurgeon()
    assert n2n.load(theirs).weights["w"] is model.weights["w"]
    assert theirs.tensors()["w"].values.shape == (4096,)
    with pytest.raises(n2n.InvalidModel, match="onnx_graphsurgeon cannot"):
        n2n.load(theirs)
