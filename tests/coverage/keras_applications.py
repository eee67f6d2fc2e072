"""Models of keras.applications, with random weights and small images, through ONNX and back.

    python -m tests.coverage.keras_applications ResNet50 ConvNeXtTiny      # all, without names

A line for each: how far the model that comes back is off, in units of the largest output; how many
tensors it turns; which share of its weights lies in layers of their own kind, not in tables of
Embedding; and whether ``from_keras`` of it gives the same file again.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from onnx_net2net.errors import Net2NetError
from onnx_net2net.frameworks.keras import to_keras
from onnx_net2net.frameworks.keras.exporter import from_keras

# Pixels along an edge, where 32 are too few.
EDGES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
FAMILIES = (
    "ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2",
    "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50",
    "ResNet50V2", "VGG16", "Xception",
)  # fmt: skip


def built(name: str) -> tuple[Any, np.ndarray]:
    """A model whose statistics are not those of a new one, and images for it."""
    edge, random = EDGES.get(name, 32), np.random.default_rng(1)
    keras.utils.set_random_seed(1)
    build = getattr(keras.applications, name)
    network = build(weights=None, input_shape=(edge, edge, 3), classes=10)
    for variable in network.non_trainable_variables:
        if variable.name.startswith("moving"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return network, random.uniform(0, 255, (2, edge, edge, 3)).astype(np.float32)


def line(name: str) -> str:
    """What there is to say of one model."""
    network, images = built(name)
    wanted = np.asarray(network(images))
    try:
        model = from_keras(network)
        back = to_keras(model)
    except Net2NetError as error:
        return f"{name}: refused: {error.problem[:100]}"
    error = np.abs(wanted - np.asarray(back(images))).max() / np.abs(wanted).max()
    found = Counter(type(operation).__name__ for operation in back.operations)
    tables = [x for x in back.layers if isinstance(x, keras.layers.Embedding)]
    share = 1 - sum(x.count_params() for x in tables) / back.count_params()
    same = from_keras(back).sha256() == model.sha256()
    turns = found["Permute"] + found["Transpose"]
    return f"{name}: {error:.0e} off, {turns} turns, {share:.2%} of weights, same file: {same}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for chosen in sys.argv[1:] or FAMILIES:
        print(line(chosen), flush=True)
