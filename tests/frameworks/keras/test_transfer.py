"""Trained Keras models written into larger ones, in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_net2net as n2n
from onnx_net2net.errors import Net2NetError, Refused, UsageError
from tests.keras_models import keras

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
from onnx_net2net.frameworks.keras import transfer as target

layers = keras.layers
Build = Callable[[], Any]


def mlp(width: int = 16, activation: str = "relu", dropout: float = 0.5, **more: Any) -> Any:
    x = given = keras.Input((8,))
    x = layers.Dropout(dropout)(layers.Dense(width, activation=activation, **more)(x))
    return keras.Model(given, layers.Dense(4)(x))


def sequential(width: int = 16) -> Any:
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(width, activation="tanh"), layers.Dense(1)]
    )


def convolutions(first: int = 6, second: int = 9) -> Any:
    x = given = keras.Input((10, 10, 3))
    x = layers.Conv2D(first, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2)(x)
    x = layers.ReLU()(layers.BatchNormalization(name="last")(layers.Conv2D(second, 3)(x)))
    return keras.Model(given, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def branches(width: int = 6, hidden: int = 10) -> Any:
    """Two inputs, two outputs, a layer that is used twice."""
    a, b = keras.Input((5,)), keras.Input((5,))
    shared = layers.Dense(width, activation="relu", name="shared")
    x = layers.Dense(hidden, activation="relu")(layers.Concatenate()([shared(a), shared(b)]))
    return keras.Model([a, b], [layers.Dense(2)(x), layers.Dense(3)(x)])


def normed(width: int = 16, epsilon: float = 1e-3, norm: Any = layers.RMSNormalization) -> Any:
    x = given = keras.Input((8,))
    x = norm(epsilon=epsilon)(layers.Dense(width)(x))
    return keras.Model(given, layers.Dense(4)(x))


def transformer(width: int = 16, heads: int = 2, size: int = 8, hidden: int = 24) -> Any:
    x = given = keras.Input((7,), dtype="int32")
    x = layers.Embedding(50, width)(x)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, size)(y, y)])
    y = layers.Dense(hidden, activation="gelu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(width)(y)])
    return keras.Model(given, layers.Dense(5)(layers.LayerNormalization()(x)))


# The smaller model and the larger one.
CASES: dict[str, tuple[Build, Build]] = {
    "mlp": (mlp, lambda: mlp(24)),
    "sequential": (sequential, lambda: sequential(40)),
    "convolutions": (convolutions, lambda: convolutions(8, 14)),
    "branches": (branches, lambda: branches(9, 15)),
    "normed": (normed, lambda: normed(24)),
    "centred": (
        lambda: normed(16, 0.1, layers.LayerNormalization),
        lambda: normed(24, 0.1, layers.LayerNormalization),
    ),
    "more heads": (transformer, lambda: transformer(32, 4, 8, 40)),
    "no multiple": (transformer, lambda: transformer(23, 3, 8, 40)),
}


def made(name: str) -> tuple[Any, Any]:
    keras.utils.set_random_seed(0)
    small, large = (build() for build in CASES[name])
    rng = np.random.default_rng(0)
    for variable in small.weights:  # as training leaves them
        if "seed" not in variable.path:
            spread = rng.uniform(0.5, 1.5, variable.shape)
            variable.assign(spread if "variance" in variable.path else variable + spread / 5)
    return small, large


def inputs_of(model: Any, count: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        rng.standard_normal((count, *x.shape[1:])).astype("float32")
        if x.dtype == "float32"
        else rng.integers(0, 20, (count, *[size or 7 for size in x.shape[1:]])).astype(x.dtype)
        for x in model.inputs
    ]


def called(model: Any, inputs: list[np.ndarray], **how: Any) -> list[np.ndarray]:
    given = inputs if len(inputs) > 1 else inputs[0]
    return [np.array(y) for y in keras.tree.flatten(model(given, **how))]


def state_of(model: Any) -> list[np.ndarray]:
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.weights, *(optimizer.variables if optimizer is not None else ())]
    return [np.array(variable) for variable in variables]


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def agree(small: Any, large: Any, rtol: float = 1e-4) -> None:
    given = inputs_of(small)
    for a, b in zip(called(small, given), called(large, given), strict=True):
        np.testing.assert_allclose(b, a, rtol, 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_model_goes_on_as_a_larger_one(name: str) -> None:
    small, large = made(name)
    before, variables = state_of(small), list(large.weights)
    report = n2n.transfer(small, large)
    assert equal(state_of(small), before)
    assert all(map(lambda a, b: a is b, variables, large.weights)), "written in place"
    agree(small, large)
    assert report.widths and not report.new and 0 <= report.difference <= report.tolerance
    for variable in large.trainable_variables:
        assert report.mask(variable.path).shape == tuple(variable.shape)
    kept = sum(int((~report.mask(v.path)).sum()) for v in large.trainable_variables)
    assert kept == sum(int(np.prod(v.shape)) for v in small.trainable_variables)


def test_statistics_and_training_mode_go_along() -> None:
    small, large = made("convolutions")
    report = n2n.transfer(small, large)
    assert "so they do in training mode" in str(report)
    given = inputs_of(small)
    for a, b in zip(*(called(m, given, training=True) for m in (small, large)), strict=True):
        np.testing.assert_allclose(b, a, 1e-4, 1e-5)
    mean, wide = (m.get_layer("last").moving_mean for m in (small, large))
    np.testing.assert_allclose(np.unique(np.round(wide, 5)), np.unique(np.round(mean, 5)))


def test_frozen_layers_are_written_and_stay_frozen() -> None:
    small, large = made("convolutions")
    for layer in (*small.layers, *large.layers):
        layer.trainable = False
    report = n2n.transfer(small, large)
    agree(small, large)
    assert not large.trainable_variables and report.tolerance > 1e-8


def test_inputs_of_the_user_are_what_both_are_compared_on() -> None:
    small, large = made("branches")
    report = n2n.transfer(small, large, inputs_of(small))
    agree(small, large)
    assert report.tolerance < 1e-3


def test_models_of_one_size_are_copied() -> None:
    small, large = mlp(), mlp()
    report = n2n.transfer(small, large)
    assert not report.widths and equal(state_of(small)[:2], state_of(large)[:2])
    with pytest.raises(UsageError, match="share variables"):
        n2n.transfer(small, small)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(1e-2, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(1e-2),
    "nadam": lambda: keras.optimizers.Nadam(1e-2),
    "sgd": lambda: keras.optimizers.SGD(1e-2, momentum=0.9),
    "adamax": lambda: keras.optimizers.Adamax(1e-2),
}


def trained(small: Any, large: Any, optimizer: Callable[[], Any], steps: int = 3) -> Any:
    """Compile both and train the smaller one; returns the data."""
    for model in (small, large):
        model.compile(optimizer(), "mse")
    given = inputs_of(small)[0]
    wanted = np.random.default_rng(2).standard_normal((len(given), 4)).astype("float32")
    for _ in range(steps):
        small.train_on_batch(given, wanted)
    return given, wanted


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_goes_on(name: str) -> None:
    """Copies have the old moments, in shares; what was not copied trains on as it did."""
    small, large = mlp(dropout=0.0), mlp(32, dropout=0.0)
    data = trained(small, large, OPTIMIZERS[name])
    n2n.transfer(small, large)
    assert int(large.optimizer.iterations) == 3
    first, wide = (
        [np.array(v) for v in m.optimizer.variables if tuple(v.shape) == (4,)]
        for m in (small, large)
    )
    assert first and all(map(np.allclose, wide, first)), "of the last bias, which did not grow"
    losses = [model.train_on_batch(*data) for model in (small, large)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    biases = [np.array(model.layers[-1].bias) for model in (small, large)]
    np.testing.assert_allclose(*biases, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "power"),
    [("sgd", "momentums", 1), ("adam", "_momentums", 1), ("adam", "_velocities", 2)],
)
def test_copies_share_what_the_optimizer_knows(name: str, kind: str, power: int) -> None:
    """The gradient of a unit is shared by its copies, whole for what reads them."""
    small, large = mlp(dropout=0.0), mlp(27, dropout=0.0)
    trained(small, large, OPTIMIZERS[name])
    n2n.transfer(small, large)
    first, wide = (
        [np.abs(np.array(v)) ** (1 / power) for v in getattr(model.optimizer, kind)]
        for model in (small, large)
    )
    for a, b in zip(first[:2], wide[:2], strict=True):
        np.testing.assert_allclose(b.sum(-1), a.sum(-1), rtol=1e-5)
    rows, copies = (np.unique(values[2].round(6), axis=0) for values in (first, wide))
    np.testing.assert_allclose(copies, rows)
    np.testing.assert_allclose(wide[3], first[3])


@pytest.mark.parametrize("name", ["normed", "centred"])
def test_epsilons_are_set_on_layers(name: str, tmp_path: Path) -> None:
    """Also in what was compiled before, and in files of models; those of weights hold none."""
    small, large = made(name)
    dense, *_ = small.trainable_variables
    dense.assign(dense * 1e-2)  # so that the epsilon counts
    given = inputs_of(small)[0]
    large.predict(given, verbose=0)
    report = n2n.transfer(small, large)
    (setting,) = report.settings
    (old, new) = (layer.epsilon for layer in (small.layers[2], large.layers[2]))
    assert (setting.old, setting.new) == pytest.approx((old, old * 16 / 24))
    assert new == pytest.approx(old * 16 / 24)
    assert setting.path in str(report) and "apply_settings" in str(report)
    expected = called(small, [given])[0]
    np.testing.assert_allclose(large.predict(given, verbose=0), expected, 1e-4, 1e-5)
    large.save(tmp_path / "large.keras")
    agree(small, keras.saving.load_model(tmp_path / "large.keras"))
    large.save_weights(tmp_path / "large.weights.h5")
    again = CASES[name][1]()
    again.load_weights(tmp_path / "large.weights.h5")
    report.apply_settings(again)
    agree(small, again)


@pytest.mark.parametrize(
    ("small", "large", "said"),
    [
        ("adam", None, "the larger model is not compiled"),
        ("adam", "sgd", "the optimizers are Adam and SGD"),
        ("rmsprop", "rmsprop", "RMSprop keeps what is not known"),
    ],
)
def test_why_an_optimizer_begins_anew_is_said(small: str, large: str | None, said: str) -> None:
    models = mlp(), mlp(24)
    for model, name in zip(models, (small, large), strict=True):
        if name is not None:
            model.compile(name, "mse")
    models[0].train_on_batch(np.ones((2, 8)), np.ones((2, 4)))
    assert said in str(n2n.transfer(*models))


# ---- nothing is written where something does not fit ------------------------------------------


def refused(small: Any, large: Any, match: str, **more: Any) -> str:
    """The refusal's text; ``large`` must be as it was."""
    before, config = state_of(large), str(large.get_config())
    with pytest.raises(Net2NetError, match=match) as caught:
        n2n.transfer(small, large, **more)
    assert equal(state_of(large), before) and str(large.get_config()) == config
    return str(caught.value)


