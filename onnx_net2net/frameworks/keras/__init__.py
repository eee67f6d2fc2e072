"""A model as a Keras 3 model, on TensorFlow (by default), JAX or PyTorch.

model = to_keras(load("resnet18.onnx"))
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images, labels)                       # images as the file has them: N C H W
model.save("resnet18.keras")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_net2net.errors import UsageError
from onnx_net2net.model.model import AnyModel, load

if TYPE_CHECKING:
    import keras

__all__ = ["to_keras"]


def to_keras(model: AnyModel) -> keras.Model:
    """Return ``model`` with its weights, to train on: a functional model of one layer.

    >>> keras_model = to_keras(load("bert.onnx"))
    >>> keras_model({"input_ids": ids, "attention_mask": mask})["last_hidden_state"].shape
    (2, 7, 768)

    Inputs keep the names, types, shapes and layout of the file; several are given as a list or by
    name. One output is a tensor, several are a dict by their names in the order of the file, so
    that ``compile`` and ``fit`` take losses and targets as lists or by name; a character that Keras
    allows in no name is ``_``. What a user would train is a
    trainable variable in the layout of its initializer, named by ``roles.paths``; statistics of
    BatchNormalization are variables that do not train, but move with ``training=True``: the
    variance towards the unbiased one of the batch, as in PyTorch. Dropout follows ``training=``.

    Before ``keras.saving.load_model``, import ``onnx_net2net.frameworks.keras.layer``, so that
    Keras knows the layer. ``KERAS_BACKEND`` chooses the backend. JAX computes int64 and float64
    in 32 bits, and says so, unless ``jax_enable_x64`` is set.

    Raises Refused, naming every node that has no translation, before anything is built, and
    UsageError where Keras is not installed.
    """
    try:
        from onnx_net2net.frameworks.keras.importer import keras_model
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("keras", "tensorflow", "torch", "jax"):
            raise
        raise UsageError(
            f"{error.name} is not installed", "pip install 'onnx-net2net[tensorflow]'"
        ) from None
    return keras_model(load(model))
