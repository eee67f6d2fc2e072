"""What a Keras model is for: it trains, saves, exports, and runs on several devices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.absorb import absorb
from onnx_net2net.model.model import Model
from onnx_net2net.verification.verify import tensors
from onnx_net2net.widening.widen import widen
from tests.console import ROOT, environment
from tests.keras_models import (
    FOLDER,
    differences,
    expected,
    feeds_of,
    in_order,
    keras,
    load,
    outputs,
    to_keras,
)

tf = pytest.importorskip("tensorflow")

# One of each kind: layouts, groups, strides, transposed and dilated kernels, recurrence, attention.
TRAINED = (
    "gpt2.dynamo-raw", "gru.dynamo", "inception.dynamo", "mobilenetv3.ts11", "resnet.dynamo-raw",
    "shufflenetv1.dynamo", "unet.dynamo", "vit.dynamo23", "wavenet.dynamo",
)  # fmt: skip


def fixture(name: str) -> Model:
    """A fixture by name."""
    return load(FOLDER / f"{name}.onnx")


def loss_of(network: Any, given: Any, targets: list[Any]) -> Any:
    """The mean square error of the outputs that are real numbers, in training mode."""
    found = network(given, training=True)
    pairs = zip(in_order(found), targets, strict=True)
    return sum(tf.reduce_mean((a - b) ** 2) for a, b in pairs)


def stepper(network: Any, given: Any, targets: list[Any]) -> Callable[[], tuple[Any, list[Any]]]:
    """Loss and gradients, compiled once."""

    @tf.function
    def step() -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            loss = loss_of(network, given, targets)
        return loss, tape.gradient(loss, [v.value for v in network.trainable_variables])

    return step


def task(network: Any, model: Model) -> tuple[Any, list[Any]]:
    """Inputs, and targets near what the network says."""
    feeds = feeds_of(model)
    given = [tf.constant(value) for value in feeds.values()]
    rng = np.random.default_rng(3)
    targets = [
        tf.constant((y + rng.normal(size=y.shape) * y.std()).astype(y.dtype))
        for y in outputs(network, feeds)
    ]
    return given if len(given) > 1 else given[0], targets


@pytest.mark.parametrize("name", TRAINED)
def test_loss_falls_and_every_variable_has_a_gradient(name: str) -> None:
    model = fixture(name)
    network = to_keras(model)
    step = stepper(network, *task(network, model))
    first, gradients = step()
    dead = [
        v.name
        for v, g in zip(network.trainable_variables, gradients, strict=True)
        if g is None or not np.isfinite(tf.convert_to_tensor(g)).all()
    ]
    assert dead == []
    # A step of a length that suits the gradients, so that one rate serves every network.
    norm = float(tf.linalg.global_norm(gradients))
    size = float(tf.linalg.global_norm([v.value for v in network.trainable_variables]))
    optimizer = keras.optimizers.SGD(3e-5 * size / norm)
    last = first
    for _ in range(20):
        last, gradients = step()
        optimizer.apply(gradients, network.trainable_variables)
    assert float(last) < float(first)


def test_copies_of_a_unit_part_after_one_step() -> None:
    model = fixture("resnet.dynamo-raw")
    width = model.weights["layer1.0.conv1.weight"].shape[0]
    grown = widen(model, {"layer1.0.conv1": 2 * width}, seed=1)
    network = to_keras(grown)
    assert differences(expected(grown, feeds_of(grown)), outputs(network, feeds_of(grown))) == []
    kernel = network.get_layer("layer1.0.conv1").kernel
    assert _twins(kernel.numpy()) == width
    _loss, gradients = stepper(network, *task(network, grown))()
    keras.optimizers.SGD(1e-2).apply(gradients, network.trainable_variables)
    assert _twins(kernel.numpy()) == 0


def _twins(kernel: np.ndarray) -> int:
    rows = kernel.reshape(-1, kernel.shape[-1]).T
    return len(rows) - len(np.unique(rows, axis=0))


def test_fits_with_a_partial_last_batch_and_moves_statistics() -> None:
    model = fixture("resnet.dynamo-raw")
    network = to_keras(model)
    images = np.random.default_rng(1).normal(size=(7, *network.input_shape[1:])).astype(np.float32)
    labels = np.arange(7) % network.output_shape[-1]
    before = [v.numpy() for v in network.non_trainable_variables]
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = network.fit(images, labels, batch_size=4, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert np.isfinite(network.evaluate(images, labels, batch_size=4, verbose=0))
    assert network.predict(images, batch_size=4, verbose=0).shape == (7, network.output_shape[-1])
    assert before and all(
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, network.non_trainable_variables, strict=True)
    )


def test_statistics_move_as_in_keras() -> None:
    """mean 0.9 old + 0.1 new, the variance towards that of the batch."""
    model = fixture("resnet.dynamo-raw")
    network = to_keras(model)
    norm, feeds = network.get_layer("bn1"), feeds_of(model)
    old = [norm.moving_mean.numpy(), norm.moving_variance.numpy()]
    network(feeds["x"], training=True)
    node = next(n for n in model.proto.graph.node if n.op_type == "BatchNormalization")
    y = tensors(model, [node.input[0]], feeds)[node.input[0]]
    y = np.moveaxis(y, 1, -1).reshape(-1, y.shape[1])
    mean, spread = 0.9 * old[0] + 0.1 * y.mean(0), 0.9 * old[1] + 0.1 * y.var(0)
    assert np.allclose(norm.moving_mean.numpy(), mean, atol=1e-5)
    assert np.allclose(norm.moving_variance.numpy(), spread, rtol=1e-4)


def test_saved_model_loads_elsewhere(tmp_path: Path) -> None:
    model = fixture("gpt2.dynamo")
    network, feeds = to_keras(model), feeds_of(model)
    from onnx_net2net.frameworks.keras.saving import save_keras

    save_keras(network, tmp_path / "gpt2.keras")
    np.savez(tmp_path / "feeds.npz", **feeds)
    code = f"""
