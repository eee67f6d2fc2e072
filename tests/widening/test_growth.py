"""What growing does to the weights, seen from outside: who is copied, who shares, what is kept."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_net2net as n2n
from onnx_net2net import __version__
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening.dimensions import inspect
from onnx_net2net.widening.widen import widen
from tests.console import ROOT
from tests.judging import Subject, everything
from tests.networks import Net

FIXTURES = ROOT / "fixtures"


def two_layers(width: int = 7) -> Model:
    """up (5 -> width), Relu, down (width -> 3)."""
    net = Net()
    up = net.weight(5, width, name="up.weight"), net.weight(width, name="up.bias")
    hidden = net("Relu", net("Gemm", net.input(4, 5), *up))
    down = net.weight(width, 3, name="down.weight"), net.weight(3, name="down.bias")
    return load(net.model(net("Gemm", hidden, *down)))


def weights(model: Model) -> dict[str, np.ndarray]:
    return {name: weight.array() for name, weight in model.weights.items()}


def sources(before: np.ndarray, after: np.ndarray) -> list[int]:
    """For each column of ``after`` the equal column of ``before``."""
    found = [[i for i, old in enumerate(before.T) if np.array_equal(old, new)] for new in after.T]
    assert all(len(equal) == 1 for equal in found)
    return [equal[0] for equal in found]


@pytest.mark.parametrize("split", ["project", "even", "noise"])
def test_copies_are_equal_incoming_and_share_outgoing(split: str) -> None:
    """Net2WiderNet itself, on arrays."""
    model = two_layers()
    grown = weights(widen(model, {"up": 12}, seed=3, split=split))
    before = weights(model)
    source = sources(before["up.weight"], grown["up.weight"])
    assert source[:7] == list(range(7)), "old units keep their places"
    assert sorted(source[7:]) == sorted(set(source[7:])), "each unit is copied before any twice"
    np.testing.assert_array_equal(grown["up.bias"], before["up.bias"][source])
    np.testing.assert_array_equal(grown["down.bias"], before["down.bias"])
    for unit in range(7):
        parts = grown["down.weight"][[j for j, i in enumerate(source) if i == unit]]
        if split == "noise":
            np.testing.assert_allclose(parts.sum(0), before["down.weight"][unit], rtol=0.05)
        else:
            np.testing.assert_allclose(parts.sum(0), before["down.weight"][unit], atol=3e-7)
        if len(parts) > 1:
            alike = np.isclose(parts[0], parts[1], rtol=1e-6).all()
            assert alike == (split == "even"), "copies that share evenly never differ"


def test_project_parts_are_as_large_as_what_they_split() -> None:
    model = two_layers(width=64)
    before, after = weights(model), weights(widen(model, {"up": 128}))
    ratio = np.std(after["down.weight"]) / np.std(before["down.weight"])
    assert 0.95 < ratio * np.sqrt(2) < 1.05, "as in a fresh layer"
    differs = after["down.weight"][:64] - before["down.weight"] / 2
    assert (np.abs(differs) > 1e-4).mean() > 0.99, "every entry differs"


def test_round_robin_takes_units_in_turn() -> None:
    model = two_layers()
    grown = weights(widen(model, {"up": 17}, mapping="round-robin"))
    source = sources(weights(model)["up.weight"], grown["up.weight"])
    assert source == [*range(7), *range(7), 0, 1, 2]


def test_random_mapping_draws_by_seed() -> None:
    model = two_layers()
    before = weights(model)["up.weight"]
    grown = [weights(widen(model, {"up": 10}, seed=seed))["up.weight"] for seed in range(6)]
    drawn = {tuple(sources(before, after)) for after in grown}
    assert len(drawn) > 3


@pytest.mark.parametrize("name", ["mlp.ts17", "resnet.dynamo", "bert.ts17", "llama.dynamo"])
def test_a_seed_gives_the_same_bytes_and_another_others(name: str) -> None:
    path = FIXTURES / f"{name}.onnx"
    widths = everything(Subject(load(path)).dimensions)
    first, same, other = (widen(load(path), widths, seed=s).to_bytes() for s in (5, 5, 6))
    assert first == same
    assert first != other


def test_a_dimension_grows_alike_whatever_grows_beside_it() -> None:
    """Random numbers hang on names: adding a request changes no other."""
    model = load(FIXTURES / "mlp.ts17.onnx")
    both = weights(widen(model, {"fc1": 30, "fc2": 31}))
    alone = weights(widen(model, {"fc1": 30}))
    np.testing.assert_array_equal(both["fc1.weight"], alone["fc1.weight"])


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: weight.shape for name, weight in model.weights.items()}


@pytest.mark.parametrize("name", ["resnet.ts17", "googlenet.dynamo", "gpt2.dynamo", "unet.ts17"])
def test_together_or_one_after_the_other_gives_the_same_sizes(name: str) -> None:
    model = load(FIXTURES / f"{name}.onnx")
    first, second = Subject(model).growable[:2]
    widths = {first.name: first.width + 3, second.name: second.width + 5}
    together = widen(model, widths)
    chained = model
    for dimension, width in widths.items():
        chained = widen(chained, {dimension: width})
    assert shapes(together) == shapes(chained)
    assert len(together.proto.graph.node) == len(chained.proto.graph.node)
    assert verify(together, chained, seeds=1, provider="cpu")


@pytest.mark.parametrize("name", ["resnet.dynamo", "bert.ts17", "lstm.ts17", "llama.dynamo"])
def test_growing_in_three_steps(name: str) -> None:
    """64 -> 96 -> 128 in small: the last is still the first."""
    subject = Subject(load(FIXTURES / f"{name}.onnx"))
    model = subject.model
    for step in range(3):
        widths = everything(Subject(model).dimensions, turn=step)
        model = widen(model, widths, seed=step)
        report = subject.judge(model)
        assert report, (step, report.verdict)


def test_history_tells_each_step() -> None:
    model = load(FIXTURES / "mlp.ts17.onnx")
    once = widen(model, {"fc1": 30}, seed=4, split="even")
    twice = load(widen(once, {"fc2": 40, "fc1": 35}, mapping="round-robin").to_bytes())
    steps = twice.history
    assert [step["operation"] for step in steps] == ["widen", "widen"]
    assert steps[0]["parent"] == model.sha256() and steps[1]["parent"] == once.sha256()
    assert (steps[0]["seed"], steps[0]["split"]) == (4, "even")
    assert (steps[0]["method"], steps[0]["amplitude"]) == (3, 1.0)
    assert (steps[1]["seed"], steps[1]["mapping"]) == (0, "round-robin")
    assert {step["version"] for step in steps} == {__version__}
    told = [(c["dimension"], c["old"], c["new"]) for step in steps for c in step["changes"]]
    old = {d.name: d.width for d in inspect(model)}
    assert told == [
        ("fc1", old["fc1"], 30),
        ("fc2", old["fc2"], 40),
        ("fc1", 30, 35),
    ]
    assert all(len(c["source"]) == 16 for step in steps for c in step["changes"])


def test_metadata_and_names_survive() -> None:
    """What the file says besides its numbers: producer, documentation, properties."""
    proto = onnx.load(FIXTURES / "resnet.dynamo.onnx")
    proto.doc_string, proto.graph.doc_string = "of the model", "of the graph"
    proto.model_version = 7
    proto.metadata_props.add(key="author", value="somebody")
    proto.graph.node[0].doc_string = "of the node"
    grown = onnx.load_from_string(widen(load(proto), {"layer1.0.conv1": 11}).to_bytes())
    for field in ("doc_string", "model_version", "producer_name", "producer_version", "domain"):
        assert getattr(grown, field) == getattr(proto, field)
    assert grown.graph.doc_string == "of the graph" and grown.graph.name == proto.graph.name
    assert {(p.key, p.value) for p in proto.metadata_props} <= {
        (p.key, p.value) for p in grown.metadata_props
    }
    for old, new in zip(proto.graph.node, grown.graph.node, strict=True):
        assert old == new, "no node changes in a plain convolutional network"
    assert [t.name for t in grown.graph.initializer] == [t.name for t in proto.graph.initializer]


def test_only_what_lies_on_the_dimension_changes() -> None:
    """Every other initializer keeps its bytes."""
    proto = onnx.load(FIXTURES / "resnet.dynamo.onnx")
    model = load(proto)
    dimension = next(d for d in Subject(model).growable if d.name == "layer1.0.conv1")
    grown = onnx.load_from_string(widen(model, {dimension.name: 11}).to_bytes())
    before = {t.name: t.SerializeToString() for t in proto.graph.initializer}
    after = {t.name: t.SerializeToString() for t in grown.graph.initializer}
    changed = {name for name, contents in before.items() if after[name] != contents}
    assert changed == {name for name, _ in dimension.sites}


def test_old_units_keep_what_they_read() -> None:
    """Rows of a convolution that writes the dimension are copied bit by bit."""
    proto = onnx.load(FIXTURES / "resnet.dynamo.onnx")
    grown = onnx.load_from_string(widen(load(proto), {"layer1.0.conv1": 11}).to_bytes())
    name = "layer1.0.conv1.weight"
    old, new = (
        numpy_helper.to_array(next(t for t in m.graph.initializer if t.name == name))
        for m in (proto, grown)
    )
    np.testing.assert_array_equal(new[: len(old)], old)


def test_a_dimension_without_units_is_fixed() -> None:
    net = Net()
    hidden = net("Relu", net("MatMul", net.input(4, 5), net.weight(5, 0)))
    model = load(net.model(net("MatMul", hidden, net.weight(0, 3))))
    (dimension,) = (d for d in inspect(model) if not d.width)
    assert dimension.growth == "fixed"
    assert dimension.reason == "it is empty: there is no unit to copy"


def test_a_factor_with_names_is_what_a_plan_does_with_it() -> None:
    path = FIXTURES / "resnet.dynamo.onnx"
    for keys in ({"names": ["layer2.*", "conv1"]}, {"names": "layer1.0.conv1"}, {"all": True}):
        grown = n2n.widen(path, factor=1.5, seed=3, **keys)
        step = {"operation": "widen", "factor": 1.5, "seed": 3, **keys}
        assert grown.to_bytes() == n2n.grow(path, plan=[step]).to_bytes()
        assert grown.changes and all(2 * c.new >= 3 * c.old for c in grown.changes)
        assert n2n.verify(path, grown, seeds=1)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "nothing to grow"),
        ({"factor": 2}, "'factor' needs names"),
        ({"widths": {"conv1": 9}, "names": "conv1"}, "goes with 'factor' only"),
        ({"factor": 2, "names": "conv1", "all": True}, "'factor' needs names"),
        ({"widths": {"conv1": 9}, "factor": 2, "all": True}, "exclude each other"),
        ({"widths": ["conv1"]}, "is not a table"),
        ({"factor": 0.5, "all": True}, "is not a number above 1"),
        ({"factor": 2, "names": "nobody"}, "no node, tensor, parameter or module 'nobody'"),
    ],
)
def test_what_does_not_go_together_is_said(keys: dict, problem: str) -> None:
    with pytest.raises(n2n.UsageError, match=problem) as caught:
        n2n.widen(FIXTURES / "resnet.dynamo.onnx", **keys)
    assert caught.value.remedy
