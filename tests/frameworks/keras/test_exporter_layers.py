"""Layers of a Keras model that ONNX has operators for: kept, exact, and trained as in Keras."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import onnx_net2net as n2n
from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.roles import Role, roles
from tests.keras_models import differences, expected, keras, outputs, to_keras

pytest.importorskip("tf2onnx")

from onnx_net2net.frameworks.keras import kept_layers
from onnx_net2net.frameworks.keras.exporter import from_keras

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
    back = from_keras(again)
    for variable in made.variables:
        found = back.weights[variable.path].array()
        np.testing.assert_allclose(found, variable.numpy(), rtol=1e-4, atol=1e-5)
        if not variable.trainable:
            moved = np.abs(found - before[variable.path]).max()
            assert moved > 1e-2, f"{variable.path} did not move"


def transposed(layer: Any, *sizes: int | None, first: bool = False) -> Any:
    shape = (3, *sizes) if first else (*sizes, 3)
    return network(shape, layer, L.Activation("tanh"))


T1, T2, T3 = L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose
TRANSPOSED: dict[str, Any] = {
    f"{form}, {sizes}": lambda make=make, given=given: transposed(make(), *given)
    for form, make, rank in (
        ("same", lambda: T2(4, 3, strides=2, padding="same"), 2),
        ("a stride beyond the kernel", lambda: T2(2, 2, strides=3), 2),
        ("same, a stride beyond the kernel", lambda: T2(2, 2, strides=(3, 5), padding="same"), 2),
        ("longer", lambda: T2(2, (3, 4), strides=3, padding="same", output_padding=2), 2),
        ("valid, longer", lambda: T2(2, (3, 5), strides=2, output_padding=1), 2),
        ("wide kernels", lambda: T2(2, (5, 6), padding="same", activation="relu"), 2),
        ("dilated", lambda: T2(2, 3, dilation_rate=2, padding="same"), 2),
        ("no bias, one axis", lambda: T1(2, 4, strides=3, use_bias=False), 1),
        ("one axis", lambda: T1(2, 3, strides=2, padding="same"), 1),
        ("three axes", lambda: T3(2, (2, 3, 2), strides=(3, 2, 1), padding="same"), 3),
    )
    for sizes, given in (("fixed", (5, 4, 3)[:rank]), ("open", (None,) * rank))
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions_stay_nodes(name: str) -> None:
    made = TRANSPOSED[name]()
    model = from_keras(made)
    assert [n.op_type for n in model.proto.graph.node].count("ConvTranspose") == 1
    x = batch(made, 1)
    assert differences(expected(model, {"x": x}), outputs(made, {"x": x}, training=False)) == []


def test_transposed_convolutions_of_open_sizes_grow() -> None:
    first, last = T2(4, 3, strides=2, padding="same", activation="relu"), T2(2, 2, strides=3)
    model = from_keras(network((None, None, 3), first, last))
    grows = [d.name for d in n2n.inspect(model) if d.growth != "fixed"]
    assert len(grows) == 1
    grown = n2n.widen(model, {grows[0]: 6})
    assert n2n.verify(model, grown, provider="cpu")
    x = {"x": np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype(np.float32)}
    assert differences(expected(model, x), outputs(to_keras(grown), x)) == []


FIRST: dict[str, Any] = {
    f"{kind.__name__}, {sizes}": lambda kind=kind, given=given: network(
        (3, *given), kind(4, 2, data_format="channels_first"), L.Activation("relu")
    )
    for rank, kind in [(1, T1), (2, T2), (3, T3), (3, L.Conv3D)]
    for sizes, given in (("fixed", (5, 4, 5)[:rank]), ("open", (None,) * rank))
}


@pytest.mark.parametrize("name", FIRST)
def test_channels_first(name: str) -> None:
    """Also where the last axis is as long as there are channels, to which a bias is added.

    Keras mistakes that axis for the channels as soon as it sees such sizes.
    """
    import tensorflow as tf

    made = FIRST[name]()
    model = from_keras(made)
    signature = [tf.TensorSpec(made.input_shape, "float32")]
    wanted = tf.function(lambda x: made(x, training=False), input_signature=signature)
    for length in [size for size in (3, 5) if "open" in name] or [0]:
        shape = [2, *(size or length for size in made.input_shape[1:])]
        x = {"x": np.random.default_rng(length).normal(size=shape).astype(np.float32)}
        assert differences([wanted(x["x"]).numpy()], expected(model, x)) == []


GROUPED: dict[str, Any] = {
    "one axis": lambda: network((8, 4), L.Conv1D(8, 3, groups=4, padding="same")),
    "two axes": lambda: network((8, 7, 4), L.Conv2D(6, 3, groups=2, strides=2, padding="same")),
    "open sizes": lambda: network((None, None, 4), L.Conv2D(6, 3, groups=2)),
    "three axes": lambda: network((5, 4, 6, 4), L.Conv3D(6, 2, groups=2)),
}


@pytest.mark.parametrize("name", GROUPED)
def test_grouped_convolutions_are_exact(name: str) -> None:
    made = GROUPED[name]()
    x = batch(made, 1)
    model = from_keras(made)
    assert [n.op_type for n in model.proto.graph.node].count("Conv") == 1
    assert differences(expected(model, {"x": x}), outputs(made, {"x": x}, training=False)) == []


BRAIN: dict[str, Any] = {
    f"{policy}, {name}": lambda policy=policy, make=make: network(*make(policy))
    for policy in ("bfloat16", "mixed_bfloat16")
    for name, make in {
        "dense": lambda dtype: (
            (6,), L.Dense(5, activation="relu", dtype=dtype), L.Dense(2, dtype="float32"),
        ),
        "convolutions": lambda dtype: (
            (8, 7, 3), L.Conv2D(4, 3, dtype=dtype), L.BatchNormalization(dtype=dtype), L.ReLU(),
            L.Conv2DTranspose(2, 3, strides=2, dtype=dtype), L.Dense(2, dtype="float32"),
        ),
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("name", BRAIN)
def test_bfloat16_keeps_its_range(name: str) -> None:
    made = BRAIN[name]()
    model = from_keras(made)
    x = batch(made, 1) * 1e5  # beyond float16
    wanted = outputs(made, {"x": x}, training=False)
    (found,) = expected(model, {"x": x})
    size = np.abs(wanted[0]).max()
    assert np.isfinite(size) and size > 65504
    assert np.abs(found - wanted[0]).max() < 4e-2 * size
    (y,) = outputs(to_keras(model), {"x": x}, training=False)
    assert np.abs(y - wanted[0]).max() < 4e-2 * size


@pytest.mark.parametrize("shape", [(4, 3), (None, 3), (5, 4, 3), (None, None, 3), (2, 3, 4, 3)])
def test_layers_of_features_after_other_axes_return_to_keras(shape: tuple[int | None, ...]) -> None:
    """Their sizes are multiplied, some of which are only known when the network runs."""
    model = from_keras(network(shape, L.Dense(4, activation="relu", name="inner"), L.Dense(2)))
    grows = [d.name for d in n2n.inspect(model) if d.growth != "fixed"]
    grown = n2n.widen(model, {grows[0]: 6})
    assert n2n.verify(model, grown, provider="cpu")
    x = np.random.default_rng(1).normal(size=(2, *(size or 5 for size in shape)))
    feeds = {"x": x.astype(np.float32)}
    assert differences(expected(model, feeds), outputs(to_keras(grown), feeds)) == []


def test_a_layer_at_each_of_many_steps() -> None:
    """Exact where their number is fixed; the exporter is wrong, without a word, where it is not."""
    fixed = network((5, 6), L.TimeDistributed(L.Dense(3)), L.LSTM(4))
    x = batch(fixed, 1)
    assert differences(expected(from_keras(fixed), {"x": x}), outputs(fixed, {"x": x})) == []
    with pytest.raises(Refused, match="a length that is not fixed"):
        from_keras(network((None, 6), L.TimeDistributed(L.Dense(3)), L.LSTM(4)))


RECURRENT: dict[str, tuple[str, Any]] = {
    f"{kind.__name__}, {name}": (op, make)
    for op, kind in kept_layers.RECURRENT.items()
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


@pytest.mark.parametrize("op", kept_layers.RECURRENT)
def test_recurrent_classifiers_grow_and_return(op: str) -> None:
    kind = kept_layers.RECURRENT[op]
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
    monkeypatch.setattr(kept_layers.Calls, "handlers", lambda self: {})
    with pytest.raises(Refused, match="lost 2 of 2"):
        from_keras(images())


def test_layers_are_left_as_they_were() -> None:
    before = L.BatchNormalization.call, L.LSTM.inner_loop
    from_keras(images())
    assert (L.BatchNormalization.call, L.LSTM.inner_loop) == before


class Inner(L.Layer):
    """Calls another layer as ``options`` say, whatever it is told itself."""

    def __init__(self, inner: Any, **options: Any) -> None:
        super().__init__()
        self.inner, self.options = inner, options

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x, **self.options)


class Doubled(L.BatchNormalization):
    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return 2 * super().call(inputs, training, mask)


class Scaled(L.BatchNormalization):
    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return inputs * self.gamma


class TwiceLSTM(L.LSTM):
    def inner_loop(self, *given: Any, **options: Any) -> Any:
        last, every, states = super().inner_loop(*given, **options)
        return 2 * last, every, states


class Counting(L.Layer):
    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), trainable=False, name="calls")

    def call(self, x: Any) -> Any:
        self.calls.assign(self.calls + 1)
        return x * self.calls


def shared(layer: Any, *shape: int) -> Any:
    x = keras.Input(shape, name="x")
    return keras.Model(x, layer(layer(x)))


UNUSUAL: dict[str, Any] = {
    "a shared BatchNormalization": lambda: shared(L.BatchNormalization(), 4),
    "a shared LSTM": lambda: shared(L.LSTM(3, return_sequences=True), 5, 3),
    "a frozen BatchNormalization": lambda: network((4,), L.BatchNormalization(trainable=False)),
    "one frozen that is told to train": lambda: network(
        (4,), Inner(L.BatchNormalization(trainable=False), training=True)
    ),
    "an own BatchNormalization": lambda: network((4,), Doubled()),
    "one that does something else": lambda: network((4,), Scaled()),
    "an own LSTM": lambda: network((5, 3), TwiceLSTM(2)),
    "dropout within a GRU": lambda: network((5, 3), L.GRU(2, dropout=0.5, recurrent_dropout=0.5)),
    "an unrolled GRU": lambda: network((5, 3), L.GRU(2, unroll=True)),
    "float64": lambda: keras.Sequential(
        [keras.Input((5, 3), dtype="float64", name="x"), L.LSTM(2, dtype="float64")]
    ),
    "GELU": lambda: network((4,), L.Dense(3, activation="gelu")),
    "CELU": lambda: network((4,), L.Dense(3, activation="celu")),
    "numbers that are no variables": lambda: network(
        (3,), L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 5.0])
    ),
    "an input that is called as variables are": lambda: keras.Sequential(
        [keras.Input((4,), name="v0"), L.Dense(3)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_layers_are_exact(name: str) -> None:
    made = UNUSUAL[name]()
    x = batch(made, 1).astype(made.inputs[0].dtype)
    model = from_keras(made, dropout=False)
    (given,) = (value.name for value in model.proto.graph.input)
    assert differences(expected(model, {given: x}), outputs(made, {"x": x}, training=False)) == []


MOVING: dict[str, tuple[Any, str]] = {
    "training BatchNormalization": (
        lambda: network((4,), Inner(L.BatchNormalization(), training=True)), "moving_mean",
    ),
    "training LSTM": (
        lambda: network((5, 3), Inner(L.LSTM(2, dropout=0.5), training=True)), "StatelessRandom",
    ),
    "training Dropout": (
        lambda: network((4,), Inner(L.Dropout(0.5), training=True)), "StatelessRandom",
    ),
    "stateful": (
        lambda: of_four(L.GRU(2, stateful=True)), "the state of a layer",
    ),
    "counting": (lambda: network((4,), Counting()), "counting/calls"),
}  # fmt: skip


def of_four(layer: Any) -> Any:
    x = keras.Input((5, 3), batch_size=4, name="x")
    return keras.Model(x, layer(x))


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_at_each_call_is_refused(name: str) -> None:
    make, reason = MOVING[name]
    with pytest.raises(Refused, match=reason):
        from_keras(make())


@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError, AssertionError])
def test_layers_are_left_as_they_were_after_a_failure(kind: type[Exception]) -> None:
    class Failing(L.Layer):
        ready = False

        def call(self, x: Any) -> Any:
            if self.ready:
                raise kind("planted,\nsaid on two lines")
            return x

    kinds = (L.BatchNormalization, L.LSTM, L.GRU, L.SimpleRNN)
    before = [dict(vars(kind)) for kind in kinds]
    made = network((4,), L.BatchNormalization(), Failing())
    Failing.ready = True
    with pytest.raises(Refused, match="planted, said") as refusal:
        from_keras(made)
    assert "\n" not in str(refusal.value) and "File" not in str(refusal.value)
    assert [dict(vars(kind)) for kind in kinds] == before
