"""What a user may call a dimension: the order in which a name is looked up, hints, patterns."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from onnx import ModelProto

import onnx_net2net as n2n
from onnx_net2net.deepening.places import place_of
from onnx_net2net.widening.dimensions import analyse
from onnx_net2net.widening.naming import resolve
from onnx_net2net.widening.request import Change
from tests.console import finished
from tests.networks import Net


def modules() -> ModelProto:
    """Two modules of convolution, norm and activation, one of two layers, and a head.

    Names mean several things: a tensor is called as a module, a node as a parameter's module.
    """
    net = Net()
    hidden = net.input("n", 3, 8, 8)

    def layer(path: str, node: str, units: int, channels: int) -> str:
        filters = net.weight(units, channels, 3, 3, name=f"{path}.weight")
        return str(net("Conv", hidden, filters, pads=[1] * 4, name=node))

    for number, units in ((4, 5), (5, 6)):
        hidden = layer(f"conv{number}.conv", f"c{number}", units, units - 1 if number == 5 else 3)
        moments = ("weight", "bias", "running_mean", "running_var")
        shifts = [net.weight(units, low=0.5, name=f"conv{number}.bn.{n}") for n in moments]
        hidden = net("BatchNormalization", hidden, *shifts, name=f"b{number}")
        hidden = net("Relu", hidden, name=f"r{number}")
    for index, (units, channels) in enumerate(((7, 6), (8, 7))):
        hidden = layer(f"block.{index}", f"d{index}", units, channels)
    head = net("Conv", hidden, net.weight(2, 8, 1, 1, name="head.weight"), name="last")
    proto = net.model(head)
    for old, new in (("r4_y", "conv5"), ("d0_y", "mixed"), ("last_y", "score")):
        for node in proto.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in proto.graph.output:
            value.name = new if value.name == old else value.name
    proto.graph.node[2].name = "block.1"  # the first activation
    return proto


@pytest.fixture(scope="module")
def model() -> n2n.Model:
    return n2n.load(modules())


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("conv4.conv", "conv4.conv"),  # a dimension
        ("conv4.bn", "conv4.conv"),  # a module
        ("conv4", "conv4.conv"),  # a module that holds one dimension, in two modules
        ("conv5", "conv5.conv"),  # a module, although a tensor is called so, too
        ("block.1", "block.1"),  # a dimension, although a node is called so, too
        ("conv5.bn.bias", "conv5.conv"),  # a parameter
        ("c4_y", "conv4.conv"),  # a tensor that a layer gives
        ("r5_y", "conv5.conv"),  # one that passes through, and not what reads it
        ("mixed", "block.0"),
    ],
)
def test_the_first_meaning_counts(model: n2n.Model, name: str, dimension: str) -> None:
    found, width = resolve(analyse(model), name, 11)
    assert (found.name, width) == (dimension, 11)
    assert n2n.widen(model, {name: 11}).changes[0].dimension == dimension


@pytest.mark.parametrize("name", ["x", "score"])
def test_inputs_and_outputs_are_refused_by_name(model: n2n.Model, name: str) -> None:
    side = {"x": "an input", "score": "an output"}[name]
    with pytest.raises(n2n.Refused, match=f"^{name}: it is {side} of the network"):
        n2n.widen(model, {name: 9})
    if name == "x":
        with pytest.raises(n2n.Refused, match=r"^x: it is an input of the network"):
            n2n.deepen(model, after=[name])


def test_a_module_of_several_dimensions_lists_them(model: n2n.Model, tmp_path: Path) -> None:
    with pytest.raises(n2n.UsageError) as caught:
        n2n.widen(model, {"block": 8})
    assert caught.value.problem == "'block' holds several dimensions: 'block.0' (7), 'block.1' (8)"
    offers = (caught.value.remedy or "").removeprefix("name one: ").split("; ")
    assert offers == ["--dim 'block.0' --width 8", "--dim 'block.1' --width 9"]
    model.save(tmp_path / "m.onnx")
    for offer in offers:
        done = finished("widen", tmp_path / "m.onnx", *shlex.split(offer), "--dry-run")
        assert done.code == 0, done.err


@pytest.mark.parametrize("typed", ["conv4.con", "block.2", "mixd", "scor", "r6_y"])
def test_hints_work(model: n2n.Model, typed: str) -> None:
    with pytest.raises(n2n.UsageError) as caught:
        n2n.widen(model, {typed: 20})
    hints = re.findall("'([^']+)'", caught.value.remedy or "")
    assert typed not in hints and "score" not in hints
    for hint in hints if "did you mean" in (caught.value.remedy or "") else ():
        assert n2n.widen(model, {hint: 20}).changes


def test_a_place_where_nothing_lies_is_no_unknown_name() -> None:
    net = Net()
    hidden = net("Relu", net.input("n", 4), name="first")
    model = n2n.load(net.model(net("MatMul", hidden, net.weight(4, 3), name="fc")))
    with pytest.raises(n2n.Refused, match=r"first_y: it cannot grow: .*input"):
        n2n.widen(model, {"first_y": 9})


@pytest.mark.parametrize("prefix", ["block1", "net/block1"])
def test_the_beginning_of_node_names(prefix: str) -> None:
    """As Keras has them."""
    net = Net()
    hidden = net(
        "Conv", net.input("n", 3, 8, 8), net.weight(6, 3, 3, 3), name="net/block1/c/Conv2D"
    )
    hidden = net("Add", hidden, net.weight(1, 6, 1, 1), name="net/block1/c/BiasAdd")
    model = n2n.load(
        net.model(net("Conv", hidden, net.weight(2, 6, 1, 1), name="net/block2/Conv2D"))
    )
    assert n2n.widen(model, {prefix: 9}).changes[0].new == 9


@pytest.mark.parametrize(
    ("pattern", "grown"),
    [
        ("conv*", {"conv4.conv": 8, "conv5.conv": 8}),
        ("conv?", {"conv4.conv": 8, "conv5.conv": 8}),  # containers
        ("*.*", {"conv4.conv": 8, "conv5.conv": 8, "block.0": 8}),  # the last is wide enough
        ("d[01]", {"block.0": 8}),  # nodes
    ],
)
@pytest.mark.parametrize("option", ["--node", "--dim"])
def test_patterns_with_a_width(
    model: n2n.Model, tmp_path: Path, pattern: str, grown: dict[str, int], option: str
) -> None:
    model.save(tmp_path / "m.onnx")
    out = tmp_path / "out.onnx"
    done = finished("widen", tmp_path / "m.onnx", option, pattern, "--width", 8, "-o", out)
    assert done.code == 0, done.err
    widths = {d.name: d.width for d in n2n.inspect(n2n.load(out))}
    was = {d.name: d.width for d in n2n.inspect(model)}
    assert {name: widths[name] for name in was if widths[name] != was[name]} == grown


def test_patterns_in_the_library(model: n2n.Model) -> None:
    large = n2n.widen(model, {"conv?.conv": 8, "block.*": 9})
    grown = {c.dimension: c.new for c in large.changes if isinstance(c, Change)}
    assert grown == {"conv4.conv": 8, "conv5.conv": 8, "block.0": 9, "block.1": 9}
    assert n2n.verify(model, large, provider="cpu")
    with pytest.raises(n2n.UsageError, match=r"no dimension matches 'cov\*'"):
        n2n.widen(model, {"cov*": 9})
    with pytest.raises(n2n.UsageError, match="both names mean the same units"):
        n2n.widen(model, {"conv*": 9, "conv5": 10})
    with pytest.raises(n2n.UsageError, match=r"'conv5.conv' is 6 wide already, 5 is less"):
        n2n.widen(model, {"conv5*": 5})
    with pytest.raises(n2n.Refused, match="it cannot grow"):
        n2n.widen(model, {"head*": 5})


def test_a_container_with_a_width_and_with_a_factor(model: n2n.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.onnx")
    for more in (("--width", 12), ("--factor", 2)):
        done = finished("widen", tmp_path / "m.onnx", "--node", "conv5", *more, "--dry-run")
        assert done.code == 0 and re.search(r"conv5.conv +6 +12", done.out), done.out + done.err


@pytest.mark.parametrize("name", ["conv5", "conv5.conv", "conv5.bn.weight", "c5"])
def test_a_layer_is_inserted_behind_the_same_unit(model: n2n.Model, name: str) -> None:
    assert place_of(analyse(model), name).tensor == "r5_y"


def test_a_layer_is_not_inserted_behind_several(model: n2n.Model) -> None:
    with pytest.raises(n2n.UsageError, match="'block' holds several layers") as caught:
        n2n.deepen(model, after=["block"])
    assert caught.value.remedy == "name one: block.0, block.1"


@pytest.mark.parametrize("keep", ["conv5", "conv5*", "r5_y", "conv5.bn.bias"])
def test_what_is_kept_is_called_the_same(model: n2n.Model, keep: str) -> None:
    grown = n2n.grow(model, params="2x", keep=keep)
    assert grown.weights["conv5.bn.bias"].shape == (6,)
