"""What verify reports: noise, blindness, faults of the optimiser, errors; the report as data."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.model.model import load
from onnx_net2net.verification.judgement import Runs, judge
from onnx_net2net.verification.report import Trial
from onnx_net2net.verification.verify import choose_provider, run, tensors, verify
from tests.verify_networks import (
    edited,
    layers,
    mlp,
    model,
    not_a_number,
    swap_channels,
)

# Blindness, noise, optimisers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constant", "says"), [(0.0, "zero for all inputs"), (1.0, "the same for all inputs")]
)
def test_a_constant_output_is_a_warning(constant: float, says: str) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("Add", ["z", "c"], ["y"]),
    ]
    weights = {"zero": np.zeros(1, np.float32), "c": np.full(1, constant, np.float32)}
    proto = model(nodes, [("x", 1, ["b", 3])], [("y", 1, ["b", 3])], weights)
    report = verify(proto, proto)
    assert report and says in report.outputs[0].warnings[0]


def test_nan_in_both_models_is_a_warning_and_in_one_a_problem() -> None:
    log = model([helper.make_node("Log", ["x"], ["y"])], [("x", 1, ["b", 9])], [("y", 1, None)], {})
    nodes = [helper.make_node("Abs", ["x"], ["z"]), helper.make_node("Log", ["z"], ["y"])]
    fixed = model(nodes, [("x", 1, ["b", 9])], [("y", 1, None)], {})
    report = verify(log, log)
    assert report and "NaN or infinite in both models" in report.outputs[0].warnings[0]
    for pair in ((log, fixed), (fixed, log)):
        assert "NaN in one model only" in str(verify(*pair).outputs[0].problem)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_without_any_number_proves_nothing(value: float) -> None:
    """A diverged checkpoint equals any other."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]
    weights = {"w": np.full(1, value, np.float32)}
    proto = model(nodes, [("x", 1, ["b", 9])], [("y", 1, None), ("z", 1, None)], weights)
    report = verify(proto, proto, sizes={"b": 2})
    assert not report
    assert [output.equivalent for output in report.outputs] == [False, True]
    assert "NaN or infinite in both models" in report.verdict
    assert "nothing could be compared" in report.verdict


def test_a_mask_of_infinities_can_be_compared() -> None:
    nodes = [helper.make_node("Where", ["m", "x", "w"], ["y"])]
    given = [("x", 1, ["b", 9]), ("m", 9, ["b", 9])]
    weights = {"w": np.full(1, -np.inf, np.float32)}
    proto = model(nodes, given, [("y", 1, None)], weights)
    assert verify(proto, proto)


def test_a_fault_of_the_optimiser_is_not_one_of_the_network(rng: np.random.Generator) -> None:
    y = rng.normal(size=(4, 10)).astype(np.float32)
    noise = [{"y": np.full(y.shape, 1e-7)}]
    broken = [{"y": y + np.float32(0.1)}]
    a = Runs([{"y": y}], [{"y": y}], noise)
    for label, first, second in (
        ("b", a, Runs([{"y": y}], broken)),
        ("a", Runs([{"y": y}], broken, noise), a),
    ):
        report, faults = judge("y", first, second, [Trial("seed 0")], None)
        assert report
        assert [fault.model for fault in faults] == [label]
    report, faults = judge("y", a, Runs(broken, [{"y": y}]), [Trial("seed 0")], None)
    assert not report and faults[0].model == "b"


def test_noise_of_the_second_model_cannot_hide_a_difference(rng: np.random.Generator) -> None:
    y = rng.normal(size=(4, 10)).astype(np.float32)
    a = Runs([{"y": y}], None, [{"y": np.full(y.shape, 1e-7)}])
    b = Runs([{"y": y + np.float32(0.01)}], None, [{"y": np.full(y.shape, 1.0)}])
    assert not judge("y", a, b, [Trial("seed 0")], None)[0]


def test_small_scores_beside_large_boxes_keep_their_own_tolerance(rng: np.random.Generator) -> None:
    """An output that mixes scales is judged index by index of the axis that separates them."""
    w = rng.normal(size=(3, 6))
    scale = np.array([600, 600, 600, 600, 1, 1], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["y"]),
    ]

    def detector(w: np.ndarray) -> onnx.ModelProto:
        weights = {"w": w.astype(np.float32), "scale": scale}
        return model(nodes, [("x", 1, [1, 500, 3])], [("y", 1, [1, 500, 6])], weights)

    wrong = w.copy()
    wrong[0, 5] += 1e-4
    assert verify(detector(w), detector(w))
    report = verify(detector(w), detector(wrong))
    assert not report and ", 5]" in str(report.outputs[0].problem)
    assert report.outputs[0].max_abs < 1e-4


# Errors and results --------------------------------------------------------------------------


