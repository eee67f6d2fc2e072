"""Sizes that are equal at the dynamic sizes that were tried, and differ at another.

Every network here computes a size that no two choices of its dynamic sizes tell apart. Growing
it must keep the function at all of them, or be refused; judged at sizes on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from onnx_net2net.analysis.solver import solve
from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening.dimensions import inspect
from onnx_net2net.widening.widen import widen
from tests.model.test_subgraphs import network as parse
from tests.networks import Net

LENGTHS = [1, 2, 3, 4, 5, 7, 9, 13, 60]
LARGEST = np.iinfo(np.int64).max
Size = Callable[[Net, str], str]
Arrays = dict[str, np.ndarray]


def constant(net: Net, *values: int) -> str:
    return net.put(np.array(values, np.int64))


def length_of(net: Net, tensor: str, axis: int = 0) -> str:
    """The size of an axis, as a vector of length 1."""
    return net("Gather", net("Shape", tensor), constant(net, axis))


def least(net: Net, x: str) -> str:
    return net("Min", length_of(net, x), constant(net, 3))


def sliced(net: Net, x: str) -> str:
    part = net("Slice", x, constant(net, 0), constant(net, 3), constant(net, 0))
    return length_of(net, part)


def last(net: Net, x: str) -> str:
    end = constant(net, LARGEST)
    return length_of(net, net("Slice", x, constant(net, -3), end, constant(net, 0)))


def clipped(net: Net, x: str) -> str:
    return net("Clip", length_of(net, x), net.put(np.int64(1)), net.put(np.int64(4)))


def chosen(net: Net, x: str) -> str:
    long = net("Greater", length_of(net, x), constant(net, 3))
    return net("Where", long, constant(net, 2), constant(net, 5))


def rounded(net: Net, x: str) -> str:
    """3 for lengths 1 to 48."""
    quotient = net("Div", length_of(net, x), constant(net, 49))
    return net("Add", quotient, constant(net, 3))


def remaining(net: Net, x: str) -> str:
    """The remainder by 4 is 3 for the lengths that are tried, 7 and 11."""
    return net("Mod", length_of(net, x), constant(net, 4))


def counted(net: Net, x: str) -> str:
    """The length of what another size makes."""
    limit = net("Squeeze", least(net, x))
    steps = net("Range", net.put(np.int64(0)), limit, net.put(np.int64(1)))
    return net("Shape", steps)


SIZES: list[Size] = [least, sliced, last, clipped, chosen, rounded, remaining, counted]


def counting(size: Size) -> ModelProto:
    """Adds a row as many times as ``size`` says: a wrong number gives a wrong sum, no error."""
    net = Net(opset=17)
    x = net.input("length", 6)
    count = size(net, x)
    row = net.weight(1, 8, name="row")
    rows = net("Expand", row, net("Concat", count, constant(net, 8), axis=0), name="rows")
    total = net("ReduceSum", rows, constant(net, 0), keepdims=1)
    hidden = net("Add", net("MatMul", x, net.weight(6, 8), name="up"), total)
    return net.model(net("MatMul", net("Relu", hidden), net.weight(8, 5)))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.__name__)
def test_a_size_is_not_frozen_because_it_was_equal_twice(size: Size) -> None:
    model = load(counting(size))
    growing = {d.name: d.width + 3 for d in inspect(model) if d.growth != "fixed"}
    assert growing, "the width itself can grow"
    report = verify(model, widen(model, growing), sizes={"length": LENGTHS}, provider="cpu")
    assert report.equivalent, report.verdict


def trust_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the sizes that are tried for numbers that never change."""
    monkeypatch.setattr("onnx_net2net.analysis.symbols.unknown", lambda name, number: number)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.__name__)
