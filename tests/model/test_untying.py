"""Equal is not tied: an exporter keeps one tensor of equal numbers for layers that train apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from onnx import ModelProto

import onnx_net2net as n2n
from onnx_net2net.model import untying
from onnx_net2net.model.history import TIES
from onnx_net2net.plan.invariant import verify_layers
from tests.console import finished
from tests.networks import Net

Store = Literal["initializer", "input", "constant"]
STORES = pytest.mark.parametrize("store", ["initializer", "input", "constant"])


def norms(store: Store = "initializer", scale: Any = 1.0, depth: int = 4) -> ModelProto:
    """Convolutions and norms, all of which have one scale and one shift."""
    net = Net(store=store, ir_version=3 if store == "input" else 10)
    net.put(np.broadcast_to(np.float32(scale), 6).copy(), "scale")
    net.put(np.zeros(6, np.float32), "shift")
    hidden = net.input("n", 3, 8, 8)
    for i in range(depth):
        filters = net.weight(6, 6 if i else 3, 3, 3)
        hidden = net("Conv", hidden, filters, pads=[1] * 4, name=f"conv{i}")
        moments = net.weight(6), net.weight(6, low=0.5)
        hidden = net("BatchNormalization", hidden, "scale", "shift", *moments, name=f"norm{i}")
        hidden = net("Relu", hidden)
    return net.model(net("Conv", hidden, net.weight(2, 6, 1, 1), name="head"))


def widths(model: n2n.Model) -> dict[str, int]:
    return {d.name: d.width for d in n2n.inspect(model) if d.growth != "fixed"}


@STORES
@pytest.mark.parametrize(
    ("grown", "scales"),
    [
        ({"conv1": 9}, {"scale": 6, "norm1_scale": 9}),
        ({"conv0": 8, "conv3": 9}, {"scale": 6, "norm0_scale": 8, "norm3_scale": 9}),
        (
            {"conv0": 7, "conv1": 8, "conv2": 9, "conv3": 10},
            {"scale": 7, "norm1_scale": 8, "norm2_scale": 9, "norm3_scale": 10},
        ),
    ],
)
def test_each_use_grows_by_itself(
    store: Store, grown: dict[str, int], scales: dict[str, int]
) -> None:
    small = n2n.load(norms(store))
    assert widths(small) == dict.fromkeys(("conv0", "conv1", "conv2", "conv3"), 6)
    large = n2n.widen(small, grown)
    assert {n: w.shape[0] for n, w in large.weights.items() if "scale" in n} == scales
    assert n2n.verify(small, large, provider="cpu")
    assert verify_layers(small, large, provider="cpu")
    for name, weight in small.weights.items():
        if large.weights[name].shape == weight.shape and "w" not in name:
            assert np.array_equal(large.weights[name].array(), weight.array())
    again = n2n.widen(large, {"conv1": 12})
    assert n2n.verify(small, again, provider="cpu")


def test_what_does_not_grow_stays_byte_for_byte() -> None:
    small = n2n.load(norms())
    large = n2n.widen(small, {"conv1": 9})
    touched = {"norm1", "conv1", "conv2"}
    for old, new in zip(small.proto.graph.node, large.proto.graph.node, strict=True):
        assert old == new or old.name in touched
    deeper = n2n.deepen(small, after=["conv2"])
    assert {n for n in deeper.weights if n.startswith("norm")} == set()
    assert n2n.verify(small, deeper, provider="cpu")


def test_distinct_entries_tie() -> None:
    small = n2n.load(norms(scale=[1, 1, 1, 1, 1, 2]))
    assert widths(small) == {"conv0": 6}
    large = n2n.widen(small, {"conv3": 9})
    assert large.weights["scale"].shape == (9,) and n2n.verify(small, large, provider="cpu")


def test_one_parameter_under_two_names_stays_one() -> None:
    """As `from_torch` says it: the shifts are one for their author, whatever they are now."""
    proto = norms()
    entry = proto.metadata_props.add()
    entry.key, entry.value = TIES, json.dumps({"norm2.bias": "shift"})
    assert widths(n2n.load(proto)) == {"conv0": 6}
    entry.value = "{damaged"
    assert widths(n2n.load(proto)) == {"conv0": 6}


def test_equal_along_one_axis_only() -> None:
    """One blur for all channels: its channels are free, its window is one."""
    net = Net()
    blur = net.put(np.tile(np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16, (6, 1, 1, 1)))
    hidden = net.input("n", 3, 8, 8)
    for i in range(2):
        hidden = net("Conv", hidden, net.weight(6, 6 if i else 3, 3, 3), name=f"conv{i}")
        hidden = net("Conv", hidden, blur, group=6, pads=[1] * 4, name=f"blur{i}")
    small = n2n.load(net.model(net("Conv", hidden, net.weight(2, 6, 1, 1))))
    assert widths(small) == {"conv0": 6, "conv1": 6}
    windows = [d.name for d in n2n.inspect(small) if (blur, 2) in d.sites]
    assert windows == [f"{blur}[2]"]
    assert n2n.verify(small, n2n.widen(small, {"conv0": 9}), provider="cpu")


@pytest.mark.parametrize(
    ("op", "shape"), [("PRelu", (6, 1, 1)), ("Add", (1, 6, 1, 1)), ("Mul", (6, 1, 1))]
)
def test_whatever_reads_it(op: str, shape: tuple[int, ...]) -> None:
    net = Net()
    equal, hidden = net.put(np.full(shape, 0.25, np.float32)), net.input("n", 3, 8, 8)
    for i in range(3):
        hidden = net("Conv", hidden, net.weight(6, 6 if i else 3, 3, 3), name=f"conv{i}")
        hidden = net(op, hidden, equal)
    small = n2n.load(net.model(net("Conv", hidden, net.weight(2, 6, 1, 1))))
    assert widths(small) == dict.fromkeys(("conv0", "conv1", "conv2"), 6)
    for grown in ({"conv1": 9}, {"conv0": 7, "conv1": 7, "conv2": 7}):
        assert n2n.verify(small, n2n.widen(small, grown), provider="cpu")


def test_states_of_recurrent_layers() -> None:
    net = Net()
    zeros, hidden = net.put(np.zeros((1, 2, 5), np.float32)), net.input(7, 2, 4)
    for i in range(2):
        weights = net.weight(1, 20, 5 if i else 4), net.weight(1, 20, 5)
        given = (hidden, *weights, "", "", zeros, zeros)
        hidden, _, _ = net("LSTM", *given, results=3, hidden_size=5, name=f"lstm{i}")
        hidden = net("Squeeze", hidden, net.put(np.array([1])))
    small = n2n.load(net.model(net("MatMul", hidden, net.weight(5, 3))))
    assert widths(small) == {"lstm0": 5, "lstm1": 5}
    large = n2n.widen(small, {"lstm0": 8})
    assert n2n.verify(small, large, provider="cpu")
    assert [w.shape[2] for n, w in large.weights.items() if not w.array().any()] == [5, 8]


def test_a_forecast_counts_each_use() -> None:
    small = n2n.load(norms())
    large = n2n.grow(small, params="3x")
    assert abs(large.parameters / small.parameters - 3) < 0.06
    assert n2n.verify(small, large, provider="cpu")


@pytest.mark.parametrize("asked", [[1], [0, 3], [0, 1, 2, 3]])
def test_the_table_counts_each_copy(tmp_path: Path, asked: list[int]) -> None:
    n2n.load(norms()).save(tmp_path / "m.onnx")
    options = [part for i in asked for part in ("--node", f"conv{i}", "--width", 9)]
    done = finished("widen", tmp_path / "m.onnx", *options, "-o", tmp_path / "out.onnx")
    large = n2n.load(tmp_path / "out.onnx")
    elements = {d.name: d.elements for d in n2n.inspect(large)}
    for name in [f"conv{i}" for i in asked]:
        row = re.search(rf"^ *{name} +6 +9 +([\d,]+) +([\d,]+)", done.out, re.MULTILINE)
        assert row is not None, done.out + done.err
        assert int(row[2].replace(",", "")) == elements[name]


def test_names_are_those_of_the_authors_modules() -> None:
    proto = norms()
    renamed = {"scale": "net.0.norm.weight", "shift": "net.0.norm.bias"}
    for i, node in enumerate(n for n in proto.graph.node if n.op_type == "BatchNormalization"):
        node.name = f"/net/net.{i}/norm/BatchNormalization"
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for entry in proto.graph.initializer:
        entry.name = renamed.get(entry.name, entry.name)
    large = n2n.widen(n2n.load(proto), {"conv2": 9})
    assert {"net.0.norm.weight", "net.2.norm.weight", "net.2.norm.bias"} <= large.weights.keys()


def test_the_history_says_which_parameters_are_new() -> None:
    large = n2n.widen(n2n.load(norms()), {"conv1": 9})
    assert large.history[-1]["copied"] == {"norm1_scale": "scale", "norm1_B": "shift"}
    with pytest.raises(n2n.Refused, match="a parameter of its own"):
        n2n.grow_optimizer({"state": {}, "param_groups": []}, large)


def test_joined_by_kind_and_not_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: copies that differ are joined as if they were equal."""

    def careless(proto: ModelProto, copies: Any, kinds: Any) -> dict[str, str]:
        return untying.join(proto, copies, dict.fromkeys(kinds))

    monkeypatch.setattr("onnx_net2net.model.editing.join", careless)
    small = n2n.load(norms())
    large = n2n.widen(small, {"conv0": 8, "conv3": 9})
    with pytest.raises(n2n.Net2NetError):
        n2n.verify(small, large, provider="cpu")


@pytest.mark.parametrize(
    ("second", "growing"),
    [
        ("/norm/LayerNormalization_1", {"n0"}),
        ("/norm_1/LayerNormalization", {"n0"}),  # how TorchScript calls its second run
        ("/other/LayerNormalization", {"n0", "n1"}),
        ("", {"n0", "n1"}),  # nobody says
    ],
)
def test_a_module_that_runs_twice_has_one_parameter(second: str, growing: set[str]) -> None:
    net = Net()
    given = (
        net.put(np.ones(6, np.float32), "norm.weight"),
        net.put(np.zeros(6, np.float32), "norm.bias"),
    )
    hidden = net.input("n", 4)
    for i, name in enumerate(("/norm/LayerNormalization", second)):
        hidden = net("MatMul", hidden, net.weight(6 if i else 4, 6), name=f"n{i}")
        hidden = net("LayerNormalization", net("Relu", hidden), *given, name=name)
    small = n2n.load(net.model(net("MatMul", hidden, net.weight(6, 3))))
    assert widths(small).keys() == growing
    large = n2n.widen(small, {"n0": 12})
    names = {n for n in large.weights if "norm.weight" in n}
    assert len(names) == len(growing) and n2n.verify(small, large, provider="cpu")