# A smaller model, a larger one it cannot grow into, and why not.
REFUSALS: dict[str, tuple[Build, Build, str]] = {
    "a layer shrinks": (mlp, lambda: mlp(12), "from 16 to 12"),
    "an activation": (mlp, lambda: mlp(24, "tanh"), "Tanh"),
    "a bias is missing": (mlp, lambda: mlp(24, use_bias=False), "'dense/bias'"),
    "larger heads": (transformer, lambda: transformer(32, 2, 12), "0.2886751 in place of 0.35355"),
    "another epsilon": (
        lambda: keras.Sequential([keras.Input((8,)), layers.BatchNormalization()]),
        lambda: keras.Sequential([keras.Input((8,)), layers.BatchNormalization(epsilon=1e-5)]),
        "epsilon 1e-05 in place of 0.001",
    ),
    "other layers": (mlp, convolutions, "same layers"),
    "other outputs": (
        lambda: keras.Sequential([keras.Input((8,)), layers.Dense(4)]),
        lambda: keras.Sequential([keras.Input((8,)), layers.Dense(6)]),
        "cannot grow from 4 to 6",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_is_refused(name: str) -> None:
    small, large, match = REFUSALS[name]
    refused(small(), large(), match)


def test_a_wrong_weight_is_seen_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = mlp(), mlp(24)
    trained(small, large, OPTIMIZERS["adam"])
    take = target.Fitted._take

    def wrong(self: Any, name: str, variable: Any) -> None:
        take(self, name, variable)
        if name.endswith("bias"):
            self.values[name] = self.values[name] + np.linspace(0, 1e-2, variable.shape[0])

    monkeypatch.setattr(target.Fitted, "_take", wrong)
    large.optimizer.build(large.trainable_variables)
    refused(small, large, "as it was")


def test_a_wrong_epsilon_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = made("normed")
    dense, bias = small.trainable_variables[:2]
    dense.assign(dense * 1e-2), bias.assign(bias * 1e-2)
    monkeypatch.setattr(target.Fitted, "_set", lambda *_: None)
    refused(small, large, "as it was")


def test_an_epsilon_that_no_layer_has_is_refused() -> None:
    class Own(layers.RMSNormalization):
        """A norm that calls its epsilon otherwise."""

        def build(self, shape: Any) -> None:
            super().build(shape)
            self.variance_epsilon, self.epsilon = self.epsilon, 0.0

        def call(self, x: Any) -> Any:
            square = keras.ops.mean(keras.ops.square(x), -1, keepdims=True)
            return x * keras.ops.rsqrt(square + self.variance_epsilon) * self.scale

    def model(width: int) -> Any:
        x = given = keras.Input((8,))
        x = Own()(layers.Dense(width)(x))
        return keras.Model(given, layers.Dense(4)(x))

    refused(model(16), model(24), "no one layer has that as its epsilon")


def test_a_wrong_order_of_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def square() -> Any:
        x = given = keras.Input((8,))
        for _ in range(2):
            x = layers.Dense(8, activation="relu")(x)
        return keras.Model(given, x)

    names = target.counterparts

    def swapped(*paths: Any) -> dict[str, str]:
        pairs = names(*paths)
        return dict(zip(pairs, [list(pairs.values())[i] for i in (1, 0, 3, 2)], strict=True))

    square()
    small, large = square(), square()
    monkeypatch.setattr(target, "counterparts", swapped)
    refused(small, large, "in place of")


def test_optimizers_that_do_not_belong_are_refused() -> None:
    small, large = mlp(), mlp(24)
    trained(small, large, OPTIMIZERS["adam"])
    adam, sgd = (OPTIMIZERS[name]() for name in ("adam", "sgd"))
    sgd.build(large.trainable_variables)
    refused(small, large, "Adam and SGD", optimizer=small.optimizer, large_optimizer=sgd)
    adam.build(mlp(24).trainable_variables)
    refused(small, large, "larger model's", optimizer=small.optimizer, large_optimizer=adam)


def test_one_of_each_kind_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match="one is a PyTorch module, one a Keras model"):
        n2n.transfer(mlp(), torch.nn.Linear(8, 4))
    with pytest.raises(UsageError, match="no PyTorch module, nor a Keras model"):
        n2n.transfer(mlp(), {})


def test_numbers_of_layers_are_told_apart_from_names() -> None:
    names = target.counterparts
    assert names(["a_1/kernel", "b/kernel"], ["a_1/kernel", "b/kernel"]) == {}
    assert names(["dense_1/kernel", "dense/kernel"], ["dense_7/kernel", "dense_4/kernel"]) == {
        "dense_1/kernel": "dense_7/kernel",
        "dense/kernel": "dense_4/kernel",
    }
    with pytest.raises(Refused, match="2 of 'dense/kernel' in the smaller model, and 1"):
        names(["dense/kernel", "dense_1/kernel"], ["dense_2/kernel"])


def test_a_larger_model_is_saved_as_it_is(tmp_path: Path) -> None:
    small, large = made("mlp")
    n2n.transfer(small, large)
    large.save(tmp_path / "large.keras")
    agree(small, keras.saving.load_model(tmp_path / "large.keras"))
