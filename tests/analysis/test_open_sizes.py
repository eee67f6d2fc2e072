"""Sizes known at run time only: what they may be called, and what a file states of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

import onnx_net2net as n2n
from onnx_net2net.analysis.symbols import bind, size
from onnx_net2net.verification.sizes import free_dimensions, input_specs
from tests.console import finished
from tests.networks import Net

NAMES = [
    "?", "", " ", "-1", "None", "p2o.DynamicDimension.0", "batch-size", "a/b", "N:0", "batch.size",
    "n[0]", "2n", "lambda", "max(", "\ufb01", "größe", "x" * 5000, "(" * 300, "n\x00", "=", "a=b",
]  # fmt: skip


def image(name: str) -> ModelProto:
    net = Net()
    hidden = net("Relu", net("Conv", net.input(name, 3, 8, 8), net.weight(6, 3, 3, 3), name="conv"))
    flat = net("Flatten", net("GlobalAveragePool", hidden))
    return net.model(net("MatMul", flat, net.weight(6, 3)))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_string_is_a_name(name: str) -> None:
    small = n2n.load(image(name))
    assert [d.growth for d in n2n.inspect(small) if d.name == "conv"] == ["any"]
    assert n2n.verify(small, n2n.widen(small, {"conv": 9}), provider="cpu")
    ((free, _),) = free_dimensions(input_specs(small.proto.graph)).items()
    at_two, at_one = n2n.costs(small, {free: 2}), n2n.costs(small, {free: 1})
    assert at_two.flops == 2 * at_one.flops


@pytest.mark.parametrize("name", ["p2o.DynamicDimension.0", "batch-size", "a/b", "?", "a=b"])
def test_sizes_on_the_command_line(tmp_path: Path, name: str) -> None:
    n2n.load(image(name)).save(tmp_path / "m.onnx")
    called = "x[0]" if name == "?" else name
    done = finished(
        "verify", tmp_path / "m.onnx", tmp_path / "m.onnx", "--size", f"{called}=2", "--json"
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("names", "bound"),
    [
        (["past", "past + 1"], {"past": 5}),
        (["past", "new", "past+new"], {"past": 5, "new": 7}),
        (["s0", "2*s0"], {"s0": 5}),
        (["3*s7"], {"s7": 5}),
        (["batch", "size", "batch-size"], {"batch": 5, "size": 7}),
        (["batch-size"], {"batch-size": 5}),
        (["batch", "batch.size"], {"batch": 5, "batch.size": 7}),
        (["fi", "\ufb01"], {"fi": 5, "\ufb01": 7}),
        (["?", "?"], {"x[0]": 5, "x[1]": 7}),
        (["N", "N"], {"N": 5}),
    ],
)
def test_expressions_and_names(names: list[str], bound: dict[str, int]) -> None:
    value = helper.make_tensor_value_info("x", 1, names)
    assert bind([value], (5, 7, 11)) == bound


def test_an_expression_has_the_size_that_it_says() -> None:
    assert size("past + 1", {"past": 5}) == 6
    assert size("s0/2", {"s0": 7}) == 3
    for none in ("past - 9", "1/0", "9" * 190 + "/2.0", "other"):
        assert size(none, {"past": 5}) is None


@pytest.mark.parametrize(("name", "growth"), [("?", "fixed"), ("rows", "any")])
def test_a_placeholder_is_no_name(name: str, growth: str) -> None:
    """Two sizes of one name are equal; two that are unknown need not be.

    What is cut out of the one is as long as the other only if both are: the channels then follow.
    """
    net = Net()
    first, second = net.input(name, 4), net.input(name, 5)
    rows = net("Gather", net("Shape", second), net.put(np.array([0])))
    shape = net("Concat", rows, net.put(np.array([-1])), axis=0)
    weight = net.weight(4, 6)
    hidden = net("Reshape", net("MatMul", first, weight), shape)
    dimensions = n2n.inspect(n2n.load(net.model(net("ReduceMax", hidden, axes=[1]), second)))
    assert {d.growth for d in dimensions if (weight, 1) in d.sites} == {growth}


@pytest.mark.parametrize(
    ("opset", "axes", "growth"), [(11, [2], "any"), (13, [-1], "any"), (13, None, "fixed")]
)
def test_a_stated_axis_is_one(opset: int, axes: list[int] | None, growth: str) -> None:
    """Squeeze fails at run time where the axis has another size: stated, it proves that it is 1."""
    net = Net(opset=opset)
    wave = net.input("batch", 1, "length")
    hidden = net("Relu", net("Conv", wave, net.weight(6, 1, 8), name="conv", strides=[4]))
    if axes is None:
        flat = net("Squeeze", hidden)
    elif opset < 13:
        flat = net("Squeeze", hidden, axes=axes)
    else:
        flat = net("Squeeze", hidden, net.put(np.array(axes)))
    small = n2n.load(net.model(net("MatMul", flat, net.weight(6, 3))))
    assert [d.growth for d in n2n.inspect(small) if d.name == "conv"] == [growth]
    for length in (8, 10, 11) if growth == "any" else ():
        sizes = {"batch": [2], "length": [length]}
        assert n2n.verify(small, n2n.widen(small, {"conv": 9}), sizes=sizes, provider="cpu")


@pytest.mark.parametrize("window", [16, 37, 300, 1000, 16000])
@pytest.mark.parametrize("op", ["Conv", "AveragePool", "MaxPool"])
@pytest.mark.parametrize("spatial", [1, 2])
def test_a_stated_axis_is_one_whatever_sizes_are_tried(window: int, op: str, spatial: int) -> None:
    """Few lengths leave a window alone, and none of those that are tried need be among them."""
    net = Net(opset=13)
    hidden = net.input("batch", 3, *["long", "wide"][:spatial])
    kernel, stride = [window, 5][:spatial], [window, 7][:spatial]
    if op == "Conv":
        hidden = net(op, hidden, net.weight(6, 3, *kernel), strides=stride, name="conv")
    else:
        hidden = net("Conv", hidden, net.weight(6, 3, *[1] * spatial), name="conv")
        hidden = net(op, net("Relu", hidden), kernel_shape=kernel, strides=stride)
    for _ in range(spatial):
        hidden = net("Squeeze", hidden, net.put(np.array([2])))
    small = n2n.load(net.model(net("MatMul", hidden, net.weight(6, 3))))
    assert [d.growth for d in n2n.inspect(small) if d.name == "conv"] == ["any"]
    large = n2n.widen(small, {"conv": 9})
    for extra in (0, window - 1) if window < 500 else ():
        sizes = {"batch": [2], "long": [window + extra], "wide": [5]}
        sizes = {name: sizes[name] for name in ("batch", "long", "wide")[: 1 + spatial]}
        assert n2n.verify(small, large, sizes=sizes, provider="cpu")


def test_what_is_squeezed_does_not_grow() -> None:
    net = Net(opset=13)
    hidden = net("Conv", net.input(2, 1, "long"), net.weight(2, 1, 4), name="conv")
    hidden = net("Reshape", hidden, net.put(np.array([2, -1])))  # the channels with the length
    hidden = net("Squeeze", hidden, net.put(np.array([1])))
    dimensions = n2n.inspect(n2n.load(net.model(hidden)))
    assert {d.growth for d in dimensions} == {"fixed"}


@pytest.mark.parametrize("end", [10**9, 2**31 - 1, 2**63 - 1, 9])
@pytest.mark.parametrize("start", [0, -(10**9), -9])
def test_bounds_beyond_the_end(start: int, end: int) -> None:
    """They stay beyond it, also where it grows past them."""
    net = Net()
    hidden = net("MatMul", net.input("n", 6), net.weight(6, 8), name="fc")
    bounds = [net.put(np.array([bound])) for bound in (start, end)]
    hidden = net("Slice", hidden, *bounds, net.put(np.array([1])))
    small = n2n.load(net.model(net("MatMul", hidden, net.weight(8, 3))))
    for width in (9, 10, 31):
        assert n2n.verify(small, n2n.widen(small, {"fc": width}), provider="cpu")


def test_a_bound_within_reach_of_an_open_size_tells_nothing() -> None:
    net = Net()
    hidden = net("MatMul", net.input("n", "rows", 6), net.weight(6, 8), name="fc")
    bounds = [net.put(np.array([bound])) for bound in (0, 12, 1)]
    small = n2n.load(net.model(net("MatMul", net("Slice", hidden, *bounds), net.weight(8, 3))))
    large = n2n.widen(small, {"fc": 11})
    for rows in (3, 12, 40):
        assert n2n.verify(small, large, sizes={"rows": [rows]}, provider="cpu")


@pytest.mark.parametrize(("end", "growth"), [(12, "fixed"), (10**6, "fixed"), (10**9, "any")])
def test_a_cut_that_may_reach_the_end_is_no_copy(end: int, growth: str) -> None:
    """Of 24 rows it leaves 12, which Reshape then takes for 24 rows of half as many channels."""
    net = Net()
    given, weight = net.input("n", "rows", 6), net.weight(6, 8)
    bounds = [net.put(np.array([bound])) for bound in (0, end, 1)]
    hidden = net("Slice", net("MatMul", given, weight), *bounds)
    rows = net("Slice", net("Shape", given), *[net.put(np.array([bound])) for bound in (0, 2)])
    shape = net("Concat", rows, net.put(np.array([-1])), axis=0)
    proto = net.model(net("ReduceMax", net("Reshape", hidden, shape), axes=[2]))
    dimensions = n2n.inspect(n2n.load(proto))
    assert {d.growth for d in dimensions if (weight, 1) in d.sites} == {growth}


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_sizes_that_coincide_where_they_are_tried(layers: int) -> None:
    """Each layer eats two frames, until there are as many as there is of something else."""
    net = Net(opset=11)
    hidden = net.input("batch", 1, "frames", 16)
    shape = {"dilations": [2, 1], "pads": [1] * 4, "kernel_shape": [3, 3]}
    for _ in range(layers - 1):
        hidden = net("Conv", hidden, net.weight(1, 1, 3, 3), **shape)
    hidden = net("Conv", hidden, net.weight(8, 1, 3, 3), name="conv", **shape)
    hidden = net("MaxPool", hidden, kernel_shape=[1, 4], strides=[1, 4])
    hidden = net("Transpose", hidden, perm=[0, 2, 3, 1])
    sizes = [net("Gather", net("Shape", hidden), net.put(np.array([i]))) for i in (0, 1)]
    merged = net("Concat", *sizes, net.put(np.array([-1])), axis=0)
    small = n2n.load(net.model(net("MatMul", net("Reshape", hidden, merged), net.weight(32, 3))))
    assert [d.growth for d in n2n.inspect(small) if d.name == "conv"] == ["any"]
    large = n2n.widen(small, {"conv": 11})
    for frames in (2 * layers + 1, 2 * layers + 2, 29):
        sizes_at = {"batch": [1, 3], "frames": [frames]}
        assert n2n.verify(small, large, sizes=sizes_at, provider="cpu")


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_cut_to_the_size_of_another(kernel: int) -> None:
    """What is proved makes another rule of a Slice than its shapes alone."""
    net = Net(opset=13)
    wave = net.input("batch", 3, "time")
    hidden = net("Conv", wave, net.weight(8, 3, kernel), name="conv")
    time = net("Gather", net("Shape", hidden), net.put(np.array([2])))
    skipped = net("Conv", wave, net.weight(8, 3, 1), name="skip")
    along = net.put(np.array([2]))
    skipped = net("Slice", skipped, net.put(np.array([0])), time, along)
    hidden = net("Relu", net("Add", hidden, skipped))
    last = net("Slice", hidden, net.put(np.array([-2])), net.put(np.array([2**62])), along)
    flat = net("Reshape", last, net.put(np.array([0, -1])))
    small = n2n.load(net.model(net("MatMul", flat, net.weight(16, 3))))
    for dimension in [d for d in n2n.inspect(small) if d.growth != "fixed"]:
        large = n2n.widen(small, {dimension.name: dimension.width + 3})
        sizes = {"batch": [2], "time": [17, 20]}
        assert n2n.verify(small, large, sizes=sizes, provider="cpu")


def test_inspect_says_why_nothing_grows(tmp_path: Path) -> None:
    net = Net()
    hidden = net.input("n", 4)
    for size_ in (8, 6):
        hidden = net("MatMul", hidden, net.weight(4 if size_ == 8 else 8, size_))
        hidden = net("Softmax", hidden)
    hidden = net("LpNormalization", net("MatMul", hidden, net.weight(6, 5)))
    n2n.load(net.model(net("MatMul", hidden, net.weight(5, 3)))).save(tmp_path / "m.onnx")
    lines = finished("inspect", tmp_path / "m.onnx").out.splitlines()
    first, second = [line for line in lines if line.startswith("nothing can grow: ")][:2]
    assert first.startswith("nothing can grow: 2 x Softmax runs over it (Softmax '")
    assert second.startswith("nothing can grow: 1 x ")
    document = json.loads(finished("inspect", tmp_path / "m.onnx", "--json").out)
    assert [why["dimensions"] for why in document["obstacles"]][:2] == [2, 1]
    assert document["obstacles"][0]["reason"] == "Softmax runs over it"
    n2n.load(image("n")).save(tmp_path / "grows.onnx")
    assert "nothing can grow" not in finished("inspect", tmp_path / "grows.onnx").out
