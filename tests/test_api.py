"""The public surface, as the documentation of the package promises it."""

from __future__ import annotations

import json
import pickle
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from tests.console import ROOT
from tests.networks import Net

FIXTURES = ROOT / "fixtures"


def test_no_submodule_hides_a_public_name() -> None:
    """Importing a submodule sets it as an attribute of the package."""
    submodules = {module.name for module in pkgutil.iter_modules(n2n.__path__)}
    assert "operators" in submodules
    assert submodules.isdisjoint(n2n.__all__)


# Public names whose module imports a framework.
FRAMEWORK = {"from_keras": "keras", "from_torch": "torch"}


@pytest.mark.parametrize("name", n2n.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(n2n)
    if name in FRAMEWORK:
        pytest.importorskip(FRAMEWORK[name])
    assert getattr(n2n, name) is not None


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'shrink'"):
        n2n.shrink  # noqa: B018


def test_errors_share_a_base() -> None:
    for error in (n2n.InvalidModel, n2n.OutputError, n2n.Refused, n2n.UsageError):
        assert issubclass(error, n2n.Net2NetError)


@pytest.mark.parametrize("error", [n2n.UsageError("a", "b"), n2n.Refused("a", "b", "c")])
def test_errors_go_from_process_to_process(error: n2n.Net2NetError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_the_issue_example_runs(tmp_path: Path) -> None:
    """The lines that the documentation shows, on a shipped network."""
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    dims = n2n.inspect(model)
    first = dims[0]
    assert first.name and first.width and first.growth in ("any", "multiple", "fixed")
    grown = n2n.widen(model, {"layer1.0.conv1": 11, "layer2.0.conv1": 12}, seed=0, split="project")
    target = tmp_path / "grown.onnx"
    grown.save(target)
    report = n2n.verify(FIXTURES / "resnet.dynamo.onnx", target)
    assert report and report.equivalent is True
    assert isinstance(report, n2n.Report) and isinstance(grown, n2n.Model)
    assert [(c.dimension, c.new) for c in grown.changes] == [
        ("layer1.0.conv1", 11),
        ("layer2.0.conv1", 12),
    ]
    json.dumps(report.as_dict())
    assert n2n.verify(model, grown, seeds=1)


def test_a_report_of_unequal_models_is_false() -> None:
    model = n2n.load(FIXTURES / "mlp.ts17.onnx")
    other = onnx.load(FIXTURES / "mlp.ts17.onnx")
    weight = other.graph.initializer[0]
    array = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    report = n2n.verify(model, other)
    assert not report and report.equivalent is False
    found = json.loads(json.dumps(report.as_dict()))
    assert found["equivalent"] is False and found["outputs"][0]["problem"]


def channels(model: n2n.Model, grown: n2n.Model, weight: str) -> int:
    """How many rows a weight gained."""
    return grown.weights[weight].shape[0] - model.weights[weight].shape[0]


@pytest.mark.parametrize(
    "key",
    [
        "node_Conv_196",  # node
        "getitem_3",  # its output tensor
        "layer1.0.conv1.weight",  # parameter
        "layer1.0.conv1",  # module path
    ],
)
def test_one_place_under_all_its_names(key: str) -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    width = model.weights["layer1.0.conv1.weight"].shape[0]
    grown = n2n.widen(model, {key: width + 3})
    assert channels(model, grown, "layer1.0.conv1.weight") == 3
    assert grown.changes[0].dimension == "layer1.0.conv1"


@pytest.mark.parametrize("exporter", ["dynamo", "ts17", "ts11", "dynamo-raw", "ts17-raw"])
def test_module_paths_work_in_every_export(exporter: str) -> None:
    model = n2n.load(FIXTURES / f"resnet.{exporter}.onnx")
    grown = n2n.widen(model, {"layer2.0.conv1": 14})
    (change,) = grown.changes
    assert (change.dimension, change.old, change.new) == ("layer2.0.conv1", 9, 14)


def test_a_near_miss_suggests() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    with pytest.raises(n2n.UsageError) as caught:
        n2n.widen(model, {"layer1.0.conv": 11})
    assert caught.value.problem == "there is no node, tensor, parameter or module 'layer1.0.conv'"
    assert caught.value.remedy == (
        "did you mean 'layer1.0.conv2' or 'layer1.0.conv1' or 'layer3.0.conv2'?"
    )
    with pytest.raises(n2n.UsageError) as caught:
        n2n.widen(model, {"qqq": 11})
    assert "inspect MODEL" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("width", "problem"),
    [
        (5, "is 8 wide already, 5 is less"),
        (0, "widths: 'layer1.0.conv1': 0 is not a whole number from 1 up"),
        (-3, ": -3 is not a whole number from 1 up"),
        (2.5, ": 2.5 is not a whole number from 1 up"),
        ("9", ": '9' is not a whole number from 1 up"),
        (True, ": True is not a whole number from 1 up"),
        (10**9, "width 1000000000 is absurd"),
        pytest.param(10**5000, "width a number of 16610 bits is absurd", id="long"),
        pytest.param(-(10**5000), "a number of 16610 bits is not a whole", id="-long"),
    ],
)
def test_widths_that_make_no_sense(width: object, problem: str) -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    with pytest.raises(n2n.UsageError, match=problem):
        n2n.widen(model, {"layer1.0.conv1": width})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"split": "thirds"}, "split: 'thirds' is not one of project, even, fresh, noise"),
        ({"mapping": "best"}, "mapping: 'best' is not one of random, round-robin"),
        ({"amplitude": -0.1}, "amplitude: -0.1 is not a number from 0 to 10"),
        ({"amplitude": float("inf")}, "amplitude: inf is not a number from 0 to 10"),
        ({"amplitude": float("nan")}, "amplitude: nan is not a number from 0 to 10"),
        ({"noise": 0.0}, "noise: 0.0 is not a number between 0 and 1"),
        ({"noise": float("nan")}, "noise: nan is not a number between 0 and 1"),
        ({"seed": -1}, "seed: -1 is not a whole number from 0 up"),
        ({"seed": 1.5}, "seed: 1.5 is not a whole number from 0 up"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], problem: str) -> None:
    model = n2n.load(FIXTURES / "mlp.ts17.onnx")
    with pytest.raises(n2n.UsageError, match=problem):
        n2n.widen(model, {"fc1": 99}, **options)  # type: ignore[arg-type]


