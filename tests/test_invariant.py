"""The invariant, tensor by tensor: it holds for every grown fixture, and names a planted fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.invariant import verify_layers
from onnx_net2net.model import Computed

FIXTURES = Path(__file__).parent.parent / "fixtures"


def everything(model: n2n.Model) -> dict[str, int]:
    dims = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    return {d.name: d.width + 3 if d.growth == "any" else 2 * d.width for d in dims}


@pytest.mark.parametrize("name", ["resnet.ts17", "gpt2.dynamo", "llama.dynamo", "googlenet.dynamo"])
def test_holds_at_every_tensor(name: str) -> None:
    model = n2n.load(FIXTURES / f"{name}.onnx")
    report = verify_layers(model, n2n.widen(model, everything(model), seed=3))
    assert report.first is None
    assert report and sum(layer.grows for layer in report.layers) > 20


def test_holds_over_several_steps() -> None:
    model = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    grown = n2n.widen(n2n.widen(model, {"fc1": 25}, seed=1), {"fc1": 31, "fc2": 20}, seed=2)
    assert verify_layers(model, grown)


def test_names_the_first_node_that_diverges() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    grown = n2n.widen(model, {"layer2.0.conv1": 12, "layer3.0.conv1": 14})
    good = grown.weights["layer2.0.conv2.weight"].array()
    bad = good.copy()
    bad[:, 3] = good[:, 4]
    weight = Computed("layer2.0.conv2.weight", onnx.TensorProto.FLOAT, bad.shape, lambda: bad)
    proto = onnx.ModelProto()
    proto.CopyFrom(grown.proto)
    faulty = grown.with_changes(proto, {"layer2.0.conv2.weight": weight})
    report = verify_layers(model, faulty)
    assert not report
    assert report.first is not None
    conv = next(n for n in model.proto.graph.node if "layer2.0.conv2.weight" in n.input)
    assert report.first.node == conv.name
    assert np.isfinite(report.first.max_abs)


def test_refuses_strangers() -> None:
    model = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    other = n2n.load(FIXTURES / "mlp.ts17.onnx")
    with pytest.raises(n2n.UsageError, match="history"):
        verify_layers(model, model)
    with pytest.raises(n2n.UsageError, match="another file"):
        verify_layers(other, n2n.widen(model, {"fc1": 30}))
