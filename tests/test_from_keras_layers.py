"""Layers of a Keras model that ONNX has operators for: kept, exact, and trained as in Keras."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import onnx_net2net as n2n
from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.roles import Role, paths, roles
from tests.keras_models import differences, expected, keras, outputs, to_keras

pytest.importorskip("tf2onnx")

from onnx_net2net.frameworks import keras_layers
from onnx_net2net.frameworks.from_keras import from_keras

L = keras.layers


def network(shape: tuple[int | None, ...], *parts: Any) -> Any:
    """A Sequential with weights that are nowhere special."""
    made = keras.Sequential([keras.Input(shape, name="x"), *parts])
    rng = np.random.default_rng(0)
    made.set_weights(
        [
            (rng.uniform(0.2, 1.2, w.shape) * rng.choice([-1, 1], w.shape) ** (w.ndim > 1)).astype(
                w.dtype
            )
            for w in made.get_weights()
        ]
    )
    return made


def images() -> Any:
    return network(
        (12, 10, 3),
        L.Conv2D(4, 3, padding="same", strides=2, name="conv"),
        L.BatchNormalization(name="bn1"),
        L.ReLU(),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.BatchNormalization(scale=False, momentum=0.9, epsilon=1e-2, name="bn2"),
        L.ReLU(),
        L.Flatten(),
        L.Dense(5, name="fc"),
    )


NORMALISED: dict[str, Any] = {
    "images": images,
    "channels first": lambda: network(
        (3, 6, 5), L.BatchNormalization(axis=1), L.ReLU(), L.Flatten(), L.Dense(3)
    ),
    "features": lambda: network(
        (7,), L.Dense(4), L.BatchNormalization(center=False), L.ReLU(), L.Dense(3)
    ),
    "series": lambda: network(
        (9, 3), L.Conv1D(4, 3), L.BatchNormalization(), L.GlobalAveragePooling1D(), L.Dense(3)
    ),
    "volumes": lambda: network(
        (5, 6, 7, 2), L.Conv3D(3, 3), L.BatchNormalization(), L.Flatten(), L.Dense(3)
    ),
    "neither scale nor center": lambda: network(
        (7,), L.Dense(4), L.BatchNormalization(center=False, scale=False), L.Dense(3)
    ),
}


def batch(made: Any, seed: int, samples: int = 4) -> np.ndarray:
    shape = [size or 6 for size in made.input_shape[1:]]
    return np.random.default_rng(seed).normal(size=(samples, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", NORMALISED)
def test_batch_normalization_stays_a_node(name: str) -> None:
    made = NORMALISED[name]()
    model = from_keras(made)
    layers = [layer for layer in made.layers if isinstance(layer, L.BatchNormalization)]
    nodes = [n for n in model.proto.graph.node if n.op_type == "BatchNormalization"]
    assert len(nodes) == len(layers) > 0
    for layer, node in zip(layers, nodes, strict=True):
        variables = [layer.moving_mean.path, layer.moving_variance.path]
        assert list(node.input)[3:] == variables
        assert (node.input[1] == layer.gamma.path) if layer.scale else True
        assert (node.input[2] == layer.beta.path) if layer.center else True
        stated = {a.name: a.f for a in node.attribute}
        assert stated["epsilon"] == np.float32(layer.epsilon)
        assert stated["momentum"] == np.float32(layer.momentum)
    kinds = {name: role for name, role in roles(model).items() if role is not Role.CONSTANT}
    assert {n for n, r in kinds.items() if r is Role.PARAMETER} == {
        v.path for v in made.trainable_variables
    }
    assert {n for n, r in kinds.items() if r is Role.STATISTIC} == {
        v.path for v in made.non_trainable_variables
    }
    x = batch(made, 1)
    assert differences(expected(model, {"x": x}), outputs(made, {"x": x}, training=False)) == []


def trained(made: Any, data: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    made.compile(keras.optimizers.SGD(0.002, momentum=0.5), keras.losses.MeanSquaredError())
    return [float(made.train_on_batch(x, y)) for x, y in data]


@pytest.mark.parametrize("name", NORMALISED)
def test_trains_as_the_authors_model_does(name: str) -> None:
    made = NORMALISED[name]()
    model = from_keras(made)
    again = to_keras(model)
    rng = np.random.default_rng(5)
    data = [
        (batch(made, step), rng.normal(size=(4, made.output_shape[-1])).astype(np.float32))
        for step in range(4)
    ]
    before = {v.path: v.numpy().copy() for v in made.variables}
    np.testing.assert_allclose(trained(made, data), trained(again, data), rtol=1e-5)
    names, values = paths(model), {v.name: v.numpy() for v in again.variables}
    for variable in made.variables:
        found = values[names[variable.path]]
        np.testing.assert_allclose(found, variable.numpy(), rtol=1e-4, atol=1e-5)
        if not variable.trainable:
            moved = np.abs(found - before[variable.path]).max()
            assert moved > 1e-2, f"{variable.path} did not move"


def test_the_unbiased_variance_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_net2net.frameworks.keras3.trace import Trace

    made = NORMALISED["features"]()
    again = to_keras(from_keras(made))
    monkeypatch.setattr(
        Trace, "population", property(lambda _: False, lambda *_: None), raising=False
    )
    data = [(batch(made, 1), np.zeros((4, 3), np.float32))]
    trained(made, data), trained(again, data)
    one = next(v for v in made.variables if v.name == "moving_variance").numpy()
    other = next(v for v in again.variables if v.name.endswith("moving_variance")).numpy()
    assert np.abs(one - other).max() > 1e-3


RECURRENT: dict[str, tuple[str, Any]] = {
    f"{kind.__name__}, {name}": (op, make)
    for op, kind in keras_layers.RECURRENT.items()
    for name, make in {
        "two": lambda kind=kind: network(
            (6, 3), kind(4, return_sequences=True), kind(5), L.Dense(2)
        ),
        "no bias, backwards": lambda kind=kind: network(
            (6, 3), kind(4, use_bias=False, go_backwards=True, return_sequences=True), L.Dense(2)
        ),
        "relu, backwards": lambda kind=kind: network(
            (6, 3), kind(4, activation="relu", go_backwards=True), L.Dense(2)
        ),
        "both ways": lambda kind=kind: network(
            (None, 3), L.Bidirectional(kind(4, return_sequences=True)), L.Bidirectional(kind(5))
        ),
    }.items()
}
RECURRENT["GRU, reset before"] = (
    "GRU", lambda: network((6, 3), L.GRU(4, reset_after=False), L.Dense(2))
)  # fmt: skip


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_stay_nodes(name: str) -> None:
    op, make = RECURRENT[name]
    made = make()
    model = from_keras(made)
    counted = Counter(n.op_type for n in model.proto.graph.node)
    assert counted[op] and not counted["Loop"]
    assert {n for n, r in roles(model).items() if r is Role.PARAMETER} == {
        v.path for v in made.trainable_variables
    }
    x = batch(made, 1)
    assert differences(expected(model, {"x": x}), outputs(made, {"x": x}, training=False)) == []


def test_states_go_in_and_out() -> None:
    x = keras.Input((6, 3), name="x")
    first, *states = L.LSTM(4, return_state=True, return_sequences=True)(x)
    made = keras.Model(x, [first, L.LSTM(4)(x, initial_state=states), *states])
    model = from_keras(made)
    data = batch(made, 1)
    wanted = [np.asarray(value) for value in made(data)]
    assert differences(wanted, expected(model, {"x": data})) == []


@pytest.mark.parametrize("op", keras_layers.RECURRENT)
def test_recurrent_classifiers_grow_and_return(op: str) -> None:
    kind = keras_layers.RECURRENT[op]
    made = network((6, 3), kind(4, return_sequences=True, name="inner"), kind(5), L.Dense(2))
    model = from_keras(made)
    grown = n2n.widen(model, {op_name(model, op): 7})
    assert n2n.verify(model, grown)
    again, x = to_keras(grown), batch(made, 1)
    assert differences(outputs(made, {"x": x}), outputs(again, {"x": x})) == []
    data = [(batch(made, step), np.ones((4, 2), np.float32)) for step in range(4)]
    losses = trained(again, data * 3)
    assert np.isfinite(losses).all() and losses[-4] < losses[0]  # the same batch


def op_name(model: Any, op: str) -> str:
    return next(n.name for n in model.proto.graph.node if n.op_type == op)


def test_other_forms_are_loops_and_still_exact() -> None:
    tokens = keras.Input((6,), dtype="int32", name="x")
    inner = L.Embedding(9, 3, mask_zero=True)(tokens)
    made = keras.Model(tokens, L.Dense(2)(L.LSTM(4)(inner)))
    x = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 0]], np.int32)
    model = from_keras(made)
    counted = Counter(n.op_type for n in model.proto.graph.node)
    assert counted["Loop"] and not counted["LSTM"]
    assert differences(expected(model, {"x": x}), outputs(made, {"x": x})) == []


def test_a_layer_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_layers.Calls, "handlers", lambda self: {})
    with pytest.raises(Refused, match="lost 2 of 2"):
        from_keras(images())


def test_layers_are_left_as_they_were() -> None:
    before = L.BatchNormalization.call, L.LSTM.inner_loop
    from_keras(images())
    assert (L.BatchNormalization.call, L.LSTM.inner_loop) == before
