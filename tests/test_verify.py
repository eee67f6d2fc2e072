"""Judge the judge: equal networks pass, planted faults are caught, blindness is reported."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.judgement import Runs, judge
from onnx_net2net.model import load
from onnx_net2net.report import Trial
from onnx_net2net.verify import choose_provider, run, tensors, verify

FIXTURES = Path(__file__).parent.parent / "fixtures"
Layers = list[tuple[np.ndarray, np.ndarray]]


# Networks ------------------------------------------------------------------------------------


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
    outputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
    weights: dict[str, np.ndarray],
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def layers(rng: np.random.Generator, widths: Sequence[int]) -> Layers:
    return [
        (rng.normal(size=(m, n)) * np.sqrt(2 / m), rng.normal(size=n) * 0.1)
        for m, n in itertools.pairwise(widths)
    ]


def mlp(
    stack: Layers, dtype: type = np.float32, activation: str = "Relu", output: str = "y"
) -> onnx.ModelProto:
    nodes, weights, x = [], {}, "x"
    for i, (w, b) in enumerate(stack):
        weights |= {f"w{i}": w.astype(dtype), f"b{i}": b.astype(dtype)}
        last = i == len(stack) - 1
        y = output if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [y]))
        if not last:
            nodes.append(helper.make_node(activation, [y], [f"a{i}"]))
            x = f"a{i}"
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [("x", elem, ["batch", len(stack[0][0])])]
    outputs = [(output, elem, ["batch", len(stack[-1][1])])]
    return model(nodes, inputs, outputs, weights)


def permuted(stack: Layers, k: int, rng: np.random.Generator) -> Layers:
    """The units of hidden layer k in another order."""
    order = rng.permutation(len(stack[k][1]))
    changed = list(stack)
    changed[k] = (stack[k][0][:, order], stack[k][1][order])
    changed[k + 1] = (stack[k + 1][0][order], stack[k + 1][1])
    return changed


def widened(stack: Layers, k: int, width: int, rng: np.random.Generator) -> Layers:
    """Hidden layer k with copied units whose outgoing weights are random, with the old sum."""
    (w, b), (v, c) = stack[k], stack[k + 1]
    source = np.concatenate([np.arange(len(b)), rng.integers(0, len(b), width - len(b))])
    copies = np.bincount(source, minlength=len(b))
    drawn = rng.normal(size=(width, v.shape[1])) * v.std()
    total = np.zeros_like(v)
    np.add.at(total, source, drawn)
    changed = list(stack)
    changed[k] = (w[:, source], b[source])
    changed[k + 1] = (drawn + ((v - total) / copies[:, None])[source], c)
    return changed


def convnet(rng: np.random.Generator, groups: int = 2, fold: bool = False) -> onnx.ModelProto:
    """Conv (grouped), BatchNormalization, Relu, pooling, dense; ``fold`` merges the norm."""
    w, b = rng.normal(size=(8, 6 // groups, 3, 3)), rng.normal(size=8)
    scale, shift, mean = rng.normal(size=8), rng.normal(size=8), rng.normal(size=8)
    var, dense = rng.uniform(0.5, 2, size=8), rng.normal(size=(8, 5))
    factor = scale / np.sqrt(var + 1e-5)
    weights = {"w": w, "b": b, "dense": dense}
    if fold:
        weights |= {"w": w * factor[:, None, None, None], "b": (b - mean) * factor + shift}
    else:
        weights |= {"s": scale, "t": shift, "m": mean, "v": var}
    norm = helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], epsilon=1e-5)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=groups, pads=[1, 1, 1, 1]),
        *([] if fold else [norm]),
        helper.make_node("Relu", ["c" if fold else "n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["y"]),
    ]
    return model(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 6, 10, 10])],
        [("y", TensorProto.FLOAT, ["batch", 5])],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )


def edited(
    proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], None]
) -> onnx.ModelProto:
    """A copy with one weight array changed in place by ``change``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            change(array)
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# Equal networks pass -------------------------------------------------------------------------


