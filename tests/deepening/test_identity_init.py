"""What the rules say of zeros, judged by running every operator on them.

The weights that are said to make a tensor vanish are set to zero, and then it must be zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from onnx import ModelProto, ValueInfoProto, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.deepening.identity_init import NOTHING, Vanishing, Weights
from onnx_net2net.operators import registry
from onnx_net2net.operators.language import Kind, Rule
from onnx_net2net.operators.record import Operator
from onnx_net2net.widening.contraction import FLOATS
from onnx_net2net.widening.dimensions import analyse
from tests.operators.test_rules import BY_ID, IDS, SAMPLES
from tests.samples import Sample
from tests.samples.network import evaluate, network


def claims(proto: ModelProto, sample: Sample) -> Iterator[Weights]:
    """The weights that are said to make the sample's output vanish, by each operand alone."""
    analysis, output = analyse(n2n.load(proto)), sample.node.output[0]
    weights = [
        name for name in analysis.model.weights if analysis.model.weights[name].dtype in FLOATS
    ]
    parts = [[name for name in weights if name.split(".")[0] == i] for i in sample.node.input if i]
    for names in (*parts, weights):
        with patch.object(Vanishing, "_trained", lambda _, name, names=names: name in names):
            found = Vanishing(analysis, "drive", output).zero(output)
        if found is not None:
            yield found


def wrong(sample: Sample) -> list[Weights]:
    """The claims that do not hold."""
    proto = network(sample)
    output = sample.node.output[0]
    found = []
    for claim in claims(proto, sample):
        changed = ModelProto()
        changed.CopyFrom(proto)
        zeros = {name for name, value in claim if value == 0}
        assert claim == NOTHING or zeros
        for entry in changed.graph.initializer:
            if entry.name in zeros:
                array = np.zeros_like(numpy_helper.to_array(entry))
                entry.CopyFrom(numpy_helper.from_array(array, entry.name))
        del changed.graph.output[:]
        changed.graph.output.append(ValueInfoProto(name=output))
        if np.asarray(evaluate(changed, 0.7, sample.runs)[0]).any():
            found.append(claim)
    return found


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_what_is_said_to_vanish_is_zero(sample: Sample) -> None:
    assert wrong(sample) == []


def test_what_carries_zeros_on_is_known_to() -> None:
    """Else the test above would be content with no claims at all."""
    for name in ("Add", "BatchNormalization", "Concat", "Conv", "Div", "Dropout", "Gemm"):
        mine = [sample for sample in SAMPLES if sample.operator == ("", name)]
        assert any(any(claims(network(sample), sample)) for sample in mine), name


@pytest.mark.parametrize("kind", [Kind.ZERO, Kind.SCALE, Kind.MOVE])
def test_a_wrong_kind_is_found(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = next(s for name, s in BY_ID.items() if name.endswith(":Cos-opset7"))
    monkeypatch.setitem(registry(), ("", "Cos"), Operator(Rule("... -> ...", kind=kind)))
    assert wrong(sample)