def test_trusting_the_sizes_that_are_tried_is_caught(
    size: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks above tell apart an engine that only looks at one choice."""
    trust_the_trial(monkeypatch)
    model = load(counting(size))
    report = verify(model, widen(model, {"up": 11}), sizes={"length": LENGTHS}, provider="cpu")
    assert not report.equivalent


def first_entries(net: Net, length: str) -> tuple[str, str]:
    return constant(net, 0), length


def last_entries(net: Net, length: str) -> tuple[str, str]:
    return net("Sub", constant(net, 64), length), constant(net, LARGEST)


def from_the_end(net: Net, length: str) -> tuple[str, str]:
    return net("Neg", length), constant(net, LARGEST)


def behind_a_short_start(net: Net, length: str) -> tuple[str, str]:
    """Nothing is cut off at the lengths that are tried."""
    missing = net("Sub", constant(net, 40), net("Mul", length, constant(net, 8)))
    return net("Max", missing, constant(net, 0)), constant(net, LARGEST)


def up_to_a_limit(net: Net, length: str) -> tuple[str, str]:
    """All of it at the lengths that are tried."""
    return constant(net, 0), net("Min", net("Mul", length, constant(net, 16)), constant(net, 64))


CUTS = [first_entries, last_entries, from_the_end, behind_a_short_start, up_to_a_limit]


def cutting(bounds: Callable[[Net, str], tuple[str, str]]) -> ModelProto:
    """Sums those of 64 units that ``bounds`` give for the length of the input."""
    net = Net(opset=17)
    x = net.input("length", 6)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 64), name="up"))
    cut = net("Slice", hidden, *bounds(net, length_of(net, x)), constant(net, 1))
    return net.model(net("ReduceSum", cut, constant(net, 1), keepdims=1))


@pytest.mark.parametrize("bounds", CUTS)
def test_what_is_cut_at_run_time_keeps_its_width(
    bounds: Callable[[Net, str], tuple[str, str]],
) -> None:
    (found,) = (d for d in inspect(load(cutting(bounds))) if d.width == 64)
    assert found.growth == "fixed" and "known at run time only" in (found.reason or "")


def test_trusting_the_bounds_that_are_tried_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    trust_the_trial(monkeypatch)
    model = load(cutting(behind_a_short_start))
    report = verify(model, widen(model, {"up": 73}), sizes={"length": LENGTHS}, provider="cpu")
    assert not report.equivalent


def in_rows(net: Net, length: str) -> tuple[str, ...]:
    return length, constant(net, -1)


def in_columns(net: Net, length: str) -> tuple[str, ...]:
    return constant(net, -1), length


def in_both(net: Net, length: str) -> tuple[str, ...]:
    return length, net("Div", constant(net, 64), length)


def in_four_rows(net: Net, length: str) -> tuple[str, ...]:
    """At the lengths that are tried."""
    return net("Min", length, constant(net, 4)), constant(net, -1)


def taking_apart(shape: Callable[[Net, str], tuple[str, ...]]) -> ModelProto:
    """The sum of the largest of 64 units in each part; a second input's length says which parts."""
    net = Net(opset=17)
    x, z = net.input("batch", 6), net.input("length", 3)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 64), name="up"))
    sizes = net("Concat", constant(net, 0), *shape(net, length_of(net, z)), axis=0)
    largest = net("ReduceMax", net("Reshape", hidden, sizes), axes=[1], keepdims=0)
    return net.model(net("ReduceSum", largest, constant(net, 1), keepdims=1))


@pytest.mark.parametrize("shape", [in_rows, in_columns, in_both, in_four_rows])
def test_what_is_taken_apart_at_run_time_keeps_its_width(
    shape: Callable[[Net, str], tuple[str, ...]],
) -> None:
    """Some lengths that fit divide 64: the engine tries 1 when primes do not fit."""
    assert all(d.growth == "fixed" for d in inspect(load(taking_apart(shape))))


def test_trusting_the_length_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    trust_the_trial(monkeypatch)
    model = load(taking_apart(in_rows))
    growing = {d.name: 2 * d.width for d in inspect(model) if d.width == 64}
    report = verify(model, widen(model, growing), sizes={"length": [2, 4, 8]}, provider="cpu")
    assert not report.equivalent


def flattening() -> ModelProto:
    """Units that are repeated 1 time at the lengths that are tried, and flattened with that."""
    net = Net(opset=17)
    x, z = net.input("batch", 6), net.input("length", 3)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 8), name="up"))
    times = net("Max", net("Div", length_of(net, z), constant(net, 49)), constant(net, 1))
    shape = net("Concat", constant(net, 1), times, constant(net, 8), axis=0)
    repeated = net("Expand", net("Unsqueeze", hidden, constant(net, 1)), shape)
    flat = net("Flatten", repeated, axis=1)
    return net.model(net("ReduceSum", flat, constant(net, 1), keepdims=1))


def test_an_axis_that_is_one_where_it_is_tried_is_not_left_out() -> None:
    (found,) = (d for d in inspect(load(flattening())) if d.width == 8)
    assert found.growth == "fixed" and "known at run time only" in (found.reason or "")


