"""Weights that the graph computes: refused where copies would change them, plain once folded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import onnx_net2net as n2n
from onnx_net2net.model.history import HISTORY
from onnx_net2net.model.weights import Weight
from onnx_net2net.widening import dimensions
from tests.computed_weights import FOLLOWED, REFUSED, Spelling, ints, normal
from tests.console import ROOT

STANDARDISED = ROOT / "fixtures" / "standardised.dynamo-raw.onnx"
PLAIN = "standardised by squares"


def on(model: n2n.Model, weight: str, axis: int) -> n2n.Dimension:
    """The dimension that lies there."""
    return next(d for d in n2n.inspect(model) if (weight, axis) in d.sites)


def grow_all(model: n2n.Model, original: n2n.Model) -> None:
    """Every dimension that promises growth keeps the promise."""
    for dimension in n2n.inspect(model):
        if dimension.growth != "fixed":
            width = dimension.width * 2 + (dimension.growth == "any")
            grown = n2n.widen(model, {dimension.name: width})
            assert n2n.verify(original, grown, seeds=1), dimension.name


# ---- refused without, any width with ---------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_statistics_of_weights_are_refused(name: str) -> None:
    model = n2n.load(REFUSED[name].model())
    dimension = on(model, "w0", 0)
    assert dimension.growth == "fixed" and REFUSED[name].reason in (dimension.reason or "")
    with pytest.raises(n2n.Refused) as refusal:
        n2n.widen(model, {dimension.name: 7})
    assert REFUSED[name].reason in refusal.value.reason and "--fold" in (refusal.value.remedy or "")
    grow_all(model, model)


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_can_be_followed_grows_unfolded(name: str) -> None:
    model = n2n.load(FOLLOWED[name].model())
    assert on(model, "w0", 0).growth == "any"
    grow_all(model, model)


@pytest.mark.parametrize("name", REFUSED | FOLLOWED)
def test_folded_weights_grow(name: str) -> None:
    spelling = (REFUSED | FOLLOWED)[name]
    model = n2n.load(spelling.model())
    folded = n2n.fold(model)
    assert n2n.verify(model, folded)
    assert "w" not in folded.weights and len(folded.proto.graph.node) <= 6
    assert on(folded, "w0", 0).growth == on(folded, "b", 0).growth == "any"
    grow_all(folded, model)


def test_a_real_export() -> None:
    model = n2n.load(STANDARDISED)
    assert all(d.growth == "fixed" for d in n2n.inspect(model) if d.name == "conv1")
    folded = n2n.fold(model)
    assert n2n.verify(model, folded)
    assert on(folded, "conv1.bias", 0).growth == "any"
    grow_all(folded, model)


# ---- the judges can fail ------------------------------------------------------------------------


def test_without_the_refusal_another_network_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimensions, "_normalise", lambda *_: None)
    model = n2n.load(REFUSED["InstanceNormalization"].model())
    grown = n2n.widen(model, {on(model, "w0", 0).name: 7})
    assert not n2n.verify(model, grown)


def test_a_wrong_value_is_noticed() -> None:
    model = n2n.load(REFUSED[PLAIN].model())
    proto = onnx.load_model_from_string(n2n.fold(model).to_bytes())
    entry = next(t for t in proto.graph.initializer if t.name == "ws")
    wrong = numpy_helper.to_array(entry).copy()
    wrong[3, 2, 1, 0] *= 1.01
    entry.CopyFrom(numpy_helper.from_array(wrong, "ws"))
    assert not n2n.verify(model, proto)


# ---- what stays ---------------------------------------------------------------------------------


def test_everything_else_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    proto = REFUSED[PLAIN].model()
    proto.graph.doc_string = "a graph"
    helper.set_model_props(proto, {"origin": "test"})
    info = helper.make_tensor_value_info
    proto.graph.value_info.extend([info("d", 1, [6, 5, 3, 3]), info("r0", 1, ["N", 5, 7, 6])])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    before = path.read_bytes()
    model = n2n.load(path)
    skeleton = copy.deepcopy(model.proto)
    n2n.fold(model).save(tmp_path / "folded.onnx")
    assert path.read_bytes() == before and model.proto == skeleton
    found = onnx.load(tmp_path / "folded.onnx")
    onnx.checker.check_model(found, full_check=True)
    expected = copy.deepcopy(proto)
    del expected.graph.node[2:9]
    del expected.graph.value_info[0]
    kept = {"w0", "b0", "b", "w2"}
    weights = [t for t in expected.graph.initializer if t.name in kept]
    assert [t for t in found.graph.initializer if t.name != "ws"] == weights
    del found.graph.initializer[:], expected.graph.initializer[:]
    told = found.metadata_props[-1]
    found.metadata_props.remove(told)
    assert told.key == HISTORY and '"fold"' in told.value
    assert found == expected
    assert capfd.readouterr() == ("", "")


def test_nothing_to_fold_gives_the_model_itself() -> None:
    proto = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        network (float[N, 10] x) => (float[N, 5] y) {
          t = Transpose<perm = [1, 0]>(w)
          h = MatMul(x, t)
          c = Cast<to = 1>(half)
          r = Reshape(c, back)
          g = Slice(r, starts, ends)
          k = MatMul(h, g)
          f = DequantizeLinear(q, scale)
          s = Shape(f)
          n = Gather(s, starts)
          z = Cast<to = 1>(n)
          i = Sqrt(z)
          m = Div(k, i)
          y = MatMul(m, f)
        }"""
    )
    arrays = {
        "w": normal(7, 10),
        "half": normal(8, 9).astype(np.float16),
        "back": ints(9, 8),
        "starts": ints(0),
        "ends": ints(7),
        "q": np.arange(40, dtype=np.int8).reshape(8, 5),
        "scale": np.float32(0.1),
    }
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    model = n2n.load(proto)
    assert n2n.fold(model) is model
    grow_all(model, model)