def test_nothing_asked_for() -> None:
    with pytest.raises(n2n.UsageError, match="nothing to grow"):
        n2n.widen(n2n.load(FIXTURES / "mlp.ts17.onnx"), {})


def test_present_width_is_no_growth() -> None:
    """Every width from the present one on: the least of them changes no weight."""
    model = n2n.load(FIXTURES / "mlp.ts17.onnx")
    grown = n2n.widen(model, {"fc1": model.weights["fc1.weight"].shape[0]})
    for name, weight in model.weights.items():
        np.testing.assert_array_equal(grown.weights[name].array(), weight.array())


def test_two_names_of_one_dimension_must_agree() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    grown = n2n.widen(model, {"conv1": 9, "layer1.0.conv2": 9})  # a residual sum ties them
    assert len(grown.changes) == 1
    with pytest.raises(n2n.UsageError, match="both names mean the same units"):
        n2n.widen(model, {"conv1": 9, "layer1.0.conv2": 10})


def test_what_is_fixed_is_refused_with_place_and_reason() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    with pytest.raises(n2n.Refused) as caught:
        n2n.widen(model, {"fc": 20})
    assert caught.value.node == "fc"
    assert caught.value.reason == "it cannot grow: axis 1 of the network's output 'y'"
    assert caught.value.remedy and str(caught.value).startswith("fc: it cannot grow")


