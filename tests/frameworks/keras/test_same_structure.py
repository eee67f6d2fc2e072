"""A model from to_keras is known again, whatever its user did to names, training and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_net2net.errors import Net2NetError
from onnx_net2net.frameworks.absorb import absorb
from onnx_net2net.model.model import Model
from tests.keras_models import differences, expected, keras, load, to_keras

from onnx_net2net.frameworks.keras import origin  # isort: skip
from onnx_net2net.frameworks.keras.exporter import from_keras  # isort: skip
from onnx_net2net.frameworks.keras.same_structure import twins  # isort: skip

TEXT = """<ir_version: 8, opset_import: ["": 17]> net (float[n, 4, 6, 6] x) => (float[n, 4] y)
<float[4, 4, 3, 3] a__weight, float[4, 4, 3, 3] b__weight, float[4] n__weight, float[4] n__bias,
 float[4] n__running_mean, float[4] n__running_var> {
    p = Conv <pads = [1, 1, 1, 1]> (x, a__weight)
    q = BatchNormalization (p, n__weight, n__bias, n__running_mean, n__running_var)
    r = Relu (q)
    s = Conv (r, b__weight)
    y = ReduceMean <axes = [2, 3], keepdims = 0> (s)
}"""


def source() -> Model:
    """Two convolutions of one shape, so that only names and places tell which is which."""
    proto = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(1)
    for value in proto.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        values = random.uniform(0.5, 1.5, shape).astype(np.float32)
        name = value.name.replace("__", ".")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for node in proto.graph.node:
        node.input[:] = [name.replace("__", ".") for name in node.input]
    del proto.graph.value_info[:]
    return load(proto)


def frozen(network: Any, _: Path) -> Any:
    network.get_layer("a").trainable = network.get_layer("n").trainable = False
    return network


def renamed(network: Any, _: Path) -> Any:
    """The names of the convolutions are exchanged."""

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        config["name"] = {"a": "b", "b": "a"}.get(layer.name, f"my_{layer.name}")
        return type(layer).from_config(config)

    twin = keras.models.clone_model(network, clone_function=clone)
    twin.set_weights(network.get_weights())
    return twin


def loaded(network: Any, folder: Path) -> Any:
    network.save(folder / "network.keras")
    return keras.saving.load_model(folder / "network.keras")


def halved(network: Any, _: Path) -> Any:
    policy = keras.config.dtype_policy()
    config = network.get_config()
    for layer in config["layers"]:
        if isinstance(layer["config"].get("dtype"), dict):
            layer["config"]["dtype"] = "mixed_float16"
    keras.config.set_dtype_policy(policy)
    twin = keras.Model.from_config(config)
    twin.set_weights(network.get_weights())
    return twin


CHANGES: tuple[Callable[[Any, Path], Any], ...] = (frozen, renamed, loaded, halved)


@pytest.mark.parametrize("change", CHANGES)
def test_trained_weights_go_back_to_their_places(
    change: Callable[[Any, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = source()
    network = to_keras(model)
    for layer in ("a", "b"):
        network.get_layer(layer).kernel.assign_add(
            np.random.default_rng(len(layer) + ord(layer)).normal(size=(3, 3, 4, 4))
        )
    x = np.random.default_rng(2).normal(size=(2, 4, 6, 6)).astype(np.float32)
    wanted = [np.asarray(network(x))]
    changed = change(network, tmp_path)
    again = from_keras(changed)
    assert [n.SerializeToString() for n in again.proto.graph.node] == [
        n.SerializeToString() for n in model.proto.graph.node
    ]
    monkeypatch.setattr(origin, "_ORIGINS", {})  # as in another process
    for back in (again, absorb(model, changed)):
        assert differences(expected(back, {"x": x}), wanted) == []
        assert differences(expected(model, {"x": x}), wanted) != []


class Conv2D(keras.layers.Conv2D):  # type: ignore[misc, name-defined]
    """A layer of a user's own, under the name and with the settings of Keras' layer."""

    def call(self, inputs: Any) -> Any:
        return -super().call(inputs)


def test_a_class_of_that_name_is_another_one() -> None:
    network = to_keras(source())

    def own(layer: Any) -> Any:
        kind = Conv2D if type(layer) is keras.layers.Conv2D else type(layer)
        return kind.from_config(layer.get_config())

    twin = keras.models.clone_model(network, clone_function=own)
    twin.set_weights(network.get_weights())
    assert twins(network, twin) is None


def test_variables_of_another_type_are_of_another_network() -> None:
    keras.config.set_floatx("float64")
    try:
        doubled = keras.models.clone_model(to_keras(source()), clone_function=_doubled)
    finally:
        keras.config.set_floatx("float32")
    assert {v.dtype for v in doubled.variables} == {"float64"}
    assert twins(to_keras(source()), doubled) is None


def _doubled(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config() | {"dtype": "float64"})


def test_outputs_with_names_that_mean_something_in_a_configuration() -> None:
    """Which tensor an output called "name" is, makes a difference."""
    x = keras.Input((4,))
    a = keras.layers.Dense(4)(x)
    b = keras.layers.Dense(4)(a)
    one = keras.Model(x, {"name": a, "trainable": b})
    other = keras.Model(x, {"name": b, "trainable": a})
    assert twins(one, keras.models.clone_model(one)) is not None
    assert twins(one, other) is None


def test_another_network_is_none_of_ours() -> None:
    network = to_keras(source())

    def other(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name == "n":
            config["epsilon"] = 0.1
        return type(layer).from_config(config)

    twin = keras.models.clone_model(network, clone_function=other)
    assert twins(network, keras.models.clone_model(network)) is not None
    assert twins(network, twin) is None
    x = network.input
    by_hand = keras.Model(x, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    assert twins(network, by_hand) is None and twins(by_hand, network) is None
    with pytest.raises(Net2NetError):
        absorb(source(), by_hand)