def test_only_the_weights_involved_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    model = n2n.load(REFUSED[PLAIN].model())

    def noted(weight: Weight) -> Callable[[], np.ndarray]:
        array = weight.array

        def wrapper() -> np.ndarray:
            read.add(weight.name)
            return array()

        return wrapper

    for weight in model.weights.values():
        monkeypatch.setattr(weight, "array", noted(weight))
    n2n.fold(model)
    assert read == {"w", "axes", "epsilon"}


def test_a_weight_that_others_read_stays() -> None:
    spelling = REFUSED["norm by ReduceL1"]
    proto = spelling.model()
    body = helper.make_graph(
        [helper.make_node("ReduceMax", ["w"], ["largest"], keepdims=0)],
        "body", [], [helper.make_tensor_value_info("largest", 1, [])],
    )  # fmt: skip
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", 9, [], [1]))
    choice = helper.make_node("If", ["yes"], ["most"], then_branch=body, else_branch=body)
    proto.graph.node.extend([yes, choice, helper.make_node("Mul", ["y", "most"], ["z"])])
    proto.graph.output[0].name = "z"
    model = n2n.load(proto)
    folded = n2n.fold(model)
    assert {"w", "ws"} <= set(folded.weights) and n2n.verify(model, folded)


def test_constants_outputs_and_chance_stay() -> None:
    proto = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        network (float[N, 4] x) => (float[N, 4] y, float[4, 4] seen) {
          two = Constant<value = float {2.0}>()
          noise = RandomNormalLike<seed = 1.0>(w)
          none = Mul(noise, zero)
          d = Mul(w, two)
          seen = Add(w, d)
          e = Exp(w)
          s = Add(e, none)
          h = MatMul(x, d)
          k = MatMul(h, seen)
          y = MatMul(k, s)
        }"""
    )
    arrays = {"w": normal(4, 4), "zero": np.float32(0)}
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    model = n2n.load(proto)
    folded = n2n.fold(model)
    left = [node.op_type for node in folded.proto.graph.node]
    assert left == ["RandomNormalLike", "Mul", "Add", "Add", "MatMul", "MatMul", "MatMul"]
    assert set(folded.weights) == {"w", "zero", "d", "e"} and n2n.verify(model, folded)


def test_weights_listed_as_inputs() -> None:
    proto = REFUSED["norm by ReduceL1"].model()
    proto.ir_version = 3
    info = helper.make_tensor_value_info
    proto.graph.input.extend(info(t.name, t.data_type, t.dims) for t in proto.graph.initializer)
    model = n2n.load(proto)
    folded = n2n.fold(model)
    assert {v.name for v in folded.proto.graph.input} == {"x", "w0", "b0", "b", "w2", "ws"}
    assert n2n.verify(model, folded)
    onnx.checker.check_model(folded.to_bytes())


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_types(kind: type) -> None:
    proto = in_type(REFUSED[PLAIN], kind)
    model = n2n.load(proto)
    folded = n2n.fold(model)
    assert folded.weights["ws"].array().dtype == kind
    near = n2n.fold(n2n.load(REFUSED[PLAIN].model())).weights["ws"].array()
    np.testing.assert_allclose(folded.weights["ws"].array(), near, rtol=0.02, atol=0.02)


def test_what_cannot_be_computed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(n2n.Refused) as refusal:
        n2n.fold(n2n.load(in_type(REFUSED[PLAIN], ml_dtypes.bfloat16)))
    assert refusal.value.node == "Div 'ws'"
    assert "cannot be folded" in refusal.value.reason and "ReduceMean" in refusal.value.reason
    assert "export the model again" in (refusal.value.remedy or "")
    assert capsys.readouterr().out == ""


def in_type(spelling: Spelling, kind: type) -> onnx.ModelProto:
    """The network with all its numbers in another type."""
    proto = spelling.model()
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    for entry in proto.graph.initializer:
        if entry.data_type == TensorProto.FLOAT:
            entry.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(entry).astype(kind), entry.name)
            )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = dtype
    return proto
