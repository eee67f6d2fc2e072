"""A model as a Keras 3 model, on TensorFlow (by default), JAX or PyTorch.

model = to_keras(load("resnet18.onnx"))
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images, labels)                       # images as the file has them: N C H W
save_keras(model, "resnet18.keras")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_net2net.errors import UsageError
from onnx_net2net.model.model import AnyModel, load

if TYPE_CHECKING:
    import keras

__all__ = ["save_keras", "to_keras"]


def to_keras(model: AnyModel, *, layout: str = "nchw") -> keras.Model:
    """Return ``model`` with its weights, to train on: a functional model of Keras' own layers.

    >>> keras_model = to_keras(load("resnet18.onnx"))
    >>> keras_model.get_layer("layer1.0.conv1")
    <Conv2D name=layer1.0.conv1, built=True>

    Inputs keep the names, types, shapes and layout of the file; several are given as a list or by
    name. Several outputs are a dictionary by their names; where these are in another order than the
    alphabet's, they are a list, for Keras sorts dictionaries. ``compile`` and ``fit`` take losses
    and targets as lists in the order of the file, or by name. Layers have the author's names of
    their modules, and hold weights as Keras does: kernels are transposed. A character that Keras
    allows in no name is ``_``, and so is a dot on the PyTorch backend, which has none in names.
    Within, the channels of images lie last.

    With ``layout="nhwc"`` channels are last outside, too: those of inputs where a tensor need not
    be turned then, and those of outputs that hold images. ``from_keras`` of such a model gives the
    file again, with its own layout.

    What a user would train is trainable, and BatchNormalization and Dropout follow ``training=``.
    One whose statistics something else reads, or of mixed types, is no layer of Keras: it, too,
    normalises by the batch in training, but its statistics stay as they are.
    A moving variance moves towards that of the batch, as Keras has it; PyTorch's is larger by
    n / (n - 1) for n values of a channel in the batch. Outputs in training are the same in both.
    :func:`.absorb` knows which initializer each variable holds.

    What no layer computes are operations of ``keras.ops``; a weight that no layer takes is the
    table of an Embedding. Such a model is saved and loaded by Keras alone. Nodes that need sizes
    which only a run tells become layers of their own; :func:`.save_keras` writes the Python file
    that defines them beside the .keras file, to be imported before that is loaded. It needs Keras
    on TensorFlow alone. Made on another backend, such a model needs
    ``onnx_net2net.frameworks.keras.layer`` instead. ``KERAS_BACKEND`` chooses the backend. JAX
    computes int64 and float64 in 32 bits, and says so, unless ``jax_enable_x64`` is set. Keras
    follows a network by recursion: before one of more than some 900 operations in a row is loaded
    or cloned, raise the limit (``sys.setrecursionlimit``).

    Raises Refused, naming every node that has no translation, and UsageError where Keras is not
    installed.
    """
    try:
        from onnx_net2net.frameworks.keras.importer import keras_model
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("keras", "tensorflow", "torch", "jax"):
            raise
        raise UsageError(
            f"{error.name} is not installed", "pip install 'onnx-net2net[tensorflow]'"
        ) from None
    if layout not in ("nchw", "nhwc"):
        raise UsageError(f"{layout!r} is no layout", 'say "nchw" or "nhwc"')
    return keras_model(load(model), layout)


def save_keras(
    network: keras.Model, path: str | os.PathLike[str], *, force: bool = True
) -> list[Path]:
    """Write ``network`` to a .keras file, and beside it what Keras alone lacks to load it.

    >>> save_keras(to_keras(load("grown.onnx")), "grown.keras")
    [PosixPath('grown.keras'), PosixPath('grown_layers.py')]

    Return the files. There is a second one where nodes became layers that Keras does not have:
    ``import grown_layers`` before ``keras.saving.load_model("grown.keras")``. It needs nothing but
    Keras on TensorFlow, where its sizes are tensors.
    Raises UsageError for another suffix, OutputError where something cannot be written or, with
    ``force=False``, exists; then nothing is left behind.
    """
    from onnx_net2net.frameworks.keras import saving

    return saving.save_keras(network, path, force=force)
