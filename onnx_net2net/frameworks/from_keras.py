"""A Keras model as an ONNX model that keeps what training needs.

    model = from_keras(keras_model)
    model.weights["conv1/kernel"]        # names and layouts are Keras' own, nothing is folded

The exporter folds what it knows to be constant: BatchNormalization into convolutions, transposed
copies of kernels. Here the variables are inputs of the exported function, whose values it cannot
know, and become weights again afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from onnx import ModelProto, StringStringEntryProto, TensorProto, numpy_helper

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.keras3.layer import Graph, decoded
from onnx_net2net.frameworks.keras_layers import kept
from onnx_net2net.frameworks.roles import KIND
from onnx_net2net.history import VARIANCE
from onnx_net2net.model import Model, load
from onnx_net2net.tensors import clear_data, constants, set_constant, subgraphs

__all__ = ["from_keras"]


def from_keras(model: keras.Model, *, opset: int = 18) -> Model:
    """``model`` in inference mode, with its variables as weights under their own paths.

    >>> from_keras(keras.applications.ResNet50(weights=None)).weights["conv1_conv/kernel"].shape
    (7, 7, 3, 64)

    Kernels keep Keras' layout (spatial axes, inputs, outputs); the graph turns them. A model made
    by ``to_keras`` gives its graph again, with the values that its variables have now.

    BatchNormalization stays one node, whose statistics move where the file is trained again: in
    Keras (``to_keras``) just as those of ``model``, in PyTorch towards the unbiased variance. LSTM,
    GRU and SimpleRNN stay nodes that can grow; with a mask, with a state of their own
    (``stateful``), in half precision, or with other activations than ONNX names, they are loops.
    What is frozen (``trainable=False``) trains again.

    Raises UsageError where the model is not built, runs on another backend than TensorFlow, or
    tf2onnx is not installed, and Refused for what tf2onnx cannot translate.
    """
    graphs = [layer for layer in model.layers if isinstance(layer, Graph)]
    if len(graphs) == 1 and all(
        isinstance(layer, Graph | keras.layers.InputLayer) for layer in model.layers
    ):
        return _restored(graphs[0])
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export from the {keras.backend.backend()} backend", "set KERAS_BACKEND=tensorflow"
        )
    if not getattr(model, "inputs", None):
        raise UsageError("the model has no inputs yet", "make it functional, or call it once")
    return load(_weighted(_converted(model, opset), model))


def _restored(layer: Graph) -> Model:
    """The graph that a layer interprets, with the values that its variables have now."""
    proto = decoded(layer.graph)
    del proto.graph.value_info[:]  # sizes without types, for the layer alone
    found = {
        name: keras.ops.convert_to_numpy(variable)
        for name, variable in layer.by_initializer.items()
    }
    for graph in (proto.graph, *subgraphs(proto.graph)):
        for entry in graph.initializer:
            if entry.name in found:
                entry.CopyFrom(numpy_helper.from_array(found[entry.name], entry.name))
        for name, value, node in list(constants(graph)):
            if name in found:
                clear_data(value)
                set_constant(node, numpy_helper.from_array(found[name], value.name))
    return load(proto)


def _converted(model: Any, opset: int) -> ModelProto:
    """The exported function of the inputs and of all variables, these being named v0, v1, ..."""
    import tensorflow as tf

    try:
        import tf2onnx
    except ModuleNotFoundError:
        raise UsageError(
            "tf2onnx is not installed", "pip install 'onnx-net2net[tensorflow]'"
        ) from None
    inputs = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs]
    stored = [
        tf.TensorSpec(v.shape, v.dtype, name=f"v{i}") for i, v in enumerate(_variables(model))
    ]
    count = len(model.trainable_variables)
    layout = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def function(*given: Any) -> Any:
        data, values = list(given[: len(inputs)]), list(given[len(inputs) :])
        packed = keras.tree.pack_sequence_as(layout, data)
        found, _ = model.stateless_call(values[:count], values[count:], packed, training=False)
        return found

    signature = [*inputs, *stored]
    traced = tf.function(function, input_signature=signature)
    with _quiet(), kept() as calls:
        try:
            proto, _ = tf2onnx.convert.from_function(
                traced,
                input_signature=signature,
                opset=opset,
                custom_op_handlers=calls.handlers(),
            )
        except (ValueError, NotImplementedError, RuntimeError, KeyError) as error:
            raise Refused(None, f"tf2onnx cannot export it: {error}") from error
    lost = len(calls.marked) - calls.written
    if lost:
        raise Refused(None, f"tf2onnx lost {lost} of {len(calls.marked)} layers of the model")
    return proto


def _variables(model: Any) -> list[Any]:
    return [*model.trainable_variables, *model.non_trainable_variables]


@contextmanager
def _quiet() -> Iterator[None]:
    """tf2onnx warns of each rewriting it tries."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _say(entry: TensorProto, kind: str) -> None:
    """Write down what Keras knows of a tensor, where roles.py looks for it."""
    _add(entry.metadata_props, KIND, kind)


def _add(properties: Any, key: str, value: str) -> None:
    properties.append(StringStringEntryProto(key=key, value=value))


def _weighted(proto: ModelProto, model: Any) -> ModelProto:
    """The variables' inputs as initializers under the variables' paths."""
    graph = proto.graph
    for entry in graph.initializer:
        _say(entry, "CONSTANT")
    _add(proto.metadata_props, VARIANCE, "population")
    known = {f"v{i}": variable for i, variable in enumerate(_variables(model))}
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    renamed: dict[str, str] = {}
    kept = [value for value in graph.input if value.name.partition(":")[0] not in known]
    for value in graph.input:
        variable = known.get(value.name.partition(":")[0])
        if variable is None or value.name not in taken:
            continue
        path = variable.path
        while path in taken:
            path += "_"
        renamed[value.name] = path
        array = np.asarray(keras.ops.convert_to_numpy(variable))
        graph.initializer.append(numpy_helper.from_array(array, path))
        if variable.trainable:
            _say(graph.initializer[-1], "PARAMETER")
    del graph.input[:]
    graph.input.extend(kept)
    for holder in (graph, *subgraphs(graph)):
        for node in holder.node:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
    return proto
