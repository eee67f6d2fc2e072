"""Growth into the shape of a larger network, whose weights may be missing."""

from __future__ import annotations

import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.errors import Net2NetError, Refused, UsageError
from onnx_net2net.model.model import Model, load_shape
from onnx_net2net.model.tensors import clear_data
from onnx_net2net.model.weights import Absent
from onnx_net2net.plan.like import Unreachable, check_like, difference, parameters
from onnx_net2net.step import Deepen, Widen
from onnx_net2net.widening.dimensions import analyse
from tests.console import FIXTURES


def shape_of(model: Model) -> Model:
    """``model`` without the contents of its parameters."""
    proto = onnx.load_from_string(model.to_bytes())
    names = set(parameters(analyse(model)))
    for entry in proto.graph.initializer:
        if entry.name in names:
            clear_data(entry)
    return load_shape(proto)


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: model.weights[name].shape for name in parameters(analyse(model))}


# Widths by a factor, all or those of these names, and blocks with copies.
GROWN = [
    ("mlp.dynamo", 2, (), {}),
    ("lenet.dynamo", 1.5, (), {}),
    ("resnet.dynamo-raw", 2, (), {"layer1.1": 2, "layer2.1": 1}),
    ("resnet-bottleneck.dynamo", 1.5, (), {"layer1.1": 1}),
    ("gpt2.dynamo-raw", 1.5, ("*wte", "*attn:heads", "*c_fc"), {"h.0": 1, "h.1": 2}),
    ("llama.dynamo-raw", 1.5, ("*embed_tokens", "*q_proj:kv_heads", "*gate_proj"), {"layers.1": 2}),
    ("bert.dynamo-raw", 2, ("*word_embeddings", "*query:heads", "*intermediate*"), {"layer.0": 1}),
    ("vit.dynamo-raw", 2, ("patch*", "*fc1"), {"blocks.0": 1}),
    ("convnext.dynamo", 1.5, (), {}),
    ("gru.dynamo", 1.5, (), {}),
    ("unet.dynamo", 2, (), {}),
    ("keras-cnn.tf2onnx", 2, (), {}),
]


@pytest.mark.parametrize(
    ("name", "factor", "names", "copies"), GROWN, ids=[row[0].partition(".")[0] for row in GROWN]
)
def test_a_network_grows_into_its_own_larger_shape(
    name: str, factor: float, names: tuple[str, ...], copies: dict[str, int]
) -> None:
    small = n2n.load(FIXTURES / f"{name}.onnx")
    which = {"names": names} if names else {"all": True}
    steps = [{"operation": "widen", "factor": factor, "seed": 7, **which}]
    if copies:
        steps.append({"operation": "deepen", "block": copies, "seed": 7})
    large = n2n.grow(small, plan=steps)
    target = shape_of(large)
    assert any(isinstance(weight, Absent) for weight in target.weights.values())
    grown = n2n.grow(small, like=target)
    assert shapes(grown) == shapes(large) != shapes(small)
    assert n2n.verify(small, grown)
    assert [step["operation"] for step in grown.history] == ["widen", "deepen"][: len(steps)]


def test_a_plan_is_names_and_numbers() -> None:
    small = n2n.load(FIXTURES / "gpt2.dynamo-raw.onnx")
    large = n2n.widen(n2n.deepen(small, block="h.0", copies=2), {"model.transformer.wte": 36})
    widen, deepen = difference(small, shape_of(large)).steps
    assert isinstance(widen, Widen) and isinstance(deepen, Deepen)
    assert widen.widths == {"model.transformer.wte": 36}
    assert deepen.block == {"model.transformer.h.0": 2}, "the second block computes no mask"


def test_weights_that_are_absent_are_never_written(tmp_path) -> None:
    target = shape_of(n2n.load(FIXTURES / "mlp.dynamo.onnx"))
    with pytest.raises(Net2NetError, match=r"contents of 'fc1.weight' are not given"):
        target.save(tmp_path / "shape.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_of_weights_may_be_missing(tmp_path) -> None:
    small = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    large = n2n.widen(small, {"fc1": 64, "fc2": 70})
    large.save(tmp_path / "large.onnx", external=True)
    for data in tmp_path.glob("*.data"):
        data.unlink()
    with pytest.raises(n2n.InvalidModel, match="missing"):
        n2n.load(tmp_path / "large.onnx")
    assert shapes(n2n.grow(small, like=tmp_path / "large.onnx")) == shapes(large)


def test_nothing_to_grow() -> None:
    model = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    with pytest.raises(UsageError, match="have the same shape"):
        n2n.grow(model, like=shape_of(model))
    assert difference(model, model).steps == ()


def test_every_obstacle_is_named_at_once() -> None:
    small = n2n.load(FIXTURES / "resnet.dynamo-raw.onnx")
    wide = n2n.widen(small, {"conv1": 9, "layer1.0.conv1": 12})
    other = onnx.load_from_string(n2n.deepen(wide, block="layer1.1").to_bytes())
    for entry in other.graph.initializer:
        if entry.name == "fc.bias":
            entry.name = "fc.offset"
    for node in other.graph.node:
        node.input[:] = ["fc.offset" if name == "fc.bias" else name for name in node.input]
    shrunk = n2n.widen(small, {"layer2.1.conv1": 9})
    with pytest.raises(Unreachable) as refusal:
        difference(shrunk, load_shape(other))
    text = str(refusal.value)
    assert "for 3 obstacles" in text and len(refusal.value.obstacles) == 3
    assert "only the smaller network has parameter 'fc.bias'" in text
    assert "only the larger network has parameter 'fc.offset'" in text
    assert "'layer2.1.conv1' would shrink from 9 to 7" in text
    assert "the nearest that can be reached: conv1 = 9, layer1.0.conv1 = 12, 1 x layer1.1" in text
    assert [step.operation for step in refusal.value.plan.steps] == ["widen", "deepen"]


def test_a_width_that_is_no_multiple() -> None:
    name = "bert.dynamo-raw"  # post-norm: the hidden width grows by whole copies only
    small = n2n.load(FIXTURES / f"{name}.onnx")
    dimension = next(d for d in n2n.inspect(small) if d.growth == "multiple")
    large = n2n.widen(small, {dimension.name: 2 * dimension.width})
    proto = onnx.load_from_string(large.to_bytes())
    for entry in proto.graph.initializer:
        for axis, size in enumerate(entry.dims):
            if size == 2 * dimension.width and (entry.name, axis) in dimension.sites:
                clear_data(entry)
                entry.dims[axis] = size - 1
    with pytest.raises(
        Refused, match=f"no multiple of it: .*the nearest are {dimension.width * 2}"
    ):
        difference(small, load_shape(proto))


def test_what_did_not_become_like_it_is_refused() -> None:
    small = n2n.load(FIXTURES / "mlp.dynamo.onnx")
    large = n2n.widen(small, {"fc1": 64})
    with pytest.raises(Refused, match=r"'fc1\.weight' became \(23, 11\), and is \(64, 11\)"):
        check_like(small, large)