def test_a_width_between_multiples_is_refused_with_the_nearest() -> None:
    model = n2n.load(FIXTURES / "groupnorm.ts17.onnx")
    dimension = next(d for d in n2n.inspect(model) if d.growth == "multiple")
    with pytest.raises(n2n.Refused) as caught:
        n2n.widen(model, {dimension.name: 2 * dimension.width + 1})
    assert dimension.reason and dimension.reason in caught.value.reason
    double, triple = 2 * dimension.width, 3 * dimension.width
    assert caught.value.remedy == f"use {double} or {triple}"


def test_composite_axes_say_what_they_are_made_of() -> None:
    """A fused projection of queries, keys and values: 3 x heads x head size."""
    model = n2n.load(FIXTURES / "vit.dynamo.onnx")
    with pytest.raises(n2n.Refused) as caught:
        n2n.widen(model, {"blocks.0.attn.qkv": 108})
    assert "'blocks.0.attn.qkv:heads' (3, any)" in caught.value.reason
    assert "'blocks.0.attn.qkv:head_size' (6, any)" in caught.value.reason
    assert caught.value.remedy == (
        "name the dimension instead: --dim 'blocks.0.attn.qkv:heads' --width 6 gives 108; "
        "--dim 'blocks.0.attn.qkv:head_size' --width 12 gives 108"
    )
    for name, width in (("blocks.0.attn.qkv:heads", 6), ("blocks.0.attn.qkv:head_size", 12)):
        grown = n2n.widen(model, {name: width})
        assert grown.weights["blocks.0.attn.qkv.bias"].shape == (108,)


