"""What a Keras model drops while it trains it still drops after a way through ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnx_net2net as n2n
from onnx_net2net.frameworks.unkept import RANDOM
from tests.keras_models import differences, expected, keras, outputs, to_keras
from tests.networks import dropout_ratios

pytest.importorskip("tf2onnx")

from onnx_net2net.frameworks.keras.exporter import from_keras

L = keras.layers
X = np.random.default_rng(3).normal(size=(3, 5, 8)).astype(np.float32)


class Calling(L.Layer):
    """A layer that calls ``function(self, x, training)``."""

    def __init__(self, function: Callable[..., Any], *parts: Any) -> None:
        super().__init__()
        self.function, self.parts = function, parts

    def call(self, x: Any, training: Any = False) -> Any:
        return self.function(self, x, training)


def network(*parts: Any) -> Any:
    made = keras.Sequential([keras.Input((5, 8), name="x"), L.Dense(6), *parts, L.Dense(4)])
    rng = np.random.default_rng(0)
    for variable in made.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return made


def attended(dropout: float = 0.3) -> Any:
    x = keras.Input((5, 8), name="x")
    y = L.MultiHeadAttention(2, 4, dropout=dropout)(x, x)
    return keras.Model(x, L.Dense(3)(L.Dropout(0.1)(L.Add()([x, y]))))


def twice(rate: float) -> Any:
    drop = L.Dropout(rate)
    return network(drop, L.ReLU(), drop)


def images() -> Any:
    convolved = [L.Reshape((5, 6, 1)), L.Conv2D(3, 3), L.Dropout(0.4), L.BatchNormalization()]
    return network(*convolved, L.Flatten())


# What is kept: a model, and its ratios in the order of its calls.
KEPT: dict[str, tuple[Callable[[], Any], list[float]]] = {
    "layers": (lambda: network(L.Dropout(0.25), L.ReLU(), L.Dropout(0.5)), [0.25, 0.5]),
    "one layer, called twice": (lambda: twice(0.1), [0.1, 0.1]),
    "attention": (attended, [0.3, 0.1]),
    "images": (images, [0.4]),
    "nothing is dropped": (lambda: network(L.Dropout(0.0), L.GaussianNoise(0.0)), []),
    "a model within": (lambda: network(keras.Sequential([L.ReLU(), L.Dropout(0.2)])), [0.2]),
    "at each of many steps": (lambda: network(L.TimeDistributed(L.Dropout(0.2))), [0.2] * 5),
    "never in training": (
        lambda: network(
            Calling(lambda self, x, _: self.parts[0](x, training=False), L.Dropout(0.2))
        ),
        [],
    ),
}  # fmt: skip

# What is not: a model, and the words that say so.
LOST: dict[str, tuple[Callable[[], Any], str]] = {
    "noise": (lambda: network(L.GaussianNoise(0.2, name="noise")), "noise (GaussianNoise) draw"),
    "whole channels": (lambda: network(L.SpatialDropout1D(0.2)), "(SpatialDropout1D)"),
    "a shape of its own": (
        lambda: network(L.Dropout(0.2, noise_shape=(None, 1, None), name="d")), "d (Dropout)"
    ),
    "another dropout": (lambda: network(L.AlphaDropout(0.2)), "(AlphaDropout)"),
    "within a recurrent layer": (lambda: network(L.LSTM(4, dropout=0.2)), "(LSTM)"),
    "a number of its own": (
        lambda: network(
            Calling(lambda _, x, train: x + keras.random.normal((6,), seed=1) if train else x)
        ),
        "(Calling)",
    ),
    "a call in training mode only": (
        lambda: network(Calling(lambda self, x, train: self.parts[0](x) if train else x,
                                L.Dropout(0.2, name="d"))),
        "d (Dropout)",
    ),
    "training mode that fails": (
        lambda: network(Calling(lambda self, x, train: self.missing if train else x)),
        "where training mode failed (AttributeError: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_dropout_is_kept_all_the_way_back(name: str) -> None:
    build, wanted = KEPT[name]
    made = build()
    plain = outputs(made, {"x": X}, training=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = from_keras(made)
    assert sorted(dropout_ratios(model)) == pytest.approx(sorted(wanted))
    assert RANDOM not in model.metadata
    assert differences(plain, expected(model, {"x": X})) == []
    assert dropout_ratios(from_keras(made, dropout=False)) == []

    back = to_keras(model)
    assert differences(plain, outputs(back, {"x": X}, training=False)) == []
    first, second = (outputs(back, {"x": X}, training=True)[0] for _ in range(2))
    drops = [layer.rate for layer in back.layers if isinstance(layer, L.Dropout)]
    assert sorted(drops) == pytest.approx(sorted(wanted))
    assert bool(wanted) is not np.array_equal(first, second)


@pytest.mark.parametrize("name", LOST)
def test_what_is_not_kept_is_said(name: str) -> None:
    build, words = LOST[name]
    made = build()
    with pytest.warns(UserWarning, match="not kept of how it trains: ") as caught:
        model = from_keras(made)
    (warning,) = [w for w in caught if "not kept" in str(w.message)]
    assert words in str(warning.message)
    assert warning.filename == __file__
    assert model.metadata[RANDOM] in str(warning.message)
    assert dropout_ratios(model) == []
    assert differences(outputs(made, {"x": X}, training=False), expected(model, {"x": X})) == []


def test_a_model_is_left_as_it_was() -> None:
    made = network(L.Dropout(0.2), L.GaussianNoise(0.1), L.BatchNormalization())
    state = [np.array(variable) for variable in made.variables]
    kinds = L.Layer, L.Dropout
    before = [dict(vars(kind)) for kind in kinds]
    with pytest.warns(UserWarning, match="GaussianNoise"):
        from_keras(made)
    assert [dict(vars(kind)) for kind in kinds] == before
    assert all(map(np.array_equal, state, made.variables))


def test_a_grown_network_drops_as_the_small_one() -> None:
    model, plain = from_keras(attended()), from_keras(attended(), dropout=False)
    growths = [[(d.width, d.growth) for d in n2n.inspect(m)] for m in (model, plain)]
    assert growths[0] == growths[1]
    grown = n2n.widen(model, factor=2, all=True)
    assert n2n.verify(model, grown)
    assert dropout_ratios(grown) == dropout_ratios(model)


def test_pytorch_drops_by_them() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra [torch]")
    made = network(L.Dropout(0.25), L.ReLU())
    module, x = n2n.to_torch(from_keras(made)), torch.from_numpy(X)
    with torch.no_grad():
        wanted = outputs(made, {"x": X}, training=False)
        assert differences(wanted, [module.eval()(x).numpy()]) == []
        assert not torch.equal(module.train()(x), module(x))
