"""The invariant, tensor by tensor: it holds for every grown fixture, and names a planted fault."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.cli.render_report import layers_text
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import Computed
from onnx_net2net.plan.invariant import verify_layers
from tests.console import ROOT

FIXTURES = ROOT / "fixtures"


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


DEEPER = {
    "identity layers": ("resnet.dynamo", {"after": ["layer1.0.conv1", "layer2.0.conv1"]}),
    "residual layers": ("mlp.dynamo", {"after": "fc1", "init": "residual"}),
    "factors": ("mlp.dynamo", {"after": ["fc1", "fc2"], "init": "factor"}),
    "copies of blocks": ("gpt2.dynamo-raw", {"block": "h.*", "copies": 2}),
    "copies up to epsilon": ("bert.dynamo", {"block": "*"}),
}


@pytest.mark.parametrize("name", DEEPER)
def test_holds_where_layers_were_inserted(name: str) -> None:
    file, options = DEEPER[name]
    model = n2n.load(FIXTURES / f"{file}.onnx")
    deeper = n2n.deepen(model, **options)
    report = verify_layers(model, deeper)
    assert report.first is None and report
    written = {o for node in model.proto.graph.node for o in node.output}
    assert report.inserted and not written & set(report.inserted)
    fed = written - Graph(model).derived  # made of more than weights
    assert len(report.layers) > 0.4 * len(fed), "what both have is compared"
    assert not any(layer.grows for layer in report.layers)
    assert f"{len(report.inserted)} inserted ones" in layers_text(report)


def spoiled(model: n2n.Model, name: str) -> n2n.Model:
    """One entry of a weight is off."""
    array = model.weights[name].array().copy()
    array.reshape(-1)[3] += 0.5
    weight = Computed(name, onnx.TensorProto.FLOAT, array.shape, lambda: array)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return model.with_changes(proto, {name: weight})


def test_names_the_first_node_of_a_deepened_model_that_diverges() -> None:
    model = n2n.load(FIXTURES / "gpt2.dynamo-raw.onnx")
    deeper = n2n.deepen(model, block="h.0")
    old = "transformer.h.0.mlp.c_fc.weight"
    old = next(name for name in deeper.weights if name.endswith(old))
    report = verify_layers(model, spoiled(deeper, old))
    assert report.first is not None
    tensor = next(n.output[0] for n in model.proto.graph.node if old in n.input)
    assert report.first.tensor == tensor
    # A copy of the block: what comes out of it is the first that both models have.
    new = next(n for n in deeper.changes[0].parameters if n.endswith("h.1.mlp.c_proj.weight"))
    report = verify_layers(model, spoiled(deeper, new))
    assert report.first is not None
    last = next(n for n in deeper.proto.graph.node if report.first.tensor in n.output)
    assert report.first.node == last.name and ".h.1" in str(last.metadata_props)


def test_names_the_inserted_layer_that_diverges() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    deeper = n2n.deepen(model, after="layer1.0.conv1")
    change = deeper.changes[0]
    weight = next(n for n in change.parameters if deeper.weights[n].array().ndim == 4)
    report = verify_layers(model, spoiled(deeper, weight))
    assert report.first is not None and report.first.tensor == change.tensor
    assert report.first.node not in {node.name for node in model.proto.graph.node}


def test_holds_over_steps_of_both_kinds() -> None:
    model = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    deeper = n2n.deepen(n2n.widen(model, {"fc1": 25}, seed=1), after="fc1", init="residual")
    grown = n2n.widen(deeper, {"fc2": 20})
    report = verify_layers(model, grown)
    assert report and report.inserted and any(layer.grows for layer in report.layers)
    assert not verify_layers(model, spoiled(grown, "fc1.weight"))


def test_refuses_strangers() -> None:
    model = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    other = n2n.load(FIXTURES / "mlp.ts17.onnx")
    with pytest.raises(n2n.UsageError, match="history"):
        verify_layers(model, model)
    with pytest.raises(n2n.UsageError, match="another file"):
        verify_layers(other, n2n.widen(model, {"fc1": 30}))


@pytest.mark.parametrize(
    "name",
    ["bert-classic.ts11", "bert.dynamo-raw", "groupnorm.ts17", "mlp.bfloat16-stored",
     "sklearn-binary.skl2onnx"],
)  # fmt: skip
def test_compares_what_grew_whatever_the_sizes_and_the_weights_in_the_graph(name: str) -> None:
    model = n2n.load(FIXTURES / f"{name}.onnx")
    first = next(d for d in n2n.inspect(model) if d.growth != "fixed")
    report = verify_layers(model, n2n.widen(model, {first.name: 2 * first.width}))
    assert report and any(layer.grows for layer in report.layers)


def test_nothing_compared_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_net2net.plan import invariant

    model = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    grown = n2n.widen(model, {"fc1": 30})
    fits = invariant._fits
    monkeypatch.setattr(
        invariant,
        "_fits",
        lambda growth, axes, shape: (
            fits(growth, axes, shape) and not any(map(growth.touches, axes))
        ),
    )
    report = verify_layers(model, grown)
    assert report.layers and not report.first, "what did not grow is compared"
    assert not report and report.vacuous == ["step 1, widen"] and report.unjudged
    assert layers_text(report).startswith("no tensor that grew could be compared: step 1, widen")
    assert report.as_dict()["holds"] is False
