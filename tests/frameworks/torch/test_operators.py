"""Every operator of the PyTorch tables, by the one-node networks that the rules are tested with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

pytest.importorskip("torch")

import torch

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.torch import to_torch
from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators import translations
from onnx_net2net.model.model import load
from onnx_net2net.operators.functions import functions
from tests.operators.test_rules import BY_ID
from tests.samples import RULED, Sample
from tests.samples.network import evaluate, network
from tests.torch_models import difference, expected, outputs

# What a module does otherwise than the file, on purpose.
OTHERWISE = {
    "Bernoulli-seeded": "PyTorch's generator draws",
    "Dropout-training": "train() and eval() say whether it drops",
    "Multinomial-seeded": "PyTorch's generator draws",
    "RandomNormal-seeded": "PyTorch's generator draws",
    "RandomNormalLike-seeded": "PyTorch's generator draws",
    "RandomUniform-seeded": "PyTorch's generator draws",
    "RandomUniformLike-seeded": "PyTorch's generator draws",
    "TopK-smallest": "the file leaves the order open (sorted=0)",
}
# Forms that are refused by name.
REFUSED = {
    "BatchNormalization-training": "its statistics are outputs",
    "LSTM-input-forget": "its input and forget gates are one",
}
# The judge itself does not run it with another input.
ONE_INPUT = {"NonMaxSuppression-plain"}
# Rules without an entry here.
MISSING: set[tuple[str, str]] = set()
# Entries that no rule knows: sequences and control flow, tested by fixtures and below.
BEYOND_RULES = {
    ("", name)
    for name in (
        *(
            "ConcatFromSequence",
            "If",
            "Loop",
            "MelWeightMatrix",
            "Scan",
            "SequenceAt",
            "SequenceConstruct",
        ),
        *("Optional", "OptionalGetElement", "OptionalHasElement", "SequenceEmpty"),
        *("SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence"),
    )
} | {
    ("ai.onnx.ml", "ArrayFeatureExtractor"),
    ("fusion", "Attention"),
    ("fusion", "FakeQuantize"),
    ("fusion", "Linear"),
}


def short(name: str) -> str:
    return name.partition(":")[2]


def problems(sample: Sample, drives: tuple[float, ...] = (0.7, -1.3)) -> list[str]:
    """Return outputs that differ from the judge's."""
    proto = network(sample)
    module = to_torch(load(proto))
    found = []
    for drive in drives:
        with torch.no_grad():
            given = module(torch.tensor([drive], dtype=torch.float32))
        given = given if isinstance(given, tuple) else (given,)
        for want, got in zip(evaluate(proto, drive, sample.runs), given, strict=True):
            if want.shape != got.shape or not np.allclose(want, got.numpy(), rtol=1e-4, atol=1e-4):
                found.append(f"{drive}: {want} is {got}")
    return found


@pytest.mark.parametrize("name", BY_ID)
def test_computes_what_onnxruntime_does(name: str) -> None:
    key = short(name)
    if key in REFUSED:
        with pytest.raises(Refused, match=REFUSED[key]):
            to_torch(load(network(BY_ID[name])))
        return
    found = problems(BY_ID[name], (0.7,) if key in ONE_INPUT else (0.7, -1.3))
    if key not in OTHERWISE:
        assert found == []


def alone(node: NodeProto, feeds: dict[str, np.ndarray], opset: int = 17) -> onnx.ModelProto:
    """Return a model of one node whose operands are all inputs."""
    values = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "alone", values, results)
    opsets = [helper.make_opsetid("", opset)]
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )


RNG = np.random.default_rng(0)
# Operators without an entry, which onnx defines by others.
DEFINED: dict[str, tuple[NodeProto, dict[str, np.ndarray]]] = {
    "NegativeLogLikelihoodLoss": (
        helper.make_node("NegativeLogLikelihoodLoss", ["x", "t"], ["y"], reduction="mean"),
        {"x": RNG.normal(size=(5, 4)).astype(np.float32), "t": RNG.integers(0, 4, 5)},
    ),
    "SoftmaxCrossEntropyLoss": (
        helper.make_node("SoftmaxCrossEntropyLoss", ["x", "t"], ["y", "p"]),
        {"x": RNG.normal(size=(5, 4)).astype(np.float32), "t": RNG.integers(0, 4, 5)},
    ),
}


@pytest.mark.parametrize("name", DEFINED)
def test_what_onnx_defines_by_other_operators(name: str) -> None:
    node, feeds = DEFINED[name]
    assert ("", name) not in translations()
    model = alone(node, feeds)
    module = to_torch(load(model))
    for want, got in zip(expected(model, feeds), outputs(module, feeds), strict=True):
        assert difference(want, got) < 1e-5


def test_every_rule_has_an_entry() -> None:
    assert RULED - translations().keys() - functions().keys() == MISSING


def test_every_entry_has_a_sample() -> None:
    sampled = {sample.operator for sample in BY_ID.values()}
    assert translations().keys() - sampled - BEYOND_RULES == set()
    assert translations().keys() >= BEYOND_RULES


def mean(op: TorchOperation) -> str:
    """Look at all that a ReduceSum states, and compute something else."""
    for name in op.step.attributes:
        op.attribute(name)
    return f"({op.tensor(0)}).mean()"


# Faults that a reviewer could make, and a sample that must show each of them.
FAULTS: dict[str, tuple[str, str, Entry]] = {
    "division rounded down": ("", "Div", "{0} // {1}"),
    "softmax over another axis": ("", "Softmax", "F.softmax({0}, dim=0)"),
    "mean for a sum": ("", "ReduceSum", mean),
    "operands swapped": ("", "Sub", "{1} - {0}"),
    "slope forgotten": ("", "LeakyRelu", "F.relu({0})"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_entries_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    domain, op, entry = FAULTS[fault]
    monkeypatch.setitem(translations(), (domain, op), entry)
    samples = [s for s in BY_ID.values() if s.operator == (domain, op)]

    def fails(sample: Sample) -> bool:
        try:
            return bool(problems(sample))
        except (RuntimeError, IndexError):
            return True

    assert any(map(fails, samples))
