"""Judge the judge: equal networks pass, and each planted fault is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.verification.verify import verify
from tests.console import ROOT
from tests.verify_networks import (
    convnet,
    edited,
    layers,
    mlp,
    model,
    not_a_number,
    permuted,
    scale_one,
    shift_one,
    swap_channels,
    widened,
)

FIXTURES = ROOT / "fixtures"


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


@pytest.mark.parametrize("change", [scale_one, shift_one, swap_channels, not_a_number])
@pytest.mark.parametrize("name", ["w", "b", "s", "m", "v", "dense"])
def test_a_fault_in_any_weight_is_caught(name: str, change: Callable[[np.ndarray], None]) -> None:
    original = convnet(np.random.default_rng(3))
    report = verify(original, edited(original, name, change))
    assert not report
    assert report.outputs[0].problem is not None
    assert ("NaN" in report.outputs[0].problem) == (change is not_a_number)


def test_one_weight_of_thousands_is_caught(rng: np.random.Generator) -> None:
    original = mlp(layers(rng, [64, 256, 128, 50]))
    for name in ("w0", "w1", "w2"):
        for change in (scale_one, shift_one):
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


def test_a_tolerance_of_the_users_holds_for_whole_numbers_too() -> None:
    def counted(more: int) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64),
            helper.make_node("Add", ["n", "more"], ["y"]),
        ]
        weights = {"more": np.array((1 << 60) + more)}
        return model(nodes, [("x", 1, ["n", 3])], [("y", TensorProto.INT64, ["n", 3])], weights)

    assert verify(counted(0), counted(2), atol=2)
    report = verify(counted(0), counted(2), atol={"y": 1.5})
    assert not report and report.outputs[0].max_abs == 2


@pytest.mark.parametrize("number", [float("nan"), -1.0])
def test_a_tolerance_that_is_no_limit_is_refused(rng: np.random.Generator, number: float) -> None:
    proto = mlp(layers(rng, [5, 9, 4]))
    for rtol in (number, {"y": number}):
        with pytest.raises(UsageError, match="is no limit"):
            verify(proto, edited(proto, "w0", swap_channels), rtol=rtol)


def _whole(factor: float) -> onnx.ModelProto:
    """Products with so large a factor that every whole number flips at the last bit."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "f"], ["large"]),
        helper.make_node("Cast", ["large"], ["y"], to=TensorProto.INT64),
    ]
    weights = {"w": np.linspace(-1, 1, 48, dtype=np.float32).reshape(6, 8), "f": np.float32(factor)}
    inputs = [("x", TensorProto.FLOAT, ["n", 6])]
    return model(nodes, inputs, [("y", TensorProto.INT64, ["n", 8])], weights)


def test_whole_numbers_that_all_flip_show_nothing() -> None:
    assert verify(_whole(10), _whole(10))
    report = verify(_whole(1e12), _whole(-3e12))
    assert not report and "elements differ" in report.verdict


def test_outputs_that_are_all_empty_show_nothing() -> None:
    def found(at: float) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Greater", ["x", "at"], ["seen"]),
            helper.make_node("Compress", ["x", "seen"], ["y"]),
        ]
        inputs = [("x", TensorProto.FLOAT, [9])]
        weights = {"at": np.float32(at)}
        return model(nodes, inputs, [("y", TensorProto.FLOAT, [None])], weights)

    report = verify(found(1e6), found(2e6))
    assert not report and "nothing could be compared" in report.verdict
    data = np.linspace(0, 3e6, 9, dtype=np.float32)
    assert verify(found(1e6), found(1e6), inputs={"x": data})
    assert not verify(found(1e6), found(2e6), inputs={"x": data})


def test_random_numbers_cannot_be_compared() -> None:
    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    proto = model([node], [("x", 1, [2, 3])], [("y", 1, [2, 3])], {})
    report = verify(proto, proto)
    assert not report and "draws random numbers (RandomNormalLike)" in report.problems[0]


@pytest.mark.parametrize(
    ("operator", "body"),
    [
        ("Dropout", "y = Dropout(x, half, yes)"),
        (
            "RandomNormalLike",
            "y = If(yes) <then_branch = t () => (float[n, 30] a) {a = RandomNormalLike(x)},"
            " else_branch = e () => (float[n, 30] b) {b = Identity(x)}>",
        ),
    ],
)
def test_random_numbers_are_no_rounding_noise(operator: str, body: str) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 30] x) => (float[n, 30] y) '
        f"<float half = {{0.5}}, bool yes = {{1}}> {{{body}}}"
    )
    report = verify(proto, proto)
    assert not report and f"draws random numbers ({operator})" in report.verdict


def test_dropout_that_drops_nothing_is_not_random() -> None:
    nodes = [helper.make_node("Log", ["x"], ["z"]), helper.make_node("Dropout", ["z"], ["y"])]
    proto = model(nodes, [("x", 1, ["n", 9])], [("y", 1, ["n", 9])], {})
    assert verify(proto, proto)  # NaN included


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
