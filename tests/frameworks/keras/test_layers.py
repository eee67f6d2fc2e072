"""What to_keras gives are Keras' own layers: they load without this program, freeze and clone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.absorb import absorb
from onnx_net2net.frameworks.keras import moved as moves
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
from tests.networks import Net

from onnx_net2net.frameworks.keras import arranged, importer  # isort: skip
from onnx_net2net.frameworks.keras.exporter import from_keras  # isort: skip
from onnx_net2net.frameworks.keras.layer import GraphLayer  # isort: skip
from onnx_net2net.frameworks.keras.operators.elementwise import NUMBERS  # isort: skip
from onnx_net2net.frameworks.keras.sums import added, is_plain_sum  # isort: skip

# Networks of all kinds that need no layer of ours, and how often they turn a tensor to do so.
OWN = {
    "convnext.dynamo": 1, "densenet.ts11": 1, "gru.dynamo": 0, "inception.dynamo": 1,
    "lstm.ts17": 0, "mobilenetv3.dynamo": 1, "resnet.dynamo": 1, "resnet.float16": 1,
    "resnext.ts17": 1, "t5.dynamo": None, "vit.dynamo": None,
}  # fmt: skip


def kinds(network: Any) -> Counter[str]:
    """How many layers and operations there are of each class."""
    return Counter(type(operation).__name__ for operation in network._operations)


def test_saved_models_load_where_this_program_is_not(tmp_path: Path) -> None:
    """All in one process, which finds keras alone."""
    for name in OWN:
        model = load(FOLDER / f"{name}.onnx")
        network, feeds = to_keras(model), feeds_of(model)
        assert not any(isinstance(layer, GraphLayer) for layer in network.layers), name
        network.save(tmp_path / f"{name}.keras")
        network.save_weights(tmp_path / f"{name}.weights.h5")
        np.savez(tmp_path / f"{name}.in.npz", **{f"i{i}": v for i, v in enumerate(feeds.values())})
        np.savez(tmp_path / f"{name}.out.npz", *outputs(network, feeds))
    code = f"""
import sys
sys.modules["onnx_net2net"] = None
import keras, numpy as np
for name in {list(OWN)!r}:
    network = keras.saving.load_model(f"{{name}}.keras")
    twin = keras.Model.from_config(network.get_config())
    twin.load_weights(f"{{name}}.weights.h5")
    given = list(np.load(f"{{name}}.in.npz").values())
    wanted = list(np.load(f"{{name}}.out.npz").values())
    for one in (network, twin):
        found = one(given if len(given) > 1 else given[0])
        found = list(found.values()) if isinstance(found, dict) else found
        found = found if isinstance(found, list) else [found]
        for a, b in zip(wanted, found, strict=True):
            assert np.array_equal(a, keras.ops.convert_to_numpy(b)), name