def test_the_same_model_is_equivalent(rng: np.random.Generator) -> None:
    report = verify(mlp(layers(rng, [5, 9, 4])), mlp(layers(np.random.default_rng(7), [5, 9, 4])))
    assert report and report.verdict == "equivalent"
    (output,) = report.outputs
    assert output.max_abs == 0 and output.top1 == 1.0
    assert 0 < output.noise < output.tolerance < 1e-4 < output.signal
    assert not report.warnings and not output.warnings


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Identity"])
def test_permuted_and_widened_layers_are_equivalent(
    rng: np.random.Generator, dtype: type, activation: str
) -> None:
    stack = [(w.astype(dtype).astype(float), b) for w, b in layers(rng, [6, 13, 11, 4])]
    original = mlp(stack, dtype, activation)
    for other in (permuted(stack, 1, rng), widened(stack, 0, 50, rng), widened(stack, 1, 12, rng)):
        report = verify(original, mlp(other, dtype, activation))
        assert report, report.verdict
    swapped = [(w.copy(), b) for w, b in stack]
    swapped[1][0][[0, 1]] = swapped[1][0][[1, 0]]
    assert not verify(original, mlp(swapped, dtype, activation))


def test_fifty_layers_accumulate_rounding(rng: np.random.Generator) -> None:
    stack = layers(rng, [12] + [24] * 50 + [6])
    wide = stack
    for k in range(0, 50, 3):
        wide = widened(permuted(wide, k, rng), k, 31, rng)
    report = verify(mlp(stack), mlp(wide))
    assert report, report.verdict
    assert report.outputs[0].max_abs > 0


def test_a_folded_norm_is_equivalent() -> None:
    plain, folded = (convnet(np.random.default_rng(3), fold=fold) for fold in (False, True))
    report = verify(plain, folded)
    assert report, report.verdict
    assert report.outputs[0].used < 0.9