@pytest.mark.parametrize("width", [109, 10**6, 2**63])
def test_what_a_composite_axis_may_grow_to_is_not_counted_up_to(width: int) -> None:
    """The least widths that are enough, found at once."""
    model = n2n.load(FIXTURES / "vit.dynamo.onnx")
    n2n.inspect(model)
    started = time.process_time()
    with pytest.raises(n2n.Refused) as caught:
        n2n.widen(model, {"blocks.0.attn.qkv": width})
    assert time.process_time() - started < 1
    for name, unit in (("blocks.0.attn.qkv:heads", 18), ("blocks.0.attn.qkv:head_size", 9)):
        least = -(-width // unit)
        offer = f"--dim '{name}' --width {least} gives {least * unit}"
        assert offer in str(caught.value.remedy)


def test_a_composite_axis_of_one_dimension_takes_the_whole_width() -> None:
    """Gate and value of a gated layer are one matrix: twice as wide as the dimension."""
    net = Net()
    packed = net("Gemm", net.input(3, 5), net.weight(5, 14, name="up.weight"), net.weight(14))
    gate, value = net("Split", packed, net.put([7, 7]), results=2, axis=1)
    mixed = net("Mul", net("Sigmoid", gate), value)
    model = n2n.load(net.model(net("MatMul", mixed, net.weight(7, 4))))
    by_node, by_dimension = n2n.widen(model, {"up": 18}), n2n.widen(model, {"up:0": 9})
    for grown in (by_node, by_dimension):
        assert grown.weights["up.weight"].shape == (5, 18)
        assert (grown.changes[0].old, grown.changes[0].new) == (7, 9)
        assert n2n.verify(model, grown, seeds=1)
    with pytest.raises(n2n.Refused, match=r"its axis of width 14 .* made of 'up:0' \(7, any\)"):
        n2n.widen(model, {"up": 17})


@pytest.mark.parametrize("name", ["bert.ts17", "googlenet.dynamo", "swin.dynamo", "lstm.dynamo"])
def test_names_are_unique_and_stable(name: str) -> None:
    """The same in another process (sets of objects come in another order there)."""
    path = FIXTURES / f"{name}.onnx"
    dims = n2n.inspect(n2n.load(path))
    names = [d.name for d in dims]
    assert len(set(names)) == len(names)
    code = f"import onnx_net2net as n2n; dims = n2n.inspect(n2n.load({str(path)!r}))"
    code += "; print([d.name for d in dims])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == f"{names}\n"


def names_in(graph: onnx.GraphProto) -> set[str]:
    """Names of all nodes, those in the bodies of If and Loop included."""
    inner = [names_in(a.g) for n in graph.node for a in n.attribute if a.HasField("g")]
    return {node.name for node in graph.node}.union(*inner)


def test_sites_and_nodes_lie_in_the_file() -> None:
    for path in sorted(FIXTURES.glob("*.dynamo.onnx")):
        model = n2n.load(path)
        nodes = names_in(model.proto.graph)
        for dimension in n2n.inspect(model):
            assert dimension.sites
            for weight, axis in dimension.sites:
                assert model.weights[weight].shape[axis] >= dimension.width
            assert set(dimension.nodes) <= nodes
            assert set(dimension.writers) <= set(dimension.nodes)
            assert set(dimension.readers) <= set(dimension.nodes)


def test_grown_sites_are_the_promised_ones() -> None:
    """Exactly the weights of ``sites`` change their sizes, by what ``axis`` says."""
    model = n2n.load(FIXTURES / "mobilenetv3.dynamo.onnx")
    for dimension in n2n.inspect(model):
        if dimension.growth == "fixed":
            continue
        grown = n2n.widen(model, {dimension.name: dimension.width + 3})
        changed = {
            (name, axis)
            for name, weight in model.weights.items()
            for axis, (old, new) in enumerate(
                zip(weight.shape, grown.weights[name].shape, strict=True)
            )
            if old != new
        }
        assert changed == set(dimension.sites), dimension.name


FORMS: dict[str, Callable[[Path], Any]] = {
    "a path": lambda path: path,
    "a path's text": str,
    "contents": Path.read_bytes,
    "a proto": onnx.load,
}
# Each public function that takes a model, and what tells its results apart.
TAKERS: dict[str, Callable[[Any], Any]] = {
    "blocks": lambda m: [block.name for block in n2n.blocks(m)],
    "costs": lambda m: n2n.costs(m).flops,
    "deepen": lambda m: n2n.deepen(m, "layer1.*").parameters,
    "diff": lambda m: n2n.diff(m, m).parameters,
    "fold": lambda m: n2n.fold(m).parameters,
    "grow": lambda m: n2n.grow(m, like=n2n.widen(m, {"layer1.0.conv1": 11})).parameters,
    "inspect": lambda m: [d.name for d in n2n.inspect(m)],
    "load": lambda m: n2n.load(m).parameters,
    "verify": lambda m: bool(n2n.verify(m, m, seeds=1)),
    "widen": lambda m: n2n.widen(m, factor=1.5, names=["layer1.*"]).parameters,
}


@pytest.mark.parametrize("name", TAKERS)
def test_every_form_of_a_model_is_taken(name: str) -> None:
    path = FIXTURES / "resnet.dynamo.onnx"
    expected = TAKERS[name](n2n.load(path))
    assert [TAKERS[name](form(path)) for form in FORMS.values()] == [expected] * len(FORMS)


@pytest.mark.parametrize(
    "name", ["layer1.0.conv1", "layer1.0.conv1.weight", "node_Conv_196", "getitem_3", "layer1.*"]
)
def test_one_name_means_the_same_everywhere(name: str) -> None:
    """A module, a parameter, a node, a tensor, a pattern."""
    model = n2n.load(FIXTURES / "resnet.dynamo.onnx")
    wider = n2n.widen(model, factor=1.5, names=[name])
    planned = n2n.grow(model, plan=[{"operation": "widen", "factor": 1.5, "names": [name]}])
    assert wider.changes == planned.changes
    assert "layer1.0.conv1" in {change.dimension for change in wider.changes}
    assert n2n.deepen(model, [name]).changes
    kept = n2n.grow(model, params="1.5x", keep=[name]).changes
    assert "layer1.0.conv1" not in {getattr(change, "dimension", "") for change in kept}
