"""Every translation to Keras by the one-node networks of tests/samples, against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_net2net.errors import Refused
from onnx_net2net.operators.functions import functions
from onnx_net2net.verification.verify import run
from tests.frameworks.keras.test_fusions import FORMS as FUSED
from tests.keras_models import FILES, keras, load, outputs, to_keras
from tests.networks import Net
from tests.operators.test_rules import BY_ID
from tests.samples import RULED, Sample
from tests.samples.network import evaluate, network

from onnx_net2net.frameworks.keras.layers import makers  # isort: skip
from onnx_net2net.frameworks.keras.operators import translations  # isort: skip

DRIVE = {"drive": np.array([0.7], np.float32)}

# Rules for which there is no translation, and samples of a form that is refused.
GAPS = {("", "MaxRoiPool"), ("", "NonMaxSuppression")}
REFUSED = {
    "indexing:RoiAlign-max-opset16": "mode=max with more than one sample",
    "indexing:Unique-axis": "only the data tell how many distinct elements there are",
}
# What is random, or of which onnxruntime leaves the order open.
RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip
UNDECIDED = {"elementwise:Dropout-training", "indexing:TopK-smallest"}

DETERMINED = {
    key: sample
    for key, sample in BY_ID.items()
    if sample.operator not in GAPS
    and sample.node.op_type not in RANDOM
    and key not in REFUSED.keys() | UNDECIDED
}


def problems(sample: Sample) -> list[str]:
    """Outputs that are not those of onnxruntime."""
    proto = network(sample)
    wanted = evaluate(proto, 0.7, sample.runs)
    found = outputs(to_keras(load(proto)), DRIVE)
    pairs = zip(wanted, found, strict=True)
    return [f"{b} for {a}" for a, b in pairs if not np.allclose(a, b, rtol=2e-4, atol=2e-4)]


@pytest.mark.parametrize("key", DETERMINED)
def test_computes_what_onnxruntime_does(key: str) -> None:
    assert problems(DETERMINED[key]) == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="another backend may know them")
@pytest.mark.parametrize("key", REFUSED)
def test_forms_are_refused_by_name(key: str) -> None:
    sample = BY_ID[key]
    with pytest.raises(Refused, match=REFUSED[key]) as caught:
        to_keras(load(network(sample)))
    assert str(caught.value).startswith(f"{sample.node.op_type} 'node': ")


def test_every_translation_is_tried() -> None:
    """By a sample, in a fixture, below, or with the fusions."""
    tried = {sample.operator for sample in BY_ID.values()} | set(MORE)
    for path in FILES:
        tried |= _operators(onnx.load(path).graph)
    tried |= {operator for _, operator in FUSED.values()}
    assert not translations().keys() - tried
    assert RULED - translations().keys() - functions().keys() == GAPS, (
        "a gap is filled, or a new one"
    )


def _operators(graph: onnx.GraphProto) -> set[tuple[str, str]]:
    found = set()
    for node in graph.node:
        found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _operators(attribute.g)
    return found


# Operators that have no rule, in a graph from x (2, 3) to y.
def _sequence(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [helper.make_node("SequenceConstruct", ["x", "z", "x"], ["s"]), *nodes]


MORE: dict[tuple[str, str], list[onnx.NodeProto]] = {
    ("", "Constant"): [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ],
    ("", "ConcatFromSequence"): _sequence(
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=1, new_axis=1)
    ),
    ("", "SequenceConstruct"): _sequence(
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)
    ),
    ("", "SequenceEmpty"): [
        helper.make_node("SequenceEmpty", [], ["e"], dtype=TensorProto.FLOAT),
        helper.make_node("SequenceInsert", ["e", "x"], ["s"]),
        helper.make_node("SequenceInsert", ["s", "z", "zero"], ["t"]),
        helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ],
    ("", "SequenceErase"): _sequence(
        helper.make_node("SequenceErase", ["s", "zero"], ["t"]),
        helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ),
    ("", "SequenceInsert"): _sequence(
        helper.make_node("SequenceInsert", ["s", "z", "back"], ["t"]),
        helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ),
    ("", "SequenceLength"): _sequence(
        helper.make_node("SequenceLength", ["s"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ),
    ("", "Size"): [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["x", "f"], ["y"]),
    ],
}


@pytest.mark.parametrize("operator", MORE, ids=lambda operator: operator[1])
def test_computes_what_onnxruntime_does_without_a_rule(operator: tuple[str, str]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"]), *MORE[operator]],
        "more",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("zero", TensorProto.INT64, [], [0]),
            helper.make_tensor("back", TensorProto.INT64, [], [-2]),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    assert np.allclose(
        outputs(to_keras(load(proto)), {"x": x})[0], run(proto, {"x": x})["y"], atol=1e-6
    )


def test_what_is_written_into_nothing_is_nothing() -> None:
    """As exporters unroll a masked window that is shifted by nothing."""
    net = Net(opset=17)
    x = net.input(2, 3)
    zero, one = (net.put(np.array([n], np.int64)) for n in (0, 1))
    empty = net("Slice", x, zero, zero, one)
    rows = net("ScatterND", empty, net.put(np.array([[0]])), net("Slice", empty, zero, one, zero))
    proto = net.model(net("Concat", x, rows, axis=1))
    given = {"x": np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)}
    (expected,) = run(proto, given).values()
    assert np.array_equal(outputs(to_keras(load(proto)), given)[0], expected)


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_numbers_differ_each_time(name: str) -> None:
    sample = next(s for s in BY_ID.values() if s.node.op_type == name)
    made = to_keras(load(network(sample)))
    draws = {float(outputs(made, DRIVE)[0]) for _ in range(6)}
    assert len(draws) > 1 and np.isfinite(list(draws)).all()


# Faults that a translation could have, and a sample that must show each of them.
FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "truncated division taken as floor": (
        "Div-",
        lambda entry: lambda call, a, b: keras.ops.subtract(entry(call, a, b), 1),
    ),
    "softmax over another axis": (
        "Softmax-",
        lambda entry: lambda call, x: keras.ops.softmax(x, axis=0),
    ),
    "a bias left out": (
        "Gemm-",
        lambda entry: lambda call, a, b, c=None: entry(call, a, b),
    ),
    "a mask left out": (
        "Attention-mask",
        lambda entry: lambda call, q, k, v, *rest: entry(call, q, k, v),
    ),
    "directions exchanged": (
        "LSTM-",
        lambda entry: lambda call, x, *rest: entry(call, keras.ops.flip(x, 0), *rest),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start, spoil = FAULTS[fault]
    sample = next(s for key, s in DETERMINED.items() if key.partition(":")[2].startswith(start))
    assert problems(sample) == []
    monkeypatch.delitem(makers(), sample.operator, raising=False)  # no layer instead
    monkeypatch.setitem(translations(), sample.operator, spoil(translations()[sample.operator]))
    assert problems(sample)
