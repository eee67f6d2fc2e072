"""Models without inputs of their own, exported by an example; and channels in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_net2net.errors import UsageError
from onnx_net2net.widening.dimensions import inspect
from onnx_net2net.widening.widen import widen
from tests.keras_models import differences, expected, keras, outputs

pytest.importorskip("tf2onnx")

from onnx_net2net.frameworks.keras.exporter import from_keras  # isort: skip

layers = keras.layers
X = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
IDS = np.array([[1, 2, 3], [3, 1, 0]], np.int32)


class Perceptron(keras.Model):
    """A subclass, as Keras' guides write them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = layers.Dense(7, activation="relu", name="first")
        self.second = layers.Dense(3, name="second")

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))


class Pair(keras.Model):
    """Inputs by name, and outputs by name."""

    def __init__(self) -> None:
        super().__init__(name="pair")
        self.table = layers.Embedding(4, 5, name="table")
        self.head = layers.Dense(2, name="head")

    def call(self, given: dict[str, Any]) -> dict[str, Any]:
        y = self.head(keras.ops.mean(self.table(given["ids"]), 1) + given["x"])
        return {"y": y, "z": keras.ops.relu(y)}


def sequential() -> Any:
    return keras.Sequential([layers.Dense(7, name="first"), layers.Dense(3, name="second")])


CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "dict": (Pair, {"ids": IDS, "x": X}),
    "sequential": (sequential, X),
    "subclass": (Perceptron, X),
}


@pytest.mark.parametrize("name", CASES)
def test_an_example_says_what_the_inputs_are(name: str) -> None:
    make, example = CASES[name]
    network = make()
    with pytest.raises(UsageError, match="no inputs of its own"):
        from_keras(network)
    model = from_keras(network, example)
    shapes = [value.type.tensor_type.shape.dim[0] for value in model.proto.graph.input]
    assert all(not dim.HasField("dim_value") for dim in shapes)
    result = network(example)
    wanted = list(result.values()) if isinstance(result, dict) else [result]
    names = [value.name for value in model.proto.graph.input]
    feeds = example if isinstance(example, dict) else {names[0]: example}
    assert sorted(feeds) == sorted(names)
    assert differences([np.asarray(y) for y in wanted], expected(model, feeds)) == []
    held = {name for name in model.weights if name.endswith(("kernel", "bias", "embeddings"))}
    assert len(held) == len(network.weights)


def test_what_an_example_gave_can_grow() -> None:
    network = Perceptron(name="net")
    model = from_keras(network, X)
    (hidden,) = (dimension.name for dimension in inspect(model) if dimension.width == 7)
    grown = widen(model, {hidden: 11})
    (value,) = grown.proto.graph.input
    assert differences([np.asarray(network(X))], expected(grown, {value.name: X})) == []


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be called with such an example"):
        from_keras(Pair(), X)


def test_channels_in_front_stay_there() -> None:
    """Layers with data_format, against the same layers with the channels last."""
    shape, first = (3, 9, 8), "channels_first"

    def net(form: str) -> Any:
        x = inputs = keras.Input(shape if form == first else (9, 8, 3))
        x = layers.Conv2D(4, 3, padding="same", data_format=form)(x)
        x = layers.BatchNormalization(axis=1 if form == first else -1)(x)
        x = layers.DepthwiseConv2D(3, data_format=form)(layers.ReLU()(x))
        x = layers.MaxPooling2D(2, data_format=form)(x)
        x = layers.GlobalAveragePooling2D(data_format=form)(x)
        return keras.Model(inputs, layers.Dense(2)(x))

    front, last = net(first), net("channels_last")
    last.set_weights(front.get_weights())
    model = from_keras(front)
    (value,) = model.proto.graph.input
    x = np.random.default_rng(2).normal(size=(2, *shape)).astype(np.float32)
    wanted = outputs(last, {"x": np.moveaxis(x, 1, -1)})
    assert differences(wanted, expected(model, {value.name: x})) == []
