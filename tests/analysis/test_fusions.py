"""Norms of several nodes: known in every form, padded without a new node, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.model.model import Model, load
from onnx_net2net.plan.invariant import verify_layers
from onnx_net2net.widening.dimensions import analyse
from tests.networks import Net, arrays

UNITS = 9
EPSILON = 0.03  # as large as variances, so that a wrong one is seen
FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
Form = Callable[[Net, str], str]


def constant(net: Net, value: float) -> str:
    return net.put(np.array(value, net.dtype))


def mean(net: Net, x: str, axis: int = -1) -> str:
    if net.opset < 18:
        return net("ReduceMean", x, axes=[axis])
    return net("ReduceMean", x, net.put(np.array([axis])), keepdims=1)


def square(net: Net, x: str) -> str:
    return net("Pow", x, constant(net, 2))


def times(net: Net, x: str) -> str:
    return net("Mul", x, x)


def moved(net: Net, variance: str) -> str:
    return net("Add", variance, constant(net, EPSILON))


def scaled(net: Net, x: str, *, bias: bool = False) -> str:
    result = net("Mul", x, net.weight(UNITS, low=0.5, high=1.5))
    return net("Add", result, net.weight(UNITS)) if bias else result


def rms_divides(net: Net, x: str) -> str:
    root = net("Sqrt", moved(net, mean(net, square(net, x))))
    return scaled(net, net("Div", x, root))


def rms_reciprocal(net: Net, x: str) -> str:
    root = net("Sqrt", net("Add", constant(net, EPSILON), mean(net, times(net, x))))
    normed = net("Mul", net("Reciprocal", root), x)
    return net("Mul", net.weight(UNITS, low=0.5, high=1.5), normed)


def rms_one_over(net: Net, x: str) -> str:
    root = net("Sqrt", moved(net, mean(net, square(net, x))))
    return scaled(net, net("Mul", x, net("Div", constant(net, 1), root)))


def rms_power(net: Net, x: str) -> str:
    total = moved(net, mean(net, square(net, x)))
    return scaled(net, net("Mul", x, net("Pow", total, constant(net, -0.5))))


def rms_cast(net: Net, x: str) -> str:
    wide = net("Cast", x, to=FLOAT)
    root = net("Sqrt", moved(net, mean(net, square(net, wide))))
    return scaled(net, net("Cast", net("Div", wide, root), to=FLOAT))


def rms_cast_like(net: Net, x: str) -> str:
    epsilon = net("CastLike", constant(net, EPSILON), x)
    root = net("Sqrt", net("Add", mean(net, times(net, x)), epsilon))
    return scaled(net, net("Div", x, root))


def rms_middle(net: Net, x: str) -> str:
    """Over the second of three axes, as channels stand."""
    swapped = net("Transpose", x, perm=[1, 0])
    whole = net("Unsqueeze", swapped, net.put(np.array([0])))
    root = net("Sqrt", moved(net, mean(net, square(net, whole), -2)))
    result = net("Mul", net("Div", whole, root), net.weight(UNITS, 1, low=0.5, high=1.5))
    return net("Transpose", net("Squeeze", result, net.put(np.array([0]))), perm=[1, 0])


def layer(net: Net, x: str) -> str:
    centred = net("Sub", x, mean(net, x))
    root = net("Sqrt", moved(net, mean(net, square(net, centred))))
    return scaled(net, net("Div", centred, root), bias=True)


def layer_twice(net: Net, x: str) -> str:
    """The centred vector computed twice, without a bias."""
    one, two = (net("Sub", x, mean(net, x)) for _ in range(2))
    root = net("Sqrt", moved(net, mean(net, times(net, one))))
    return scaled(net, net("Mul", two, net("Reciprocal", root)))


def layer_difference(net: Net, x: str) -> str:
    average = mean(net, x)
    variance = net("Sub", mean(net, times(net, x)), times(net, average))
    root = net("Sqrt", moved(net, net("Max", variance, constant(net, 0))))
    return scaled(net, net("Div", net("Sub", x, average), root), bias=True)


FORMS: tuple[Form, ...] = (
    rms_divides, rms_reciprocal, rms_one_over, rms_power, rms_cast, rms_cast_like, rms_middle,
    layer, layer_twice, layer_difference,
)  # fmt: skip


def stream(form: Form, *, opset: int = 18, count: int = 2) -> Model:
    """``count`` residual branches, each behind a norm of its own."""
    net = Net(opset=opset)
    x = net("MatMul", net.input("batch", 5), net.weight(5, UNITS))
    for _ in range(count):
        inner = net("Tanh", net("MatMul", form(net, x), net.weight(UNITS, 4)))
        x = net("Add", x, net("MatMul", inner, net.weight(4, UNITS)))
    return load(net.model(net("MatMul", form(net, x), net.weight(UNITS, 3))))


def main_dimension(model: Model) -> n2n.Dimension:
    return next(d for d in n2n.inspect(model) if d.width == UNITS)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_decomposed_norm_is_padded_as_a_fused_one_is(form: Form) -> None:
    model = stream(form)
    norms = set(analyse(model).norms.values())
    assert len(norms) == 3
    assert all(norm.centred == form.__name__.startswith("layer") for norm in norms)
    for width in (UNITS + 1, 2 * UNITS + 5):
        grown = n2n.widen(model, {main_dimension(model).name: width}, seed=width)
        assert len(grown.proto.graph.node) <= len(model.proto.graph.node)
        assert len(grown.proto.graph.initializer) == len(model.proto.graph.initializer)
        assert n2n.verify(model, grown, seeds=1)
        assert verify_layers(model, grown)


def test_axes_may_be_an_attribute() -> None:
    model = stream(layer, opset=13)
    assert len(set(analyse(model).norms.values())) == 3


def test_epsilon_shrinks_with_the_deviation_and_the_judge_sees_if_not() -> None:
    model = stream(rms_divides)
    grown = n2n.widen(model, {main_dimension(model).name: 2 * UNITS + 5})
    eta = 2 * UNITS / (2 * UNITS + 5)
    before, after = arrays(model.proto), arrays(onnx.ModelProto.FromString(grown.to_bytes()))
    changed = [n for n in before if before[n].shape == () and before[n] != after[n]]
    assert len(changed) == 3
    for name in changed:
        assert after[name] == pytest.approx(eta * before[name])
    for wrong in (EPSILON, EPSILON * eta**2):
        proto = onnx.ModelProto.FromString(grown.to_bytes())
        for entry in proto.graph.initializer:
            if entry.name in changed:
                entry.CopyFrom(onnx.numpy_helper.from_array(np.float32(wrong), entry.name))
        assert not n2n.verify(model, proto, seeds=1)


@pytest.mark.parametrize("others", [False, True], ids=["norms", "another"])
def test_an_epsilon_that_is_shared_changes_for_whom_it_must(others: bool) -> None:
    net = Net(opset=18)
    epsilon = constant(net, EPSILON)
    x = net("MatMul", net.input("batch", 5), net.weight(5, UNITS))

    def normed() -> str:
        root = net("Sqrt", net("Add", mean(net, square(net, x)), epsilon))
        return scaled(net, net("Div", x, root))

    y = net("Add", *(net("MatMul", normed(), net.weight(UNITS, 3)) for _ in range(2)))
    if others:
        y = net("Add", y, epsilon)
    model = load(net.model(y))
    grown = n2n.widen(model, {main_dimension(model).name: UNITS + 4})
    new = len(grown.proto.graph.initializer) - len(model.proto.graph.initializer)
    assert new == others
    assert n2n.verify(model, grown, seeds=1)


def read_elsewhere(net: Net, x: str) -> str:
    """The deviation is a result of its own, too."""
    root = net("Sqrt", moved(net, mean(net, square(net, x))))
    return net("Mul", scaled(net, net("Div", x, root)), root)


def cubed(net: Net, x: str) -> str:
    root = net("Sqrt", moved(net, mean(net, net("Abs", net("Pow", x, constant(net, 3))))))
    return scaled(net, net("Div", x, root))


def fourth_powers(net: Net, x: str) -> str:
    root = net("Sqrt", moved(net, mean(net, net("Pow", x, constant(net, 4)))))
    return scaled(net, net("Div", x, root))


def of_another(net: Net, x: str) -> str:
    """One vector over the deviation of another."""
    root = net("Sqrt", moved(net, mean(net, square(net, net("Neg", x)))))
    return scaled(net, net("Div", x, root))


def scaled_by_data(net: Net, x: str) -> str:
    root = net("Sqrt", moved(net, mean(net, square(net, x))))
    return net("Mul", net("Div", x, root), net("Tanh", x))


def above_a_floor(net: Net, x: str) -> str:
    """The largest of three, the third of which is no zero."""
    average = mean(net, x)
    variance = net("Sub", mean(net, times(net, x)), times(net, average))
    largest = net("Max", variance, constant(net, 0), constant(net, 5))
    root = net("Sqrt", moved(net, largest))
    return scaled(net, net("Div", net("Sub", x, average), root), bias=True)


def to_integers(net: Net, x: str) -> str:
    root = net("Sqrt", moved(net, mean(net, square(net, x))))
    rounded = net("Cast", net("Div", x, root), to=onnx.TensorProto.INT32)
    factors = net.put(np.arange(1, UNITS + 1, dtype=np.int32))
    return net("Cast", net("Mul", rounded, factors), to=FLOAT)


@pytest.mark.parametrize(
    "form",
    [
        read_elsewhere,
        cubed,
        fourth_powers,
        of_another,
        scaled_by_data,
        above_a_floor,
        to_integers,
    ],
    ids=lambda form: form.__name__,
)
def test_what_is_no_norm_is_none_and_grows_by_shares(form: Form) -> None:
    model = stream(form)
    assert not analyse(model).norms
    dimension = main_dimension(model)
    if dimension.growth == "any":
        grown = n2n.widen(model, {dimension.name: UNITS + 4})
        assert len(grown.proto.graph.node) > len(model.proto.graph.node)
        assert n2n.verify(model, grown, seeds=1)


def test_an_epsilon_that_would_be_rounded_away_is_left_to_shares() -> None:
    net = Net(opset=18, dtype=np.float16)
    x = net("MatMul", net.input("batch", 5), net.weight(5, UNITS))
    root = net("Sqrt", net("Add", mean(net, square(net, x)), constant(net, 1e-6)))
    y = net("MatMul", scaled(net, net("Div", x, root)), net.weight(UNITS, 3))
    model = load(net.model(y))
    assert len(set(analyse(model).norms.values())) == 1
    dimension = main_dimension(model)
    assert dimension.growth == "any"
    assert dimension.atom not in analyse(model).paddings


def test_heads_that_are_normed_grow_by_shares_so_that_they_learn() -> None:
    """Zeros of queries meet zeros of keys: neither would ever be trained."""
    net = Net(opset=18)
    x = net.input("batch", 5)
    q, k = (rms_divides(net, net("MatMul", x, net.weight(5, UNITS))) for _ in range(2))
    model = load(net.model(net("MatMul", q, net("Transpose", k, perm=[1, 0]))))
    dimension = main_dimension(model)
    assert dimension.growth == "any"
    assert dimension.atom not in analyse(model).paddings
    assert n2n.verify(model, n2n.widen(model, {dimension.name: UNITS + 2}), seeds=1)