"""
    place = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", [name for name, turns in OWN.items() if turns is not None])
def test_no_tensor_is_turned_between_convolutions(name: str) -> None:
    found = kinds(to_keras(load(FOLDER / f"{name}.onnx")))
    turns = found["Permute"] + found["Transpose"]
    if name == "convnext.dynamo":
        assert turns <= 5  # fixture without strides to cancel
    else:
        assert turns == OWN[name]


def test_layers_have_the_authors_names_freeze_and_clone() -> None:
    model = load(FOLDER / "resnet.dynamo-raw.onnx")
    network, feeds = to_keras(model), feeds_of(model)
    layer = network.get_layer("layer1.0.conv1")
    assert isinstance(layer, keras.layers.Conv2D)
    count = len(network.trainable_variables)
    layer.trainable = False
    assert len(network.trainable_variables) == count - len(layer.weights)
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    assert differences(outputs(network, feeds), outputs(twin, feeds)) == []


def test_a_loaded_model_is_absorbed_by_names(tmp_path: Path) -> None:
    model = load(FOLDER / "lstm.ts17.onnx")
    network, feeds = to_keras(model), feeds_of(model)
    for variable in network.trainable_variables:
        variable.assign(variable * 1.25)
    network.save(tmp_path / "lstm.keras")
    again = keras.saving.load_model(tmp_path / "lstm.keras")
    wanted = outputs(network, feeds)
    for one in (network, again):
        assert differences(wanted, expected(absorb(model, one), feeds)) == []
    assert differences(wanted, expected(model, feeds))


def test_recurrent_layers_come_back_from_keras() -> None:
    given = keras.Input((5,), dtype="int32")
    x = keras.layers.LSTM(4, return_sequences=True)(keras.layers.Embedding(1000, 3)(given))
    x = keras.layers.GRU(5, return_sequences=True)(x)
    model = from_keras(keras.Model(given, keras.layers.SimpleRNN(2)(x)))
    network = to_keras(model)
    assert {"Embedding": 1, "GRU": 1, "LSTM": 1, "SimpleRNN": 1}.items() <= kinds(network).items()
    _moves_and_is_absorbed(network, model)


@pytest.mark.parametrize("first", [True, False])
def test_half_a_bias_may_be_zero(first: bool) -> None:
    net = Net(opset=17)
    x, zeros = net.input(5, 2, 3), net("Constant", value_floats=[0.0] * 16)
    halves = [net.weight(16), zeros]
    bias = net("Concat", *(halves if first else halves[::-1]), axis=0)
    bias = net("Unsqueeze", bias, net("Constant", value_ints=[0]))
    y = net("LSTM", x, net.weight(1, 16, 3), net.weight(1, 16, 4), bias, hidden_size=4)
    model = load(net.model(y))
    network = to_keras(model)
    assert kinds(network)["LSTM"] == 1
    _moves_and_is_absorbed(network, model)


def _moves_and_is_absorbed(network: Any, model: Any) -> None:
    """It computes what the file does, and what the file does when its weights moved and went back.

    Weights are moved off zero, too.
    """
    feeds = feeds_of(model)
    assert differences(expected(model, feeds), outputs(network, feeds)) == []
    for variable in network.trainable_variables:
        variable.assign(variable * 1.25 + 0.1)
    wanted = outputs(network, feeds)
    assert differences(wanted, expected(model, feeds))
    assert differences(wanted, expected(absorb(model, network), feeds)) == []


def test_indices_that_count_from_the_end() -> None:
    net = Net(dtype="float32")
    x = net.input("n", 4, dtype="int64")
    y = net("Gather", net.weight(6, 3), net("Sub", x, net("Constant", value_int=6)))
    model = load(net.model(y))
    network = to_keras(model)
    assert not any(isinstance(layer, GraphLayer) for layer in network.layers)
    feeds = {x: np.array([[0, 3, 5, 11]])}
    assert differences(expected(model, feeds), outputs(network, feeds)) == []


def test_sums_that_tensorflow_would_take_for_a_bias() -> None:
    x, y = keras.Input(batch_shape=(4, 4, 4)), keras.Input(batch_shape=(1, 4, 1))
    assert not is_plain_sum(x, y)
    model = keras.Model([x, y], added(x, y))
    a = np.zeros((4, 4, 4), np.float32)
    b = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    assert np.array_equal(np.asarray(model([a, b])), a + b)
    naive = keras.Model([x, y], keras.ops.add(x, y))
    assert not np.array_equal(np.asarray(naive([a, b])), a + b), "Keras has mended it"


def _moved(kind: str) -> tuple[Any, np.ndarray]:
    """A network that moves a tensor of a type in two layers, and numbers that need its bits."""
    net, dtype = Net(), np.dtype(getattr(ml_dtypes, kind, kind))
    x = net.input("n", 2, 3, dtype=dtype)
    model = net.model(net("Flatten", net("Transpose", x, perm=[0, 2, 1])))
    counted = np.arange(6).reshape(1, 2, 3)
    if dtype.kind in "iu":
        return model, np.iinfo(dtype).max - counted.astype(dtype)
    step = 1 if kind == "bool" else float(ml_dtypes.finfo(dtype).eps)
    return model, (counted % 2 + counted * step).astype(dtype)


@pytest.mark.parametrize("kind", sorted(NUMBERS))
def test_layers_keep_every_bit_of_every_type(kind: str) -> None:
    model, feed = _moved(kind)
    network = to_keras(model)
    assert {"Permute", "Reshape"} <= kinds(network).keys()
    (found,) = outputs(network, {"x": feed})
    assert found.dtype == feed.dtype
    assert np.array_equal(found, feed.transpose(0, 2, 1).reshape(1, 6))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_types_of_eight_bits_within_are_refused_by_the_node(kind: str) -> None:
    net, number = Net(opset=19), helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, kind)))
    y = net("Cast", net("Cast", net.input("n", 3), to=number, name="narrow"), to=1)
    with pytest.raises(Refused, match=f"Cast 'narrow': a cast to {kind} is not translated"):
        to_keras(net.model(y))


def test_a_layer_that_casts_to_float32_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arranged, "policy_of", lambda value: None)
    model, feed = _moved("float64")
    assert outputs(to_keras(model), {"x": feed})[0].dtype != feed.dtype


def test_networks_deeper_than_keras_recurses(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    y = x = net.input("n", 2)
    for _ in range(1100):
        y = net("Sin", y)
    model, feeds = load(net.model(y)), {x: np.ones((1, 2), np.float32)}
    assert not differences(expected(model, feeds), outputs(to_keras(model), feeds))
    monkeypatch.setattr(importer, "recursion", lambda depth: nullcontext())
    with pytest.raises(RecursionError):
        to_keras(model)


def test_a_kernel_that_is_turned_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def permuted(self: moves.Moved, *perm: int) -> moves.Moved:
        shape = [self.shape[axis] for axis in perm]
        return self.moved(shape, lambda w: w[..., ::-1].transpose(perm))

    model = load(FOLDER / "resnet.dynamo.onnx")
    feeds = feeds_of(model)
    monkeypatch.setattr(moves.Moved, "permuted", permuted)
    assert differences(expected(model, feeds), outputs(to_keras(model), feeds))


def test_gates_in_another_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(FOLDER / "lstm.ts17.onnx")
    feeds = feeds_of(model)
    monkeypatch.setattr(moves.Moved, "reordered", lambda self, order, axis: self)
    assert differences(expected(model, feeds), outputs(to_keras(model), feeds))
