"""A training step of the imported model against the author's own Keras model: ratios in one run.

    python tests/benchmarks/keras_step_time.py [resnet lstm bert]

Both models hold the same weights and read the same batch; they take turns at ``train_on_batch``
with plain SGD, and the median of each counts.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from onnx_net2net import from_keras, to_keras

ROUNDS = 15
RNG = np.random.default_rng(0)


def resnet() -> tuple[keras.Model, np.ndarray]:
    """ResNet with the stages of ResNet-18, narrower."""

    def convolved(x: Any, width: int, stride: int = 1) -> Any:
        x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    x = given = keras.Input((64, 64, 3))
    x = layers.ReLU()(convolved(x, 32, 2))
    for width in (32, 64, 128):
        for stride in (1 if width == 32 else 2, 1):
            y = layers.ReLU()(convolved(x, width, stride))
            y = convolved(y, width)
            if stride > 1:
                x = layers.BatchNormalization()(layers.Conv2D(width, 1, stride, use_bias=False)(x))
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, layers.Dense(100)(x)), RNG.normal(size=(8, 64, 64, 3))


def lstm() -> tuple[keras.Model, np.ndarray]:
    """Two layers of LSTM over tokens."""
    given = keras.Input((48,), dtype="int32")
    x = layers.Embedding(1000, 64)(given)
    x = layers.LSTM(96, return_sequences=True)(x)
    x = layers.LSTM(96)(x)
    return keras.Model(given, layers.Dense(10)(x)), RNG.integers(0, 1000, (8, 48))


def bert() -> tuple[keras.Model, np.ndarray]:
    """Two layers of an encoder with the norm behind."""
    given = keras.Input((64,), dtype="int32")
    places = layers.Embedding(64, 128)(ops.arange(64) + 0 * given)
    x = layers.LayerNormalization(epsilon=1e-12)(layers.Embedding(1000, 128)(given) + places)
    for _ in range(2):
        y = layers.MultiHeadAttention(4, 32)(x, x)
        x = layers.LayerNormalization(epsilon=1e-12)(x + y)
        y = layers.Dense(128)(layers.Dense(512, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + y)
    return keras.Model(given, layers.Dense(10)(x[:, 0])), RNG.integers(0, 1000, (8, 64))


NETWORKS: dict[str, Callable[[], tuple[keras.Model, np.ndarray]]] = {
    "resnet": resnet, "lstm": lstm, "bert": bert,
}  # fmt: skip


def measured(name: str) -> tuple[float, float, float]:
    """Median seconds of a step, the author's model and the imported one, and how losses differ."""
    keras.utils.set_random_seed(0)
    theirs, x = NETWORKS[name]()
    ours = to_keras(from_keras(theirs))
    y = RNG.normal(size=(len(x), theirs.output.shape[-1]))
    for network in (theirs, ours):
        network.compile("sgd", "mse")

    def step(network: keras.Model) -> tuple[float, float]:
        started = time.process_time()
        loss = network.train_on_batch(x, y)
        return time.process_time() - started, float(np.ravel(loss)[0])

    first = [step(network) for network in (theirs, ours)]
    times = [(step(theirs)[0], step(ours)[0]) for _ in range(ROUNDS)]
    apart = abs(first[0][1] - first[1][1]) / abs(first[0][1])
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), apart


def main() -> None:
    """Print a line for each network."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print("| network | author's step, ms | imported / author's | first losses differ by |")
    print("| --- | ---: | ---: | ---: |")
    for name in sys.argv[1:] or NETWORKS:
        theirs, ours, apart = measured(name)
        print(f"| {name} | {theirs * 1e3:.1f} | {ours / theirs:.2f} | {apart:.0e} |", flush=True)


if __name__ == "__main__":
    main()
