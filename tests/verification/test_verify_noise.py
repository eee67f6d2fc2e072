"""Where noise comes from: kernels of functions, both directions, recurrences, and empty insides."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_net2net.model.model import load
from onnx_net2net.verification.interior import Interior
from onnx_net2net.verification.precision import nudged_array
from onnx_net2net.verification.recurrence import NotWritable, unrolled
from onnx_net2net.verification.sessions import kernels
from onnx_net2net.verification.sizes import input_specs
from onnx_net2net.verification.verify import Candidate, verify
from onnx_net2net.widening.widen import widen
from tests.coverage.judge import (
    KINDS,
    dead_units,
    masked_attention,
    saturated,
    scales_apart,
    shifted,
    text_map,
)
from tests.judging import CPU, Subject, everything
from tests.networks import Net

# Kernels ---------------------------------------------------------------------------------------

ERRORS = {  # the largest one of onnxruntime's kernel on the CPU: of which kind, about how much
    "Sigmoid": ("absolute", 1e-7),
    "HardSigmoid": ("absolute", 1e-8),
    "Tanh": ("relative", 2e-7),
    "Erf": ("relative", 1e-7),
    "Softplus": ("relative", 2e-7),
    "Relu": None,
    "Neg": None,
    "Softmax": None,  # no function of one element
    "RandomNormalLike": None,  # no error, another function
}


@pytest.mark.parametrize("operator", ERRORS)
def test_errors_of_kernels_are_measured(operator: str) -> None:
    found = kernels(CPU).error(helper.make_node(operator, ["a"], ["b"]), {"": 20})
    if ERRORS[operator] is None:
        assert found is None
    else:
        kind, size = ERRORS[operator]
        assert found is not None and size / 4 < getattr(found, kind) < 4 * size


def test_moved_both_ways() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=500).astype(np.float32)
    up, down = (nudged_array(array, np.random.default_rng(1), sign) for sign in (1, -1))
    assert 50 < (up != array).sum() < 200
    np.testing.assert_array_equal(up != array, down != array)
    assert ((up > array) == (down < array)).all()


# False alarms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "random networks"])
def test_exact_growths_that_are_hard_on_a_judge_raise_no_alarm(kind: str) -> None:
    for seed in range(3):
        subject = Subject(load(KINDS[kind][0](seed)))
        grown = widen(subject.model, everything(subject.dimensions, seed), seed=seed)
        report = verify(subject.model, grown, seeds=2, provider="cpu")
        assert report, report.verdict


def test_a_network_that_is_0_but_for_rounding() -> None:
    """One output, all terms cancelling: its noise is that of the terms."""
    for seed in range(6):
        net = Net(seed=seed)
        hidden = net("Relu", net("Gemm", net.input(64, 7), net.weight(7, 10), net.weight(10)))
        last = np.float32(net.rng.normal(size=(5, 1)))
        both = net("Concat", hidden, hidden, axis=1)
        rows = np.concatenate([last, last, -last, -last])
        proto = net.model(net("Relu", net("MatMul", both, net.put(rows))))
        order = np.random.default_rng(seed).permutation(20)
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        other.graph.node.insert(
            len(other.graph.node) - 2,
            helper.make_node("Gather", [other.graph.node[-2].input[0], "order"], ["g"], axis=1),
        )
        other.graph.node[-2].input[0] = "g"
        other.graph.initializer.append(onnx.numpy_helper.from_array(order, "order"))
        other.graph.initializer[-2].CopyFrom(
            onnx.numpy_helper.from_array(rows[order], other.graph.initializer[-2].name)
        )
        report = verify(proto, other, seeds=2, provider="cpu")
        assert report, report.verdict


def test_numbers_below_all_normal_ones_are_no_difference() -> None:
    def constant(value: float) -> onnx.ModelProto:
        net = Net()
        zero = net("Mul", net.input(70, 2), net.put(np.float32(0)))
        return net.model(net("Add", zero, net.put(np.float32([value, 1]))))

    assert verify(constant(0), constant(1e-40))
    assert not verify(constant(0), constant(1e-30))


# Faults that a floor too generous would let pass ------------------------------------------------


def weight_of(proto: onnx.ModelProto, node: int, position: int) -> str:
    return str(proto.graph.node[node].input[position])


def a_dead_unit_alive(size: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = dead_units(1)
    return proto, shifted(proto, weight_of(proto, -2, 2), 0, lambda b: b + size)


def a_small_output_off(share: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = scales_apart(1)
    column = (slice(None), 5)
    return proto, shifted(proto, weight_of(proto, -1, 1), column, lambda w: w * (1 + share))


def a_map_shifted(bias: float, size: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = text_map(1, bias)
    return proto, shifted(proto, weight_of(proto, -2, 2), 0, lambda b: b + size)


def a_gate_shifted(size: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = saturated(1)
    gate = (0, slice(0, 8))
    return proto, shifted(proto, weight_of(proto, 0, 3), gate, lambda b: b + size)


def a_score_off(share: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = masked_attention(1)
    column = (slice(None), 2)
    return proto, shifted(proto, weight_of(proto, 1, 1), column, lambda w: w * (1 + share))


@pytest.mark.parametrize(
    ("plant", "sizes"),
    [
        (a_dead_unit_alive, (1e-4,)),
        (a_dead_unit_alive, (1e-5,)),
        (a_small_output_off, (0.01,)),
        (a_small_output_off, (1e-4,)),
        (a_map_shifted, (-17.0, 3.0)),
        (a_map_shifted, (-10.0, 0.03)),
        (a_map_shifted, (-6.0, 0.001)),
        (a_gate_shifted, (0.01,)),
        (a_score_off, (1e-3,)),
    ],
)
def test_faults_near_the_floor_are_caught(plant: Any, sizes: tuple[float, ...]) -> None:
    original, wrong = plant(*sizes)
    assert verify(original, original, provider="cpu")
    assert not verify(original, wrong, provider="cpu")


# Recurrences -----------------------------------------------------------------------------------

WAYS = list(
    itertools.product(
        ("LSTM", "GRU", "RNN"), ("forward", "reverse", "bidirectional"),
        (False, True), (False, True), (12, 20),
    )
)  # fmt: skip


def recurrent(operator: str, way: str, lengths: bool, rich: bool, opset: int) -> onnx.ModelProto:
    """Three sequences of seven steps; ``rich`` with initial states and all that is optional."""
    net = Net(opset=opset)
    two, gates = 1 + (way == "bidirectional"), {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    given = [net.input(7, 3, 5), net.weight(two, gates * 4, 5), net.weight(two, gates * 4, 4)]
    given += [net.weight(two, gates * 8) if rich or lengths else ""]
    given += [net.put(np.array([7, 3, 5], np.int32)) if lengths else ""]
    options: dict[str, Any] = {}
    if rich:
        given.append(net.weight(two, 3, 4))
        if operator == "LSTM":
            given += [net.weight(two, 3, 4), net.weight(two, 12)]
            options = {"clip": 0.7, "input_forget": int(lengths)}
        elif operator == "GRU":
            options = {"linear_before_reset": 1}
        else:
            options = {"activations": ["Relu"] * two}
    results = 3 if operator == "LSTM" else 2
    outputs = net(operator, *given, results=results, hidden_size=4, direction=way, **options)
    return net.model(*outputs)


@pytest.mark.parametrize(("operator", "way", "lengths", "rich", "opset"), WAYS)
def test_recurrences_in_float64_compute_the_same(
    operator: str, way: str, lengths: bool, rich: bool, opset: int
) -> None:
    candidate = Candidate("given", load(recurrent(operator, way, lengths, rich, opset)), CPU)
    feeds = {"x": np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)}
    single = candidate.run(feeds)
    (double,) = candidate.rerun([feeds], "double") or [{}]
    assert double.keys() == single.keys()
    for name, value in double.items():
        assert value.dtype == np.float64 and value.shape == single[name].shape
        np.testing.assert_allclose(single[name], value, rtol=1e-5, atol=1e-6)
        assert (single[name] != value).any(), "float64 tells more"


def test_float64_arbitrates_beside_what_has_no_float64() -> None:
    net = Net(opset=17)
    x = net("Conv", net.input(1, 3, 20), net.weight(6, 3, 3), pads=[1, 1])
    x = net("Transpose", x, perm=[2, 0, 1])
    y = net("LSTM", x, net.weight(1, 16, 6), net.weight(1, 16, 4), results=1, hidden_size=4)
    proto = net.model(net("Erf", y))
    assert "float64" in verify(proto, proto, provider="cpu").noise_sources


def test_what_is_not_written_out_is_not_guessed() -> None:
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=4, activations=["Affine"])
    with pytest.raises(NotWritable):
        unrolled(node, 17)
    net = Net()
    x = net.input(5, 2, 3)
    y = net("RNN", x, net.weight(1, 4, 3), net.weight(1, 4, 4), hidden_size=4,
            activations=["Softsign"], results=1)  # fmt: skip
    report = verify(net.model(y), net.model(y), provider="cpu")
    assert report and "float64" not in report.noise_sources


# Empty insides ---------------------------------------------------------------------------------


def pooled(times: int, size: int = 2) -> onnx.ModelProto:
    net = Net()
    x = net("Conv", net.input("batch", 2, "height", "width"), net.weight(4, 2, 3, 3))
    for _ in range(times):
        x = net("MaxPool", x, kernel_shape=[size, size], strides=[size, size])
    return net.model(net("Flatten", net("GlobalAveragePool", x)))


@pytest.mark.parametrize(
    ("height", "width", "empty"), [(64, 64, False), (12, 64, True), (64, 12, True), (34, 34, False)]
)
def test_windows_larger_than_what_they_slide_over_are_found(
    height: int, width: int, empty: bool
) -> None:
    proto = pooled(4)
    interior = Interior(load(proto), input_specs(proto.graph))
    found = interior.empty({"batch": 1, "height": height, "width": width})
    assert (found is not None) is empty
    assert not found or "maxpool" in found


@pytest.mark.parametrize("times", [3, 7])
def test_sizes_are_chosen_that_leave_nothing_empty(times: int) -> None:
    proto = pooled(times)
    interior = Interior(load(proto), input_specs(proto.graph))
    report = verify(proto, proto, provider="cpu")
    assert report and not report.warnings
    assert all(interior.empty(trial.sizes) is None for trial in report.trials)
    assert len({str(trial.sizes) for trial in report.trials}) > 1


def test_where_something_is_empty_at_all_sizes_it_is_said() -> None:
    proto = pooled(3, size=16)
    report = verify(proto, proto, provider="cpu", sizes={"batch": 1})
    assert report.trials and "is empty at the sizes that were tried" in str(report.warnings)


def test_what_is_always_empty_does_not_count() -> None:
    net = Net()
    none = net("Slice", net.input("n", 4), net.put(np.array([2])), net.put(np.array([2])),
               net.put(np.array([1])))  # fmt: skip
    proto = net.model(net("Concat", none, "x", axis=1))
    assert Interior(load(proto), input_specs(proto.graph)).empty({"n": 3}) is None