def test_leaving_it_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    trust_the_trial(monkeypatch)
    model = load(flattening())
    report = verify(model, widen(model, {"up": 11}), sizes={"length": [1, 98]}, provider="cpu")
    assert not report.equivalent


def resampled(net: Net, hidden: str, length: str) -> str:
    """Eight channels at all lengths but the smallest."""
    count = net("Min", net("Mul", length, constant(net, 2)), constant(net, 8))
    shape = net("Concat", length_of(net, hidden), count, axis=0)
    return net("Resize", hidden, "", "", shape, mode="nearest")


def gathered(net: Net, hidden: str, length: str) -> str:
    count = net("Min", net("Mul", length, constant(net, 2)), constant(net, 8))
    sorted_by = net("TopK", net.weight(1, 8), count, results=2, axis=1)[1]
    return net("GatherElements", hidden, net("Mul", sorted_by, constant(net, 0)), axis=0)


def multiplied(net: Net, hidden: str, length: str) -> str:
    """By one number, or beyond the lengths that are tried by eight."""
    end = net("Add", net("Mul", net("Min", net("Div", length, constant(net, 49)), constant(net, 1)),
              constant(net, 7)), constant(net, 1))  # fmt: skip
    row = net("Slice", net.weight(1, 8), constant(net, 0), end, constant(net, 1))
    return net("Mul", hidden, row)


@pytest.mark.parametrize("step", [resampled, gathered, multiplied])
def test_what_is_as_wide_where_it_is_tried_keeps_its_width(
    step: Callable[[Net, str, str], str],
) -> None:
    net = Net(opset=17)
    x = net.input("length", 6)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 8), name="up"))
    last = step(net, hidden, length_of(net, x))
    model = load(net.model(net("ReduceMax", last, axes=[1], keepdims=1)))
    assert {d.growth for d in inspect(model) if d.name.startswith("up")} == {"fixed"}


def heads_indexed(rows: Callable[[Net, str], str]) -> Model:
    """Of two numbers of each of four heads one, by indices that are repeated for so many ``rows``,
    which are four for each of the batch wherever it runs.
    """
    net = Net(opset=17)
    x = net.input("batch", 6)
    batch, four = length_of(net, x), constant(net, 4)
    hidden = net("MatMul", x, net.weight(6, 8), name="up")
    heads = net("Reshape", hidden, net("Concat", batch, constant(net, 4, 2), axis=0))
    shape = net("Concat", net("Mul", batch, four), constant(net, 2), axis=0)
    rows_of_heads = net("Reshape", heads, shape)
    largest = net("ArgMax", net("ReduceMax", x, axes=[0], keepdims=1), axis=1, keepdims=1)
    which = net("Mod", largest, constant(net, 2))
    repeated = net("Expand", which, net("Concat", rows(net, batch), constant(net, 1), axis=0))
    first = net("GatherElements", rows_of_heads, net("Identity", repeated), axis=1)
    merged = net("Reshape", first, net("Concat", batch, four, axis=0))
    return load(net.model(net("MatMul", merged, net.weight(4, 3))))


def test_indices_as_many_as_heads_because_it_is_stated_let_heads_grow() -> None:
    model = heads_indexed(lambda net, batch: net("Mul", batch, constant(net, 4)))
    (dimension,) = (d for d in inspect(model) if d.growth == "any")
    assert dimension.width == 4
    assert verify(model, widen(model, {dimension.name: 7}))


def test_indices_as_many_as_heads_by_chance_do_not() -> None:
    model = heads_indexed(
        lambda net, batch: net("Min", net("Mul", batch, constant(net, 4)), constant(net, 10**6))
    )
    assert [d.name for d in inspect(model) if d.growth != "fixed"] == []


def test_what_is_split_at_run_time_keeps_its_width() -> None:
    net = Net(opset=17)
    x = net.input("length", 6)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 64), name="up"))
    length = length_of(net, x)
    sizes = net("Concat", length, net("Sub", constant(net, 64), length), axis=0)
    net.nodes.append(helper.make_node("Split", [hidden, sizes], ["first", "rest"], axis=1))
    model = load(net.model(net("ReduceSum", "rest", constant(net, 1), keepdims=1)))
    growing = {d.name: d.width + 9 for d in inspect(model) if d.growth != "fixed"}
    assert not growing