import keras, numpy as np
import gpt2_layers
network = keras.saving.load_model({str(tmp_path / "gpt2.keras")!r})
feeds = np.load({str(tmp_path / "feeds.npz")!r})
np.save({str(tmp_path / "y.npy")!r}, np.asarray(network(dict(feeds))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy"), outputs(network, feeds)[0])


def test_exports_to_a_saved_model(tmp_path: Path) -> None:
    model = fixture("resnet.dynamo-raw")
    network, feeds = to_keras(model), feeds_of(model)
    network.export(tmp_path / "resnet", format="tf_saved_model", verbose=False)
    again = tf.saved_model.load(tmp_path / "resnet")
    assert len(again.trainable_variables) == len(network.trainable_variables)
    assert np.allclose(again.serve(feeds["x"]), outputs(network, feeds)[0], atol=1e-6)


def test_trained_weights_come_back() -> None:
    model = fixture("resnet.dynamo-raw")
    network = to_keras(model)
    _loss, gradients = stepper(network, *task(network, model))()
    keras.optimizers.SGD(1e-2).apply(gradients, network.trainable_variables)
    feeds = feeds_of(model)
    found = outputs(network, feeds)
    assert differences(expected(absorb(model, network), feeds), found) == []
    assert differences(expected(model, feeds), found)


def test_dropout_follows_training() -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Dropout", ["x", "ratio"], ["y"])],
        "dropout",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 50])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 50])],
        [helper.make_tensor("ratio", TensorProto.FLOAT, [], [0.4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = to_keras(load(proto))
    x = np.ones((40, 50), np.float32)
    assert np.array_equal(outputs(network, {"x": x})[0], x)
    first, second = (outputs(network, {"x": x}, training=True)[0] for _ in range(2))
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.6)}
    assert abs((first == 0).mean() - 0.4) < 0.05
    assert not np.array_equal(first, second)


def test_all_that_is_refused_is_named_at_once() -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Mystery", ["x"], ["a"], name="first", domain="org.example"),
            helper.make_node("Riddle", ["a"], ["y"], name="second", domain="org.example"),
        ],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(Refused) as caught:
        to_keras(load(proto))
    for word in ("2 parts", "Mystery 'first'", "Riddle 'second'", "org.example.Riddle"):
        assert word in str(caught.value)


def test_several_devices_compute_what_one_does() -> None:
    """MirroredStrategy on two logical CPUs, in a process of its own."""
    code = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from onnx_net2net.frameworks.keras import to_keras
from onnx_net2net.model.model import load
rng = np.random.default_rng(0)
images, labels = rng.normal(size=(8, 3, 40, 36)).astype("float32"), np.arange(8)
def losses(scope):
    with scope:
        network = to_keras(load("fixtures/resnet.dynamo.onnx"))
        network.compile(
            keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    return network.fit(data, epochs=3, verbose=0).history["loss"]
one = losses(tf.device("CPU:0"))
two = losses(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope())
assert np.allclose(one, two, rtol=1e-4), (one, two)
assert one[-1] < one[0]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


BACKENDS = {"torch": "torch", "jax": "jax"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_backends_compute_train_and_refuse_by_name(backend: str) -> None:
    """A convolutional and a recurrent network and a transformer, in a process of its own."""
    pytest.importorskip(BACKENDS[backend], reason=f"{backend} is not installed")
    code = """
import numpy as np
from tests.keras_models import FOLDER, differences, expected, feeds_of, keras, load, to_keras
for name in ("resnet.dynamo-raw", "gpt2.dynamo", "lstm.dynamo", "unet.dynamo", "resnext.ts17"):
    model = load(FOLDER / f"{name}.onnx")
    network, feeds = to_keras(model), feeds_of(model)
    wanted = expected(model, feeds)
    given = list(feeds.values()) if len(feeds) > 1 else next(iter(feeds.values()))
    found = [network.predict_on_batch(given)]  # compiled as one
    assert differences(wanted, found) == [], (name, differences(wanted, found))
    if name in ("unet.dynamo", "resnext.ts17"):
        continue  # these take a rate of their own to train
    network.compile(keras.optimizers.SGD(1e-3), "mse")
    history = network.fit(given, wanted[0] * 0.9, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0], (name, history)
import pytest
from onnx_net2net.errors import Refused
from tests.keras_models import load, to_keras
from tests.samples.network import network
from tests.operators.test_attributes import stated
from tests.operators.test_rules import BY_ID
with pytest.raises(Refused, match="mode=max with more than one sample"):
    to_keras(load(network(BY_ID["indexing:RoiAlign-max-opset16"])))
with pytest.raises(Refused, match="stash_type"):
    sample = next(s for s in BY_ID.values() if s.operator == ("", "LayerNormalization"))
    to_keras(load(stated(network(sample), stash_type=10)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment(), "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
