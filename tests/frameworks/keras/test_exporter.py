"""Keras models as ONNX models: names, layouts and BatchNormalization are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.keras_models import (
    FOLDER,
    differences,
    expected,
    feeds_of,
    keras,
    load,
    outputs,
    to_keras,
)

pytest.importorskip("tf2onnx")

from onnx_net2net.frameworks.keras.exporter import from_keras


def convnet() -> Any:
    """A small network with everything that exporters like to fold."""
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((12, 10, 3), name="images"),
            layers.Conv2D(4, 3, padding="same", strides=2, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(5, name="fc"),
        ]
    )
    rng = np.random.default_rng(0)
    made.set_weights([rng.uniform(0.1, 1, w.shape).astype(np.float32) for w in made.get_weights()])
    return made


def test_names_layouts_and_batch_normalization_are_kept() -> None:
    network = convnet()
    model = from_keras(network)
    for variable in network.variables:
        assert np.array_equal(model.weights[variable.path].array(), variable.numpy())
    assert [value.name for value in model.proto.graph.input] == ["images"]
    x = {"images": np.random.default_rng(1).normal(size=(2, 12, 10, 3)).astype(np.float32)}
    assert differences(expected(model, x), outputs(network, x)) == []


def test_an_imported_model_gives_its_graph_again() -> None:
    model = load(FOLDER / "resnet.dynamo-raw.onnx")
    network, feeds = to_keras(model), feeds_of(model)
    for variable in network.trainable_variables:
        variable.assign(variable * 1.1)
    again = from_keras(network)
    assert again.weights.keys() == model.weights.keys()
    assert [n.op_type for n in again.proto.graph.node] == [
        n.op_type for n in model.proto.graph.node
    ]
    assert differences(expected(again, feeds), outputs(network, feeds)) == []
    assert differences(expected(model, feeds), outputs(network, feeds))


def test_norms_without_scale_are_not_tied() -> None:
    """The exporter gives all of one width the same ones: each layer grows by itself."""
    import onnx_net2net as n2n

    layers = keras.layers
    hidden = images = keras.Input((8, 8, 3))
    for _ in range(4):
        hidden = layers.Conv2D(6, 3, padding="same", use_bias=False)(hidden)
        hidden = layers.ReLU()(layers.BatchNormalization(scale=False)(hidden))
    pooled = layers.GlobalAveragePooling2D()(hidden)
    small = from_keras(keras.Model(images, layers.Dense(3)(pooled)))
    growing = [d for d in n2n.inspect(small) if d.growth != "fixed"]
    assert [d.width for d in growing] == [6] * 4
    grown = n2n.widen(small, {growing[1].name: 9})
    assert n2n.verify(small, grown, provider="cpu")
    rows = [w.shape[0] for w in grown.weights.values() if w.shape in ((6,), (9,))]
    assert rows.count(9) < rows.count(6)