def test_bfloat16_is_computed_in_float32_and_says_so(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [6, 8, 4]), ml_dtypes.bfloat16)
    report = verify(proto, proto, provider="cpu")
    assert report and report.precision == "float32"
    assert any("bfloat16" in warning for warning in report.warnings)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    widths=st.lists(st.integers(1, 40), min_size=3, max_size=6),
    grow=st.integers(1, 60),
    activation=st.sampled_from(["Relu", "Sigmoid", "Tanh", "Elu"]),
)
def test_random_mlps(seed: int, widths: list[int], grow: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    stack = layers(rng, widths)
    k = int(rng.integers(0, len(stack) - 1))
    wide = widened(permuted(stack, k, rng), k, widths[k + 1] + grow, rng)
    original = mlp(stack, activation=activation)
    report = verify(original, mlp(wide, activation=activation))
    assert report, report.verdict
    # A bias of the last layer is always seen; earlier faults can hide behind a dead unit.
    wide[-1][1][rng.integers(0, widths[-1])] += 1e-3
    assert not verify(original, mlp(wide, activation=activation))


# Faults are caught ---------------------------------------------------------------------------


def _scale_one(array: np.ndarray) -> None:
    array.flat[array.size // 3] *= 1.05


def _shift_one(array: np.ndarray) -> None:
    array.flat[array.size // 2] += array.std()


def _swap_channels(array: np.ndarray) -> None:
    array[[0, 1]] = array[[1, 0]]


def _not_a_number(array: np.ndarray) -> None:
    array.flat[0] = np.nan


@pytest.mark.parametrize("change", [_scale_one, _shift_one, _swap_channels, _not_a_number])
@pytest.mark.parametrize("name", ["w", "b", "s", "m", "v", "dense"])
def test_a_fault_in_any_weight_is_caught(name: str, change: Callable[[np.ndarray], None]) -> None:
    original = convnet(np.random.default_rng(3))
    report = verify(original, edited(original, name, change))
    assert not report
    assert report.outputs[0].problem is not None
    assert ("NaN" in report.outputs[0].problem) == (change is _not_a_number)


def test_one_weight_of_thousands_is_caught(rng: np.random.Generator) -> None:
    original = mlp(layers(rng, [64, 256, 128, 50]))
    for name in ("w0", "w1", "w2"):
        for change in (_scale_one, _shift_one):
            report = verify(original, edited(original, name, change))
            assert not report and "differ by more than rounding noise" in report.verdict


def test_a_wrong_share_is_caught(rng: np.random.Generator) -> None:
    stack = layers(rng, [6, 10, 4])
    wide = widened(stack, 0, 15, rng)
    assert verify(mlp(stack), mlp(wide))
    wide[1][0][12] *= 1.01  # the shares of one unit no longer sum to 1
    assert not verify(mlp(stack), mlp(wide))


def test_a_wrong_group_count_is_caught(rng: np.random.Generator) -> None:
    original = convnet(rng, groups=2)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(original)
    wrong.graph.node[0].attribute[0].i = 1
    try:
        report = verify(original, wrong)
    except InvalidModel as error:
        assert "the second model" in str(error)
    else:
        assert not report and "the second model fails on" in report.problems[0]


def test_faults_in_the_interface_are_caught(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 4])
    original = mlp(stack)
    report = verify(original, mlp(stack, output="z"))
    assert not report
    assert report.problems == [
        "the second model lacks output 'y'",
        "the second model has an output 'z' that the first has not",
    ]
    half = verify(original, mlp(stack, np.float16))
    assert not half and "input 'x' is float (batch, 5) in the first model" in half.problems[0]
    wider = verify(original, mlp(layers(rng, [5, 9, 6])))
    assert not wider and "shape" in str(wider.outputs[0].problem)
    other_input = mlp(layers(rng, [7, 9, 4]))
    assert not verify(original, other_input) and not verify(original, other_input).trials


def test_a_changed_output_type_is_caught(rng: np.random.Generator) -> None:
    original = mlp(layers(rng, [5, 9, 4]), output="h")
    cast = onnx.ModelProto()
    cast.CopyFrom(original)
    cast.graph.node[-1].output[0] = "g"
    cast.graph.node.append(helper.make_node("Cast", ["g"], ["h"], to=TensorProto.DOUBLE))
    cast.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    report = verify(original, cast)
    assert not report and "type is float64, not float32" in str(report.outputs[0].problem)


def test_order_of_outputs_matters(rng: np.random.Generator) -> None:
    original = _two_heads(rng.normal(size=(4, 3)))
    other = onnx.ModelProto()
    other.CopyFrom(original)
    first, second = list(other.graph.output)
    del other.graph.output[:]
    other.graph.output.extend([second, first])
    report = verify(original, other)
    assert not report and "another order" in report.problems[0]


def _two_heads(w: np.ndarray) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
    ]
    inputs = [("x", TensorProto.FLOAT, ["n", 4])]
    outputs = [("scores", TensorProto.FLOAT, ["n", 3]), ("class", TensorProto.INT64, ["n"])]
    return model(nodes, inputs, outputs, {"w": w.astype(np.float32)})


def test_whole_number_outputs_must_be_equal(rng: np.random.Generator) -> None:
    w = rng.normal(size=(4, 3))
    report = verify(_two_heads(w), _two_heads(w[:, [1, 0, 2]]))
    assert not report
    assert [bool(output) for output in report.outputs] == [False, False]
    assert "elements differ, first at [" in str(report.outputs[1].problem)
    assert report.outputs[0].top1 is not None and report.outputs[0].top1 < 1
    # The user's tolerance can forgive one output, not the other.
    assert verify(_two_heads(w), _two_heads(w * 1.0001), rtol={"scores": 1e-3})


def test_random_numbers_cannot_be_compared() -> None:
    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    proto = model([node], [("x", 1, [2, 3])], [("y", 1, [2, 3])], {})
    report = verify(proto, proto)
    assert not report and "draws random numbers (RandomNormalLike)" in report.problems[0]


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
    bad = edited(mlp(stack), "w0", _not_a_number)
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


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.ts17.onnx")), ids=lambda path: path.stem)
def test_exported_networks_agree_with_themselves_and_show_a_fault(path: Path) -> None:
    proto = onnx.load(path)
    floats = [t for t in proto.graph.initializer if t.data_type == 1 and np.prod(t.dims) > 8]
    last = floats[-1].name

    def double_all(array: np.ndarray) -> None:
        array *= 1.01

    report = verify(path, proto)
    assert report and not report.optimizer_faults, report.verdict
    assert not any(output.warnings for output in report.outputs)
    assert not verify(path, edited(proto, last, double_all))