def test_a_model_that_does_not_load_is_invalid(rng: np.random.Generator, tmp_path: Path) -> None:
    good = mlp(layers(rng, [5, 4]))
    bad = onnx.ModelProto()
    bad.CopyFrom(good)
    bad.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InvalidModel, match="the second model") as caught:
        verify(good, bad)
    assert "\n" not in caught.value.problem and "NoSuchOperator" in caught.value.problem
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"not a model")
    with pytest.raises(InvalidModel):
        verify(good, junk)


def test_unknown_providers_are_refused() -> None:
    assert choose_provider("CPU") == choose_provider("CPUExecutionProvider")
    with pytest.raises(UsageError, match="no provider 'abacus'"):
        choose_provider("abacus")


def test_every_way_to_give_a_model(rng: np.random.Generator, tmp_path: Path) -> None:
    proto = mlp(layers(rng, [5, 40, 4]))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    proto = onnx.load(path)
    given = [path, str(path), proto, proto.SerializeToString(), load(path)]
    assert all(verify(path, other) for other in given)
    report = verify(path, load(path), seeds=1, sizes={"batch": 2})
    assert report.provider.endswith("ExecutionProvider") and len(report.trials) == 1


def test_reports_are_data(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 4])
    bad = edited(mlp(stack), "w0", not_a_number)
    for report in (verify(mlp(stack), mlp(stack)), verify(mlp(stack), bad)):
        plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
        assert plain["equivalent"] is bool(report) and plain["verdict"] == report.verdict
        assert plain["outputs"][0]["name"] == "y"
        assert len(plain["outputs"][0]["differences"]) == len(plain["trials"]) == 3
        suite = ElementTree.fromstring(report.junit())
        cases, failures = suite.findall("testcase"), suite.findall("testcase/failure")
        assert len(cases) == int(suite.get("tests", 0)) == 4
        assert bool(failures) is not bool(report)
        assert len(failures) == int(suite.get("failures", -1))


def test_intermediate_tensors(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [5, 9, 4]))
    feeds = {"x": rng.normal(size=(2, 5)).astype(np.float32)}
    found = tensors(proto, None, feeds)
    assert list(found) == ["h0", "a0", "y"]
    np.testing.assert_array_equal(found["a0"], np.maximum(found["h0"], 0))
    np.testing.assert_array_equal(found["y"], run(proto, feeds, optimised=False)["y"])
    assert list(tensors(proto, ["a0"], feeds)) == ["a0"]
    with pytest.raises(UsageError, match="nothing"):
        tensors(proto, ["nothing"], feeds)


def test_tensors_and_runs_of_bfloat16_come_in_float32(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [5, 9, 4]), ml_dtypes.bfloat16)
    feeds = {"x": rng.normal(size=(2, 5)).astype(ml_dtypes.bfloat16)}
    found = tensors(proto, None, feeds, provider="cpu")
    assert {name: array.dtype for name, array in found.items()} == dict.fromkeys(
        ["h0", "a0", "y"], np.float32
    )
    np.testing.assert_array_equal(
        run(proto, feeds, provider="cpu", optimised=False)["y"], found["y"]
    )


def test_maps_and_sequences_of_classifiers_are_compared(rng: np.random.Generator) -> None:
    w = rng.normal(size=(4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[3, 5, 8]),
        helper.make_node("SplitToSequence", ["p", "one"], ["q"], axis=1),
    ]
    weights = {"w": w, "one": np.array(1)}
    proto = model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], [], weights)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    floats = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    maps = helper.make_map_type_proto(TensorProto.INT64, floats)
    for name, element in (("z", maps), ("q", floats)):
        kind = helper.make_sequence_type_proto(element)
        proto.graph.output.append(helper.make_value_info(name, kind))
    report = verify(proto, proto)
    assert report, report.verdict
    names = [output.name for output in report.outputs]
    assert names == ["z.keys", "z", "q.length", "q[0]", "q[1]", "q[2]"]
    assert report.outputs[1].shape == (1, 3)
    report = verify(proto, edited(proto, "w", swap_channels))
    assert not report and not report.outputs[1]


def test_elements_that_only_some_trials_have_are_compared() -> None:
    def rows(*nodes: onnx.NodeProto) -> onnx.ModelProto:
        split = helper.make_node("SplitToSequence", [nodes[-1].output[0]], ["y"], axis=0)
        proto = model([*nodes, split], [("x", 1, ["n", 3])], [], {"axis": np.array(0)})
        floats = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        kind = helper.make_sequence_type_proto(floats)
        proto.graph.output.append(helper.make_value_info("y", kind))
        return proto

    plain = rows(helper.make_node("Identity", ["x"], ["z"]))
    summed = rows(helper.make_node("CumSum", ["x", "axis"], ["z"]))  # its first row is x's
    sizes = {"n": [1, 2]}
    assert verify(plain, plain, sizes=sizes)
    report = verify(plain, summed, sizes=sizes, seeds=2)
    assert [output.name for output in report.outputs if not output] == ["y[1]"]
    assert report.outputs[-1].trials == ["seed 1, n=2"]
    assert 'classname="y[1]" name="seed 1, n=2"' in report.junit()