SHORT = """
(float[length,6] x, float[6,9] w1, float[9,4] w2) => (float[length,4] y) {
    h = MatMul (x, w1)
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value: tensor = int64 {1}> ()
    three = Constant <value_ints: ints = [3]> ()
    part = Slice (x, zero, three, zero)
    size = Shape <end=1> (part)
    long = Equal (size, three)
    moved = If (long) <
        then_branch = yes () => (t) { t = Relu (h) },
        else_branch = no () => (e) { e = CumSum (h, one) }>
    y = MatMul (moved, w2)
}
"""


def test_a_condition_is_not_settled_because_it_held_twice() -> None:
    """Three entries are sliced at both choices: the other branch is for shorter inputs."""
    model = parse(SHORT)
    assert not solve(Graph(model)).shapes.taken
    (found,) = (d for d in inspect(model) if d.width == 9)
    assert found.growth == "fixed", "the running sum of the other branch counts"


@pytest.mark.parametrize("operator", ["Min", "Max", "Add", "Sub"])
def test_a_width_that_meets_a_length_other_than_in_proportion_is_fixed(operator: str) -> None:
    """min(length, 8) is the length at the sizes tried, and would no longer be 8 at length 40."""
    net = Net(opset=17)
    x = net.input("length", 6)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 8), name="up"))
    count = net("Abs", net(operator, length_of(net, hidden), length_of(net, hidden, 1)), name="met")
    rows = net("Expand", net.weight(1, 5), net("Concat", count, constant(net, 5), axis=0))
    total = net("ReduceSum", rows, constant(net, 0), keepdims=1)
    model = load(net.model(net("Add", net("MatMul", hidden, net.weight(8, 5)), total)))
    (found,) = (d for d in inspect(model) if d.width == 8)
    assert found.growth == "fixed" and "sizes known only at run time" in (found.reason or "")
    with pytest.raises(Refused, match=f"{operator} '.*' does not keep them in proportion"):
        widen(model, {found.name: 11})


def test_products_of_a_width_and_a_length_may_grow() -> None:
    net = Net(opset=17)
    x = net.input("batch", "length", 6)
    hidden = net("Relu", net("MatMul", x, net.weight(6, 8), name="up"))
    sides = [length_of(net, hidden, axis) for axis in range(3)]
    both = net("Mul", sides[1], sides[2])
    flat = net("Reshape", hidden, net("Concat", sides[0], both, axis=0))
    back = net("Concat", sides[0], net("Div", both, sides[2]), sides[2], axis=0)
    model = load(net.model(net("MatMul", net("Reshape", flat, back), net.weight(8, 5))))
    report = verify(model, widen(model, {"up": 11}), sizes={"length": [1, 3, 8, 11, 40]})
    assert report.equivalent, report.verdict


def test_a_condition_that_gives_a_size_keeps_its_value() -> None:
    """The width is compared with 9: once grown, the other branch would be taken."""
    model = parse("""
        (float[b,6] x, float[6,9] w1, float[9,4] w2) => (float[b,4] y) {
            h = MatMul (x, w1)
            nine = Constant <value_ints: ints = [9]> ()
            width = Shape <start=1> (h)
            cond = Equal (width, nine)
            size = If (cond) <
                then_branch = yes () => (int64[1] t) { t = Constant <value_ints: ints = [2]> () },
                else_branch = no () => (int64[1] e) { e = Constant <value_ints: ints = [3]> () }>
            factor = Cast <to=1> (size)
            scaled = Mul (h, factor)
            y = MatMul (scaled, w2)
        }""")
    (found,) = (d for d in inspect(model) if d.width == 9)
    report = verify(model, widen(model, {found.name: 12}))
    assert report.equivalent, report.verdict


@pytest.mark.parametrize("rows", [5, 7, 11, 13, 25])
def test_a_number_of_the_network_is_not_taken_for_a_dynamic_size(rows: int) -> None:
    """In rows of a fixed number the batch is cut across; were it that number, it would not be."""
    net = Net(opset=17)
    hidden = net("Relu", net("MatMul", net.input("batch", 6), net.weight(6, 2 * rows)))
    cut = net("Reshape", hidden, constant(net, rows, -1))
    centred = net("Sub", cut, net("ReduceMean", cut, axes=[1], keepdims=1))
    back = net("Reshape", centred, constant(net, -1, 2 * rows))
    model = load(net.model(net("MatMul", back, net.weight(2 * rows, 3))))
    found = [d for d in inspect(model) if d.width == 2 * rows]
    assert {d.growth for d in found} == {"fixed"}
    assert "where it is cut is known at run time only" in str(found[0].reason)
